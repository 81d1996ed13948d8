"""Choosing and preparing the windows and scenes that the report shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.choice import evenly_chosen
from exact_core.data.windows.dataset import Window, WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.evaluation.palette import true_colour
from exact_core.evaluation.run_report.report import Panel
from exact_core.mapping.blend import SceneMosaic
from exact_core.mapping.predict import Predictor

__all__ = ["panels", "scene_image"]


def scene_image(windows: WindowDataset, indices: list[int], mosaic: SceneMosaic) -> NDArray[np.float64]:
    """True colour (H, W, 3) of a scene on the date that most of it sees clearly. Midsummer breaks ties."""
    read = {index: windows.window(index) for index in indices}
    # Summed over windows, not averaged: a date that only some of them have cannot show the scene.
    shares: dict[int, float] = {}
    for window in read.values():
        for day, share in zip(window.days.tolist(), _clear_shares(window), strict=True):
            shares[day] = shares.get(day, 0.0) + share / len(indices)
    middle = windows.manifest.season_days / 2
    best = max(shares, key=lambda day: (round(shares[day], 2), -abs(day - middle)))
    canvas = np.zeros((len(windows.manifest.bands), *mosaic.shape), np.int16)
    for index, window in read.items():
        positions = np.flatnonzero(window.days == best)
        if len(positions):
            canvas[(slice(None), *mosaic.place(windows.records[index]))] = window.pixels[positions[0]]
    return true_colour(canvas, windows.manifest.bands)


def panels(predictor: Predictor, masks: MaskSet | None, count: int) -> list[Panel]:
    """Windows for the report, of the validation split where it exists: masks reach it, training does not."""
    windows = predictor.windows
    indices = windows.indices("validation")
    if not len(indices):
        indices = windows.indices("train")
    # Windows with several crops show most; among those, spread over the split.
    several = [int(index) for index in indices if sum(windows.records[index].tags) >= 2] or indices.tolist()
    return [_panel(predictor, masks, several[place]) for place in evenly_chosen(len(several), count)]


def _panel(predictor: Predictor, masks: MaskSet | None, index: int) -> Panel:
    windows = predictor.windows
    manifest, window, record = windows.manifest, windows.window(index), windows.records[index]
    off_middle = np.abs(window.days - manifest.season_days / 2)
    date = int(np.lexsort((off_middle, -_clear_shares(window).round(2)))[0])
    cam = mask = None
    if masks is not None:
        cam = masks.cam(index).astype(np.float32)
        mask = masks.mask(index)
    return Panel(
        title=record.id,
        tags=tuple(name for name, tag in zip(manifest.classes, record.tags, strict=True) if tag),
        image=true_colour(window.pixels[date], manifest.bands),
        cam=cam,
        mask=mask,
        prediction=predictor.probabilities([index])[0].argmax(0).astype(np.uint8),
        truth=windows.labels(index) if manifest.has_labels else None,
    )


def _clear_shares(window: Window) -> NDArray[np.float64]:
    """Share of each date that is clear (T,). 1 where clouds are not known."""
    if window.clear is None:
        return np.ones(len(window.days))
    return np.asarray(window.clear.mean((1, 2)))
