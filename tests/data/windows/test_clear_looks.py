"""Clear looks, by pixel and over the calendar."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from exact_core.data.windows.clear_looks import all_of_patches, calendar_text, check_gaps, ground_between, longest_gap
from exact_core.errors import DataError

START = dt.date(2021, 9, 1)


def test_patches_by_hand() -> None:
    ground = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 0, 1]], bool)
    assert all_of_patches(ground).tolist() == [[True, False], [False, False]]


def test_a_cloud_grows_and_a_speck_goes() -> None:
    hidden = np.zeros((12, 12), bool)
    hidden[1, 1] = hidden[5:9, 5:9] = True
    grown = ~ground_between(hidden, dilation=2)
    expected = np.zeros((12, 12), bool)
    expected[:4, :4] = True
    expected[3:11, 3:11] = True
    np.testing.assert_array_equal(grown, expected)
    opened = ~ground_between(hidden, erosion=1)
    expected = np.zeros((12, 12), bool)
    expected[5:9, 5:9] = True
    np.testing.assert_array_equal(opened, expected)
    # The speck goes first, then the rest grows.
    both = ~ground_between(hidden, erosion=1, dilation=1)
    expected[4:10, 4:10] = True
    np.testing.assert_array_equal(both, expected)


@pytest.mark.parametrize("erosion", [0, 1, 2])
@pytest.mark.parametrize("dilation", [0, 1, 3])
def test_as_scipy_has_it(erosion: int, dilation: int) -> None:
    from scipy import ndimage

    hidden = np.random.default_rng(erosion + 10 * dilation).random((31, 22)) < 0.3
    found = ~ground_between(hidden, erosion=erosion, dilation=dilation)
    square = np.ones((3, 3), bool)
    if erosion:
        hidden = ndimage.binary_erosion(hidden, square, iterations=erosion, border_value=1)
    if erosion + dilation:
        hidden = ndimage.binary_dilation(hidden, square, iterations=erosion + dilation)
    np.testing.assert_array_equal(found, hidden)


def test_gap_by_hand() -> None:
    # Looks of 1 on days 10 and 40, of 0.4 on days 20 and 30: from 11 to 39 they add up to 0.8.
    days, shares = np.array([10, 20, 30, 40]), np.array([1.0, 0.4, 0.4, 1.0])
    assert longest_gap(days, shares, 50) == (11, 40)
    # Two of 0.6 make a look: 11 to 29, or 21 to 39; the first counts.
    assert longest_gap(days, np.array([1.0, 0.6, 0.6, 1.0]), 50) == (11, 30)
    assert longest_gap(days, shares, 100) == (41, 100)
    assert longest_gap(np.array([5]), np.array([0.0]), 20) == (0, 20)


def test_what_the_calendar_shows_as_one_look_ends_a_gap() -> None:
    days = np.array([10, 30, 50])
    # 0.985 of a look is printed as 1.0; a date that is marked # is a look; 0.4 and 0.5 are printed as 0.9.
    assert longest_gap(days, np.array([0.0, 0.985, 0.0]), 60) == (0, 30)
    assert longest_gap(days, np.array([0.5, 0.0, 0.485]), 60) == (0, 50)
    assert longest_gap(days, np.array([0.0, 0.8, 0.0]), 60) == (0, 30)
    assert longest_gap(days, np.array([0.4, 0.0, 0.5]), 60) == (0, 60)


@settings(max_examples=200, deadline=None)
@given(
    looks=st.lists(st.tuples(st.integers(0, 59), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=12),
)
def test_gap_as_by_trying_all(looks: list[tuple[int, float]]) -> None:
    looks = sorted({day: (day, share) for day, share in looks}.values())
    days, shares = np.array([day for day, _ in looks]), np.array([share for _, share in looks])
    lengths = [
        last - first
        for first in range(61)
        for last in range(first, 61)
        if sum(share for day, share in looks if first <= day < last) < 1
    ]
    first, last = longest_gap(days, shares, 60)
    assert last - first == max(lengths)
    assert sum(share for day, share in looks if first <= day < last) < 1


def test_a_gap_is_refused_with_the_calendar() -> None:
    days = np.array([0, 20, 40, 200, 210])
    with pytest.raises(DataError) as caught:
        check_gaps(days, np.array([1, 1, 0.5, 0.3, 1]), start=START, length=240, limit=120, source="season:x")
    message = str(caught.value)
    # After 21 September: 0.5 and 0.3 are less than one look; it comes on day 210.
    assert (
        "from 2021-09-22 to 2022-03-29, 189 days, 2 dates give 0.8 clear observations of an average pixel. At least one"
        in message
    )
    assert "data.season.longest_gap" in message
    assert message.splitlines()[1] == "  2021-09    2 dates    2.0 clear observations  ##"
    assert message.splitlines()[2] == "  2021-10    1 dates    0.5 clear observations  +"
    assert message.splitlines()[3] == "  2021-11    0 dates    0.0 clear observations"
    check_gaps(days, np.array([1, 1, 0.5, 0.3, 1]), start=START, length=240, limit=189, source="season:x")


def test_the_calendar_of_a_season_that_crosses_the_new_year() -> None:
    text = calendar_text(np.array([0, 130]), np.array([0.1, 0.9]), start=START, length=150)
    months = [line.split()[0] for line in text.splitlines()]
    assert months == ["2021-09", "2021-10", "2021-11", "2021-12", "2022-01"]
    assert text.splitlines()[0].endswith(".")
    assert text.splitlines()[-1].endswith("#")
