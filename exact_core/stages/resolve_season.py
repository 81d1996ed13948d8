"""Stage `resolve_season`: the parameter `season`, set by a user or a schedule -> the one season that a run maps.

A schedule cannot write the season into its parameters: KFP's macros (`[[ScheduledTime]]` and the like) stay literal
text in pipelines of its second version. So a scheduled run has `auto` and gets the time of its slot, and a rule
decides. A season starts every year on MM-DD and lasts DAYS days. The run maps the latest one that has ended, or, with
`until`, the one that is in progress, from the images until a day.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, field_validator

from exact_core.config import Settings, describe
from exact_core.data.sources import parse_season, source_of
from exact_core.errors import ConfigError
from exact_core.tracking.runs import Tracker

__all__ = [
    "AUTO",
    "Mapped",
    "SeasonRule",
    "check_season",
    "check_until",
    "refuse_placeholders",
    "resolve_season",
    "season_rule",
]

log = logging.getLogger(__name__)

AUTO = "auto"
"""The season that a run maps where its parameter says this: the latest one that has ended. As a last day of images, the
latest day that is over."""
DAY = dt.timedelta(days=1)
PLACEHOLDER = re.compile(r"\[\[|\]\]|\{\{|\}\}")


class Mapped(NamedTuple):
    """What a run maps."""

    season: str
    """A year or START/DAYS. Empty where the source has its own."""
    until: str = ""
    """Last day whose images are used, YYYY-MM-DD. Empty for the whole season."""

    def __str__(self) -> str:
        return f"{self.season or 'that of the source'}{self.until and f' until {self.until}'}"


class SeasonRule(Settings):
    """When a season starts, and how long it is. A year names the season that starts in it, in either hemisphere."""

    starts: str = Field(description="first day of every season, MM-DD")
    days: int = Field(ge=1, le=731, description="length of a season, days")

    @field_validator("starts")
    @classmethod
    def _a_day_of_every_year(cls, starts: str) -> str:
        return _day_of_every_year(starts)

    def begins(self, year: int) -> dt.date:
        """The first day of the season that starts in `year`."""
        return dt.date.fromisoformat(f"{year:04d}-{self.starts}")

    def of_year(self, year: int) -> str:
        """The season that starts in `year`, as START/DAYS."""
        return f"{self.begins(year)}/{self.days}"

    def ends(self, year: int) -> dt.date:
        """The first day after the season that starts in `year`."""
        return self.begins(year) + dt.timedelta(days=self.days)

    def latest_ended(self, at: dt.datetime) -> str:
        """The latest season that has ended at a moment: its last day, in UTC, is over. As START/DAYS."""
        today = at.astimezone(dt.UTC).date()
        return self.of_year(next(year for year in range(today.year, today.year - 4, -1) if self.ends(year) <= today))

    def first_mapped(self, year: int, since: str) -> dt.date:
        """The first day until which the season that starts in `year` is mapped.

        Args:
            year: in which the season starts.
            since: MM-DD, a day of the season. If empty, its first day.

        Raises:
            ConfigError: the season has no such day.
        """
        begins = self.begins(year)
        if not since:
            return begins
        try:
            day = dt.date.fromisoformat(f"{year + (_day_of_every_year(since) < self.starts):04d}-{since}")
        except ValueError as error:
            raise ConfigError(f"until_from = {since!r}: {error}") from error
        if day >= self.ends(year):
            raise ConfigError(
                f"until_from = {since!r}: not a day of a season of {self.days} days from {self.starts}. Give one, or "
                f"leave it empty"
            )
        return day

    def mapped_at(self, moment: dt.datetime, *, until: str = "", since: str = "") -> Mapped:
        """What a run with season `auto` maps at a moment.

        Args:
            moment: the time of the slot.
            until: empty for the latest season that has ended. A day, YYYY-MM-DD, or `auto` for the latest one that is
                over in UTC. Then the latest season that has begun by that day is mapped until it, or as a whole if it
                has ended.
            since: as for `first_mapped`. A season whose day this has not come yet counts as not begun.
        """
        if not until:
            return Mapped(self.latest_ended(moment))
        day = _last_day(until, moment)
        year = next(year for year in range(day.year, day.year - 4, -1) if self.first_mapped(year, since) <= day)
        return Mapped(self.of_year(year), "" if self.ends(year) <= day + DAY else str(day))


def _day_of_every_year(text: str) -> str:
    """Accept MM-DD, for a ValueError otherwise."""
    if not re.fullmatch(r"\d\d-\d\d", text, re.ASCII):
        raise ValueError("expected MM-DD, for example 04-01")
    if text == "02-29":
        raise ValueError("only leap years have this day. Take 02-28 or 03-01")
    dt.date.fromisoformat(f"2001-{text}")
    return text


def _last_day(until: str, moment: dt.datetime) -> dt.date:
    return moment.astimezone(dt.UTC).date() - DAY if until == AUTO else dt.date.fromisoformat(until)


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
    until: str = "",
    until_from: str = "",
    now: dt.datetime | None = None,
) -> Mapped:
    """The season that this run maps.

    Args:
        season: `auto`, or a year or START/DAYS, which pass as they are. If empty, the source's own.
        schedule_time: time of the schedule's slot, RFC 3339. Empty, as in a run on this machine: now.
        starts: first day of every season, MM-DD.
        days: length of a season, days.
        source: the source to be read. One without images of an area has its own season, and `auto` leaves it.
        tracker: gets the season and the reason.
        until: last day of the images, as `SeasonRule.mapped_at` takes it. A season that has ended by then is whole.
        until_from: for season and until `auto`: as `since` of `SeasonRule.first_mapped`.
        now: the present, for a repeatable run.

    Returns:
        The season as stage `ingest` takes it, and the last day of its images.

    Raises:
        ConfigError: text of another form, such as a placeholder that was not filled in, a day before the season, or one
            for a source without images of an area.
    """
    check_season(season)
    rule = season_rule(starts, days)
    check_until(until, until_from, rule=rule)
    if until and not source_of(source).opens:
        raise ConfigError(
            f"until = {until!r}: a {source.partition(':')[0]} source has no images of an area. Leave it empty"
        )
    if season != AUTO:
        resolved, reason = Mapped(season), "as given" if season else "none is given"
        if until:
            at, _ = _slot(schedule_time if until == AUTO else "", now)
            resolved = _part(season, _last_day(until, at))
    elif not source_of(source).opens:
        resolved, reason = Mapped(""), f"source {source.partition(':')[0]} has its own"
    else:
        at, slot = _slot(schedule_time, now)
        resolved = rule.mapped_at(at, until=until, since=until_from)
        kind = "latest to have begun" if until else "latest to have ended"
        reason = f"{kind} at {at:%Y-%m-%d %H:%M} UTC ({slot}); starts {starts}, {days} days"
    log.info("season: %s (%s)", resolved, reason)
    tracker.log_params({"season_resolved": resolved.season, "season_reason": reason, "until_resolved": resolved.until})
    return resolved


def _slot(schedule_time: str, now: dt.datetime | None) -> tuple[dt.datetime, str]:
    """The time of a run's slot, and where it comes from, in words."""
    if schedule_time:
        return _moment(schedule_time), "schedule time"
    return now or dt.datetime.now(dt.UTC), "no schedule time, now"


def _part(season: str, day: dt.date) -> Mapped:
    """A named season, or the source's own, until a day."""
    if not season:
        return Mapped("", str(day))
    start, days = parse_season(season)
    if day < start:
        raise ConfigError(f"until: {day} is before the first day of season {season}. Name a later day, or wait")
    return Mapped(season, "" if start + dt.timedelta(days=days) <= day + DAY else str(day))


def check_season(season: str) -> None:
    """Accept what `resolve_season` accepts.

    Raises:
        ConfigError: anything else.
    """
    refuse_placeholders("season", season)
    if season not in ("", AUTO):
        parse_season(season)


def check_until(until: str, until_from: str, *, rule: SeasonRule) -> None:
    """Accept what `resolve_season` accepts.

    Raises:
        ConfigError: anything else.
    """
    refuse_placeholders("until", until)
    if until_from and until != AUTO:
        raise ConfigError(f"until_from = {until_from!r} applies to until=auto only. Leave it empty, or set until=auto")
    if until not in ("", AUTO):
        try:
            dt.date.fromisoformat(until)
        except ValueError as error:
            raise ConfigError(f"until = {until!r}: expected YYYY-MM-DD, or auto: {error}") from error
    rule.first_mapped(2001, until_from)


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
