"""Masks learned again by a model of single pixels: one more round of what is known as self-training (not in the paper).

CAMs are sure in the middle of fields and blurred at their edges, where a patch holds two of them; and each window is
judged on its own. A season's crops look alike wherever they grow: a regression on the series of single pixels, taught
by the sure pixels of all windows, tells the unsure ones. A pixel goes to a tag of its window or to background only.

Axes: n pixels, D features, K classes, H W pixels of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from exact_core.config import RelearnConfig
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.data.windows.regular_series import calendar_of, pixel_features
from exact_core.errors import TrainingError

__all__ = ["FirstMask", "PixelModel", "fit_pixels", "sure_pixels", "without_unknown"]

ITERATIONS, TOLERANCE = 1000, 1e-7
"""Of the regression's solver; the tolerance is that of each derivative of the mean loss. So close to the one optimum
that there is, rounding by another processor, or in another number of threads, changes no label; at 1e-4 and in float32
it changed one pixel in a thousand."""
FEWEST = 20
"""Pixels of a window that teach at least, where it has so many sure ones."""

WIDEST = 0.75
"""Of the way from the threshold to 0 and to 1, how far the margin may go: beyond a threshold of 0.8, a margin of 0.2
would leave no crop to learn from, and make background of everything."""


def without_unknown(mask: NDArray[np.uint8], windows: WindowDataset, index: int) -> NDArray[np.uint8]:
    """A window's mask (H, W) with void where nothing is known of the ground: no model learns there."""
    unknown = windows.unknown(index)
    return mask if unknown is None else np.where(unknown, VOID, mask).astype(np.uint8)


Predict = Callable[[NDArray[np.floating]], NDArray[np.float64]]


@dataclass(frozen=True)
class FirstMask:
    """A window's mask uint8 (H, W) as its CAMs give it, and which of its pixels are sure, bool (H, W)."""

    index: int
    mask: NDArray[np.uint8]
    sure: NDArray[np.bool_]


def sure_pixels(strongest: NDArray[np.floating], threshold: float, margin: float) -> NDArray[np.bool_]:
    """Where the strongest CAM, any shape, lies far enough from the threshold for its label to teach.

    That is `margin`, or three quarters of what there is on that side of the threshold where that is less.
    """
    distance = strongest.astype(np.float32) - np.float32(threshold)
    below, above = (np.float32(min(margin, WIDEST * room)) for room in (threshold, 1 - threshold))
    enough: NDArray[np.bool_] = np.abs(distance) >= np.where(distance > 0, above, below)
    return enough


def fit_pixels(
    features: NDArray[Any], labels: NDArray[Any], *, classes: int, ridge: float, balance: float = 0.0
) -> Predict:
    """Multinomial logistic regression: fitted probabilities (n, classes) as a function of features (n, D).

    Args:
        features: standardised, (n, D).
        labels: (n,), 0..classes - 1; one that does not occur gets probability 0.
        classes: number of them.
        ridge: inverse strength of the ridge penalty.
        balance: pixels count as (their class's share) ** -balance, and 1 in the mean: a crop of few fields is not
            outvoted.
    """
    known, place, count = np.unique(labels, return_inverse=True, return_counts=True)
    if len(known) == 1:
        return lambda rows: np.tile(np.eye(classes)[known[0]], (len(rows), 1))
    weight = ((count / len(labels)) ** -balance)[place]
    # Its products are small: a second thread costs more than it helps.
    with threadpool_limits(1, user_api="blas"):
        found = _regression(features.astype(np.float64), place, weight / weight.mean(), ridge=ridge)

    def predict(rows: NDArray[np.floating]) -> NDArray[np.float64]:
        spread = np.zeros((len(rows), classes))
        spread[:, known] = _softmax(rows.astype(np.float64) @ found[:-1] + found[-1])
        return spread

    return predict


