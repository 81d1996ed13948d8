"""The date that is unlike training, by hand."""

import datetime as dt

import numpy as np
import pytest

from exact_core.config import TransferConfig
from exact_core.data.windows.dataset import VOID, Window
from exact_core.data.windows.series_sample import (
    DateMeans,
    ReferenceSeason,
    SampleBuilder,
    SeasonSamples,
    SeriesSample,
)
from exact_core.evaluation.transfer.single_dates import date_rows, suspects

DAYS = np.array([10.0, 30.0, 50.0, 70.0])
START = dt.date(2024, 3, 1)
SETTINGS = TransferConfig(reach=15)


def training(seen=(True, True, True, True)) -> SeasonSamples:
    """Two pixels and two bands, at 1000 and 3000 (mean 2000, standard deviation 1000) on every day that was seen."""
    series = np.stack([np.full((4, 2), value, np.float32) for value in (1000, 3000)])
    gap = np.where(seen, 0, 99)[None].repeat(2, 0).astype(np.int16)
    none = SeriesSample(series, gap, np.full(2, VOID, np.uint8), np.full(2, np.nan, np.float32), np.zeros(2, np.int32))
    season = ReferenceSeason(
        start=dt.date(2023, 3, 1),
        days=80,
        bands=("B02", "B08"),
        classes=("maize",),
        calendar=tuple(DAYS.tolist()),
        held_out="none",
        labelled="none",
    )
    return SeasonSamples(season, none, none)


def test_a_date_is_held_against_its_time_of_the_year_band_by_band():
    means = DateMeans(np.array([12, 31, 52]), np.array([[2100.0, 1900.0], [1900.0, 2100.0], [5000.0, 4000.0]]))
    rows = date_rows(training(), means, SETTINGS, start=START, days=DAYS)
    assert [row.date for row in rows] == [dt.date(2024, 3, 13), dt.date(2024, 4, 1), dt.date(2024, 4, 22)]
    assert [row.distance for row in rows] == pytest.approx([0.1, 0.1, 2.5])
    assert (rows[2].band, rows[2].shift) == ("B02", pytest.approx(3.0))
    assert [row.suspect for row in rows] == [False, False, True]
    assert suspects(rows) == [rows[2]]


def test_what_training_did_not_see_is_not_judged():
    means = DateMeans(np.array([12, 31, 95]), np.full((3, 2), 2000.0))
    rows = date_rows(training((False, True, True, True)), means, SETTINGS, start=START, days=DAYS)
    assert [row.date for row in rows] == [dt.date(2024, 4, 1)]


def test_a_season_that_is_all_another_has_no_culprit():
    """The same shift on every date, or many dates that stand out, are the season's own."""
    shifted = DateMeans(np.array([10, 30, 50, 70]), np.full((4, 2), 4500.0))
    assert suspects(date_rows(training(), shifted, SETTINGS, start=START, days=DAYS)) == []
    days = np.arange(10, 20)
    values = np.where(np.arange(10) < 4, 5000.0, 2000.0)[:, None].repeat(2, 1)
    rows = date_rows(training(), DateMeans(days, values), SETTINGS, start=START, days=DAYS)
    assert sum(row.suspect for row in rows) == 4
    assert suspects(rows) == []


def test_the_mean_of_a_date_is_that_of_its_clear_pixels():
    """Over windows together, each pixel once; a date without a clear patch is not there."""
    builder = SampleBuilder(DAYS, per_window=4, seed=0)
    for base, clear in ((100, [[1, 0], [0, 0]]), (300, [[1, 1], [1, 0]])):
        pixels = np.full((2, 1, 4, 4), base, np.int16)
        mask = np.zeros((2, 2, 2), np.uint8)
        mask[1] = clear
        builder.add(Window(pixels, np.array([5, 20], np.int16), np.zeros(1, np.uint8), None, mask))
    means = builder.date_means()
    assert means.days.tolist() == [20]
    # 4 pixels of 100 and 12 of 300.
    assert means.mean.tolist() == [[250.0]]
