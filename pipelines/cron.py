"""KFP's cron expressions: six fields, seconds first, as its scheduler (robfig/cron v1) reads them.

A field is `*` or `?`, numbers, names (JAN, MON), ranges `a-b` and steps `/n`, in lists. Five fields are no error to
KFP, which takes the first for seconds. Here they are one.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from dataclasses import dataclass

from exact_core.errors import ConfigError

__all__ = ["Cron"]

MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("seconds", 0, 59, {}),
    ("minutes", 0, 59, {}),
    ("hours", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 6, DAYS),
)
YEARS_AHEAD = 5
"""KFP's own scheduler gives up after five: an expression without a slot till then never starts a run."""


@dataclass(frozen=True)
class Cron:
    """The allowed values of each field, and whether a day field was left open."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    open_days: bool
    """Both day fields restrict if one is `*`. Otherwise a day that fits either is one."""

    @classmethod
    def parse(cls, expression: str) -> Cron:
        """Read an expression.

        Raises:
            ConfigError: it has not six fields, or a field is wrong.
        """
        texts = expression.split()
        if expression.strip().startswith("@"):
            raise ConfigError(f"cron = {expression!r}: write out six fields, seconds first: 0 0 3 1 11 *")
        if len(texts) == 5:
            raise ConfigError(
                f"cron = {expression!r}: five fields. KFP requires six, seconds first, and would read these as second "
                f"{texts[0]}, minute {texts[1]}, hour {texts[2]}. Put a 0 in front: '0 {' '.join(texts)}'"
            )
        if len(texts) != 6:
            raise ConfigError(
                f"cron = {expression!r}: {len(texts)} fields, expected six: second minute hour day month weekday, for "
                f"example '0 0 3 1 11 *' for 1 November at 03:00"
            )
        values = (_field(text, *field, expression=expression) for text, field in zip(texts, FIELDS, strict=True))
        second, minute, hour, day, month, weekday = values
        return cls(second, minute, hour, day, month, weekday, open_days=_open(texts[3]) or _open(texts[5]))

    def next_after(self, moment: dt.datetime) -> dt.datetime | None:
        """The first slot after a moment, in UTC. None where no date of the coming years fits."""
        start = moment.astimezone(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=1)
        day = start.date()
        while day.year <= start.year + YEARS_AHEAD:
            if self._on(day):
                earliest = start.time() if day == start.date() else dt.time()
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        for second in sorted(self.seconds):
                            if (hour, minute, second) >= (earliest.hour, earliest.minute, earliest.second):
                                return dt.datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=dt.UTC)
            day += dt.timedelta(days=1)
        return None

    def _on(self, day: dt.date) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        fits = in_month and in_week if self.open_days else in_month or in_week
        return day.month in self.months and fits


def _open(text: str) -> bool:
    """Whether a day field is left open: a `*` or `?` anywhere in its list does that in robfig/cron v1."""
    return any(part[0] in "*?" for part in text.split(","))


def _field(text: str, name: str, low: int, high: int, names: dict[str, int], *, expression: str) -> frozenset[int]:
    """The values that a field allows."""
    allowed: set[int] = set()
    for part in text.split(","):
        # It reads *-5 as a star.
        match = re.fullmatch(r"(?:([*?])(?:-\w+)?|(\w+)(?:-(\w+))?)(?:/(\d+))?", part, re.ASCII)
        try:
            if match is None:
                raise ValueError("expected a number, a range a-b, * or a step */n")
            star, first, last, step = match.groups()
            begin = low if star else _value(first, names)
            # A single number with a step runs to the end of the field: 5/15 is 5, 20, 35, 50.
            end = high if star or (step and not last) else _value(last or first, names)
            if not low <= begin <= end <= high:
                raise ValueError(f"outside {low}-{high}, or a range that runs backwards")
            if step and int(step) == 0:
                raise ValueError("a step of 0")
        except ValueError as error:
            raise ConfigError(f"cron = {expression!r}: {name} {part!r}: {error}") from error
        allowed.update(range(begin, end + 1, int(step or 1)))
    return frozenset(allowed)


def _value(text: str, names: dict[str, int]) -> int:
    if text.upper() in names:
        return names[text.upper()]
    if not text.isdigit():
        raise ValueError(f"{text!r} is no number" + (f" and none of {', '.join(names)}" if names else ""))
    return int(text)
