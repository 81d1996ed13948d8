"""Day 0 of a season: models learn what grows on day N, so what one model sees must count from one day of the year."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from exact_core.errors import ConfigError

__all__ = ["anniversary", "check_day_zero", "nearest_start"]


def anniversary(day: dt.date, year: int) -> dt.date:
    """The same day of another year. Of 29 February, the 28th where there is none."""
    try:
        return day.replace(year=year)
    except ValueError:
        return day.replace(year=year, day=28)


def check_day_zero(ours: dt.date, theirs: dt.date, *, what: str, other: str) -> None:
    """Raise ConfigError, with both days, if days of two seasons count from different days of the year."""
    if anniversary(ours, theirs.year) == theirs or anniversary(theirs, ours.year) == ours:
        return
    raise ConfigError(
        f"{what}: days count from {ours:%d %B}, those of {other} from {theirs:%d %B}: one day would be two times of "
        f"the year. Ingest with the same first day, by --season START/DAYS or data.season.start"
    )


def nearest_start(trained: dt.date, days: int, dates: Sequence[dt.date], start: dt.date) -> dt.date:
    """The first day, of the same day of the year as a model's, that most dates of another season count from.

    Args:
        trained: first day of the season that the model was trained on.
        days: its length.
        dates: of the other season, ascending.
        start: its first day by its own count. Decides between years that suit as many dates.
    """
    years = range(dates[0].year - days // 365 - 1, dates[-1].year + 1)
    starts = [anniversary(trained, year) for year in years]

    def fit(first: dt.date) -> tuple[int, int]:
        return sum(0 <= (date - first).days < days for date in dates), -abs((first - start).days)

    return max(starts, key=fit)
