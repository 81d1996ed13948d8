"""From a classifier to the CAMs that masks are made of: clue-based, and fused beside it for comparison.

As in the paper, CAMs have the resolution of patches. Two additions refine them to pixels: the mean over windows shifted
within a patch (`shifts`), and diffusion among similar pixels (`field_borders`).

Axes are B windows, K classes, h w patches, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exact_core.clues.cams import STRETCH, clue_cams, fused_cam
from exact_core.clues.field_borders import border_contrast, diffuse
from exact_core.clues.masks import enlarge
from exact_core.clues.shifts import mean_over_shifts
from exact_core.config import ClassifierConfig, MasksConfig
from exact_core.data.windows.batches import Series
from exact_core.models.classifier import ClassifierOutput, TagClassifier

__all__ = ["CamMaker", "Cams"]


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
        settings, patch, side = self.settings, self.trained.encoder.patch, series.pixels.shape[-1]
        contrast, stretch = border_contrast(series, patch=patch), STRETCH[settings.stretch]

        def raw(series: Series) -> Tensor:
            return self._raw(series, tags_BK)

        if settings.shifts:
            large = mean_over_shifts(raw, series, patch=patch)
        elif settings.diffusion:
            large = enlarge(raw(series), side, align_corners=settings.align_corners)
        else:
            # Stretched before it is enlarged, as in the paper: an enlarged map need not reach its patches' extremes.
            tagged = tags_BK.repeat(1, 2)[:, :, None, None]
            large = enlarge(stretch(raw(series)) * tagged, side, align_corners=settings.align_corners)
            clue, fused = large.chunk(2, 1)
            return Cams(clue, fused, contrast)
        spread = diffuse(large, contrast, steps=settings.diffusion, temperature=settings.diffusion_temperature)
        clue, fused = (stretch(cams) * tags_BK[:, :, None, None] for cams in spread.chunk(2, 1))
        return Cams(clue, fused, contrast)

    def _raw(self, series: Series, tags_BK: Tensor) -> Tensor:
        """CAMs, clue-based and then fused (B, 2 * K, h, w), not yet brought to [0, 1]."""
        output: ClassifierOutput = self.model(series)
        clue = clue_cams(
            output,
            tags_BK,
            series.seen,
            self.model.prototypes,
            self.trained.affinity,
            stretch="none",
            propagate=self.settings.propagation,
        )
        return torch.cat([clue, fused_cam(output.spatial_map, output.temporal_map)], 1)
