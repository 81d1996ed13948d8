"""Choosing the background threshold without pixel masks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["BINS", "cam_histogram", "otsu_threshold"]

BINS = 100
"""Histogram bins over [0, 1]: the resolution of the chosen threshold."""


def cam_histogram(cams_BKHW: Tensor) -> NDArray[np.int64]:
    """Counts (BINS,) of every pixel's strongest CAM; windows without any tag, whose CAMs are all 0, do not count."""
    tagged = cams_BKHW.amax((1, 2, 3)) > 0
    strongest = cams_BKHW[tagged].amax(1).clamp(0, 1)
    return torch.histc(strongest.double(), BINS, 0.0, 1.0).long().cpu().numpy()


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
