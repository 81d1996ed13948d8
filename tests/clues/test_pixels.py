import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from exact_core.clues import pixels
from exact_core.clues.pixels import FirstMask, PixelModel, fit_pixels, sure_pixels
from exact_core.config import RelearnConfig
from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import WindowDataset
from exact_core.recipes import resolve
from tests.conftest import TINY

SETTINGS = RelearnConfig(pixels=8000)


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    changes = [*TINY, "data.synthetic.scenes=8", "data.synthetic.scene_size=72", "data.synthetic.dates=16"]
    out = tmp_path_factory.mktemp("pixels") / "dataset"
    ingest_synthetic(resolve("demo", seed=3, overrides=changes).data, out, seed=3)
    return WindowDataset(out)


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


def model(windows, masks, seed=0):
    every = np.ones_like(next(iter(masks.values())), bool)
    first = (FirstMask(index, mask, every) for index, mask in masks.items())
    return PixelModel(windows, first, SETTINGS, count=len(masks), seed=seed)


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

    def learned(masks):
        first = (FirstMask(index, mask, ~unsure[index]) for index, mask in masks.items())
        return PixelModel(windows, first, SETTINGS, count=len(masks), seed=0)

    one, other = learned(masks), learned(called)
    for index in masks:
        np.testing.assert_array_equal(one.mask(index), other.mask(index))


def test_a_pixel_goes_to_a_tag_of_its_window_or_to_background(windows):
    learned = model(windows, spoilt(windows, 0.3))
    for index in (*windows.indices("train")[:5], *windows.indices("validation")[:2]):
        allowed = np.flatnonzero([1, *windows.records[int(index)].tags])
        assert set(np.unique(learned.mask(int(index)))) <= set(allowed.tolist())


def test_it_repeats_and_the_seed_only_chooses_pixels(windows):
    masks = spoilt(windows, 0.2)
    one, again, other = model(windows, masks), model(windows, masks), model(windows, masks, seed=1)
    index = int(windows.indices("train")[0])
    np.testing.assert_array_equal(one.mask(index), again.mask(index))
    assert (one.mask(index) == other.mask(index)).mean() > 0.9


def test_regression_against_the_library_and_with_missing_labels():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 4))
    labels = np.where(features[:, 0] > 0, 3, 1)
    found = fit_pixels(features, labels, classes=5, ridge=0.5)(features)
    expected = LogisticRegression(C=0.5, max_iter=1000, tol=1e-6).fit(features, labels).predict_proba(features)
    np.testing.assert_allclose(found[:, [1, 3]], expected, atol=1e-5)
    assert not found[:, [0, 2, 4]].any()
    certain = fit_pixels(features, np.full(200, 2), classes=3, ridge=0.5)(features[:2])
    np.testing.assert_array_equal(certain, [[0, 0, 1], [0, 0, 1]])


def test_balanced_pixels_are_those_of_balanced_classes():
    rng = np.random.default_rng(2)
    labels = rng.choice(3, 300, p=[0.8, 0.17, 0.03])
    features = rng.normal(size=(300, 4)) + 0.5 * labels[:, None]
    found = fit_pixels(features, labels, classes=3, ridge=0.1, balance=1.0)(features)
    expected = LogisticRegression(C=0.1, max_iter=1000, tol=1e-6, class_weight="balanced").fit(features, labels)
    np.testing.assert_allclose(found, expected.predict_proba(features), atol=1e-5)
    rare = [
        (fit_pixels(features, labels, classes=3, ridge=0.1, balance=balance)(features).argmax(1) == 2).sum()
        for balance in (0.0, 0.5, 1.0)
    ]
    assert rare[0] < rare[1] < rare[2]


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


@pytest.mark.parametrize(("classes", "coupled"), [(2, 4000), (4, 4000), (5, 14)])
def test_the_regression_is_at_its_optimum(classes, coupled, monkeypatch):
    """Every derivative of the loss, written out, is 0; features that go together and unequal weights included.

    Also where the curvature of only two classes at a time, of seven coefficients each, is known as a whole.
    """
    monkeypatch.setattr(pixels, "COUPLED", coupled)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 0.01 * rng.normal(size=(300, 6))
    labels, weight = rng.permutation(np.arange(300) % classes), rng.uniform(0.2, 1.8, 300)
    found = pixels._regression(features, labels, weight, ridge=0.03)
    assert np.array_equal(found, pixels._regression(features, labels, weight, ridge=0.03))
    slope = (2 if classes == 2 else 1) * found[:-1] / 0.03
    intercepts = np.zeros(classes)
    for row, label, times in zip(features, labels, weight, strict=True):
        odds = np.exp(row @ found[:-1] + found[-1])
        error = times * (odds / odds.sum() - np.eye(classes)[label])
        slope, intercepts = slope + np.outer(row, error), intercepts + error
    assert np.abs(slope).max() < 300 * 2e-7
    assert np.abs(intercepts).max() < 300 * 2e-7


def test_the_regression_by_hand():
    """Without a feature it is the shares of the classes: three of four pixels, weighing 1, 1, 1 and 3, so a half."""
    found = pixels._regression(np.zeros((4, 1)), np.array([0, 0, 0, 1]), np.array([1.0, 1, 1, 3]) / 1.5, ridge=1.0)
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_where_the_regression_starts_changes_no_label():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(3000, 6))
    labels = (features[:, :3] + rng.normal(size=(3000, 3))).argmax(1)
    other = np.where(rng.random(3000) < 0.05, 0, labels)
    fresh = fit_pixels(features, labels, classes=3, ridge=0.1)
    begun = fit_pixels(features, labels, classes=3, ridge=0.1, start=fit_pixels(features, other, classes=3, ridge=0.1))
    assert np.abs(fresh(features) - begun(features)).max() < 1e-5
    # One that knew other labels is no start: 2 does not occur here.
    few = fit_pixels(features, np.minimum(labels, 1), classes=3, ridge=0.1, start=fresh)
    assert np.array_equal(
        few.coefficients, fit_pixels(features, np.minimum(labels, 1), classes=3, ridge=0.1).coefficients
    )
