"""From a classifier to the CAMs that masks are made of: clue-based, and fused beside it for comparison.

As in the paper, CAMs have the resolution of patches. Two additions refine them to pixels: the mean over windows shifted
within a patch (`shifts`), and diffusion among similar pixels (`field_borders`).

Axes are B windows, K classes, h w patches, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from exact_core.clues.cams import STRETCH, clue_cams, fused_cam
from exact_core.clues.field_borders import border_contrast, diffuse
from exact_core.clues.masks import enlarge
from exact_core.clues.shifts import mean_over_shifts
from exact_core.config import ClassifierConfig, MasksConfig
from exact_core.data.windows.batches import Series
from exact_core.models.classifier import ClassifierOutput, TagClassifier, TemporalClues

__all__ = ["CamMaker", "Cams"]

CamKind = Literal["clue", "fused"]


@dataclass(frozen=True)
class Cams:
    """clue, fused: float32 (B, K, H, W) in [0, 1], 0 where a class is not tagged.

    contrast (B, 4, H, W): of neighbours (`field_borders.border_contrast`).
    """

    clue: Tensor
    fused: Tensor
    contrast: Tensor


@dataclass(frozen=True)
class CamMaker:
    """A trained classifier, how it was trained, and how CAMs are to be made."""

    model: TagClassifier
    trained: ClassifierConfig
    settings: MasksConfig

    @torch.no_grad()
    def __call__(self, series: Series, tags_BK: Tensor) -> Cams:
        """CAMs of a batch of windows at pixel resolution. Both kinds come from the same forward passes."""
        contrast = self._contrast(series)
        clue, fused = self._cams(series, tags_BK, contrast, kinds=("clue", "fused"))
        return Cams(clue, fused, contrast)

    @torch.no_grad()
    def chosen(self, series: Series, tags_BK: Tensor) -> Tensor:
        """CAMs (B, K, H, W) of the kind that `settings.cam` names. Clue-based CAMs alone cost less."""
        (cams,) = self._cams(series, tags_BK, self._contrast(series), kinds=(self.settings.cam,))
        return cams

    def _contrast(self, series: Series) -> Tensor:
        return border_contrast(series, patch=self.trained.encoder.patch)

    def _cams(
        self, series: Series, tags_BK: Tensor, contrast: Tensor, *, kinds: tuple[CamKind, ...]
    ) -> tuple[Tensor, ...]:
        """CAMs of each kind, in [0, 1]."""
        settings, patch, side = self.settings, self.trained.encoder.patch, series.pixels.shape[-1]
        stretch = STRETCH[settings.stretch]

        def raw(series: Series) -> Tensor:
            return self._raw(series, tags_BK, kinds)

        if settings.shifts:
            large = mean_over_shifts(raw, series, patch=patch)
        elif settings.diffusion:
            large = enlarge(raw(series), side, align_corners=settings.align_corners)
        else:
            # Stretched before it is enlarged, as in the paper: an enlarged map need not reach its patches' extremes.
            tagged = tags_BK.repeat(1, len(kinds))[:, :, None, None]
            large = enlarge(stretch(raw(series)) * tagged, side, align_corners=settings.align_corners)
            return large.chunk(len(kinds), 1)
        spread = diffuse(large, contrast, steps=settings.diffusion, temperature=settings.diffusion_temperature)
        return tuple(stretch(cams) * tags_BK[:, :, None, None] for cams in spread.chunk(len(kinds), 1))

    def without_shifts(self) -> CamMaker:
        """The same without shifted windows: one pass per batch instead of one per shift, with similar CAMs."""
        return replace(self, settings=self.settings.model_copy(update={"shifts": False}))

    def _raw(self, series: Series, tags_BK: Tensor, kinds: tuple[CamKind, ...]) -> Tensor:
        """CAMs of each kind, one after the other (B, kinds * K, h, w), not yet brought to [0, 1]."""
        if "fused" not in kinds:
            return self._clue(self.model.clues(series), series, tags_BK)
        output: ClassifierOutput = self.model(series)
        made = {"fused": fused_cam(output.spatial_map, output.temporal_map)}
        if "clue" in kinds:
            made["clue"] = self._clue(output, series, tags_BK)
        return torch.cat([made[kind] for kind in kinds], 1)

    def _clue(self, clues: TemporalClues, series: Series, tags_BK: Tensor) -> Tensor:
        return clue_cams(
            clues,
            tags_BK,
            series.seen,
            self.model.prototypes,
            self.trained.affinity,
            stretch="none",
            propagate=self.settings.propagation,
        )