def _regression(
    features: NDArray[np.float64], labels: NDArray[np.int64], weight: NDArray[np.float64], *, ridge: float
) -> NDArray[np.float64]:
    """Coefficients and, in the last row, intercepts (D + 1, classes) of a multinomial logistic regression.

    The loss is the weighted sum of the cross-entropies and half the squared coefficients over `ridge`; of two classes,
    half the squared differences of their coefficients, as it is usual.

    A season's features go together, which leaves the loss a long narrow valley, and L-BFGS hundreds of steps. In
    coordinates in which a quarter of the features' second moments with the penalty, what the loss bends by at most for
    a class (Boehning, "Multinomial logistic regression algorithm", 1992), is the identity, it takes a tenth of them.

    Args:
        features: (n, D).
        labels: (n,), 0..classes - 1, each of which occurs.
        weight: of each pixel, mean 1.
        ridge: inverse strength of the penalty.
    """
    n, depth = features.shape
    classes = int(labels.max()) + 1
    penalty = (2 if classes == 2 else 1) / (ridge * n)
    rows = np.concatenate([features, np.ones((n, 1))], 1)
    share = weight / n
    decay = np.full((depth + 1, 1), penalty)
    # The intercept is not held back; a little keeps the factor from being singular.
    decay[-1] = 0
    bend = (rows * (share[:, None] / 4)).T @ rows + np.diag(np.maximum(decay[:, 0], 1e-9))
    factor = cholesky(bend, lower=True)
    wanted = np.zeros((n, classes))
    wanted[np.arange(n), labels] = share

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = solve_triangular(factor, flat.reshape(-1, classes), lower=True, trans="T")
        scores = rows @ found
        scores -= scores.max(1, keepdims=True)
        of_label = scores[np.arange(n), labels]
        np.exp(scores, out=scores)
        total = scores.sum(1)
        value = share @ (np.log(total) - of_label) + (decay * found**2).sum() / 2
        scores *= (share / total)[:, None]
        scores -= wanted
        slope = rows.T @ scores + decay * found
        steepest[0] = np.abs(slope).max()
        return float(value), solve_triangular(factor, slope, lower=True).ravel()

    def reached(_: NDArray[np.float64]) -> None:
        if steepest[0] <= TOLERANCE:
            raise StopIteration

    steepest = [np.inf]
    start = np.zeros((depth + 1) * classes)
    options = {"maxiter": ITERATIONS, "gtol": 0.0, "ftol": 0.0, "maxcor": 20}
    result = minimize(loss, start, jac=True, method="L-BFGS-B", options=options, callback=reached)
    return np.asarray(solve_triangular(factor, result.x.reshape(-1, classes), lower=True, trans="T"))


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(odds / odds.sum(1, keepdims=True))


class PixelModel:
    """Taught by first masks, it labels the pixels of any window of the dataset within that window's tags.

    Each round teaches the regression with the labels that the round before gave to the sure pixels. Windows give
    equally many pixels, so that each weighs the same.

    Args:
        windows: the dataset.
        taught_by: first masks of the windows to learn from; read once.
        settings: rounds, number of pixels, ridge.
        count: number of first masks.
        seed: of the choice of pixels.
        allowed: of a position, what its pixels may be: (K + 1, H, W) or (K + 1, 1, 1), 1 or 0; None: background and
            the window's tags.

    Raises:
        TrainingError: no pixel of the first masks is sure.
    """

    def __init__(
        self,
        windows: WindowDataset,
        taught_by: Iterator[FirstMask],
        settings: RelearnConfig,
        *,
        count: int,
        seed: int,
        allowed: Callable[[int], NDArray[np.float64]] | None = None,
    ) -> None:
        self.windows, self._calendar, self._given = windows, calendar_of(windows), allowed
        features, labels, may_be = self._teachers(taught_by, max(FEWEST, settings.pixels // max(count, 1)), seed)
        if not len(features):
            raise TrainingError(
                f"every CAM lies within masks.relearn.margin {settings.margin} of the threshold, so no pixel is sure "
                f"enough to learn from; train the classifier longer, or lower the margin or set masks.relearn.rounds=0"
            )
        self._scaler = StandardScaler().fit(features)
        features = self._scaler.transform(features)

        def taught(labels: NDArray[np.int64]) -> Predict:
            return fit_pixels(
                features, labels, classes=windows.classes + 1, ridge=settings.ridge, balance=settings.balance
            )

        self._predict = taught(labels)
        for _ in range(settings.rounds - 1):
            self._predict = taught((self._predict(features) * may_be).argmax(1))

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Labels uint8 (H, W) of a window: the likeliest of background and its tags."""
        labels = self.scores(index).argmax(-1).astype(np.uint8)
        return without_unknown(labels, self.windows, index)

    def scores(self, index: int) -> NDArray[np.float64]:
        """Probabilities (H, W, K + 1) of a window's pixels, 0 for what they may not be."""
        side = self.windows.manifest.window
        probabilities = self._predict(self._scaler.transform(self._features(index)))
        return (probabilities * self._allowed(index)).reshape(side, side, -1)

    def _teachers(
        self, taught_by: Iterator[FirstMask], each: int, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
        """Features (n, D), labels (n,) and what each pixel may be (n, K + 1)."""
        rng, classes = np.random.default_rng((seed, 2)), self.windows.classes + 1
        features: list[NDArray[np.float32]] = []
        labels: list[NDArray[np.int64]] = []
        allowed: list[NDArray[np.float64]] = []
        for first in taught_by:
            chosen = rng.permutation(np.flatnonzero(first.sure & (first.mask != VOID)))[:each]
            features.append(self._features(first.index)[chosen])
            labels.append(first.mask.reshape(-1)[chosen].astype(np.int64))
            allowed.append(np.broadcast_to(self._allowed(first.index), (first.mask.size, classes))[chosen])
        return np.concatenate(features), np.concatenate(labels), np.concatenate(allowed)

    def _features(self, index: int) -> NDArray[np.float32]:
        return pixel_features(self.windows.window(index), self._calendar)

    def _allowed(self, index: int) -> NDArray[np.float64]:
        """1 for what each pixel may be (H * W or 1, K + 1)."""
        if self._given is not None:
            return self._given(index).reshape(self.windows.classes + 1, -1).T
        return np.array([[1, *self.windows.tags[index]]], np.float64)
