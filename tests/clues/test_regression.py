"""The regression that pixels learn by."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from exact_core.clues import regression
from exact_core.clues.regression import fit_pixels


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


@pytest.mark.parametrize(("classes", "coupled"), [(2, 4000), (4, 4000), (5, 14)])
def test_the_regression_is_at_its_optimum(classes, coupled, monkeypatch):
    """Every derivative of the loss, written out, is 0; features that go together and unequal weights included.

    Also where the curvature of only two classes at a time, of seven coefficients each, is known as a whole.
    """
    monkeypatch.setattr(regression, "COUPLED", coupled)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 0.01 * rng.normal(size=(300, 6))
    labels, weight = rng.permutation(np.arange(300) % classes), rng.uniform(0.2, 1.8, 300)
    found = regression._regression(features, labels, weight, ridge=0.03)
    assert np.array_equal(found, regression._regression(features, labels, weight, ridge=0.03))
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
    found = regression._regression(np.zeros((4, 1)), np.array([0, 0, 0, 1]), np.array([1.0, 1, 1, 3]) / 1.5, ridge=1.0)
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
