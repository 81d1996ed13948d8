"""Single pixels that learn from the tags of windows alone."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from exact_core.clues.overlaps import OverlapTags
from exact_core.clues.pixels import PixelModel, PixelTable
from exact_core.clues.tag_pixels import TaggedPixels, by_competition, by_frequency, competing_crops, first_classes
from exact_core.config import RelearnConfig
from exact_core.data.windows.dataset import VOID, WindowDataset
from tests.clues.test_pixels import accuracy

SETTINGS = RelearnConfig()


@pytest.mark.parametrize("second", [[0, 1], [1, 1]], ids=["alone", "never alone"])
def test_each_crop_is_told_from_what_grows_beside_it(second):
    """Background at the origin, crops along an axis each. In the second case all windows of crop 2 have crop 1 too."""
    rng = np.random.default_rng(0)
    tags = np.array([[1, 0], [1, 1], [0, 0], second] * 6, np.uint8)
    truth = np.zeros((len(tags), 60), int)
    truth[:, :20] = tags[:, :1]
    truth[:, 20:40] = 2 * tags[:, 1:]
    features = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])[truth] + rng.normal(0, 0.5, (*truth.shape, 2))
    within = np.concatenate([np.ones((len(tags), 1)), tags], 1)[:, None]
    odds = competing_crops(features, tags, np.broadcast_to(within, (*truth.shape, 3)))
    np.testing.assert_allclose(odds.sum(-1), 1)
    labels = (odds * within).argmax(-1)
    for label in range(3):
        shared, either = (labels == label) & (truth == label), (labels == label) | (truth == label)
        assert shared.sum() / either.sum() > 0.9


def test_first_classes_by_hand():
    """Likeliest tagged crop; low frequencies are background, whatever an untagged crop says."""
    frequencies = np.array([[0.95, 0.9], [0.2, 0.97], [0.2, 0.1], [0.1, 0.9]])
    tags = np.array([[1, 1], [1, 1], [1, 1], [1, 0]], np.uint8)
    classes, threshold = first_classes(frequencies, tags)
    assert 0.2 < threshold < 0.95
    assert classes.tolist() == [1, 2, 0, 0]


WAYS = pytest.mark.parametrize("by", [by_competition, by_frequency])


def learned(windows: WindowDataset, by) -> PixelModel:
    train = windows.indices("train").tolist()
    table = PixelTable(windows, OverlapTags(windows, train).allowed)
    return PixelModel(table, by(TaggedPixels.drawn(table, train, pixels=1000, seed=0), SETTINGS))


@WAYS
def test_labels_are_within_the_tags_and_better_than_the_best_constant(windows, by):
    found = learned(windows, by)
    for index in map(int, windows.indices("train")):
        assert set(np.unique(found.mask(index))) <= {0, VOID, *(np.flatnonzero(windows.tags[index]) + 1)}
    shares = [accuracy(windows, lambda index, at=label: np.full_like(windows.labels(index), at)) for label in range(4)]
    assert accuracy(windows, found.mask) > max(shares) + 0.2


@WAYS
def test_pixels_that_nobody_knows_teach_nothing(dataset, monkeypatch, by):
    """Half of each window is unknown: what it shows changes nothing. A window that is all unknown is left out."""
    side = dataset.manifest.window
    gone = int(dataset.indices("train")[0])

    def unknown(self, index):
        return np.full((side, side), True) if index == gone else np.arange(side) % 2 * np.ones((side, side)) > 0

    monkeypatch.setattr(WindowDataset, "unknown", unknown)
    before = learned(dataset, by)
    real = PixelTable.features

    def spoilt(self, index):
        features = real(self, index).copy()
        features[unknown(None, index).ravel()] = 30_000
        return features

    monkeypatch.setattr(PixelTable, "features", spoilt)
    after = learned(dataset, by)
    monkeypatch.setattr(PixelTable, "features", real)
    for index in map(int, dataset.indices("train")):
        np.testing.assert_array_equal(before.scores(index), after.scores(index))


def test_of_many_windows_those_with_rare_crops_are_drawn(dataset, monkeypatch):
    """Windows 0 to 59, of which one has crop 2. There are pixels for six of them, and each gives at least 64."""
    tags = np.zeros((60, dataset.classes), np.uint8)
    tags[:, 0], tags[7, 1] = 1, 1
    monkeypatch.setattr(dataset, "tags", tags)
    monkeypatch.setattr(dataset, "open", None)
    monkeypatch.setattr(PixelTable, "known", lambda *_: np.arange(dataset.manifest.window**2))
    monkeypatch.setattr(PixelTable, "features", lambda _, index: np.full((dataset.manifest.window**2, 2), index))
    rare, every = 0, list(range(60))
    for seed in range(20):
        drawn = TaggedPixels.drawn(PixelTable(dataset), every, pixels=6 * 64, seed=seed)
        assert drawn.features.shape[:2] == drawn.may_be.shape[:2] == (6, 64)
        shown = drawn.scaler.inverse_transform(drawn.features[:, 0])[:, 0].round()
        assert len(set(shown)) == 6
        rare += 7 in shown
    assert rare > 15
    all_of_them = TaggedPixels.drawn(PixelTable(dataset), every, pixels=60 * 64, seed=0)
    np.testing.assert_array_equal(all_of_them.tags, tags)


def test_frequencies_learn_from_no_tag_that_is_open(windows, monkeypatch):
    """Where a tag says nothing, its value changes nothing."""
    train = windows.indices("train").tolist()
    tags, unsaid = windows.tags.copy(), np.zeros_like(windows.tags)
    tags[train[::2], 0], unsaid[train[::2], 0] = 0, 1
    monkeypatch.setattr(windows, "tags", tags)
    monkeypatch.setattr(windows, "open", unsaid)
    table = PixelTable(windows, lambda _: np.ones((windows.classes + 1, 1, 1)))
    drawn = TaggedPixels.drawn(table, train, pixels=64 * len(train), seed=0)
    assert drawn.told[:, 0].sum() == len(train) // 2
    assert drawn.told[:, 1:].all()
    found = by_frequency(drawn, SETTINGS)
    other = replace(drawn, tags=drawn.tags.copy())
    other.tags[::2, 0] = 1
    np.testing.assert_array_equal(found.coefficients, by_frequency(other, SETTINGS).coefficients)
    other.tags[1::2, 0] = 1 - other.tags[1::2, 0]
    assert (found.coefficients != by_frequency(other, SETTINGS).coefficients).any()


def test_principal_components_are_folded_into_the_coefficients(dataset):
    """A season in other units has the same labels: neither scaler nor components are left out."""
    train = dataset.indices("train").tolist()
    table = PixelTable(dataset)
    drawn = TaggedPixels.drawn(table, train, pixels=1000, seed=0)
    rows = table.features(train[0])
    scaled = drawn.scaler.transform(rows)
    plain = by_competition(drawn, SETTINGS)
    own = TaggedPixels(drawn.features, drawn.may_be, drawn.tags, drawn.told, StandardScaler().fit(scaled * 0 + [[1]]))
    own.scaler.mean_[:], own.scaler.scale_[:] = 0, 1
    np.testing.assert_allclose(plain(rows), by_competition(own, SETTINGS)(scaled), atol=1e-6)
