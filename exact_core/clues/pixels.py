"""Regressions on single pixels: what teaches one, and what they say of a window (not in the paper).

Axes are n pixels, D features, K classes, H W pixels of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from exact_core.clues.overlaps import OverlapTags
from exact_core.clues.regression import PixelOdds, fit_pixels
from exact_core.config import RelearnConfig
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.data.windows.regular_series import calendar_of, pixel_features
from exact_core.errors import TrainingError

__all__ = [
    "FirstMask",
    "PixelModel",
    "PixelTable",
    "self_trained",
    "sure_pixels",
    "taught_by_masks",
    "without_unknown",
]

FEWEST = 20
"""Pixels of a window that teach at least, where it has so many sure ones."""

WIDEST = 0.75
"""Largest share of the distance from the threshold to 0 and to 1 that the margin may take. Above a threshold of 0.8, a
margin of 0.2 would leave no confident crop pixel, and all pixels would become background."""


def without_unknown(mask: NDArray[np.uint8], windows: WindowDataset, index: int) -> NDArray[np.uint8]:
    """A window's mask (H, W) with void where the ground truth is unknown. No model learns from void pixels."""
    unknown = windows.unknown(index)
    return mask if unknown is None else np.where(unknown, VOID, mask).astype(np.uint8)


@dataclass(frozen=True)
class FirstMask:
    """A window's mask uint8 (H, W) from its CAMs, and its confident pixels, bool (H, W)."""

    index: int
    mask: NDArray[np.uint8]
    sure: NDArray[np.bool_]


def sure_pixels(strongest: NDArray[np.floating], threshold: float, margin: float) -> NDArray[np.bool_]:
    """Where the strongest CAM, any shape, is far enough from the threshold for its label to count as confident.

    The distance is `margin`, or three quarters of the range on that side of the threshold, whichever is smaller.
    """
    distance = strongest.astype(np.float32) - np.float32(threshold)
    below, above = (np.float32(min(margin, WIDEST * room)) for room in (threshold, 1 - threshold))
    enough: NDArray[np.bool_] = np.abs(distance) >= np.where(distance > 0, above, below)
    return enough


class PixelTable:
    """The pixels of a dataset's windows: what describes each of them, and what it may be.

    Args:
        windows: the dataset.
        allowed: of a position, what its pixels may be: (K + 1, H, W) or (K + 1, 1, 1), 1 or 0. If None, background and
            the window's tags.
    """

    def __init__(self, windows: WindowDataset, allowed: Callable[[int], NDArray[np.float64]] | None = None) -> None:
        self.windows, self._calendar = windows, calendar_of(windows)
        self._allowed = allowed or OverlapTags(windows, (), use=False).allowed
        self.classes = windows.classes + 1

    def features(self, index: int) -> NDArray[np.float32]:
        """Of a window's pixels (H * W, D)."""
        return pixel_features(self.windows.window(index), self._calendar)

    def may_be(self, index: int) -> NDArray[np.float64]:
        """1 for what each pixel may be, else 0 (H * W, K + 1)."""
        side = self.windows.manifest.window
        return np.broadcast_to(self._allowed(index), (self.classes, side, side)).reshape(self.classes, -1).T

    def known(self, index: int) -> NDArray[np.int64]:
        """Positions of a window's pixels that are not void."""
        unknown = self.windows.unknown(index)
        return np.arange(self.windows.manifest.window**2) if unknown is None else np.flatnonzero(~unknown)


