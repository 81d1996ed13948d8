"""The tag classifier, whose tokens and maps the clues are made of (paper)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact_core.config import ClassifierConfig
from exact_core.data.windows.batches import Series
from exact_core.models.tsvit import PaddingToken, SpatialEncoder, TemporalEncoder, by_windows

__all__ = ["ClassifierOutput", "Prototypes", "TagClassifier", "TemporalClues"]


class Prototypes(nn.Module):
    """Foreground and background prototypes (K, N, D), unit length, and how often each has moved (K, N).

    Buffers, not parameters: they take no gradient, and `PrototypeClues.move` moves them.
    """

    foreground: Tensor
    background: Tensor
    foreground_moves: Tensor
    background_moves: Tensor

    def __init__(self, classes: int, per_class: int, dim: int) -> None:
        super().__init__()
        for side in ("foreground", "background"):
            self.register_buffer(side, F.normalize(torch.randn(classes, per_class, dim), dim=-1))
            self.register_buffer(f"{side}_moves", torch.zeros(classes, per_class))


@dataclass(frozen=True, kw_only=True)
class TemporalClues:
    """The input of clue-based CAMs. Axes are B batch, K crops, h w patches, P = h * w, T dates, D embedding.

    class_tokens (B, K, P, D): temporal encoder's class tokens, the features of the spatial clues.
    date_tokens (B, P, T, D): its date tokens, 0 where a patch is not seen. attention (B, K, T): class tokens to dates,
    detached. padding: where padding is attended to as published, its token and attention.
    """

    class_tokens: Tensor
    date_tokens: Tensor
    attention: Tensor
    padding: PaddingToken | None = None

    @property
    def side(self) -> int:
        """Patches along a side of the window."""
        return math.isqrt(self.class_tokens.shape[2])


@dataclass(frozen=True, kw_only=True)
class ClassifierOutput(TemporalClues):
    """Everything that losses and clues use. Axes as above.

    logits (B, K): from the global token. spatial_logits, temporal_logits (B, K): means of the maps.
    spatial_map, temporal_map (B, K, h, w): 3x3 patch head over spatial and temporal tokens.
    """

    logits: Tensor
    spatial_logits: Tensor
    temporal_logits: Tensor
    spatial_map: Tensor
    temporal_map: Tensor

    def float(self) -> ClassifierOutput:
        """The same in float32, where a forward pass under autocast left less."""
        return replace(self, **{name: value.float() for name, value in vars(self).items() if value is not None})


class TagClassifier(nn.Module):
    """TSViT with a global token for the tags and one patch head shared by both maps. It carries the prototypes."""

    def __init__(self, config: ClassifierConfig, *, bands: int, classes: int, window: int) -> None:
        super().__init__()
        encoder = config.encoder
        self.side = window // encoder.patch
        self.temporal = TemporalEncoder(encoder, bands=bands, tokens=classes)
        self.spatial = SpatialEncoder(encoder, patches=self.side**2, global_token=True)
        self.head = nn.Sequential(nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, 1))
        self.patch_head = nn.Conv2d(encoder.dim, 1, 3, padding=1)
        self.prototypes = Prototypes(classes, config.prototypes.per_class, encoder.dim)

    def forward(self, series: Series) -> ClassifierOutput:
        """Everything that losses and clues use."""
        return ClassifierOutput(**by_windows(self._made_of, self, series))

    def _made_of(self, series: Series) -> dict[str, Any]:
        clues = self.clues(series)
        temporal = clues.class_tokens
        spatial = self.spatial(temporal)
        temporal_map, spatial_map = self._map(temporal), self._map(spatial[:, :, 1:])
        of_clues = {name: value for name, value in vars(clues).items() if value is not None}
        return of_clues | {
            "logits": self._logits(spatial),
            "spatial_logits": spatial_map.mean((2, 3)),
            "temporal_logits": temporal_map.mean((2, 3)),
            "spatial_map": spatial_map,
            "temporal_map": temporal_map,
        }

    def tag_logits(self, series: Series) -> Tensor:
        """Logits of the tags (B, K), without what only losses and clues use: the date tokens and the maps."""
        temporal = self.temporal(series, only_classes=True).classes.transpose(1, 2)
        return self._logits(self.spatial(temporal))

    def _logits(self, spatial_BKPD: Tensor) -> Tensor:
        logits: Tensor = self.head(spatial_BKPD[:, :, 0]).squeeze(-1)
        return logits

    def clues(self, series: Series) -> TemporalClues:
        """What clue-based CAMs are made of. They do without the spatial encoder."""
        tokens = self.temporal(series)
        return TemporalClues(
            class_tokens=tokens.classes.transpose(1, 2),
            date_tokens=tokens.dates,
            attention=tokens.attention,
            padding=tokens.padding,
        )

    def _map(self, tokens_BKPD: Tensor) -> Tensor:
        batch, classes, _, dim = tokens_BKPD.shape
        image = tokens_BKPD.transpose(2, 3).reshape(batch * classes, dim, self.side, self.side)
        mapped: Tensor = self.patch_head(image).view(batch, classes, self.side, self.side)
        return mapped
