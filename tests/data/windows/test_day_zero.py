"""Day 0 of a season, as a model was trained on it and as it is used."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from exact_core.config import DataConfig, SeasonConfig
from exact_core.data.season.folder import ingest_season, open_season
from exact_core.data.windows.combined import check_alike
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.day_zero import anniversary, check_day_zero, nearest_start
from exact_core.errors import ConfigError
from tests.fakes import write_season

DATES = ("20190412", "20190422", "20190502", "20190512", "20190522")


def test_the_same_day_of_another_year() -> None:
    assert anniversary(dt.date(2017, 8, 4), 2021) == dt.date(2021, 8, 4)
    assert anniversary(dt.date(2020, 2, 29), 2021) == dt.date(2021, 2, 28)
    check_day_zero(dt.date(2020, 2, 29), dt.date(2021, 2, 28), what="a", other="b")
    with pytest.raises(ConfigError, match="a: days count from 20 September, those of b from 04 August"):
        check_day_zero(dt.date(2018, 9, 20), dt.date(2017, 8, 4), what="a", other="b")


@pytest.mark.parametrize(
    ("trained", "days", "first", "last", "start"),
    [
        # Later in the same season, earlier, and across a new year.
        ("2017-08-04", 481, "2018-09-20", "2019-11-01", "2018-08-04"),
        ("2017-10-01", 300, "2020-09-15", "2021-06-01", "2020-10-01"),
        ("2018-01-01", 365, "2020-12-28", "2021-11-20", "2021-01-01"),
        ("2020-02-29", 200, "2021-03-01", "2021-08-01", "2021-02-28"),
    ],
)
def test_the_year_that_suits_most_dates(trained: str, days: int, first: str, last: str, start: str) -> None:
    begin, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    dates = [begin + (end - begin) * step / 20 for step in range(21)]
    found = nearest_start(dt.date.fromisoformat(trained), days, dates, begin)
    assert found == dt.date.fromisoformat(start)


def test_day_zero_does_not_follow_the_first_image(tmp_path: Path) -> None:
    """Without a first day in the settings it is that of the quarter, whichever of its images is there."""
    found = []
    for name, dates in (("a", DATES), ("b", DATES[1:])):
        ingest_season(write_season(tmp_path / name, dates=dates), DataConfig(window=8), tmp_path / f"{name}.d", seed=0)
        dataset = WindowDataset(tmp_path / f"{name}.d")
        found.append(dataset.window(0).days.tolist())
        assert dataset.manifest.season_start == dt.date(2019, 4, 1)
    assert found == [[11, 21, 31, 41, 51], [21, 31, 41, 51]]


def test_days_count_as_in_the_model(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", dates=DATES)
    settings = DataConfig(season=SeasonConfig(start=dt.date(2019, 4, 12), days=60))
    plain = open_season(root, settings)
    assert plain.days.tolist() == [0, 10, 20, 30, 40]
    # Day 0 of the model is 25 March: the dates are 18 days further in its season.
    images = open_season(root, settings, trained=(dt.date(2017, 3, 25), 100))
    assert images.days.tolist() == [18, 28, 38, 48, 58]
    assert (images.start, images.length) == (dt.date(2019, 3, 25), 78)
    assert any("days count from 2019-03-25, as in the model's season (2017-03-25)" in note for note in images.notes)
    # 30 April: what lies before it was never seen by the model.
    images = open_season(root, settings, trained=(dt.date(2017, 4, 30), 100))
    assert images.days.tolist() == [2, 12, 22]
    assert any("2 dates before it, which the model has not seen, were left out" in note for note in images.notes)
    # The same day of the year: nothing changes, nothing is said.
    images = open_season(root, settings, trained=(dt.date(2017, 4, 12), 100))
    assert images.days.tolist() == plain.days.tolist()
    assert not any("days count" in note for note in images.notes)
    with pytest.raises(
        ConfigError, match="trained on the 60 days from 01 August on and knows no other time of the year"
    ):
        open_season(root, settings, trained=(dt.date(2017, 8, 1), 60))


def test_seasons_of_another_day_zero_are_not_joined(tmp_path: Path) -> None:
    datasets = []
    for name, start in (("a", dt.date(2019, 4, 1)), ("b", dt.date(2019, 4, 11))):
        config = DataConfig(window=8, season=SeasonConfig(start=start))
        ingest_season(write_season(tmp_path / name, dates=DATES), config, tmp_path / f"{name}.d", seed=0)
        datasets.append(WindowDataset(tmp_path / f"{name}.d"))
    with pytest.raises(ConfigError, match=r"b\.d: days count from 11 April, those of .*a\.d from 01 April"):
        check_alike(datasets)
