"""Fitting the regression of single pixels to the segmenter's own targets.

Axes are n pixels, D features, K crops.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from exact_core.clues.regression import PixelOdds, fit_pixels
from exact_core.config import SegmenterConfig
from exact_core.data.windows.batches import BatchLoader, Targets, count_targets, days_of
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.losses import class_weights
from exact_core.models.pixel_regression import STATISTICS, PixelRegression

__all__ = ["fit_pixel_regression"]

log = logging.getLogger(__name__)

PIXELS = 20_000
"""Pixels that a regression is fitted to, about: with 40,000 maps were not better."""
PARTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Parts of the season. A map every two weeks uses a part that ended a few weeks before at most."""
RIDGE, BALANCE = 0.03, 0.5
"""As in pixel self-training (`masks.relearn.ridge` and `balance`): the targets come from there."""


def fit_pixel_regression(
    windows: WindowDataset, targets: Targets, settings: SegmenterConfig, *, batch: int, seed: int
) -> PixelRegression | None:
    """A regression for each part of the season and for all of it. If None, no pixel teaches it.

    Classes give equally many pixels, or all they have, and each pixel counts for those that were not drawn. So that a
    crop of few fields is not outvoted, it then counts as (its class's share) ** -BALANCE.

    Args:
        windows: the dataset. Its training split teaches.
        targets: what the segmenter learned from.
        settings: reading and weight apply.
        batch: windows read at a time.
        seed: of the draw of pixels.
    """
    train, classes = windows.indices("train"), windows.classes + 1
    counts = count_targets(targets, train)
    drawn = np.minimum(1, PIXELS / classes / np.maximum(counts, 1))
    drawn[VOID] = 0
    weights = class_weights(counts[:classes], balance=BALANCE).numpy() / drawn[:classes]
    chosen = {index: _drawn(targets(index).ravel(), drawn, seed=seed, index=index) for index in train.tolist()}
    taught = np.array([index for index in train.tolist() if len(chosen[index])], np.int64)
    days = days_of(PARTS, windows.manifest.season_days)
    model = _of_parts(days, windows, settings)
    # Where they are fitted: the rows are few, and on a CPU the sums of one processor are those of any machine.
    loader = BatchLoader(windows, taught, batch=batch, encoder=settings.reading, device=torch.device("cpu"))
    features: list[list[NDArray[np.float32]]] = [[] for _ in days]
    labels: list[list[NDArray[np.uint8]]] = [[] for _ in days]
    for each in loader:
        places = [_in_patches(chosen[index], windows.manifest.window, model.patch) for index in each.index.tolist()]
        said = [targets(index).ravel()[chosen[index]] for index in each.index.tolist()]
        for part in range(len(days)):
            described, seen = (found.numpy() for found in model.features(each.series, part))
            for window, ((patch, pixel), label) in enumerate(zip(places, said, strict=True)):
                known = seen[window, patch]
                features[part].append(described[window, patch, pixel][known])
                labels[part].append(label[known])
    # Of the first parts there may be no image: there the network decides alone.
    seen_parts = [part for part in range(len(days)) if sum(map(len, labels[part]))]
    if not seen_parts:
        return None
    model = _of_parts([days[part] for part in seen_parts], windows, settings)
    for place, part in enumerate(seen_parts):
        rows, label = np.concatenate(features[part]), np.concatenate(labels[part]).astype(np.int64)
        scaler = StandardScaler().fit(rows)
        odds = fit_pixels(scaler.transform(rows), label, classes=classes, ridge=RIDGE, weight=weights[label])
        _take(model, place, odds.of_unscaled(scaler))
    log.info("segmenter: a regression of single pixels, fitted to %d pixels of %d windows", len(label), len(taught))
    return model


def _of_parts(days: Sequence[int], windows: WindowDataset, settings: SegmenterConfig) -> PixelRegression:
    """Nothing is fitted yet."""
    return PixelRegression(
        bands=len(windows.manifest.bands),
        classes=windows.classes,
        patch=settings.reading.patch,
        days=days,
        weight=settings.pixel_weight,
    )


def _drawn(target: NDArray[np.uint8], share: NDArray[np.float64], *, seed: int, index: int) -> NDArray[np.int64]:
    """Pixels of a window, each drawn with the share (256,) of its label."""
    return np.flatnonzero(np.random.default_rng((seed, 3, index)).random(target.size) < share[target])


def _in_patches(pixels: NDArray[np.int64], side: int, patch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Patch, and place in the patch, of pixels of a window that are counted row by row."""
    row, col = np.divmod(pixels, side)
    return row // patch * (side // patch) + col // patch, row % patch * patch + col % patch


def _take(model: PixelRegression, part: int, odds: PixelOdds) -> None:
    """What was fitted to a part of the season. A class without a pixel gets probability 0."""
    found = torch.from_numpy(odds.coefficients.T).float()
    statistics, known = STATISTICS * model.bands, torch.from_numpy(odds.known)
    model.intercepts[part] = -torch.inf
    model.intercepts[part, known] = found[:, -1]
    slopes = torch.zeros(len(known), model.coefficients.shape[2])
    slopes[:, : found.shape[1] - 1 - statistics] = found[:, : -1 - statistics]
    slopes[:, -statistics:] = found[:, -1 - statistics : -1]
    model.coefficients[part, known] = slopes
