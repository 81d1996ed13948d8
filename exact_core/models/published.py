"""Names of parameters in published state dicts of TSViT and Exact, and theirs in the models of this package.

The names and shapes are facts of the public repository https://github.com/michaeltrs/DeepSatModels
(models/TSViT/TSViTdense.py, class TSViT), whose names Exact's published code keeps. Axes are K class tokens, D
embedding, C bands, p patch side, P patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from exact_core.errors import ConfigError

__all__ = ["Sizes", "from_published", "published_name", "published_sizes"]

BLOCK = {
    "attention_norm": "0.norm",
    "attention.qkv": "0.fn.to_qkv",
    "attention.out": "0.fn.to_out.0",
    "mlp_norm": "1.norm",
    "mlp.0": "1.fn.net.0",
    "mlp.3": "1.fn.net.3",
}
TRANSFORMERS = {"temporal.transformer": "temporal_transformer", "spatial.transformer": "space_transformer"}
OTHERS = {
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
SHOWN = 3
"""Names in a message, at most."""


class Sizes(NamedTuple):
    """What the shapes of a published segmenter say of it. The number of heads is not among it."""

    bands: int
    classes: int
    """Crops, without background."""
    window: int
    patch: int
    dim: int
    temporal_depth: int
    spatial_depth: int
    attention: int
    """Heads times the width of a head."""
    mlp_ratio: int


def published_name(name: str) -> str:
    """The published name of one of our parameters. One that has none there keeps its own."""
    for ours, theirs in TRANSFORMERS.items():
        if name.startswith(f"{ours}.blocks."):
            number, rest = name.removeprefix(f"{ours}.blocks.").split(".", 1)
            module, _, kind = rest.rpartition(".")
            return f"{theirs}.layers.{number}.{BLOCK[module]}.{kind}"
        if name.startswith(f"{ours}.norm"):
            return name.replace(ours, theirs)
    for ours, theirs in OTHERS.items():
        if name == ours or name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    return name


def from_published(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published parameters under our names and in our shapes.

    Args:
        state: of our model, whose names and shapes are asked for.
        tensors: published, by name.

    Raises:
        ConfigError: a parameter is missing or left over, or has another shape.
    """
    wanted = {published_name(name): name for name in state}
    missing, more = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or more:
        said = [f"{what} {_some(names)}" for what, names in (("lacks", missing), ("also has", more)) if names]
        raise ConfigError(f"no state dict of TSViT: it {' and '.join(said)}. Give one of class TSViT (TSViTdense.py)")
    found = {}
    for theirs, ours in wanted.items():
        value, tensor = state[ours], tensors[theirs]
        if ours.endswith("date_embedding.table.weight") and tensor.ndim == 2 and tensor.shape[1] <= len(value):
            # A linear map of one-hot days. Days beyond it do not occur with the published rounding.
            rows = torch.zeros_like(value)
            if tensor.shape[0] == value.shape[1]:
                rows[: tensor.shape[1]] = tensor.t()
                tensor = rows
        if [side for side in tensor.shape if side != 1] != [side for side in value.shape if side != 1]:
            raise ConfigError(f"{theirs} has shape {tuple(tensor.shape)}, expected {tuple(value.shape)}")
        found[ours] = tensor.reshape(value.shape).to(value.dtype)
    return found


def published_sizes(tensors: Mapping[str, Tensor]) -> Sizes:
    """What the shapes of a published segmenter say of it.

    Raises:
        ConfigError: no such segmenter, or shapes that contradict each other.
    """

    def shape(name: str, *, axes: int) -> torch.Size:
        if name not in tensors or tensors[name].ndim != axes:
            has = f"of shape {tuple(tensors[name].shape)}" if name in tensors else "missing"
            raise ConfigError(f"no state dict of TSViT: {name} is {has}. Give one of class TSViT (TSViTdense.py)")
        return tensors[name].shape

    _, tokens, dim = shape("temporal_token", axes=3)
    patch = _root("mlp_head.1.weight", shape("mlp_head.1.weight", axes=2)[0])
    bands, odd = divmod(shape("to_patch_embedding.1.weight", axes=2)[1], patch**2)
    if odd or not bands:
        raise ConfigError(
            f"to_patch_embedding.1.weight has {bands * patch**2 + odd} columns, not a multiple of the {patch} x "
            f"{patch} pixels of a patch (mlp_head.1.weight)"
        )
    depths = [
        len({name.split(".")[2] for name in tensors if name.startswith(f"{each}.layers.")})
        for each in TRANSFORMERS.values()
    ]
    return Sizes(
        bands=bands,
        classes=tokens - 1,
        window=patch * _root("space_pos_embedding", shape("space_pos_embedding", axes=3)[1]),
        patch=patch,
        dim=dim,
        temporal_depth=depths[0],
        spatial_depth=depths[1],
        attention=shape("temporal_transformer.layers.0.0.fn.to_qkv.weight", axes=2)[0] // 3,
        mlp_ratio=max(1, shape("temporal_transformer.layers.0.1.fn.net.0.weight", axes=2)[0] // dim),
    )


def _root(name: str, square: int) -> int:
    side = math.isqrt(square)
    if side < 1 or side**2 != square:
        raise ConfigError(f"{name} is for {square} places, expected a square number")
    return side


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
