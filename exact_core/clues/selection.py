"""Choices without pixel masks: the background threshold, and the quality of CAMs.

There are three rules for the threshold. docs/results.md compares them, and others, on synthetic seasons and the real
scene.

- borders (the default): fields end where the images change. At the right threshold the outline of the masks follows
  such changes. Above it, the outline is inside fields. Below it, inside their surroundings. The rule chooses the
  threshold whose outline crosses the largest mean contrast. That contrast also separates good CAMs from bad ones.
- otsu: the threshold that separates the CAMs' own histogram best (Otsu, 1979).
- valley: the lowest point of that histogram between its two main peaks.

Axes are B windows, K classes, H W pixels. BINS thresholds i / BINS, i from 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exact_core.clues.field_borders import OFFSETS

__all__ = [
    "BINS",
    "THRESHOLDS",
    "BorderProfile",
    "border_profile",
    "border_threshold",
    "cam_histogram",
    "otsu_threshold",
    "valley_threshold",
]

BINS = 100
"""Histogram bins over [0, 1]: the resolution of the chosen threshold."""
THRESHOLDS = np.arange(BINS) / BINS
"""The thresholds that are weighed, CAM units."""
SIDES = 2
"""Number of OFFSETS that share a side with the pixel. Outlines consist of such sides."""
SMOOTH = 5
"""Bins, odd, over which a profile or a histogram is averaged before its extremes are sought."""
ENOUGH = 0.05
"""Share of the longest outline below which an outline is too short to be judged."""


def cam_histogram(cams_BKHW: Tensor) -> NDArray[np.int64]:
    """Counts (BINS,) of every pixel's strongest CAM. Windows without any tag, whose CAMs are all 0, do not count."""
    tagged = cams_BKHW.amax((1, 2, 3)) > 0
    strongest = cams_BKHW[tagged].amax(1).clamp(0, 1)
    return torch.histc(strongest.double(), BINS, 0.0, 1.0).long().cpu().numpy()


@dataclass(frozen=True)
class BorderProfile:
    """For each threshold: the summed contrast along the outline of the masks, and its length in pixel sides; (BINS,).

    Profiles of parts add up to that of the whole.
    """

    contrast: NDArray[np.float64]
    length: NDArray[np.int64]

    @classmethod
    def empty(cls) -> BorderProfile:
        """Of no window."""
        return cls(np.zeros(BINS), np.zeros(BINS, np.int64))

    def __add__(self, other: BorderProfile) -> BorderProfile:
        return BorderProfile(self.contrast + other.contrast, self.length + other.length)

    def mean(self) -> NDArray[np.float64]:
        """Mean contrast of each threshold's outline, smoothed; -inf where the outline is too short to be judged."""
        length = _smoothed(self.length)
        judged = (length > 0) & (length >= ENOUGH * length.max())
        return np.where(judged, _smoothed(self.contrast) / np.maximum(length, 1e-9), -np.inf)


def border_profile(cams_BKHW: Tensor, contrast_BOHW: Tensor) -> BorderProfile:
    """The outlines of the masks at every threshold, in one pass.

    A side between two pixels belongs to the outline at the thresholds from the lower of their strongest CAMs up to
    the higher. Contrast is the logarithm of `border_contrast`, less its mean over the window, so that hazy or dull
    windows count as much as others.

    Args:
        cams_BKHW: CAMs in [0, 1] at pixel resolution, 0 where a class is not tagged.
        contrast_BOHW: from `border_contrast`.
    """
    contrast, length = torch.zeros(BINS + 1, dtype=torch.float64), torch.zeros(BINS + 1, dtype=torch.int64)
    strongest = cams_BKHW.float().amax(1).clamp(0, 1).cpu()
    sides = contrast_BOHW[:, :SIDES].double().cpu()
    logs = torch.where(sides.isinf(), torch.nan, sides.log())
    logs = logs - logs.flatten(1).nanmean(1)[:, None, None, None]
    height, width = strongest.shape[-2:]
    for number, (down, right) in enumerate(OFFSETS[:SIDES]):
        one = strongest[:, : height - down, : width - right].flatten()
        other = strongest[:, down:, right:].flatten()
        value = logs[:, number, : height - down, : width - right].flatten()
        known = ~value.isnan()
        low, high = torch.minimum(one, other)[known], torch.maximum(one, other)[known]
        # A pixel is crop where its CAM exceeds the threshold i / BINS.
        for edge, sign in ((low, 1), (high, -1)):
            first = (edge * BINS).ceil().long()
            contrast.index_add_(0, first, sign * value[known])
            length.index_add_(0, first, torch.full_like(first, sign))
    return BorderProfile(contrast.cumsum(0)[:-1].numpy(), length.cumsum(0)[:-1].numpy())


def border_threshold(profile: BorderProfile) -> tuple[float, float]:
    """The threshold whose outline fits borders best, and its mean contrast.

    Contrast is in natural logarithms above the window's mean, and 0 is the level of chance. Without any outline, as
    where every window has one class, all thresholds give the same masks. The result is then 0.5 and NaN.
    """
    mean = profile.mean()
    if np.isinf(mean).all():
        return 0.5, float("nan")
    best = int(mean.argmax())
    return best / BINS, float(mean[best])


def otsu_threshold(histogram: NDArray[np.int64]) -> float:
    """The threshold that separates a histogram over [0, 1] best (Otsu, 1979): largest between-class variance.

    Of several equally good thresholds, as across an empty valley, the middle one.
    """
    counts = histogram.astype(np.float64)
    centres = (np.arange(len(counts)) + 0.5) / len(counts)
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    moment = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = (moment[-1] - moment[:-1]) / above - moment[:-1] / below
    variance = np.where((below > 0) & (above > 0), below * above * np.square(gap), 0.0)
    best = np.flatnonzero(variance >= variance.max() * (1 - 1e-12))
    return float((best.mean() + 1) / len(counts))


def valley_threshold(histogram: NDArray[np.int64]) -> float:
    """The lowest point, or the middle one, between the highest peaks of both halves of a histogram over [0, 1]."""
    counts = _smoothed(histogram)
    half = len(counts) // 2
    left, right = int(counts[:half].argmax()), half + int(counts[half:].argmax())
    between = counts[left : right + 1]
    lowest = np.flatnonzero(between <= between.min() * (1 + 1e-12))
    return float((left + lowest.mean() + 0.5) / len(counts))


def _smoothed(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Running mean over SMOOTH values, the ends held."""
    padded = np.pad(values.astype(np.float64), SMOOTH // 2, mode="edge")
    return np.convolve(padded, np.full(SMOOTH, 1 / SMOOTH), mode="valid")
