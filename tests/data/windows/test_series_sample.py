"""A season's sample: what is taken of a window, and that a file gives it back."""

import datetime as dt
from dataclasses import fields

import numpy as np
import pytest

from exact_core.data.windows.dataset import VOID, Window
from exact_core.data.windows.series_sample import (
    NEVER,
    ReferenceSeason,
    SampleBuilder,
    SeasonSamples,
    SeriesSample,
    clear_looks,
    load_season_samples,
    look_gaps,
    save_season_samples,
    some_dates,
)
from exact_core.errors import CorruptError

CALENDAR = np.array([10.0, 30.0, 50.0])


def window():
    """Two dates and a third under a cloud, of 4 x 4 pixels of one band; the right patches have one clear look only."""
    pixels = np.full((3, 1, 4, 4), 1000, np.int16) * np.array([1, 3, 9], np.int16)[:, None, None, None]
    clear = np.ones((3, 2, 2), np.uint8)
    clear[2] = 0
    clear[1, :, 1] = 0
    pixels[0, :, 0, 0] = 0  # one pixel that was not measured spoils its patch
    return Window(
        pixels=pixels, days=np.array([10, 50, 60], np.int16), tags=np.zeros(1, np.uint8), labels=None, clear=clear
    )


def test_looks_and_gaps_by_hand():
    clear = clear_looks(window())
    np.testing.assert_array_equal(clear[:, 0, 0], [False, True, False])
    np.testing.assert_array_equal(clear[:, 1, 0], [True, True, False])
    gaps = look_gaps(window().days, clear, CALENDAR)
    np.testing.assert_array_equal(gaps[0, 0], [40, 20, 0])
    np.testing.assert_array_equal(gaps[1, 0], [0, 20, 0])
    np.testing.assert_array_equal(gaps[1, 1], [0, 20, 40])
    assert (look_gaps(window().days, np.zeros((3, 1, 1), bool), CALENDAR) == NEVER).all()


def test_pixels_with_two_clear_looks_are_taken():
    builder = SampleBuilder(CALENDAR, per_window=100, seed=0)
    chances = np.zeros((3, 4, 4), np.float32)
    chances[2], chances[0] = 0.7, 0.3
    builder.add(window(), chances)
    sample = builder.finish()
    assert len(sample) == 4  # the lower left patch
    np.testing.assert_array_equal(sample.series[:, :, 0], [[1000, 2000, 3000]] * 4)
    assert (sample.label == 2).all()
    np.testing.assert_allclose(sample.confidence, 0.7)
    assert np.isnan(sample.supported(15)[0, 1]).all()
    assert not np.isnan(sample.supported(15)[0, [0, 2]]).any()
    mean, std = builder.measured()
    values = np.repeat([1000.0, 3000.0, 9000.0], [15, 16, 16])
    np.testing.assert_allclose(mean, values.mean())
    np.testing.assert_allclose(std, values.std())


def test_a_share_of_the_dates_by_hand():
    draws = [some_dates(window(), 0.67, np.random.default_rng(seed)) for seed in range(30)]
    assert {tuple(each.days.tolist()) for each in draws} == {(10, 50), (10, 60), (50, 60)}
    for each in draws:
        places = np.searchsorted(window().days, each.days)
        np.testing.assert_array_equal(each.pixels, window().pixels[places])
        np.testing.assert_array_equal(each.clear, window().clear[places])
    again = some_dates(window(), 0.67, np.random.default_rng(0))
    np.testing.assert_array_equal(again.days, draws[0].days)
    # A series needs two; all of them are all of them.
    assert len(some_dates(window(), 0.01, np.random.default_rng(0)).days) == 2
    np.testing.assert_array_equal(some_dates(window(), 1.0, np.random.default_rng(0)).pixels, window().pixels)


def test_a_file_gives_back_what_was_saved(tmp_path):
    builder = SampleBuilder(CALENDAR, per_window=2, seed=0)
    builder.add(window())
    season = ReferenceSeason(
        start=dt.date(2022, 4, 1),
        days=60,
        bands=("B04",),
        classes=("wheat",),
        calendar=tuple(CALENDAR.tolist()),
        held_out="none",
        labelled="nothing",
    )
    saved = SeasonSamples(season, builder.finish(), SampleBuilder(CALENDAR, per_window=2, seed=0).finish())
    save_season_samples(tmp_path / "reference.safetensors", saved)
    loaded = load_season_samples(tmp_path / "reference.safetensors")
    assert loaded.season == season
    for one, other in ((saved.train, loaded.train), (saved.held_out, loaded.held_out)):
        for each in fields(SeriesSample):
            np.testing.assert_array_equal(getattr(one, each.name), getattr(other, each.name))
    assert (loaded.train.label == VOID).all()
    assert len(loaded.held_out) == 0
    assert not list(tmp_path.glob("*.partial"))


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "reference.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(CorruptError, match="not a readable reference sample"):
        load_season_samples(path)
