"""How unlike two samples are: each kernel by hand, against another's code, and what must not change it."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import nan_euclidean_distances

from exact_core.data.windows.dataset import VOID
from exact_core.evaluation.transfer.distances import (
    band_distance,
    best_lag,
    class_curves,
    curve_lag,
    importance,
    neighbour_distances,
    normalised_difference,
)

RNG = np.random.default_rng(0)
CALENDAR = np.arange(5.0, 300, 10)


def test_the_distance_of_bands_is_in_their_standard_deviations():
    ours = np.array([0.0, 2.0])  # standard deviation 1
    assert band_distance(ours, ours) == (0, 0)
    assert band_distance(ours, ours + 3) == (3, 3)
    # The same mean, but spread: each half lies 1 away.
    assert band_distance(ours, np.array([-1.0, 3.0])) == (0, 1)
    assert band_distance(10 * ours + 7, np.array([3.0, np.nan, -1.0]) * 10 + 7) == (0, 1)
    assert np.isnan(band_distance(ours, np.array([np.nan]))).all()


def test_neighbours_are_those_of_sklearn():
    query, train = RNG.normal(size=(30, 4, 3)), RNG.normal(size=(50, 4, 3))
    query[RNG.random(query.shape) < 0.3] = np.nan
    train[RNG.random(train.shape) < 0.3] = np.nan
    std = np.array([1.0, 2.0, 0.5])
    scaled = [(each / std).reshape(len(each), -1) for each in (query, train)]
    # A root of a mean instead of a sum scaled up to all coordinates.
    expected = np.sort(nan_euclidean_distances(*scaled) / np.sqrt(12), 1)[:, 2]
    found = neighbour_distances(query.astype(np.float32), train.astype(np.float32), std, neighbours=3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    query[0] = np.nan
    found = neighbour_distances(query.astype(np.float32), train.astype(np.float32), std, neighbours=3)
    assert np.isnan(found[0])
    assert not np.isnan(found[1:]).any()


def bells(centres):
    """A bump of 30 days' width around a day, in two bands of opposite sign; (N, G, 2)."""
    bump = np.exp(-(((CALENDAR - np.array(centres)[:, None]) / 30) ** 2))
    return np.stack([bump, -bump], 2).astype(np.float32)


@pytest.mark.parametrize("late", [-40, 0, 25])
def test_a_shifted_season_is_found(late):
    train = bells(RNG.uniform(145, 155, 300))
    query = bells(RNG.uniform(145, 155, 100) + late)
    lag, curve = best_lag(query, train, np.array([1.0, 1.0]), CALENDAR, neighbours=5)
    assert abs(lag - late) <= 5
    assert len(curve) == 25


def test_ndvi_and_classes_curves_by_hand():
    series = np.tile(np.array([1000, 3000], np.float32), (40, 3, 1))
    assert normalised_difference(series, ("B02", "B03")) is None
    values = normalised_difference(series, ("B04", "B08"))
    np.testing.assert_allclose(values, 0.5)
    label = np.repeat([0, 1], [30, 10]).astype(np.uint8)
    values[:30, 1] = np.nan
    curves = class_curves(values, label, classes=1)
    np.testing.assert_allclose(curves[0], [0.5, np.nan, 0.5])
    assert np.isnan(curves[1]).all()  # ten series are too few


@pytest.mark.parametrize("late", [-40, -15, 0, 25])
def test_a_class_that_grows_later(late):
    old, new = (bells([150 + days])[0, :, 0].astype(float) for days in (0, late))
    assert curve_lag(new, old, CALENDAR) == pytest.approx(late, abs=2.5)
    assert curve_lag(old, new, CALENDAR) == pytest.approx(-late, abs=2.5)
    # Neither a level nor a height says anything of time.
    assert curve_lag(0.9 * new + 0.02, old, CALENDAR) == pytest.approx(late, abs=2.5)


def test_two_summers_are_not_taken_for_each_other():
    bump = [np.exp(-(((CALENDAR - day) / 20) ** 2)) for day in (80, 220)]
    old, new = 0.81 * bump[0] + 0.8 * bump[1], 0.8 * bump[0] + 0.81 * bump[1]
    assert curve_lag(new, old, CALENDAR) == 0


def test_a_curve_that_tells_no_time():
    old = bells([150])[0, :, 0].astype(float)
    assert curve_lag(np.full(len(CALENDAR), 0.3), old, CALENDAR) is None
    assert curve_lag(np.where(CALENDAR < 200, np.nan, 0.5), old, CALENDAR) is None


def test_the_days_on_which_classes_part_tell_most():
    label = np.repeat([0, 1], 50).astype(np.uint8)
    noise = RNG.normal(0, 0.01, (100, 30, 1))
    series = 0.5 + noise + np.where((label == 1)[:, None] & (abs(CALENDAR - 155) < 20), 0.3, 0)[..., None]
    weights = importance(series.astype(np.float32), label, ("B04",), classes=1)
    assert weights.sum() == pytest.approx(1)
    assert abs(CALENDAR[weights.argmax()] - 155) < 25
    assert weights[abs(CALENDAR - 155) < 25].sum() > 0.5
    unknown = np.full(100, VOID, np.uint8)
    assert importance(series.astype(np.float32), unknown, ("B04",), classes=1).sum() == pytest.approx(1)
