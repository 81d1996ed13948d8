from types import SimpleNamespace

import numpy as np
import pytest

from exact_core.clues import pixels
from exact_core.clues.pixels import FirstMask, PixelModel, PixelTable, sure_pixels, taught_by_masks
from exact_core.clues.regression import PixelOdds, fit_pixels
from exact_core.config import RelearnConfig
from exact_core.data.windows.dataset import VOID, WindowDataset

SETTINGS = RelearnConfig(pixels=8000)


def spoilt(windows: WindowDataset, share: float) -> dict[int, np.ndarray]:
    """True masks of the training windows in which a share of the pixels has another label that the tags allow."""
    rng = np.random.default_rng(0)
    masks = {}
    for index in map(int, windows.indices("train")):
        mask = np.where(windows.labels(index) > windows.classes, 0, windows.labels(index)).astype(np.uint8)
        allowed = np.flatnonzero([1, *windows.records[index].tags])
        wrong = rng.random(mask.shape) < share
        masks[index] = np.where(wrong, rng.choice(allowed, mask.shape), mask).astype(np.uint8)
    return masks


def model(windows, masks, seed=0, unsure=None):
    table = PixelTable(windows)
    first = (FirstMask(index, mask, mask < 99 if unsure is None else ~unsure[index]) for index, mask in masks.items())
    return PixelModel(table, taught_by_masks(table, first, SETTINGS, count=len(masks), seed=seed))


def accuracy(windows, mask_of):
    right, total = 0, 0
    for index in map(int, windows.indices("train")):
        truth = windows.labels(index)
        known = truth <= windows.classes
        right, total = right + (mask_of(index) == truth)[known].sum(), total + known.sum()
    return right / total


def test_errors_scattered_over_the_masks_are_mended(windows):
    masks = spoilt(windows, 0.4)
    learned = model(windows, masks)
    assert accuracy(windows, masks.__getitem__) < 0.8
    assert accuracy(windows, learned.mask) > 0.9


def test_sure_pixels_by_hand():
    strongest = np.array([0.0, 0.21, 0.39, 0.4, 0.59, 0.61, 1.0])
    assert sure_pixels(strongest, 0.4, 0.2).tolist() == [True, False, False, False, False, True, True]


@pytest.mark.parametrize(("threshold", "sure"), [(0.9, [True, False, True]), (0.1, [True, True, True])])
def test_near_0_and_1_the_margin_leaves_both_sides_something_to_learn_from(threshold, sure):
    """0.9 + 0.2 is beyond every CAM, and so is 0.1 - 0.2."""
    assert sure_pixels(np.array([0.02, 0.8, 0.98]), threshold, 0.2).tolist() == sure


def test_only_sure_pixels_teach(windows):
    """What unsure pixels are called changes nothing."""
    masks = spoilt(windows, 0.0)
    rng = np.random.default_rng(1)
    unsure = {index: rng.random(mask.shape) < 0.5 for index, mask in masks.items()}
    called = {index: np.where(unsure[index], 0, mask).astype(np.uint8) for index, mask in masks.items()}

    one, other = model(windows, masks, unsure=unsure), model(windows, called, unsure=unsure)
    for index in masks:
        np.testing.assert_array_equal(one.mask(index), other.mask(index))


def test_a_pixel_goes_to_a_tag_of_its_window_or_to_background(windows):
    learned = model(windows, spoilt(windows, 0.3))
    for index in (*windows.indices("train")[:5], *windows.indices("validation")[:2]):
        allowed = np.flatnonzero([1, *windows.records[int(index)].tags])
        assert set(np.unique(learned.mask(int(index)))) <= set(allowed.tolist())


