"""Pixels as tables: every pixel's series on regular days, independent of the dates of its scene.

Axes are T dates, C bands, H W pixels, P patches, G days of the calendar.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.dataset import CLEAR_PATCH, Window, WindowDataset

__all__ = ["CALENDAR_STEPS", "calendar_days", "calendar_of", "calendar_series", "pixel_features"]

CALENDAR_STEPS = 16
"""Days of the regular calendar: about three weeks apart in a season of 300 days."""


def calendar_of(windows: WindowDataset) -> NDArray[np.float64]:
    """The days of `calendar_days` in the season of a dataset."""
    return calendar_days(windows.manifest.season_days)


def calendar_days(season_days: int) -> NDArray[np.float64]:
    """CALENDAR_STEPS days, days since season start, in the middle of equal parts of a season."""
    return np.asarray((np.arange(CALENDAR_STEPS) + 0.5) / CALENDAR_STEPS * season_days)


def calendar_series(window: Window, calendar: NDArray[np.float64]) -> NDArray[np.float32]:
    """Every pixel's series on regular days (H * W, G, C): linear between its clear observations, constant at the ends.

    A patch without a clear date, or whose clouds are not known, takes all its measurements.
    """
    dates, bands, height, width = window.pixels.shape
    rows, cols = height // CLEAR_PATCH, width // CLEAR_PATCH
    patches = window.pixels.any(1).reshape(dates, rows, CLEAR_PATCH, cols, CLEAR_PATCH)
    measured = patches.all((2, 4)).reshape(dates, -1)
    clear = measured if window.clear is None else window.clear.reshape(dates, -1) > 0
    clear = np.where(clear.any(0), clear, measured)
    clear = clear | ~clear.any(0)
    days = window.days.astype(np.float64)
    position = np.arange(dates)[:, None, None]
    # (T, P, G) -> the clear looks (P, G) around each day of the calendar; where one side has none, the other's twice.
    before = np.where(clear[:, :, None] & (days[:, None, None] <= calendar), position, -1).max(0)
    after = np.where(clear[:, :, None] & (days[:, None, None] >= calendar), position, dates).min(0)
    before, after = np.where(before < 0, after, before), np.where(after == dates, before, after)
    gap = days[after] - days[before]
    share = np.where(gap > 0, (calendar - days[before]) / np.maximum(gap, 1), 0.0)[:, :, None]
    pixels = window.pixels.astype(np.float32).reshape(dates, bands, rows, CLEAR_PATCH, cols, CLEAR_PATCH)
    pixels = pixels.transpose(2, 4, 0, 3, 5, 1).reshape(rows * cols, dates, -1)
    values = np.take_along_axis(pixels, before[:, :, None], 1) * (1 - share)
    values += np.take_along_axis(pixels, after[:, :, None], 1) * share
    values = values.reshape(rows, cols, len(calendar), CLEAR_PATCH, CLEAR_PATCH, bands)
    return np.asarray(values.transpose(0, 3, 1, 4, 2, 5).reshape(height * width, len(calendar), bands), np.float32)


def pixel_features(window: Window, calendar: NDArray[np.float64]) -> NDArray[np.float32]:
    """What describes a pixel, (H * W, G * C + 4 * C) in stored units.

    Its series on the calendar, and per band mean, standard deviation, maximum and minimum of that series.
    """
    series = calendar_series(window, calendar)
    statistics = [series.mean(1), series.std(1), series.max(1), series.min(1)]
    return np.concatenate([series.reshape(len(series), -1), *statistics], 1)
