"""Which dates of a PASTIS series are kept, and as what they are read: the calendar's way, and the published one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.cutting import thin_dates

__all__ = ["limit_dates", "read_dates"]

SCALE = np.float32(365.0001)
"""Divisor of the day of the year in the published code."""


def limit_dates(dates: Sequence[dt.date], limit: int, *, rule: Literal["thin", "cut"]) -> NDArray[np.int64]:
    """Positions of at most `limit` dates, in the order of the calendar.

    Args:
        dates: in any order.
        limit: how many may stay.
        rule: "thin" spreads them over the series; "cut" keeps the first by day of year in any year, so that the end of
            the calendar year is lost (published).
    """
    # By the full date: by day of year, the autumns of two years would mix.
    order = np.array(sorted(range(len(dates)), key=lambda position: dates[position]))
    if rule == "thin":
        # Clouds are unknown here, so every date of a run is as good.
        return np.asarray(order[thin_dates(np.ones(len(order)), limit)])
    first = np.argsort(_days_of_year([dates[position] for position in order]), kind="stable")[:limit]
    return np.asarray(order[np.sort(first)])


def read_dates(dates: Sequence[dt.date], *, rule: Literal["exact", "published"]) -> tuple[dt.date, ...]:
    """The dates, or the days that the published code computes from them.

    That code keeps float32(day of year / 365.0001) and, to look the day up, truncates float32(this * 365.0001): for 19
    of the 366 days the result is the day before.
    """
    if rule == "exact":
        return tuple(dates)
    days = _days_of_year(dates).astype(np.float32)
    lost = days - np.trunc(days / SCALE * SCALE)
    return tuple(date - dt.timedelta(days=int(short)) for date, short in zip(dates, lost, strict=True))


def _days_of_year(dates: Sequence[dt.date]) -> NDArray[np.int64]:
    return np.array([date.timetuple().tm_yday for date in dates], np.int64)