def test_the_mean_of_what_regressions_say_by_hand(windows):
    """Two that ignore the pixel: 0.5, 0.3 and 0.2 of the classes, and 0.1, 0.1 and 0.8. The last is ruled out."""
    table = PixelTable(windows, lambda _: np.array([1, 1, 0] + [0] * (windows.classes - 2), float)[:, None, None])
    index = int(windows.indices("train")[0])
    depth = table.features(index).shape[1]

    def said(*odds):
        level = np.zeros((depth + 1, 3))
        level[-1] = np.log(odds)
        return PixelOdds(np.arange(3), level, windows.classes + 1)

    one = PixelModel(table, said(0.5, 0.3, 0.2))
    both = PixelModel(table, said(0.5, 0.3, 0.2), said(0.1, 0.1, 0.8))
    np.testing.assert_allclose(one.scores(index)[0, 0], [0.5, 0.3] + [0] * (windows.classes - 1))
    np.testing.assert_allclose(both.scores(index)[3, 5], [0.3, 0.2] + [0] * (windows.classes - 1))
    mask, each = both.opinions(index)
    np.testing.assert_array_equal(mask, both.mask(index))
    assert set(np.unique(mask)) <= {0, VOID}
    np.testing.assert_array_equal(each[0], one.mask(index))
    assert len(each) == 2


@pytest.fixture
def three_tags(windows):
    """A window with at least two tags, as if it had crops 1, 2 and 3, and scores of its pixels that can be set."""
    index = int(windows.indices("train")[0])
    side = windows.manifest.window
    learned = PixelModel(PixelTable(windows))
    scores = np.tile(np.array([0.0, 0.9, 0.1, 0.0]), (side, side, 1))
    tags = np.zeros_like(windows.tags)
    tags[index, :3] = 1
    learned._table.windows = SimpleNamespace(tags=tags, unknown=windows.unknown, manifest=windows.manifest)  # type: ignore[assignment]
    learned.scores = lambda _: scores  # type: ignore[method-assign]
    return learned, index, scores


def test_a_tag_is_shown_where_its_crop_is_least_behind_by_hand(three_tags):
    """Crop 2 has no pixel, crop 3 cannot be one. A hundredth of the window and one more pixel become crop 2."""
    learned, index, scores = three_tags
    scores[2, 3:5, 2] = 0.3
    mask = np.ones(scores.shape[:2], np.uint8)
    sure = np.ones(mask.shape, bool)
    sure[0] = False
    enough = mask.size // 100 + 1
    shown = learned.showing_tags(FirstMask(index, mask, sure), share=0.01)
    assert (shown.mask == 2).sum() == enough
    assert set(map(tuple, np.argwhere(shown.mask == 2)[-2:])) == {(2, 3), (2, 4)}
    assert (shown.mask[shown.mask != 2] == 1).all()
    # Of the pixels that were not sure, only those that show the tag are now.
    assert (shown.sure[0] == (shown.mask[0] == 2)).all()
    assert shown.sure[1:].all()
    assert mask.all(), "what was given has changed"


def test_a_mask_that_shows_its_tags_stays(three_tags):
    learned, index, scores = three_tags
    scores[..., 3] = 0.2
    mask = np.zeros(scores.shape[:2], np.uint8)
    for crop in (1, 2, 3):
        mask[crop] = crop
    given = FirstMask(index, mask, mask > 0)
    shown = learned.showing_tags(given, share=0.01)
    np.testing.assert_array_equal(shown.mask, mask)
    np.testing.assert_array_equal(shown.sure, given.sure)
    # Unsure pixels show nothing.
    unsure = learned.showing_tags(FirstMask(index, mask, mask == 3), share=0.01)
    assert [(unsure.sure & (unsure.mask == crop)).sum() for crop in (1, 2)] == [mask.size // 100 + 1] * 2


def test_it_repeats_and_the_seed_only_chooses_pixels(windows):
    masks = spoilt(windows, 0.2)
    one, again, other = model(windows, masks), model(windows, masks), model(windows, masks, seed=1)
    index = int(windows.indices("train")[0])
    np.testing.assert_array_equal(one.mask(index), again.mask(index))
    assert (one.mask(index) == other.mask(index)).mean() > 0.9


def test_no_label_depends_on_the_last_digit(windows, monkeypatch):
    """Another processor, or another number of threads, rounds otherwise; nudged features stand for it."""
    masks = spoilt(windows, 0.2)
    plain = model(windows, masks)
    rng = np.random.default_rng(3)

    def nudged(features, *labels, **settings):
        return fit_pixels(features * (1 + 1e-7 * rng.choice([-1, 1], features.shape)), *labels, **settings)

    monkeypatch.setattr(pixels, "fit_pixels", nudged)
    other = model(windows, masks)
    for index in map(int, windows.indices("train")):
        np.testing.assert_array_equal(plain.mask(index), other.mask(index))
