"""How unlike two samples are: each kernel by hand, against another's code, and what must not change it."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import nan_euclidean_distances

from exact_core.data.dataset import VOID
from exact_core.evaluation.unlike import (
    band_distance,
    best_lag,
    class_curves,
    importance,
    neighbour_distances,
    normalised_difference,
    peak_day,
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


def test_the_peak_is_the_middle_of_the_height():
    assert peak_day(bells([150])[0, :, 0].astype(float), CALENDAR) == pytest.approx(150, abs=1)
    plateau = np.where(abs(CALENDAR - 160) < 50, 0.8, 0.2)
    assert peak_day(plateau, CALENDAR) == pytest.approx(160, abs=6)
    assert peak_day(np.full(30, 0.3), CALENDAR) is None
    assert peak_day(np.where(CALENDAR < 200, np.nan, 0.5), CALENDAR) is None


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
