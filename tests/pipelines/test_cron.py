"""KFP's six fields: what is refused, and when the next slot is."""

import datetime as dt

import pytest
from exact_kubeflow.pipelines.cron import Cron
from hypothesis import given, strategies as st

from exact_core.errors import ConfigError

# A Sunday.
AFTER = dt.datetime(2026, 11, 22, 12, 0, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("expression", "slot"),
    [
        ("0 0 3 1 9 *", "2027-09-01T03:00:00"),
        ("0 0 12 22 11 *", "2027-11-22T12:00:00"),
        ("1 0 12 22 11 *", "2026-11-22T12:00:01"),
        ("*/20 * * * * *", "2026-11-22T12:00:20"),
        ("0 5/25 * * * ?", "2026-11-22T12:05:00"),
        ("0 30 6 ? * MON", "2026-11-23T06:30:00"),
        ("0 0 0 1 JAN,apr *", "2027-01-01T00:00:00"),
        ("0 0 0 29 2 *", "2028-02-29T00:00:00"),
        ("0 0 9 * * 2-4", "2026-11-24T09:00:00"),
        # Both day fields given: either will do.
        ("0 0 0 25 * TUE", "2026-11-24T00:00:00"),
        ("0 0 0 23 * TUE", "2026-11-23T00:00:00"),
        ("0 0 0 30 2 *", None),
        # A star anywhere in a list leaves its field open, so that both must fit (robfig/cron v1.2.0).
        ("0 0 0 5-25,*/24 * TUE", "2026-11-24T00:00:00"),
        ("0 0 0 1,*/30 * MON", "2027-02-01T00:00:00"),
        ("0 0 9 *-5 * *", "2026-11-23T09:00:00"),
    ],
)
def test_the_next_slot_by_hand(expression, slot):
    expected = slot and dt.datetime.fromisoformat(slot).replace(tzinfo=dt.UTC)
    assert Cron.parse(expression).next_after(AFTER) == expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 3 1 9 *", r"second 0, minute 3, hour 1\. Put a 0 in front: '0 0 3 1 9 \*'"),
        ("", "0 fields"),
        ("@monthly", "write out six fields"),
        ("0 0 24 1 9 *", "hours '24': outside 0-23"),
        ("60 0 0 1 9 *", "seconds '60': outside 0-59"),
        ("0 0 0 0 9 *", "day of month '0': outside 1-31"),
        ("0 0 0 * * 7", "day of week '7': outside 0-6"),
        ("0 0 0 * SEPT *", "'SEPT' is no number and none of JAN"),
        ("0 9-5 0 * * *", "backwards"),
        ("0 */0 0 * * *", "a step of 0"),
        ("0 a 0 * * *", "'a' is no number"),
        ("0 1,,2 0 * * *", "expected a number"),
        ("0 L 0 * * *", "'L' is no number"),
    ],
)
def test_what_is_wrong_is_named(expression, words):
    with pytest.raises(ConfigError, match=words):
        Cron.parse(expression)


@given(
    st.tuples(*(st.integers(low, high) for low, high in ((0, 59), (0, 59), (0, 23), (1, 28), (1, 12)))),
    st.datetimes(min_value=dt.datetime(2000, 1, 1), max_value=dt.datetime(2090, 1, 1)),
)
def test_a_slot_a_year(fields, moment):
    """Fixed fields have one slot a year: the next is this year's if that is still to come, else the next year's."""
    second, minute, hour, day, month = fields
    moment = moment.replace(tzinfo=dt.UTC)
    this = dt.datetime(moment.year, month, day, hour, minute, second, tzinfo=dt.UTC)
    slot = Cron.parse(f"{second} {minute} {hour} {day} {month} *").next_after(moment)
    assert slot == (this if this > moment.replace(microsecond=0) else this.replace(year=moment.year + 1))
