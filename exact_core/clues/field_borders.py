"""Field borders: image contrast between neighbouring pixels (not in the paper).

Within a field the pixels of a season are similar on every date. Across a border they differ. The contrast has two uses.
CAMs are diffused among similar neighbours, at pixel resolution (`diffuse`). And the threshold of the masks is chosen so
that their outlines follow such borders (`exact_core.clues.selection`).

Axes are B windows, K classes, T dates, C bands, H W pixels, P = h * w patches. O the 4 forward neighbours of OFFSETS.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from exact_core.data.windows.batches import Series

__all__ = ["FLOOR", "OFFSETS", "border_contrast", "diffuse"]

OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Row and column steps to the forward neighbours: right, below, and both diagonals below. The others mirror them."""
FLOOR = 1e-4
"""Smallest contrast: far below the noise of a sensor, it keeps a logarithm of equal pixels finite."""


def border_contrast(series: Series, *, patch: int) -> Tensor:
    """The contrast of each pixel with its forward neighbours over the season.

    The mean over bands and over the dates on which both pixels are usable of the squared difference of normalised
    reflectances. It is inf where the neighbour is outside the window or no date is common.

    Args:
        series: a batch. `seen` states the usable acquisitions of each patch. Without it, every date counts.
        patch: patch side of `seen`, pixels.

    Returns:
        float32 (B, 4, H, W), at least FLOOR.
    """
    pixels = series.pixels.float()
    batch, _, _, height, width = pixels.shape
    usable = _usable(series, patch=patch)
    contrast = pixels.new_full((batch, len(OFFSETS), height, width), torch.inf)
    for number, (down, right) in enumerate(OFFSETS):
        here, there = _overlap(height, width, down, right)
        difference = (pixels[..., *here] - pixels[..., *there]).square().mean(2)
        if usable is None:
            value = difference.mean(1)
        else:
            both = usable[..., *here] & usable[..., *there]
            value = (difference * both).sum(1) / both.sum(1)
        contrast[:, number, *here] = torch.where(value.isnan(), torch.inf, value.clamp(min=FLOOR))
    return contrast


def diffuse(cams_BKHW: Tensor, contrast_BOHW: Tensor, *, steps: int, temperature: float) -> Tensor:
    """CAMs averaged among similar neighbours.

    One step replaces a pixel by the mean of itself, with weight 1, and its 8 neighbours, each with weight
    exp(-contrast / (temperature * median contrast of the window)): a random walk that rarely crosses a border.

    Args:
        cams_BKHW: CAMs at pixel resolution, any range.
        contrast_BOHW: from `border_contrast`.
        steps: number of steps. 0 returns the CAMs.
        temperature: contrast, in medians of the window, at which a neighbour's weight has fallen to 1/e.
    """
    if not steps:
        return cams_BKHW
    scale = temperature * _median(contrast_BOHW)
    weights = (-contrast_BOHW / scale[:, None, None, None]).exp()
    height, width = cams_BKHW.shape[-2:]
    total = torch.ones_like(weights[:, 0])
    for number, (down, right) in enumerate(OFFSETS):
        here, there = _overlap(height, width, down, right)
        total[:, *here] += weights[:, number, *here]
        total[:, *there] += weights[:, number, *here]
    cams = cams_BKHW.float()
    for _ in range(steps):
        summed = cams.clone()
        for number, (down, right) in enumerate(OFFSETS):
            here, there = _overlap(height, width, down, right)
            weight = weights[:, None, number, *here]
            summed[..., *here] += weight * cams[..., *there]
            summed[..., *there] += weight * cams[..., *here]
        cams = summed / total[:, None]
    return cams


def _median(contrast_BOHW: Tensor) -> Tensor:
    """Median contrast (B,) of each window's neighbours. 1 where nothing can be compared, and all weights are then 0."""
    flat = contrast_BOHW.flatten(1)
    median = torch.where(flat.isinf(), math.nan, flat).nanmedian(1).values
    return torch.where(median.isnan(), 1.0, median)


def _usable(series: Series, *, patch: int) -> Tensor | None:
    """Where a pixel has a usable acquisition, bool (B, T, H, W). If None, everywhere."""
    if series.seen is None:
        return None
    if series.seen.shape[1] == 1:
        return series.seen[:, 0, :, None, None].expand(-1, -1, *series.pixels.shape[-2:])
    side = math.isqrt(series.seen.shape[1])
    grid = series.seen.transpose(1, 2).reshape(*series.pixels.shape[:2], side, side).float()
    return F.interpolate(grid, scale_factor=patch, mode="nearest").bool()


def _overlap(height: int, width: int, down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The slices of all pixels whose neighbour at (down, right), down >= 0, is in the window, and of the neighbours."""
    here = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
    there = (slice(down, height), slice(max(0, right), width + min(0, right)))
    return here, there
