"""Multinomial logistic regression, to its optimum: what pixels learn from labels by (not in the paper).

Axes are n pixels, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

__all__ = ["PixelOdds", "fit_pixels"]

ITERATIONS, TOLERANCE = 1000, 1e-7
"""Of the regression's solver. The tolerance is that of each derivative of the mean loss. This close to the only
optimum, the rounding of another processor or number of threads changes no label. At 1e-4 and in float32 it changed one
pixel in a thousand."""
ROUGH = 1e-4
"""Likewise, of the fit to a part of the pixels that says where the other one starts."""
ONE_IN, ENOUGH = 8, 1000
"""That part is one pixel in so many, but not fewer pixels than enough."""
LEAST_BEND = 1e-4
"""Of the 0.25 that a pixel's loss bends by at most."""
COUPLED = 4000
"""Coefficients whose curvature is known as a whole, 128 MB; of more, that between groups of classes is left out."""
BLOCK = 2000
"""Rows that are worked on at a time: of 200 features, 3 MB."""


@dataclass(frozen=True)
class PixelOdds:
    """A fitted regression: features (n, D) -> probabilities (n, classes).

    known: labels that occurred. The others have probability 0. coefficients: theirs, intercepts in the last row,
    (D + 1, known).
    """

    known: NDArray[Any]
    coefficients: NDArray[np.float64]
    classes: int

    def __call__(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities (n, classes)."""
        spread = np.zeros((len(rows), self.classes))
        spread[:, self.known] = _softmax(rows.astype(np.float64) @ self.coefficients[:-1] + self.coefficients[-1])
        return spread

    def of_unscaled(self, scaler: StandardScaler) -> PixelOdds:
        """The same probabilities, from features as they were before the scaler: its steps become coefficients."""
        slopes = self.coefficients[:-1] / scaler.scale_[:, None]
        intercepts = self.coefficients[-1:] - scaler.mean_ @ slopes
        return PixelOdds(self.known, np.concatenate([slopes, intercepts]), self.classes)


def fit_pixels(
    features: NDArray[Any],
    labels: NDArray[Any],
    *,
    classes: int,
    ridge: float,
    balance: float = 0.0,
    weight: NDArray[np.float64] | None = None,
    start: PixelOdds | None = None,
) -> PixelOdds:
    """Multinomial logistic regression of labels on features.

    Args:
        features: standardised, (n, D).
        labels: (n,), 0..classes - 1. One that does not occur gets probability 0.
        classes: number of them.
        ridge: inverse strength of the ridge penalty.
        balance: pixels count as (their class's share) ** -balance, and 1 in the mean: a crop of few fields is not
            outvoted.
        weight: of each pixel (n,), in the place of balance.
        start: what was fitted to labels that differ little, to begin from.
    """
    known, place, count = np.unique(labels, return_inverse=True, return_counts=True)
    if len(known) == 1:
        return PixelOdds(known, np.zeros((features.shape[1] + 1, 1)), classes)
    if weight is None:
        weight = ((count / len(labels)) ** -balance)[place]
    begin = start.coefficients if start is not None and np.array_equal(start.known, known) else None
    # Its products are small: a second thread costs more than it helps.
    with threadpool_limits(1, user_api="blas"):
        found = _regression(features.astype(np.float64), place, weight / weight.mean(), ridge=ridge, start=begin)
    return PixelOdds(known, found, classes)


def _regression(
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    weight: NDArray[np.float64],
    *,
    ridge: float,
    start: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Coefficients and, in the last row, intercepts (D + 1, classes) of a multinomial logistic regression.

    The loss is the weighted sum of the cross-entropies and half the squared coefficients over `ridge`. Of two classes,
    half the squared differences of their coefficients, as it is usual.

    A season's features go together, which leaves the loss a long narrow valley, and L-BFGS hundreds of steps. It takes
    a tenth of them in coordinates in which, where it starts, the loss of a part of the pixels bends alike in all
    directions. A step is then nearly one of Newton's method. A rough fit to that part says where to start. Its own
    coordinates are those of what a loss bends by at most (Boehning, "Multinomial logistic regression algorithm", 1992).

    Args:
        features: (n, D).
        labels: (n,), 0..classes - 1, each of which occurs.
        weight: of each pixel, mean 1.
        ridge: inverse strength of the penalty.
        start: coefficients to begin from.
    """
    n, depth = features.shape
    classes = int(labels.max()) + 1
    rows = np.concatenate([features, np.ones((n, 1))], 1)
    share = weight / n
    # The intercept is not held back.
    decay = np.full(depth + 1, (2 if classes == 2 else 1) / (ridge * n))
    decay[-1] = 0
    some = slice(None, None, max(1, min(ONE_IN, n // ENOUGH)))
    sample, part = rows[some], share[some] / share[some].sum()
    if start is None:
        alike = _factor(sample, part[None, None] / 4, decay)
        begin, each = np.zeros((depth + 1, classes)), [slice(number, number + 1) for number in range(classes)]
        start = _descend(
            sample, labels[some], part, decay, start=begin, bends=[(own, alike) for own in each], tolerance=ROUGH
        )
    odds = _softmax(sample @ start).T
    together = max(1, COUPLED // (depth + 1))
    groups = [slice(first, first + together) for first in range(0, classes, together)]
    bends = [(group, _factor(sample, _bends(odds[group]) * part, decay)) for group in groups]
    return _descend(rows, labels, share, decay, start=start, bends=bends, tolerance=TOLERANCE)


def _bends(odds_Kn: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each pixel's loss bends by between the scores of classes, (K, K, n)."""
    between = -odds_Kn[:, None] * odds_Kn
    own = np.arange(len(odds_Kn))
    # Of a class that the sample lacks nothing would bend.
    between[own, own] = np.maximum(odds_Kn * (1 - odds_Kn), LEAST_BEND)
    return between


def _factor(
    rows: NDArray[np.float64], bends_KKn: NDArray[np.float64], decay: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Lower factor (K * (D + 1),) * 2 of the curvature of the loss. A small term keeps it from being singular."""
    classes, depth = len(bends_KKn), rows.shape[1]
    # What is above the diagonal is not read.
    curvature = np.zeros((classes, depth, classes, depth))
    for one in range(classes):
        for other in range(one + 1):
            curvature[one, :, other] = (rows * bends_KKn[one, other][:, None]).T @ rows
    square = curvature.reshape(classes * depth, -1)
    square[np.diag_indices(len(square))] += np.tile(np.maximum(decay, 1e-9), classes)
    # Transposed, it is factored where it is.
    return np.asarray(cholesky(square.T, overwrite_a=True)).T


def _descend(
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    share: NDArray[np.float64],
    decay: NDArray[np.float64],
    *,
    start: NDArray[np.float64],
    bends: Sequence[tuple[slice, NDArray[np.float64]]],
    tolerance: float,
) -> NDArray[np.float64]:
    """The coefficients where every derivative of the loss is within the tolerance.

    Args:
        rows: features and a 1, (n, D + 1).
        labels: (n,).
        share: weight of each row. They add up to 1.
        decay: penalty of each coefficient, (D + 1,).
        start: coefficients (D + 1, classes).
        bends: classes, and the factor of the loss's curvature among them; in its coordinates the solver works.
        tolerance: of the derivatives.
    """
    blocks = [slice(first, first + BLOCK) for first in range(0, len(rows), BLOCK)]
    shape = start.shape[::-1]

    def coefficients(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        given = flat.reshape(shape)
        parts = [solve_triangular(factor, given[own].ravel(), lower=True, trans="T") for own, factor in bends]
        return np.concatenate(parts).reshape(shape)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = coefficients(flat)
        value, slope = (decay * found**2).sum() / 2, decay * found
        # A block of rows stays in cache between its scores and what they say of the slope.
        for block in blocks:
            scores = found @ rows[block].T
            scores -= scores.max(0)
            own = labels[block], np.arange(scores.shape[1])
            of_label = scores[own]
            np.exp(scores, out=scores)
            total = scores.sum(0)
            value += share[block] @ (np.log(total) - of_label)
            scores *= share[block] / total
            scores[own] -= share[block]
            slope += scores @ rows[block]
        steepest[0] = np.abs(slope).max()
        parts = [solve_triangular(factor, slope[own].ravel(), lower=True) for own, factor in bends]
        return float(value), np.concatenate(parts)

    def reached(_: NDArray[np.float64]) -> None:
        if steepest[0] <= tolerance:
            raise StopIteration

    steepest = [np.inf]
    begin = np.concatenate([factor.T @ start.T[own].ravel() for own, factor in bends])
    options = {"maxiter": ITERATIONS, "gtol": 0.0, "ftol": 0.0, "maxcor": 40}
    result = minimize(loss, begin, jac=True, method="L-BFGS-B", options=options, callback=reached)
    return coefficients(result.x).T


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(odds / odds.sum(1, keepdims=True))
