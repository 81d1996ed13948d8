"""The dates of a window: which it has, how many make a series, and windows of unequal dates in one array.

A date without a measurement of a window is not one of its dates. So windows that share an array can have unequal
numbers of dates. The rest of the shorter ones is called padding, and it is marked in three ways:

- in shards (`dataset`), by its day, PAD_DAY, because a file then needs no mask;
- in batches (`batches`), by a mask, `valid`, because pixels and day are 0 there, for tables and sums;
- where a recipe attends to padding as published, by a number, `Series.padding`, because its rows are equal.

Axes are N windows, T dates, C bands, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_DATES", "PAD_DAY", "joined", "measured_dates", "stack_dates"]

MIN_DATES = 2
"""Dates that make a series: fewer show no change over a season, and change is what separates crops."""
PAD_DAY = -1
"""Day of a padding date in a shard."""

Scalar = TypeVar("Scalar", bound=np.generic)


def measured_dates(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Dates (T,) with a measured pixel among pixels (T, C, H, W). A pixel that is 0 in every band was not measured."""
    return np.asarray(pixels.any(axis=(1, 2, 3)))


def joined(parts: Sequence[NDArray[Scalar]], axis: int) -> NDArray[Scalar]:
    """Parts of an array one after the other. A single one, as there mostly is, is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


def stack_dates(arrays: Sequence[NDArray[Scalar]], fill: int) -> NDArray[Scalar]:
    """Arrays (T, ...) of unequal T as one (N, T, ...), the shorter ones filled up. Their order and dtype stay."""
    longest = max(len(array) for array in arrays)
    stacked = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked
