"""The temperature of confidence: worked by hand, against a general minimiser, and what it must leave alone."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from exact_core.config import override
from exact_core.data.windows.dataset import VOID
from exact_core.mapping.calibration import (
    BINS,
    COLDEST,
    HOTTEST,
    Calibration,
    DatedCalibration,
    calibrate,
    calibration_at,
    calibration_error,
    fit_temperature,
    log_loss,
    tempered,
)
from exact_core.mapping.predict import Predictor
from exact_core.models.segmenter import build_segmenter
from exact_core.stages.train_segmenter import _calibration


def distributions(count=500, classes=4, *, seed=0, scale=1.0):
    logits = scale * np.random.default_rng(seed).normal(size=(count, classes))
    weights = np.exp(logits)
    return logits, weights / weights.sum(1, keepdims=True)


def drawn(probabilities, *, seed=1):
    """Labels drawn from these distributions."""
    below = np.random.default_rng(seed).random((len(probabilities), 1)) > probabilities.cumsum(1)
    return below.sum(1).astype(np.uint8)


def test_within_the_season_the_confidence_is_of_no_later_day():
    by_day = {days: Calibration(temperature=t, fitted_on="masks") for days, t in ((100, 3.0), (200, 2.0), (300, 1.0))}
    dated = [DatedCalibration(days=days, calibration=each) for days, each in by_day.items()]
    for seen, wanted in ((50, 100), (100, 100), (199, 100), (200, 200), (299, 200), (300, 300), (400, 300)):
        assert calibration_at(seen, dated[::-1]) is by_day[wanted]


def test_worked_by_hand():
    """Nine to one, and right in three of four cases: three to one is the truth, and log 9 = 2 log 3."""
    probabilities = np.array([[0.9, 0.1]] * 4)
    labels = np.array([0, 0, 0, 1], np.uint8)
    temperature = fit_temperature(probabilities, labels)
    assert temperature == pytest.approx(2)
    np.testing.assert_allclose(tempered(probabilities, temperature, axis=1), [[0.75, 0.25]] * 4)
    assert log_loss(probabilities, labels) == pytest.approx(-(3 * np.log(0.9) + np.log(0.1)) / 4)


def test_the_error_worked_by_hand():
    """Four pixels at 0.9, three of them right, and four at 0.6, all right."""
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 4)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1], np.uint8)
    assert calibration_error(probabilities, labels) == pytest.approx((4 * 0.15 + 4 * 0.4) / 8)


def test_the_error_is_the_sum_over_bins():
    _, probabilities = distributions(scale=2)
    labels = drawn(probabilities)
    total = 0.0
    for number in range(BINS):
        inside = [p for p in range(500) if number / BINS < probabilities[p].max() <= (number + 1) / BINS]
        if inside:
            right = np.mean([probabilities[p].argmax() == labels[p] for p in inside])
            total += len(inside) / 500 * abs(right - np.mean([probabilities[p].max() for p in inside]))
    assert calibration_error(probabilities, labels) == pytest.approx(total)


@pytest.mark.parametrize("seed", range(4))
def test_it_has_the_highest_likelihood(seed):
    _, truth = distributions(seed=seed, scale=1.5)
    labels = drawn(truth, seed=seed)
    sure = tempered(truth, 0.4, axis=1)
    found = minimize_scalar(
        lambda t: -np.log(tempered(sure, t, axis=1)[np.arange(500), labels]).mean(), bounds=(0.05, 20), method="bounded"
    )
    temperature = fit_temperature(sure, labels)
    assert temperature == pytest.approx(found.x, rel=1e-3)
    assert temperature > 1
    assert calibration_error(tempered(sure, temperature, axis=1), labels) < calibration_error(sure, labels)


def test_logits_that_are_larger_by_a_factor_have_a_temperature_larger_by_it():
    _, probabilities = distributions()
    labels = drawn(tempered(probabilities, 1.3, axis=1))
    one = fit_temperature(probabilities, labels)
    for factor in (0.5, 3.0):
        scaled = tempered(probabilities, 1 / factor, axis=1)
        assert fit_temperature(scaled, labels) == pytest.approx(factor * one, rel=1e-6)
        assert fit_temperature(scaled.astype(np.float32), labels) == pytest.approx(factor * one, rel=1e-3)


@pytest.mark.parametrize("temperature", [COLDEST, 0.7, 3.0, HOTTEST])
def test_the_order_of_classes_stays(temperature):
    _, probabilities = distributions(scale=3)
    plane = probabilities.T.reshape(4, 20, 25).astype(np.float32)
    before = plane.copy()
    after = tempered(plane, temperature)
    np.testing.assert_array_equal(after.argmax(0), plane.argmax(0))
    np.testing.assert_allclose(after.sum(0), 1, rtol=1e-5)
    assert after.dtype == np.float32
    np.testing.assert_array_equal(plane, before)
    assert tempered(plane, None) is plane


def test_where_the_likelihood_has_no_end():
    """Always right, even by a little: the colder the better; always wrong: the hotter."""
    probabilities = np.array([[0.6, 0.4]] * 3)
    assert fit_temperature(probabilities, np.zeros(3, np.uint8)) == COLDEST
    assert fit_temperature(probabilities, np.ones(3, np.uint8)) == HOTTEST
    assert np.isfinite(log_loss(np.array([[1.0, 0.0]]), np.ones(1, np.uint8)))


def test_windows_are_sampled_and_void_is_left_out():
    values = np.array([0.9, 0.1], np.float32)[:, None, None] * np.ones((2, 2, 4), np.float32)
    target = np.array([[0, 0, 0, 1], [VOID] * 4], np.uint8)
    found = calibrate([(0, values), (5, values)], lambda _: target, count=2, fitted_on="labels", seed=0)
    assert found.temperature == pytest.approx(2, rel=1e-5)
    assert found.pixels == 8
    assert found.error_before == pytest.approx(0.15, abs=1e-6)
    assert found.error_after == pytest.approx(0, abs=1e-6)
    assert found.log_loss_after < found.log_loss_before
    nothing = calibrate([(0, values)], lambda _: np.full((2, 4), VOID, np.uint8), count=1, fitted_on="x", seed=0)
    assert nothing.temperature is None
    assert nothing.fitted_on == "nothing: no known pixel among the x"


class Masks:
    """Pseudo masks of every other window."""

    def __contains__(self, index):
        return index % 2 == 0

    def mask(self, index):
        return np.full((24, 24), index % 3, np.uint8)


def test_what_it_is_fitted_on(config, dataset):
    torch.manual_seed(0)
    model = build_segmenter(
        config.segmenter, bands=len(dataset.manifest.bands), classes=dataset.classes, window=24
    ).eval()

    def fitted(masks=None, config=config, **changes):
        whole = dataset.manifest
        dataset.manifest = whole.model_copy(update=changes)
        try:
            statistics = dataset.manifest.statistics
            teller = Predictor(model, dataset, config.segmenter.reading, statistics, torch.device("cpu"), 4)
            return _calibration(config, dataset, masks, teller)
        finally:
            dataset.manifest = whole

    labels = fitted()
    assert labels.fitted_on == "dense labels of the validation split"
    assert labels.pixels <= 576 * len(dataset.indices("validation"))
    assert labels == fitted() == fitted(Masks(), override(config, ["segmenter.calibrate_on=labels"]))
    assert labels.error_after is not None
    masked = fitted(Masks())
    assert masked == fitted(Masks(), has_labels=False)
    assert masked.fitted_on == "pseudo masks of the validation split"
    assert masked.pixels == 576 * sum(index % 2 == 0 for index in dataset.indices("validation"))
    assert "trained on" in fitted(self_scored=True).fitted_on
    for nothing in (fitted(has_labels=False), fitted(Masks(), self_scored=True)):
        assert nothing.temperature is None
        assert nothing.fitted_on.startswith("nothing")
    assert Calibration.model_validate_json(labels.model_dump_json()) == labels
