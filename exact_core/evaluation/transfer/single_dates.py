"""Which dates of a season are unlike training at their time of the year: one cloud called clear spoils a season.

Axes are N pixels, G days of the calendar, T dates, C bands.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exact_core.config import TransferConfig
from exact_core.data.windows.series_sample import DateMeans, SeasonSamples
from exact_core.evaluation.transfer.findings import Level

__all__ = ["DateRow", "Without", "date_rows", "suspects"]

OUTLIER = 3.0
"""A date stands out if it is this many times as far from training as the middle one of its season."""
MOST = 3
"""Dates that are suspected at most: a season of which more are unlike training is itself another."""


@dataclass(frozen=True)
class DateRow:
    """A date against training at its time of the year, in standard deviations of training's pixels.

    distance: mean over bands of the shift's size. band, shift: the band that is farthest. suspect: it stands out.
    """

    date: dt.date
    distance: float
    band: str
    shift: float
    suspect: bool


@dataclass(frozen=True)
class Without:
    """The verdict if these dates were left out; leave_out: the setting that does so, with those that are already."""

    dates: tuple[dt.date, ...]
    verdict: Level
    leave_out: tuple[dt.date, ...]


def date_rows(
    reference: SeasonSamples,
    means: DateMeans,
    settings: TransferConfig,
    *,
    start: dt.date,
    days: NDArray[np.float64],
) -> list[DateRow]:
    """Every date that falls on a part of the calendar that training saw, in order.

    Args:
        reference: of the training season.
        means: of the new season's clear looks.
        settings: `reach`, and `part_bands` for the distance below which no date stands out.
        start: first day of the new season.
        days: the reference's calendar in days since then (G,).
    """
    train = reference.train.supported(settings.reach)
    spread = np.array([np.nanstd(train[..., band], dtype=np.float64) or 1.0 for band in range(train.shape[2])])
    found = []
    for day, mean in zip(means.days.tolist(), means.mean, strict=True):
        place = int(np.abs(days - day).argmin())
        at_that_time = train[:, place].astype(np.float64)
        if abs(days[place] - day) > settings.reach or np.isnan(at_that_time).all():
            continue
        shifts = (mean - np.nanmean(at_that_time, 0)) / spread
        largest = int(np.nanargmax(np.abs(shifts)))
        found.append((start + dt.timedelta(days=day), float(np.nanmean(np.abs(shifts))), largest, shifts[largest]))
    middle = float(np.median([distance for _, distance, _, _ in found])) if found else 0.0
    return [
        DateRow(
            date,
            distance,
            reference.season.bands[band],
            float(shift),
            suspect=distance >= max(OUTLIER * middle, settings.part_bands[0]),
        )
        for date, distance, band, shift in found
    ]


def suspects(rows: list[DateRow]) -> list[DateRow]:
    """The dates that stand out, the farthest first. None if more do than can be left out."""
    found = sorted((row for row in rows if row.suspect), key=lambda row: -row.distance)
    return found if len(found) <= MOST else []
