"""Confidence that means what it says: probabilities at a temperature fitted to pixels whose label is known.

A segmenter's probabilities rank pixels well, but are too sure or too unsure of all of them together. One scalar sets
that right (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2): with logits z, here the
logarithms of probabilities, the calibrated ones are softmax(z / T). T > 1 says that the model was too sure. The order
of classes stays, so the class map does.

Axes are N pixels, K crops, C = K + 1 classes with the background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from exact_core.config import Settings
from exact_core.data.windows.dataset import VOID

__all__ = [
    "NOT_FITTED",
    "Calibration",
    "DatedCalibration",
    "calibrate",
    "calibration_at",
    "calibration_error",
    "fit_temperature",
    "log_loss",
    "tempered",
]

Floats = NDArray[np.float32] | NDArray[np.float64]
COLDEST, HOTTEST = 0.05, 20.0
"""Limits of the temperature: where a model makes no mistake at all, the likeliest is 0."""
BINS = 15
"""Number of bins of the expected calibration error (Guo et al.)."""
PIXELS = 200_000
"""Pixels that a temperature is fitted to, at most: one scalar needs no more."""
HALVINGS = 40
TINY = float(np.finfo(np.float32).tiny)


class Calibration(Settings):
    """How a model's confidence was calibrated. It travels in `model.json` and in every map."""

    temperature: float | None = Field(description="T; null: there was nothing to fit it to, and probabilities stay")
    fitted_on: str = Field(description="which labels of which split it was fitted to, or why it was not")
    pixels: int = Field(0, description="pixels that it was fitted to")
    oa: float | None = Field(None, description="share of them whose likeliest class is their label, of 1")
    error_before: float | None = Field(None, description="expected calibration error on them at T = 1, of 1")
    error_after: float | None = Field(None, description="the same at T: no independent figure, T was fitted there")
    log_loss_before: float | None = Field(None, description="mean negative log likelihood on them at T = 1, nats")
    log_loss_after: float | None = Field(None, description="the same at T")


class DatedCalibration(Settings):
    """How a model's confidence is calibrated where only the first part of a season has been seen."""

    days: int = Field(gt=0, description="days of the season that were seen, from its start")
    calibration: Calibration


NOT_FITTED = Calibration(temperature=None, fitted_on="nothing: the model says nothing of a calibration")
"""The calibration of models that were trained before it existed."""


def calibration_at(days: int, dated: Sequence[DatedCalibration]) -> Calibration:
    """The calibration for a season of which `days` have been seen: of the longest part not beyond, or the shortest.

    A model is more confident on a longer part, so this errs on the side of too little confidence.

    Args:
        days: from the season's start.
        dated: of parts of the season, and of all of it. At least one.
    """
    ascending = sorted(dated, key=lambda each: each.days)
    return next((each.calibration for each in reversed(ascending) if each.days <= days), ascending[0].calibration)


def tempered(probabilities: Floats, temperature: float | None, *, axis: int = 0) -> Floats:
    """Probabilities at a temperature: p^(1/T), divided by their sum over the classes' axis. If None, as they are."""
    if temperature is None:
        return probabilities
    logits: Floats = np.log(np.maximum(probabilities, TINY)) / np.asarray(temperature, probabilities.dtype)
    logits -= logits.max(axis, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis, keepdims=True)
    return logits


def fit_temperature(probabilities: Floats, labels: NDArray[np.uint8]) -> float:
    """The temperature of the highest likelihood.

    In the inverse temperature b the negative log likelihood is convex, with the slope mean(E_b[z]) - mean(z of the
    label). Bisection gives the only zero of the slope.

    Args:
        probabilities: (N, C), each row a distribution.
        labels: (N,), 0..K.

    Returns:
        T between 0.05 and 20, an end where the likelihood grows beyond it.
    """
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), TINY))
    logits -= logits.max(1, keepdims=True)
    wanted = float(logits[np.arange(len(labels)), labels].mean())

    def slope(inverse: float) -> float:
        weights = np.exp(inverse * logits)
        return float(((weights * logits).sum(1) / weights.sum(1)).mean()) - wanted

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return COLDEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def calibration_error(probabilities: Floats, labels: NDArray[np.uint8]) -> float:
    """Expected calibration error: |share of right pixels - mean confidence|, over equal bins of confidence.

    Args:
        probabilities: (N, C).
        labels: (N,), 0..K.

    Returns:
        Between 0 and 1. Bins count by their pixels.
    """
    confidence = np.asarray(probabilities.max(1), np.float64)
    right = probabilities.argmax(1) == labels
    # Bins are open below and closed above, as in the paper.
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    excess = np.bincount(bins, right - confidence, BINS)
    return float(np.abs(excess).sum() / len(labels))


def log_loss(probabilities: Floats, labels: NDArray[np.uint8]) -> float:
    """Mean negative log likelihood of the labels, nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], TINY)).mean(dtype=np.float64))


def calibrate(
    windows: Iterable[tuple[int, NDArray[np.float32]]],
    truth: Callable[[int], NDArray[np.uint8]],
    *,
    count: int,
    fitted_on: str,
    seed: int,
) -> Calibration:
    """Fit a temperature to windows whose labels are known.

    Args:
        windows: position and class probabilities (C, H, W) of each window.
        truth: labels (H, W) by position, 0..K or VOID.
        count: how many windows there are. Each gives its share of at most PIXELS pixels.
        fitted_on: what the labels are, for the record.
        seed: draws the pixels where there are more.
    """
    chosen: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.uint8]] = []
    for index, values in windows:
        target = truth(index).ravel()
        places = np.flatnonzero(target != VOID)
        share = max(1, PIXELS // count)
        if len(places) > share:
            places = np.sort(np.random.default_rng((seed, index)).choice(places, share, replace=False))
        chosen.append(values.reshape(len(values), -1)[:, places].T)
        labels.append(target[places])
    if not sum(map(len, labels)):
        return Calibration(temperature=None, fitted_on=f"nothing: no known pixel among the {fitted_on}")
    found, known = np.concatenate(chosen), np.concatenate(labels)
    temperature = fit_temperature(found, known)
    after = tempered(found, temperature, axis=1)
    return Calibration(
        temperature=temperature,
        fitted_on=fitted_on,
        pixels=len(known),
        oa=float((found.argmax(1) == known).mean()),
        error_before=calibration_error(found, known),
        error_after=calibration_error(after, known),
        log_loss_before=log_loss(found, known),
        log_loss_after=log_loss(after, known),
    )