class PixelModel:
    """Labels the pixels of any window of a dataset by the mean of what some regressions say, within the window's tags.

    Args:
        table: the dataset's pixels.
        opinions: the regressions.
    """

    def __init__(self, table: PixelTable, *opinions: PixelOdds) -> None:
        self._table, self._opinions = table, opinions

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Labels uint8 (H, W) of a window: the likeliest of background and its tags. Void where it is unknown."""
        return self._labels(self.scores(index), index)

    def scores(self, index: int) -> NDArray[np.float64]:
        """Mean probabilities (H, W, K + 1) of a window's pixels, 0 for what they may not be."""
        return np.asarray(np.mean(self._each(index), 0))

    def opinions(self, index: int) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
        """The mask of a window, and what each regression alone would make it."""
        each = self._each(index)
        return self._labels(np.mean(each, 0), index), [self._labels(scores, index) for scores in each]

    def showing_tags(self, given: FirstMask, *, share: float) -> FirstMask:
        """A mask whose sure pixels show each tag of its window: more than `share` of the known ones have its crop.

        Where fewer do, those join them where the crop is least behind the likeliest. The other pixels stay.
        """
        mask, sure = given.mask.reshape(-1).copy(), given.sure.reshape(-1).copy()
        known = self._table.known(given.index)
        enough = int(share * len(known)) + 1
        scores, free = None, np.ones(len(mask), bool)
        for crop in np.flatnonzero(self._table.windows.tags[given.index]) + 1:
            missing = enough - np.count_nonzero(sure & (mask == crop))
            if missing <= 0:
                continue
            if scores is None:
                scores = self.scores(given.index).reshape(len(mask), -1)
            others = known[(free & (scores[:, crop] > 0) & ~(sure & (mask == crop)))[known]]
            behind = scores[others].max(1) / scores[others, crop]
            chosen = others[behind.argsort(kind="stable")[:missing]]
            mask[chosen], sure[chosen], free[chosen] = crop, True, False
        return FirstMask(given.index, mask.reshape(given.mask.shape), sure.reshape(given.sure.shape))

    def _each(self, index: int) -> list[NDArray[np.float64]]:
        features, may_be = self._table.features(index), self._table.may_be(index)
        side = self._table.windows.manifest.window
        return [(odds(features) * may_be).reshape(side, side, -1) for odds in self._opinions]

    def _labels(self, scores: NDArray[np.float64], index: int) -> NDArray[np.uint8]:
        return without_unknown(scores.argmax(-1).astype(np.uint8), self._table.windows, index)


def taught_by_masks(
    table: PixelTable, masks: Iterable[FirstMask], settings: RelearnConfig, *, count: int, seed: int
) -> PixelOdds:
    """A regression that the sure pixels of masks teach, and then what it says of them itself.

    Windows give equally many pixels, so that each weighs the same.

    Args:
        table: the dataset's pixels.
        masks: of the windows to learn from. Read once.
        settings: rounds, number of pixels, ridge, balance.
        count: number of masks.
        seed: of the choice of pixels.

    Raises:
        TrainingError: no pixel is sure.
    """
    rng, each = np.random.default_rng((seed, 2)), max(FEWEST, settings.pixels // max(count, 1))
    features, labels, may_be = [], [], []
    for first in masks:
        chosen = rng.permutation(np.flatnonzero(first.sure & (first.mask != VOID)))[:each]
        features.append(table.features(first.index)[chosen])
        labels.append(first.mask.reshape(-1)[chosen].astype(np.int64))
        may_be.append(table.may_be(first.index)[chosen])
    if not sum(map(len, labels)):
        raise TrainingError(
            f"every CAM is within masks.relearn.margin {settings.margin} of the threshold, so no pixel is "
            f"confident enough to learn from. Train the classifier longer, lower the margin, or set "
            f"masks.relearn.rounds=0."
        )
    rows = np.concatenate(features)
    scaler = StandardScaler().fit(rows)
    odds = self_trained(
        scaler.transform(rows), np.concatenate(labels), np.concatenate(may_be), settings, rounds=settings.rounds
    )
    # Window by window the scaler would take longer than the regression.
    return odds.of_unscaled(scaler)


def self_trained(
    features: NDArray[Any],
    labels: NDArray[np.int64],
    may_be: NDArray[np.float64],
    settings: RelearnConfig,
    *,
    rounds: int,
) -> PixelOdds:
    """A regression on labels. In each further round, on what the one before says of the same pixels.

    Args:
        features: standardised (n, D).
        labels: (n,).
        may_be: 1 for what each pixel may be (n, K + 1).
        settings: ridge and balance.
        rounds: 1 or more.
    """
    fit = partial(fit_pixels, features, classes=may_be.shape[1], ridge=settings.ridge, balance=settings.balance)
    odds = fit(labels)
    for _ in range(rounds - 1):
        odds = fit((odds(features) * may_be).argmax(1), start=odds)
    return odds
