"""The dates of a window: which it has, how many make a series, and windows of unequal dates in one array.

A date that measured nothing of a window is none of its dates. Windows that share an array have unequal numbers of them;
what fills up the shorter ones is called padding, and marked in three ways:

- in shards (`dataset`), by its day, PAD_DAY: a file needs no mask beside it;
- in batches (`batches`), by a mask, `valid`: its pixels and its day are 0, what a model's tables and sums can take;
- where a recipe attends to padding as published, by a number, `Series.padding`: its rows are alike, so none is kept.

Axes: N windows, T dates, C bands, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_DATES", "PAD_DAY", "measured_dates", "stack_dates"]

MIN_DATES = 2
"""Dates that make a series: fewer show no change over a season, which is what tells crops apart."""
PAD_DAY = -1
"""Day of a padding date in a shard."""

Scalar = TypeVar("Scalar", bound=np.generic)


def measured_dates(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Dates (T,) with a measured pixel among pixels (T, C, H, W); a pixel that is 0 in every band was not measured."""
    return np.asarray(pixels.any(axis=(1, 2, 3)))


def stack_dates(arrays: Sequence[NDArray[Scalar]], fill: int) -> NDArray[Scalar]:
    """Arrays (T, ...) of unequal T as one (N, T, ...), the shorter ones filled up; their order and dtype stay."""
    longest = max(len(array) for array in arrays)
    stacked = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked
