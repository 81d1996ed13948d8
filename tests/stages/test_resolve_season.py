"""The season of a run: calendars worked by hand, and the rule's property."""

import datetime as dt

import pytest
from hypothesis import given, strategies as st

from exact_core.data.sources import parse_season, with_season
from exact_core.errors import ConfigError
from exact_core.recipes import resolve
from exact_core.stages.resolve_season import SeasonRule, resolve_season, season_rule
from exact_core.tracking.runs import NoTracker


def mapped(
    season="auto", *, schedule_time="", starts="04-01", days=214, source="season:/data", now=None, until="", since=""
):
    return resolve_season(
        season,
        schedule_time=schedule_time,
        starts=starts,
        days=days,
        source=source,
        tracker=NoTracker(),
        until=until,
        until_from=since,
        now=now,
    )


def at(season="auto", **given):
    found = mapped(season, **given)
    assert found.until == ""
    return found.season


@pytest.mark.parametrize(
    ("starts", "days", "schedule_time", "season"),
    [
        # 1 April + 214 days is 1 November: the last day is 31 October.
        ("04-01", 214, "2026-11-01T00:00:00Z", "2026-04-01/214"),
        ("04-01", 214, "2026-10-31T23:59:59Z", "2025-04-01/214"),
        # The same moment, written in another zone.
        ("04-01", 214, "2026-11-01T01:59:59+02:00", "2025-04-01/214"),
        ("04-01", 214, "2026-11-01T02:00:00+02:00", "2026-04-01/214"),
        # The southern summer, across the new year: 1 October + 182 days is 1 April, in a leap year 31 March.
        ("10-01", 182, "2026-03-31T12:00:00Z", "2024-10-01/182"),
        ("10-01", 182, "2026-04-01T00:00:00Z", "2025-10-01/182"),
        ("10-01", 182, "2024-03-31T00:00:00Z", "2023-10-01/182"),
        ("10-01", 182, "2024-03-30T23:00:00Z", "2022-10-01/182"),
        # Winter crops, from sowing to harvest, longer than a year.
        ("09-01", 395, "2026-09-30T00:00:00Z", "2024-09-01/395"),
        ("09-01", 395, "2026-10-01T00:00:00Z", "2025-09-01/395"),
        # A whole year; the leap year's has 366 days, of which the rule takes 365.
        ("01-01", 365, "2024-12-31T00:00:00Z", "2024-01-01/365"),
        ("01-01", 366, "2024-12-31T00:00:00Z", "2023-01-01/366"),
        ("01-01", 366, "2025-01-01T00:00:00Z", "2024-01-01/366"),
        # Through a 29 February: 1 February + 29 days.
        ("02-01", 29, "2024-03-01T00:00:00Z", "2024-02-01/29"),
        ("02-01", 29, "2025-03-01T00:00:00Z", "2024-02-01/29"),
        ("02-01", 29, "2025-03-02T00:00:00Z", "2025-02-01/29"),
        ("12-31", 731, "2025-12-31T00:00:00Z", "2023-12-31/731"),
    ],
)
def test_calendars_by_hand(starts, days, schedule_time, season):
    assert at(schedule_time=schedule_time, starts=starts, days=days) == season


@pytest.mark.parametrize(
    ("rule", "given", "schedule_time", "season"),
    [
        # The day before the slot's is the latest that is over.
        (("04-01", 214), ("auto", ""), "2026-06-16T04:00:00Z", "2026-04-01/214 until 2026-06-15"),
        (("04-01", 214), ("auto", ""), "2026-06-16T01:00:00+02:00", "2026-04-01/214 until 2026-06-14"),
        (("04-01", 214), ("auto", ""), "2026-04-02T00:00:00Z", "2026-04-01/214 until 2026-04-01"),
        # Nothing is over yet of this season, and all of it on 1 November.
        (("04-01", 214), ("auto", ""), "2026-04-01T23:59:59Z", "2025-04-01/214"),
        (("04-01", 214), ("auto", ""), "2026-10-31T23:59:59Z", "2026-04-01/214 until 2026-10-30"),
        (("04-01", 214), ("auto", ""), "2026-11-01T00:00:00Z", "2026-04-01/214"),
        (("04-01", 214), ("auto", "06-01"), "2026-06-01T12:00:00Z", "2025-04-01/214"),
        (("04-01", 214), ("auto", "06-01"), "2026-06-02T00:00:00Z", "2026-04-01/214 until 2026-06-01"),
        (("04-01", 214), ("auto", "10-31"), "2026-11-01T00:00:00Z", "2026-04-01/214"),
        # A day of January in a season across the new year.
        (("10-01", 182), ("auto", "01-15"), "2026-01-15T12:00:00Z", "2024-10-01/182"),
        (("10-01", 182), ("auto", "01-15"), "2026-01-16T00:00:00Z", "2025-10-01/182 until 2026-01-15"),
        (("10-01", 182), ("auto", "12-01"), "2026-01-16T00:00:00Z", "2025-10-01/182 until 2026-01-15"),
        # Two seasons in progress: the later one, once it is mapped.
        (("09-01", 395), ("auto", ""), "2026-09-15T00:00:00Z", "2026-09-01/395 until 2026-09-14"),
        (("09-01", 395), ("auto", "03-01"), "2026-09-15T00:00:00Z", "2025-09-01/395 until 2026-09-14"),
        # A named day needs no slot.
        (("04-01", 214), ("2026-06-15", ""), "2027-01-01T00:00:00Z", "2026-04-01/214 until 2026-06-15"),
        (("04-01", 214), ("2026-12-15", ""), "2027-01-01T00:00:00Z", "2026-04-01/214"),
    ],
)
def test_within_the_season_by_hand(rule, given, schedule_time, season):
    starts, days = rule
    until, since = given
    found = mapped(schedule_time=schedule_time, starts=starts, days=days, until=until, since=since)
    assert str(found) == season


@pytest.mark.parametrize(
    ("season", "until", "found"),
    [
        ("2026", "2026-06-15", ("2026", "2026-06-15")),
        ("2026", "2026-12-31", ("2026", "")),
        ("2026", "2026-12-30", ("2026", "2026-12-30")),
        ("2026-04-01/214", "auto", ("2026-04-01/214", "2026-06-15")),
        ("2025-04-01/214", "auto", ("2025-04-01/214", "")),
        ("", "auto", ("", "2026-06-15")),
    ],
)
def test_a_named_season_until_a_day(season, until, found):
    assert mapped(season, until=until, schedule_time="2026-06-16T04:00:00Z") == found
    # A named day needs no time of a slot.
    if until != "auto":
        assert mapped(season, until=until, schedule_time="{{$.pipeline_job_schedule_time_utc}}") == found


DAYS_OF_THE_YEAR = st.dates(dt.date(2001, 1, 1), dt.date(2001, 12, 31)).map(lambda day: f"{day:%m-%d}")
MOMENTS = st.datetimes(
    dt.datetime(1995, 1, 1),
    dt.datetime(2100, 1, 1),
    timezones=st.integers(-14, 14).map(lambda hours: dt.timezone(dt.timedelta(hours=hours))),
)


@given(DAYS_OF_THE_YEAR, st.integers(1, 731), MOMENTS)
def test_it_is_the_latest_that_has_ended(starts, days, moment):
    start, length = parse_season(at(schedule_time=moment.isoformat(), starts=starts, days=days))
    assert (f"{start:%m-%d}", length) == (starts, days)
    midnight = dt.time(tzinfo=dt.UTC)
    assert dt.datetime.combine(start + dt.timedelta(days=days), midnight) <= moment
    following = start.replace(year=start.year + 1) + dt.timedelta(days=days)
    assert dt.datetime.combine(following, midnight) > moment


def test_without_a_schedule_it_is_now():
    assert at(now=dt.datetime(2026, 11, 22, tzinfo=dt.UTC)) == "2026-04-01/214"
    year = dt.datetime.now(dt.UTC).year
    assert at(starts="01-01", days=1) in {f"{year}-01-01/1", f"{year - 1}-01-01/1"}


@pytest.mark.parametrize("season", ["2025", "2021-09-01/300", ""])
def test_a_named_season_passes(season):
    assert at(season, schedule_time="{{$.pipeline_job_schedule_time_utc}}") == season


@pytest.mark.parametrize("source", ["synthetic", "pastis:/data"])
def test_a_source_with_its_own_season_needs_none(source):
    assert at(source=source) == ""


def test_ingest_takes_what_comes_out():
    config = with_season(resolve("season"), at(schedule_time="2026-11-15T03:00:00Z"), kind="season")
    assert (config.data.season.start, config.data.season.days) == (dt.date(2026, 4, 1), 214)


@pytest.mark.parametrize(
    ("season", "schedule_time", "words"),
    [
        ("[[ScheduledTime]]", "", "KFP v2 does not fill in such a placeholder"),
        ("[[ScheduledTime.2006]]", "2026-11-15T03:00:00Z", "KFP v2 does not fill in such a placeholder"),
        ("{{workflow.creationTimestamp}}", "", "KFP v2 does not fill in such a placeholder"),
        ("2025-[[Index]]", "", "KFP v2 does not fill in such a placeholder"),
        ("auto", "{{$.pipeline_job_schedule_time_utc}}", "KFP 2.17 or newer"),
        ("auto", "yesterday", "expected RFC 3339"),
        ("auto", "2026-11-15T03:00:00", "without a time zone"),
        ("2025-02-30/10", "", "day is out of range"),
        ("2025/300", "", "expected a year"),
        ("last", "", "expected a year"),
        ("٢٠٢٥", "", "expected a year"),
    ],
)
def test_anything_else_is_an_error(season, schedule_time, words):
    with pytest.raises(ConfigError, match=words):
        at(season, schedule_time=schedule_time)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"until": "15 June"}, "until = '15 June': expected YYYY-MM-DD, or auto"),
        ({"until": "2026-06-31"}, "until = '2026-06-31': .*day"),
        ({"until": "[[ScheduledTime]]"}, "KFP v2 does not fill in such a placeholder"),
        ({"until": "auto", "since": "6-1"}, "until_from = '6-1': expected MM-DD"),
        ({"until": "auto", "since": "12-01"}, "until_from = '12-01': not a day of a season of 214 days from 04-01"),
        ({"since": "06-01"}, "applies to until=auto only"),
        ({"until": "2026-06-15", "since": "06-01"}, "applies to until=auto only"),
        ({"season": "2026", "until": "2025-12-31"}, "2025-12-31 is before the first day of season 2026"),
        ({"until": "auto", "source": "synthetic"}, "a synthetic source has no images of an area"),
    ],
)
def test_a_wrong_last_day_is_an_error(given, words):
    with pytest.raises(ConfigError, match=words):
        mapped(**given)


@pytest.mark.parametrize(
    ("starts", "days"), [("02-29", 90), ("02-30", 90), ("4-1", 90), ("01-04-2025", 90), ("04-01", 0), ("04-01", 732)]
)
def test_a_rule_that_no_calendar_has(starts, days):
    with pytest.raises(ConfigError, match="season rule"):
        season_rule(starts, days)


def test_a_year_names_the_season_that_starts_in_it():
    rule = SeasonRule(starts="10-01", days=182)
    assert rule.of_year(2022) == "2022-10-01/182"
    assert rule.ends(2022) == dt.date(2023, 4, 1)
