"""Whether the images show the outlines of fields (not in the paper).

Neighbours differ more across the outline of a field than inside of it. Of a field that a window cuts few pairs of
neighbours are known, and their mean may be off by chance. What the outlines of the layer are like tells what to expect
of another one. So each field's difference is shrunk towards the mean of all, the more, the less certain it is and the
less fields vary. Few pairs then do not speak against a field of a good layer, nor for one of a bad layer.

The mean and variance of the differences are those of a random-effects model (DerSimonian and Laird, "Meta-analysis in
clinical trials", Controlled Clinical Trials 7, 1986), and the shrunk difference is a field's mean by this model.

Axes are F fields, n pairs of neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["OutlineContrast", "random_effects"]

INSIDE, ACROSS = 0, 1
TINY = float(np.finfo(np.float64).tiny)
FLOOR = 1e-12
"""Smallest variance of an error: where all pairs are alike none is without weight, and none has all."""


class OutlineContrast:
    """What pairs of neighbours say of the outlines of F fields, summed over windows.

    Args:
        count: F.
    """

    def __init__(self, count: int) -> None:
        # Of pairs inside a field, and across its outline: how many, and their sums and sums of squares.
        self._pairs, self._sums, self._squares = np.zeros((3, 2, count))

    def add(
        self,
        fields: NDArray[np.int64],
        others: NDArray[np.int64],
        values: NDArray[np.float64],
        *,
        share: NDArray[np.float64],
    ) -> None:
        """Take in pairs of neighbours.

        Args:
            fields: field (n,) of one pixel, -1 for none.
            others: field (n,) of its neighbour.
            values: contrast (n,) of the two, in any unit.
            share: what a pair counts (n,), of 1.
        """
        same = fields == others
        self._add(INSIDE, fields[same], values[same], share[same])
        for side in (fields, others):
            self._add(ACROSS, side[~same], values[~same], share[~same])

    def _add(
        self, kind: int, fields: NDArray[np.int64], values: NDArray[np.float64], share: NDArray[np.float64]
    ) -> None:
        known = fields >= 0
        here, weight, count = fields[known], share[known], self._pairs.shape[1]
        for total, each in ((self._pairs, 1.0), (self._sums, values[known]), (self._squares, values[known] ** 2)):
            total[kind] += np.bincount(here, weight * each, count)

    def shown(self) -> NDArray[np.bool_]:
        """Fields (F,) whose outlines the images show. All where there are too few pairs to tell.

        A field without pairs of both kinds is left out if the layer's mean is below 0 by more than its standard error.
        """
        known = (self._pairs > 0).all(0)
        freedom = self._pairs[:, known].sum() - 2 * known.sum()
        if freedom <= 0:
            return np.ones(known.shape, bool)
        pairs = np.maximum(self._pairs, TINY)
        means = self._sums / pairs
        difference = means[ACROSS] - means[INSIDE]
        # One variance of a pair for all: that of a few pairs is no estimate.
        within = (self._squares - pairs * means**2)[:, known].sum()
        variance = max(within, 0.0) / freedom
        errors = variance * (1 / pairs).sum(0)
        mean, between = random_effects(difference[known], errors[known])
        shrunk = mean + between / np.maximum(between + errors, TINY) * (difference - mean)
        of_mean = 1 / np.sqrt((1 / np.maximum(errors[known] + between, FLOOR)).sum())
        return np.asarray(np.where(known, shrunk, mean + of_mean) > 0)


def random_effects(values: NDArray[np.float64], errors: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and variance of what is estimated by values of known errors.

    Args:
        values: estimates (n,), n >= 1.
        errors: their variances (n,).

    Returns:
        The mean, and the variance between what is estimated, beyond that of the errors.
    """
    weights = 1 / np.maximum(errors, FLOOR)
    mean = float((weights * values).sum() / weights.sum())
    beyond = float((weights * (values - mean) ** 2).sum()) - (len(values) - 1)
    scale = float(weights.sum() - (weights**2).sum() / weights.sum())
    between = max(beyond / scale, 0.0) if len(values) > 1 else 0.0
    weights = 1 / (np.maximum(errors, FLOOR) + between)
    return float((weights * values).sum() / weights.sum()), between
