"""Single pixels that learn from the tags of windows alone."""

import numpy as np
import pytest

from exact_core.clues.overlaps import OverlapTags
from exact_core.clues.tag_pixels import TagPixels, competing_crops
from exact_core.config import RelearnConfig
from exact_core.data.windows.dataset import WindowDataset
from tests.clues.test_pixels import accuracy

SETTINGS = RelearnConfig(pixels=1000)


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


def learned(windows: WindowDataset) -> TagPixels:
    train = windows.indices("train").tolist()
    return TagPixels(windows, train, SETTINGS, allowed=OverlapTags(windows, train).allowed, seed=0)


def test_labels_are_within_the_tags_and_better_than_the_best_constant(dataset):
    found = learned(dataset)
    for index in map(int, dataset.indices("train")):
        assert set(np.unique(found.labels(index))) <= {0, *(np.flatnonzero(dataset.tags[index]) + 1)}
    shares = [accuracy(dataset, lambda index, at=label: np.full_like(dataset.labels(index), at)) for label in range(4)]
    assert accuracy(dataset, found.labels) > max(shares) + 0.05


def test_pixels_that_nobody_knows_teach_nothing(dataset, monkeypatch):
    """Half of each window is unknown: what it shows changes nothing. A window that is all unknown is left out."""
    side = dataset.manifest.window
    gone = int(dataset.indices("train")[0])

    def unknown(self, index):
        return np.full((side, side), True) if index == gone else np.arange(side) % 2 * np.ones((side, side)) > 0

    monkeypatch.setattr(WindowDataset, "unknown", unknown)
    before = learned(dataset)
    real = TagPixels._features

    def spoilt(self, index):
        features = real(self, index).copy()
        features[unknown(None, index).ravel()] = 30_000
        return features

    monkeypatch.setattr(TagPixels, "_features", spoilt)
    after = learned(dataset)
    monkeypatch.setattr(TagPixels, "_features", real)
    for index in map(int, dataset.indices("train")):
        np.testing.assert_array_equal(before.labels(index), after.labels(index))
