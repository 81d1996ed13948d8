"""Which dates are kept and as what they are read; tests/parity/test_data.py holds both against recorded arrays."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
from hypothesis import given, strategies as st

from exact_core.config import DataConfig, PastisConfig
from exact_core.data.pastis.dates import limit_dates, read_dates
from exact_core.data.pastis.patches import ingest_pastis
from exact_core.data.windows.dataset import WindowDataset
from tests.fakes import PASTIS_DATES, pastis_pixel, write_pastis

DATES = (dt.date(2019, 11, 6), dt.date(2018, 11, 5), dt.date(2019, 5, 1), dt.date(2019, 1, 2))
dates = st.lists(st.dates(dt.date(2018, 9, 1), dt.date(2020, 12, 31)), min_size=1, max_size=40, unique=True)


def test_cut_loses_the_end_of_the_calendar_year_and_thin_a_part_of_each_season() -> None:
    # By day of year: 2 January (2), 1 May (121), 5 November 2018 (309), 6 November 2019 (310).
    assert limit_dates(DATES, 3, rule="cut").tolist() == [1, 3, 2]
    assert limit_dates(DATES, 2, rule="cut").tolist() == [3, 2]
    # Two runs in the calendar's order: autumn and winter, spring and autumn; the first of each.
    assert limit_dates(DATES, 2, rule="thin").tolist() == [1, 2]


@given(dates, st.integers(1, 50), st.sampled_from(["thin", "cut"]))
def test_what_is_kept_is_the_calendars_order_and_no_more_than_the_limit(found, limit, rule) -> None:
    kept = limit_dates(found, limit, rule=rule)
    assert len(kept) == min(limit, len(found))
    chosen = [found[position] for position in kept]
    assert chosen == sorted(chosen)
    if rule == "cut":
        # By plain sorting: no date that is left out lies earlier in the year than one that stayed.
        left = set(found) - set(chosen)
        last = max(date.timetuple().tm_yday for date in chosen)
        assert all(date.timetuple().tm_yday >= last for date in left)


@given(dates, st.integers(1, 50), st.sampled_from(["thin", "cut"]), st.randoms())
def test_the_order_in_which_dates_come_does_not_matter(found, limit, rule, random) -> None:
    shuffled = random.sample(found, len(found))
    one, other = limit_dates(found, limit, rule=rule), limit_dates(shuffled, limit, rule=rule)
    assert [found[position] for position in one] == [shuffled[position] for position in other]


def test_the_days_that_rounding_loses() -> None:
    year = [dt.date(2020, 1, 1) + dt.timedelta(days=day) for day in range(366)]
    lost = [date for date, read in zip(year, read_dates(year, rule="published"), strict=True) if read != date]
    assert len(lost) == 19
    assert set(read_dates(lost, rule="published")) == {date - dt.timedelta(days=1) for date in lost}
    assert dt.date(2020, 1, 13) in lost
    assert dt.date(2020, 12, 31) in lost
    assert read_dates(lost, rule="exact") == tuple(lost)


def test_the_options_reach_the_dataset(tmp_path: Path) -> None:
    """Cut to 3 dates by day of year, and 12 February (day 43) kept while 13 January (day 13) is read as the 12th."""
    taken = (20181105, 20190113, 20181220, 20190212)
    assert len(taken) == len(PASTIS_DATES)
    root = write_pastis(tmp_path / "pastis", dates=taken)
    settings = PastisConfig(date_limit="cut", day_rounding="published")
    ingest_pastis(root, DataConfig(max_dates=3, pastis=settings), tmp_path / "out")
    dataset = WindowDataset(tmp_path / "out")
    window = dataset.window(0)
    start = dataset.manifest.season_start
    read = [start + dt.timedelta(days=int(day)) for day in window.days]
    assert read == [dt.date(2018, 11, 5), dt.date(2019, 1, 12), dt.date(2019, 2, 12)]
    for place, position in enumerate((0, 1, 3)):
        np.testing.assert_array_equal(window.pixels[place], pastis_pixel(0, position, 48)[:, :24, :24])
    assert any("5 patches have more than 3 dates and were cut to the first" in note for note in dataset.manifest.notes)
    assert any("read as the day before" in note for note in dataset.manifest.notes)
