"""Stage `resolve_season`: the parameter `season`, set by a user or a schedule -> the one season that a run maps.

A schedule cannot write the season into its parameters: KFP's macros (`[[ScheduledTime]]` and the like) stay literal
text in pipelines of its second version. So a scheduled run has `auto` and gets the time of its slot, and a rule
decides. A season starts every year on MM-DD and lasts DAYS days. The run maps the latest one that has ended.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from typing import Any

from pydantic import Field, ValidationError, field_validator

from exact_core.config import Settings, describe
from exact_core.data.sources import parse_season, source_of
from exact_core.errors import ConfigError
from exact_core.tracking.runs import Tracker

__all__ = ["AUTO", "SeasonRule", "check_season", "refuse_placeholders", "resolve_season", "season_rule"]

log = logging.getLogger(__name__)

AUTO = "auto"
"""The season that a run maps where its parameter says this: the latest one that has ended."""
PLACEHOLDER = re.compile(r"\[\[|\]\]|\{\{|\}\}")


class SeasonRule(Settings):
    """When a season starts, and how long it is. A year names the season that starts in it, in either hemisphere."""

    starts: str = Field(description="first day of every season, MM-DD")
    days: int = Field(ge=1, le=731, description="length of a season, days")

    @field_validator("starts")
    @classmethod
    def _a_day_of_every_year(cls, starts: str) -> str:
        if not re.fullmatch(r"\d\d-\d\d", starts, re.ASCII):
            raise ValueError("expected MM-DD, for example 04-01")
        if starts == "02-29":
            raise ValueError("only leap years have this day. Take 02-28 or 03-01")
        dt.date.fromisoformat(f"2001-{starts}")
        return starts

    def of_year(self, year: int) -> str:
        """The season that starts in `year`, as START/DAYS."""
        return f"{dt.date.fromisoformat(f'{year:04d}-{self.starts}')}/{self.days}"

    def ends(self, year: int) -> dt.date:
        """The first day after the season that starts in `year`."""
        return dt.date.fromisoformat(f"{year:04d}-{self.starts}") + dt.timedelta(days=self.days)

    def latest_ended(self, at: dt.datetime) -> str:
        """The latest season that has ended at a moment: its last day, in UTC, is over. As START/DAYS."""
        today = at.astimezone(dt.UTC).date()
        return self.of_year(next(year for year in range(today.year, today.year - 4, -1) if self.ends(year) <= today))


def season_rule(starts: str, days: int) -> SeasonRule:
    """The rule of these two parameters.

    Raises:
        ConfigError: there is no such day, or the length is out of range.
    """
    try:
        return SeasonRule(starts=starts, days=days)
    except ValidationError as error:
        raise ConfigError(describe(error, where="season rule", model=SeasonRule)) from error


def resolve_season(
    season: str,
    *,
    schedule_time: str,
    starts: str,
    days: int,
    source: str,
    tracker: Tracker,
    now: dt.datetime | None = None,
) -> str:
    """The season that this run maps.

    Args:
        season: `auto`, or a year or START/DAYS, which pass as they are. If empty, the source's own.
        schedule_time: time of the schedule's slot, RFC 3339. Empty, as in a run on this machine: now.
        starts: first day of every season, MM-DD.
        days: length of a season, days.
        source: the source to be read. One without images of an area has its own season, and `auto` leaves it.
        tracker: gets the season and the reason.
        now: the present, for a repeatable run.

    Returns:
        A year or START/DAYS, as stage `ingest` takes it. Empty where the source has its own.

    Raises:
        ConfigError: text of another form, such as a placeholder that was not filled in.
    """
    check_season(season)
    rule = season_rule(starts, days)
    if season != AUTO:
        resolved, reason = season, "as given" if season else "none is given"
    elif not source_of(source).opens:
        resolved, reason = "", f"source {source.partition(':')[0]} has its own"
    else:
        at = _moment(schedule_time) if schedule_time else now or dt.datetime.now(dt.UTC)
        slot = "schedule time" if schedule_time else "no schedule time, now"
        resolved = rule.latest_ended(at)
        reason = f"latest to have ended at {at:%Y-%m-%d %H:%M} UTC ({slot}); starts {starts}, {days} days"
    log.info("season: %s (%s)", resolved or "that of the source", reason)
    tracker.log_params({"season_resolved": resolved, "season_reason": reason})
    return resolved


def check_season(season: str) -> None:
    """Accept what `resolve_season` accepts.

    Raises:
        ConfigError: anything else.
    """
    refuse_placeholders("season", season)
    if season not in ("", AUTO):
        parse_season(season)


def refuse_placeholders(name: str, value: Any) -> None:
    """Refuse the literal text of a macro, anywhere in a value, because KFP would not expand it.

    Raises:
        ConfigError: there is one.
    """
    if isinstance(value, str) and PLACEHOLDER.search(value):
        raise ConfigError(
            f"{name} = {value!r}: KFP v2 does not fill in such a placeholder. Write season: auto, which "
            f"follows the schedule's time, or a season such as 2025 or 2021-09-01/300"
        )
    if isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            refuse_placeholders(name, part)


def _moment(schedule_time: str) -> dt.datetime:
    """The moment, in UTC, of an RFC 3339 text."""
    if PLACEHOLDER.search(schedule_time):
        raise ConfigError(
            f"schedule_time = {schedule_time!r}: this server does not fill in the schedule's time. KFP 2.17 or newer "
            f"does. Upgrade it, or give the season itself, such as 2025 or 2021-09-01/300"
        )
    try:
        moment = dt.datetime.fromisoformat(schedule_time)
    except ValueError as error:
        raise ConfigError(f"schedule_time = {schedule_time!r}: expected RFC 3339, as 2026-11-01T03:00:00Z") from error
    if moment.tzinfo is None:
        raise ConfigError(f"schedule_time = {schedule_time!r}: without a time zone, expected one, as in …T03:00:00Z")
    return moment.astimezone(dt.UTC)
