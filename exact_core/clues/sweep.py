"""What every threshold of a sweep would give, from one pass over the pixels.

A pixel's mask is its strongest class while the threshold is below its strongest CAM, and background from there on. So a
histogram over (how many thresholds lie below the strongest CAM, strongest class, truth), cumulated over the first axis,
holds the counts of all thresholds, equal to those of `pseudo_masks` at each.

Axes are K crop classes, H W pixels, S thresholds. Results of batches add up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exact_core.data.windows.dataset import VOID
from exact_core.errors import DataError
from exact_core.metrics import Scores

__all__ = ["sweep_confusions", "sweep_counts", "sweep_figures"]

Counts = NDArray[np.int64]
Array = Tensor | NDArray[np.generic]


def sweep_confusions(
    strongest: Array, label: Array, truth: Array, thresholds: Sequence[float] | NDArray[np.floating], classes: int
) -> Counts:
    """The confusion matrix of the pseudo masks at every threshold.

    Args:
        strongest: strongest CAM of each pixel, floating, any shape.
        label: its class 1..K, same shape.
        truth: true labels 0..K or VOID, same shape. Void pixels do not count.
        thresholds: S background planes in CAM units, in any order.
        classes: number of crop classes K.

    Returns:
        int64 (S, K + 1, K + 1), rows = truth, as `exact_core.metrics.confusion_matrix`.

    Raises:
        DataError: shapes that differ, labels or truth out of range, no threshold.
    """
    strongest, label = _pixels(strongest, label, classes)
    true = torch.as_tensor(truth).to(strongest.device).reshape(-1)
    if true.shape != strongest.shape:
        raise DataError(f"truth has {len(true)} pixels, the CAMs have {len(strongest)}. Give the same pixels")
    void = true == VOID
    if bool(((true > classes) & ~void).any()):
        raise DataError(f"truth holds a label out of range, expected 0..{classes} or {VOID} (void)")
    # Void pixels are counted in a column of their own, which is then left out.
    true, columns = torch.where(void, classes + 1, true.long()), classes + 2
    order, below = _thresholds_below(strongest, thresholds)
    cells = (below * (classes + 1) + label) * columns + true
    size = (len(order) + 1) * (classes + 1) * columns
    histogram = torch.bincount(cells, minlength=size).view(-1, classes + 1, columns)[..., : classes + 1]
    return _unsorted(_cumulated(histogram).transpose(1, 2), order)


def sweep_counts(
    strongest: Array, label: Array, thresholds: Sequence[float] | NDArray[np.floating], classes: int
) -> Counts:
    """Pixels of each label in the pseudo masks at every threshold: int64 (S, K + 1). No truth is needed.

    Arguments and errors as in `sweep_confusions`.
    """
    strongest, label = _pixels(strongest, label, classes)
    order, below = _thresholds_below(strongest, thresholds)
    size = (len(order) + 1) * (classes + 1)
    histogram = torch.bincount(below * (classes + 1) + label, minlength=size).view(-1, classes + 1, 1)
    return _unsorted(_cumulated(histogram)[..., 0], order)


def sweep_figures(confusions: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Overall accuracy and mIoU (S,) of confusion matrices (S, K + 1, K + 1), in [0, 1], as `Scores` gives them."""
    scores = [Scores(confusion) for confusion in confusions]
    return np.array([one.oa_micro for one in scores]), np.array([one.miou_macro for one in scores])


def _pixels(strongest: Array, label: Array, classes: int) -> tuple[Tensor, Tensor]:
    values = torch.as_tensor(strongest).reshape(-1)
    labels = torch.as_tensor(label).to(values.device).reshape(-1).long()
    if values.shape != labels.shape:
        raise DataError(f"{len(labels)} labels for {len(values)} strongest CAMs. Give one label a pixel")
    if len(labels) and not 1 <= int(labels.min()) <= int(labels.max()) <= classes:
        raise DataError(f"labels are {int(labels.min())}..{int(labels.max())}; strongest classes are 1..{classes}")
    return values, labels


def _thresholds_below(
    strongest: Tensor, thresholds: Sequence[float] | NDArray[np.floating]
) -> tuple[NDArray[np.int64], Tensor]:
    """The order that sorts the thresholds, and for each pixel how many of them its strongest CAM exceeds."""
    if not len(thresholds):
        raise DataError("a sweep needs at least one threshold")
    # In the precision of the CAMs, in which a mask compares them too: 0.3 is not above 0.3.
    planes = torch.tensor([float(threshold) for threshold in thresholds], dtype=strongest.dtype)
    ascending, order = planes.sort(stable=True)
    return order.numpy(), torch.bucketize(strongest, ascending.to(strongest.device))


def _cumulated(histogram_SLC: Tensor) -> Tensor:
    """(S + 1, K + 1, C) counts by thresholds below -> (S, K + 1, C) counts by label in the mask."""
    # Labelled at threshold i: pixels that exceed more than i thresholds; all others are background.
    exceeding = histogram_SLC.flip(0).cumsum(0).flip(0)
    masks = exceeding[1:].clone()
    masks[:, 0] = exceeding[0].sum(0) - masks.sum(1)
    return masks


def _unsorted(by_threshold: Tensor, order: NDArray[np.int64]) -> Counts:
    counts = by_threshold.cpu().numpy()
    result = np.empty_like(counts)
    result[order] = counts
    return result
