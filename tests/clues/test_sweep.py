import numpy as np
import pytest
import torch

from exact_core.clues.masks import pseudo_masks, strongest_class
from exact_core.clues.sweep import sweep_confusions, sweep_counts, sweep_figures
from exact_core.data.windows.dataset import VOID
from exact_core.errors import DataError
from exact_core.metrics import Scores, confusion_matrix

CLASSES = 4
THRESHOLDS = np.arange(60) / 100


def scene(seed=0, *, windows=5, side=12):
    """CAMs on a grid of values that meets many thresholds exactly, some just beside one, and truth with void."""
    rng = np.random.default_rng(seed)
    cams = rng.integers(0, 101, (windows, CLASSES, side, side)).astype(np.float32) / np.float32(100)
    beside = rng.random(cams.shape)
    cams = np.where(beside < 0.1, np.nextafter(cams, np.float32(2)), cams)
    cams = np.where(beside > 0.9, np.nextafter(cams, np.float32(0)), cams) * (
        rng.random((windows, CLASSES, 1, 1)) < 0.6
    )
    truth = rng.integers(0, CLASSES + 1, (windows, side, side)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.05] = VOID
    return torch.from_numpy(cams.astype(np.float32)), truth


def by_passes(cams, truth, thresholds):
    """One pass over the pixels a threshold."""
    masks = [pseudo_masks(cams, float(threshold)).numpy() for threshold in thresholds]
    return (
        np.stack([confusion_matrix(truth, mask, classes=CLASSES) for mask in masks]),
        np.stack([np.bincount(mask.reshape(-1), minlength=CLASSES + 1) for mask in masks]),
    )


@pytest.mark.parametrize("seed", range(3))
def test_equals_one_pass_a_threshold_also_on_ties(seed):
    cams, truth = scene(seed)
    strongest, label = strongest_class(cams)
    matrices, counts = by_passes(cams, truth, THRESHOLDS)
    np.testing.assert_array_equal(sweep_confusions(strongest, label, truth, THRESHOLDS, CLASSES), matrices)
    np.testing.assert_array_equal(sweep_counts(strongest, label, THRESHOLDS, CLASSES), counts)


def test_thresholds_in_any_order_repeated_and_beyond_the_range():
    cams, truth = scene()
    strongest, label = strongest_class(cams)
    thresholds = [0.5, -1.0, 0.2, 0.2, 2.0, 0.0, 1.0]
    matrices, counts = by_passes(cams, truth, thresholds)
    np.testing.assert_array_equal(sweep_confusions(strongest, label, truth, thresholds, CLASSES), matrices)
    np.testing.assert_array_equal(sweep_counts(strongest, label, thresholds, CLASSES), counts)


def test_by_hand():
    """Three pixels: crop 1 at 0.9, crop 2 at 0.3, and one of strength 0; truth 1, 1, 0."""
    strongest, label, truth = torch.tensor([0.9, 0.3, 0.0]), torch.tensor([1, 2, 1]), np.array([1, 1, 0], np.uint8)
    found = sweep_confusions(strongest, label, truth, [0.0, 0.3, 0.9], 2)
    assert found[0].tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert found[1].tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found[2].tolist() == [[1, 0, 0], [2, 0, 0], [0, 0, 0]]
    assert sweep_counts(strongest, label, [0.0, 0.3, 0.9], 2).tolist() == [[1, 1, 1], [2, 1, 0], [3, 0, 0]]


def test_batches_add_up():
    cams, truth = scene(windows=6)
    strongest, label = strongest_class(cams)
    whole = sweep_confusions(strongest, label, truth, THRESHOLDS, CLASSES)
    parts = [sweep_confusions(strongest[i::2], label[i::2], truth[i::2], THRESHOLDS, CLASSES) for i in range(2)]
    np.testing.assert_array_equal(sum(parts), whole)


def test_figures_are_those_of_scores():
    cams, truth = scene()
    strongest, label = strongest_class(cams)
    matrices = sweep_confusions(strongest, label, truth, THRESHOLDS, CLASSES)
    accuracy, miou = sweep_figures(matrices)
    assert accuracy[7] == Scores(matrices[7]).oa_micro
    assert miou[7] == Scores(matrices[7]).miou_macro
    assert len(accuracy) == len(miou) == len(THRESHOLDS)


def test_no_pixel_counts_nothing():
    nothing = np.zeros(0, np.uint8)
    assert not sweep_confusions(np.zeros(0, np.float32), nothing, nothing, THRESHOLDS, CLASSES).any()


def test_bad_input_is_named():
    value, label, truth = np.zeros(3, np.float32), np.ones(3, np.uint8), np.zeros(3, np.uint8)
    with pytest.raises(DataError, match="one label a pixel"):
        sweep_counts(value, label[:2], THRESHOLDS, CLASSES)
    with pytest.raises(DataError, match=r"1\.\.4"):
        sweep_counts(value, truth, THRESHOLDS, CLASSES)
    with pytest.raises(DataError, match="out of range"):
        sweep_confusions(value, label, truth + 5, THRESHOLDS, CLASSES)
    with pytest.raises(DataError, match="same pixels"):
        sweep_confusions(value, label, truth[:2], THRESHOLDS, CLASSES)
    with pytest.raises(DataError, match="at least one threshold"):
        sweep_counts(value, label, [], CLASSES)
