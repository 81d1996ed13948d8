"""Arrays recorded from the published implementation, read from EXACT_PARITY_DIR."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from exact_core.config import ClassifierConfig, EncoderConfig, SegmenterConfig
from exact_core.data.batches import Series
from exact_core.models.classifier import TagClassifier
from exact_core.models.segmenter import Segmenter
from tests.skipping import skip

DEFAULT = Path(__file__).parents[3] / "shared" / "parity"
BLOCK = {
    "0.norm": "attention_norm",
    "0.fn.to_qkv": "attention.qkv",
    "0.fn.to_out.0": "attention.out",
    "1.norm": "mlp_norm",
    "1.fn.net.0": "mlp.0",
    "1.fn.net.3": "mlp.3",
}


@pytest.fixture(scope="session")
def recorded():
    """Opens a recorded file by name; skips where the recordings are not at hand."""
    folder = Path(os.environ.get("EXACT_PARITY_DIR", DEFAULT))
    if not (folder / "config.json").is_file():
        skip(f"no recorded arrays in {folder}; set EXACT_PARITY_DIR")

    def read(name: str):
        if name.endswith(".safetensors"):
            return load_file(folder / name)
        if name.endswith(".json"):
            return json.loads((folder / name).read_text())
        return dict(np.load(folder / name))

    return read


def published_name(name: str) -> str:
    """The published name of one of our parameters."""
    for ours, theirs in (
        ("temporal.transformer", "temporal_transformer"),
        ("spatial.transformer", "space_transformer"),
    ):
        if name.startswith(f"{ours}.blocks."):
            number, rest = name.removeprefix(f"{ours}.blocks.").split(".", 1)
            module, _, kind = rest.rpartition(".")
            inverse = {value: key for key, value in BLOCK.items()}
            return f"{theirs}.layers.{number}.{inverse[module]}.{kind}"
        if name.startswith(f"{ours}.norm"):
            return name.replace(ours, theirs)
    table = {
        "temporal.patch_embedding": "to_patch_embedding.1",
        "temporal.date_embedding.table.weight": "to_temporal_embedding_input.weight",
        "temporal.date_embedding.bias": "to_temporal_embedding_input.bias",
        "temporal.class_tokens": "temporal_token",
        "spatial.global_token": "space_token",
        "spatial.position": "space_pos_embedding",
        "head": "mlp_head",
        "prototypes.foreground": "fg_proto",
        "prototypes.background": "bg_proto",
    }
    for ours, theirs in table.items():
        if name == ours or name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    return name


def load_published(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Put published parameters into one of our models; every one of them must find its place."""
    state = model.state_dict()
    used = set()
    for name, value in state.items():
        source = published_name(name)
        if source not in tensors:
            assert name.endswith("_moves"), name
            continue
        used.add(source)
        tensor = tensors[source]
        if "table" in name:
            columns = torch.zeros_like(value)
            columns[: tensor.shape[1]] = tensor.t()
            tensor = columns
        state[name] = tensor.reshape(value.shape)
    assert set(tensors) - used <= {"taap_module.kernel"}
    model.load_state_dict(state)


def encoder(settings: dict, residual: str) -> EncoderConfig:
    return EncoderConfig(
        patch=settings["patch_size"],
        dim=settings["dim"],
        temporal_depth=settings["temporal_depth"],
        spatial_depth=settings["spatial_depth"],
        heads=settings["heads"],
        head_dim=settings["dim_head"],
        mlp_ratio=settings["scale_dim"],
        residual=residual,
        dates="day_of_year",
        mask_padding=False,
        mask_clouds=False,
    )


@pytest.fixture
def classifier(recorded):
    """The classifier with the recorded parameters, and its configuration."""
    settings = recorded("config.json")["classifier"]
    config = ClassifierConfig.model_validate(
        {
            "encoder": encoder(settings, "normed"),
            "prototypes": {"momentum_warmup": False, "present_only": False, "weights": "published"},
            "affinity": {"time_weights": "double_softmax"},
        }
    )
    model = TagClassifier(
        config, bands=settings["num_channels"] - 1, classes=settings["num_classes"], window=settings["img_res"]
    )
    load_published(model, recorded("cls_state_dict.safetensors"))
    return model, config


@pytest.fixture
def segmenter(recorded):
    """The segmenter with the recorded parameters."""
    settings = recorded("config.json")["segmenter"]
    config = SegmenterConfig(encoder=encoder(settings, "double"), layout="published")
    model = Segmenter(
        config, bands=settings["num_channels"] - 1, classes=settings["num_classes"] - 1, window=settings["img_res"]
    )
    load_published(model, recorded("seg_state_dict.safetensors"))
    return model


@pytest.fixture
def series(recorded) -> Series:
    """The recorded batch; padding is attended to, as published."""
    arrays = recorded("cls_eval.npz")
    pixels = torch.from_numpy(arrays["inputs"][..., :-1]).permute(0, 1, 4, 2, 3).contiguous()
    return Series(pixels=pixels, dates=torch.from_numpy(arrays["doy_index"]), seen=None)
