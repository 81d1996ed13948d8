"""All metrics derive from one confusion matrix. Tags are scored by average precision.

Axes are K crop classes. Class 0 is background, so a matrix is (K + 1, K + 1) with rows = truth, columns = prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.dataset import VOID

__all__ = ["Scores", "average_precision", "confusion_matrix"]

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion_matrix(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], *, classes: int) -> Counts:
    """Counts (K + 1, K + 1), rows = truth. Pixels that are void in either are left out.

    Args:
        truth: true labels, any shape, 0..K or VOID.
        predicted: predicted labels, same shape.
        classes: number of crop classes K.
    """
    counted = (truth != VOID) & (predicted != VOID)
    cells = truth[counted].astype(np.int64) * (classes + 1) + predicted[counted]
    return np.bincount(cells, minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1)


@dataclass(frozen=True)
class Scores:
    """Metrics of a confusion matrix, in [0, 1].

    Per-class arrays hold NaN where a value is undefined (a class neither in truth nor in prediction has no IoU).
    Macro means leave such classes out, so an absent class is not scored as 0.
    """

    confusion: Counts

    @property
    def pixels(self) -> int:
        """Number of scored pixels."""
        return int(self.confusion.sum())

    @property
    def oa_micro(self) -> float:
        """Overall accuracy: the share of pixels that are right."""
        return float(np.trace(self.confusion) / self.pixels) if self.pixels else float("nan")

    @property
    def iou(self) -> Floats:
        """Intersection over union of each class."""
        return _ratio(np.diag(self.confusion), self._truth + self._predicted - np.diag(self.confusion))

    @property
    def f1(self) -> Floats:
        """F1 of each class."""
        return _ratio(2 * np.diag(self.confusion), self._truth + self._predicted)

    @property
    def precision(self) -> Floats:
        """User's accuracy of each class."""
        return _ratio(np.diag(self.confusion), self._predicted)

    @property
    def recall(self) -> Floats:
        """Producer's accuracy of each class."""
        return _ratio(np.diag(self.confusion), self._truth)

    @property
    def miou_macro(self) -> float:
        """Mean IoU over the classes, background included, that occur in truth or prediction."""
        return _mean(self.iou)

    @property
    def miou_published(self) -> float:
        """Mean IoU over all K + 1 classes, an absent one as 0, as the published threshold sweep counts it."""
        return float(np.nan_to_num(self.iou).mean()) if self.pixels else float("nan")

    @property
    def f1_macro(self) -> float:
        """Mean F1 over the same classes."""
        return _mean(self.f1)

    @property
    def _truth(self) -> Counts:
        return np.asarray(self.confusion.sum(1))

    @property
    def _predicted(self) -> Counts:
        return np.asarray(self.confusion.sum(0))

    def summary(self, names: tuple[str, ...]) -> dict[str, object]:
        """JSON-ready metrics. `names` are those of crops 1..K. Undefined values become null."""
        columns = {"iou": self.iou, "f1": self.f1, "precision": self.precision, "recall": self.recall}
        rows = {}
        for number, name in enumerate(("background", *names)):
            row: dict[str, float | int | None] = {key: _defined(values[number]) for key, values in columns.items()}
            rows[name] = {**row, "pixels": int(self._truth[number]), "predicted_pixels": int(self._predicted[number])}
        return {
            "oa_micro": _defined(self.oa_micro),
            "miou_macro": _defined(self.miou_macro),
            "f1_macro": _defined(self.f1_macro),
            "pixels": self.pixels,
            "per_class": rows,
        }


def average_precision(
    scores: NDArray[np.floating], tags: NDArray[np.uint8], *, known: NDArray[np.bool_] | None = None
) -> Floats:
    """Area under precision and recall, as the mean of precision at each positive. NaN for a class without any.

    Args:
        scores: (N, K), higher = more likely. Equal scores are ranked together.
        tags: (N, K), 0 or 1.
        known: (N, K), where a tag says anything. If None, everywhere.

    Returns:
        (K,).
    """
    result = np.full(scores.shape[1], np.nan)
    for k in range(scores.shape[1]):
        order = np.argsort(-scores[:, k], kind="stable")
        if known is not None:
            order = order[known[order, k]]
        sorted_scores, hits = scores[order, k], tags[order, k].astype(np.float64)
        if not hits.any():
            continue
        # Precision is read at the end of each run of equal scores.
        ends = np.flatnonzero(np.append(np.diff(sorted_scores) != 0, True))
        found = np.cumsum(hits)[ends]
        result[k] = np.sum(np.diff(found, prepend=0.0) * found / (ends + 1)) / hits.sum()
    return result


def _ratio(part: Counts, whole: Counts) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
