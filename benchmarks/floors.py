"""Honest floors: what tags give without the method (`docs/results.md` holds the figures).

    python -m benchmarks.floors --dataset DIR [--split test] [--seed 0]

Rows, none of which reads a label to fit anything:
- class prior: every pixel drawn from the shares that tags suggest;
- best constant: every pixel given to the largest of those shares;
- per pixel: each pixel's series alone, learned from tags as multiple instances (`pixel_floor`).
Labels are read once, to score; scenes are put together from their windows as the evaluation stage does. The row
"majority (from labels)" is the report's majority guess, which knows the answer; it is shown to compare.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exact_core.clues.pixels import PixelTable
from exact_core.clues.tag_pixels import TaggedPixels, by_frequency
from exact_core.config import RelearnConfig
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.errors import DataError, ExactError
from exact_core.evaluation.score import majority_guess, summarise
from exact_core.mapping.blend import SceneMosaic
from exact_core.metrics import confusion_matrix

__all__ = ["floors", "markdown", "pixel_floor", "score_split", "tag_prior"]

INSTANCES = 30_000
"""Pixels learned from, over all windows; every window gives equally many."""
RIDGE = 0.01
"""Inverse strength of the ridge on standardised features."""


def floors(dataset_folder: Path, *, split: str | None = None, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Figures of every floor on a split.

    Args:
        dataset_folder: folder of a window dataset with dense labels on that split.
        split: which windows are scored; None: the dataset's evaluation split.
        seed: of the draws.

    Returns:
        Row name -> figures as in metrics.json (`oa_micro`, `miou_macro`, `f1_macro`, `per_class`, `confusion`); the
        majority guess holds the headline figures only.

    Raises:
        DataError: the split is empty, or the dataset has no labels to score against or no training windows.
    """
    windows = WindowDataset(dataset_folder)
    split = split or windows.manifest.evaluation_split
    for name in ("train", split):
        if not len(windows.indices(name)):
            raise DataError(f"{windows.root}: no window in split {name!r}; splits: {windows.manifest.splits}")
    if not windows.manifest.has_labels:
        raise DataError(f"{windows.root}: image-level tags only, nothing to score against; ingest with labels")
    prior = tag_prior(windows.tags[windows.indices("train")])
    rng = np.random.default_rng((seed, 0))
    side = windows.manifest.window
    pixel = pixel_floor(windows, seed=seed)
    constant = np.eye(len(prior))[prior.argmax()]

    def drawn(_: int) -> NDArray[np.float64]:
        return np.asarray(np.eye(len(prior))[rng.choice(len(prior), side * side, p=prior)])

    def always(_: int) -> NDArray[np.float64]:
        return np.tile(constant, (side * side, 1))

    names = windows.manifest.classes
    confusions = {
        "class prior": score_split(windows, split, drawn),
        "best constant": score_split(windows, split, always),
        "per pixel": score_split(windows, split, pixel),
    }
    rows = {name: summarise(confusion, names) for name, confusion in confusions.items()}
    rows["majority (from labels)"] = majority_guess(confusions["per pixel"], names)
    return rows


def tag_prior(tags: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares (K + 1,) of background and crops that tags (N, K) suggest.

    A tag says that a crop is there, not how much of it: each window is divided equally among its tagged crops and
    background. The shares sum to 1; background is never the smaller, as a tag never denies it.
    """
    claims = np.concatenate([np.ones((len(tags), 1)), tags.astype(np.float64)], 1)
    return np.asarray((claims / claims.sum(1, keepdims=True)).mean(0))


def pixel_floor(windows: WindowDataset, *, seed: int) -> Callable[[int], NDArray[np.float64]]:
    """What tags alone teach a regression on single pixels (`exact_core.clues.tag_pixels.by_frequency`).

    Returns:
        For a position, the probabilities (H * W, K + 1) of its pixels, whatever its tags.
    """
    table = PixelTable(windows)
    drawn = TaggedPixels.drawn(table, windows.indices("train").tolist(), pixels=INSTANCES, seed=seed)
    odds = by_frequency(drawn, RelearnConfig(ridge=RIDGE, balance=0))
    return lambda index: odds(table.features(index))


def score_split(windows: WindowDataset, split: str, predict: Callable[[int], NDArray[np.float64]]) -> NDArray[np.int64]:
    """Confusion of a split, scene by scene, windows blended; `predict` gives (H * W, K + 1) for a position."""
    classes, side = windows.classes, windows.manifest.window
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    for _, indices in windows.scenes(split):
        mosaic = SceneMosaic([windows.records[index] for index in indices], side=side, channels=classes + 1)
        truth = np.full(mosaic.shape, VOID, np.uint8)
        for index in indices:
            values = predict(index).reshape(side, side, -1).transpose(2, 0, 1)
            mosaic.add(windows.records[index], values.astype(np.float32))
            truth[mosaic.place(windows.records[index])] = windows.labels(index)
        confusion += confusion_matrix(truth, mosaic.labels()[0], classes=classes)
    return confusion


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """A table of the headline figures, percent."""
    lines = ["| floor | OA | mIoU | F1 |", "| --- | --- | --- | --- |"]
    for name, row in rows.items():
        figures = (row["oa_micro"], row["miou_macro"], row["f1_macro"])
        lines.append(f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in figures)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Print the table of one dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--split", choices=["train", "validation", "test"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        rows = floors(options.dataset, split=options.split, seed=options.seed)
    except ExactError as error:
        sys.exit(f"floors: {error}")
    sys.stdout.write(markdown(rows) + "\n")


if __name__ == "__main__":
    main()
