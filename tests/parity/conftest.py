"""Arrays recorded from the published implementation, read from EXACT_PARITY_DIR.

Their sizes are those of config.json, whatever they are; what is read of them is noted for `test_unread.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from exact_core.data.windows.batches import Series
from exact_core.models.classifier import TagClassifier
from exact_core.models.published import from_published
from exact_core.models.segmenter import Segmenter
from exact_core.recipes import resolve
from tests.skipping import skip

DEFAULT = Path(__file__).parents[3] / "shared" / "parity"


class Recorded(Mapping):
    """The arrays of one file by name; notes which were asked for. Looking at the names alone is not reading."""

    def __init__(self, path: Path, read: set[str]) -> None:
        self._read = read
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                self._arrays = dict(arrays)
        else:
            with safe_open(path, framework="pt") as file:
                self._arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping

    def __getitem__(self, name: str):
        self._read.add(name)
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class Recordings:
    """The folder: `recordings(name)` opens a file of it; `read` holds the names read so far by file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: dict[str, set[str]] = {}
        self.tests: set[str] = set()

    def __call__(self, name: str):
        if name.endswith(".json"):
            return json.loads((self.folder / name).read_text())
        return Recorded(self.folder / name, self.read.setdefault(name, set()))

    def unread(self) -> dict[str, set[str]]:
        """Names of arrays by file that no test asked for so far; a file that none opened with all of its own."""
        files = [path for kind in ("*.npz", "*.safetensors") for path in self.folder.glob(kind)]
        left = {path.name: set(Recorded(path, set())) - self.read.get(path.name, set()) for path in files}
        return {name: names for name, names in left.items() if names}


@pytest.fixture(scope="session")
def recorded() -> Recordings:
    """Opens a recorded file by name; skips where the recordings are not at hand."""
    folder = Path(os.environ.get("EXACT_PARITY_DIR", DEFAULT))
    if not (folder / "config.json").is_file():
        skip(f"no recorded arrays in {folder}; set EXACT_PARITY_DIR")
    return Recordings(folder)


@pytest.fixture(autouse=True)
def _note_the_test(request, recorded):
    """Which tests have run, by module and name; `test_unread.py` wants to know that all have."""
    yield
    recorded.tests.add(f"{request.path.name}:{request.node.originalname}")


def load_published(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put published parameters into one of our models; every one of them must find its place."""
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("_moves")}
    known = {name: tensors[name] for name in tensors if name != "taap_module.kernel"}
    left = model.load_state_dict(from_published(state, known), strict=False)
    assert not left.unexpected_keys
    assert all(name.endswith("_moves") for name in left.missing_keys)


ENCODER = {
    "patch": "patch_size",
    "dim": "dim",
    "temporal_depth": "temporal_depth",
    "spatial_depth": "spatial_depth",
    "heads": "heads",
    "head_dim": "dim_head",
    "mlp_ratio": "scale_dim",
    "dropout": "dropout",
}
"""Our settings of an encoder, and what the recording calls them."""


@pytest.fixture(scope="session")
def sizes(recorded) -> dict:
    """config.json: the sizes of both models."""
    return recorded("config.json")


@pytest.fixture(scope="session")
def recipe(sizes):
    """The recipe `pastis24` at the recorded sizes: it is the recipe that must reproduce the published numbers."""
    changes = [
        f"{model}.encoder.{ours}={sizes[model][theirs]}"
        for model in ("classifier", "segmenter")
        for ours, theirs in ENCODER.items()
    ]
    # The recording replaced the published random draw of the assignments by the arg max.
    changes.append("classifier.prototypes.assignment=argmax")
    settings = sizes["classifier"]
    changes += [f"data.window={settings['img_res']}", f"data.pastis.classes={settings['num_classes']}"]
    return resolve("pastis24", overrides=changes)


@pytest.fixture
def classifier(recorded, recipe, sizes):
    """The classifier with the recorded parameters, and its configuration."""
    settings = sizes["classifier"]
    model = TagClassifier(
        recipe.classifier,
        bands=settings["num_channels"] - 1,
        classes=settings["num_classes"],
        window=settings["img_res"],
    )
    load_published(model, recorded("cls_state_dict.safetensors"))
    return model, recipe.classifier


@pytest.fixture
def segmenter(recorded, recipe, sizes):
    """The segmenter with the recorded parameters."""
    settings = sizes["segmenter"]
    model = Segmenter(
        recipe.segmenter,
        bands=settings["num_channels"] - 1,
        classes=settings["num_classes"] - 1,
        window=settings["img_res"],
    )
    load_published(model, recorded("seg_state_dict.safetensors"))
    return model


@pytest.fixture
def series(recorded) -> Series:
    """The recorded batch; padding is attended to, as published."""
    arrays = recorded("cls_eval.npz")
    pixels = torch.from_numpy(arrays["inputs"][..., :-1]).permute(0, 1, 4, 2, 3).contiguous()
    return Series(pixels=pixels, dates=torch.from_numpy(arrays["doy_index"]), seen=None)
