"""Honest floors: what tags give without the method (`docs/results.md` holds the figures).

    python -m benchmarks.floors --dataset DIR [--split test] [--seed 0]

Rows, none of which reads a label to fit anything:
- class prior: every pixel drawn from the shares that tags suggest;
- best constant: every pixel given to the largest of those shares;
- per pixel: each pixel's series alone, learned from tags as multiple instances (`PixelFloor`).
Labels are read once, to score; scenes are put together from their windows as the evaluation stage does. The row
"majority (from labels)" is the report's majority guess, which knows the answer; it is shown to compare.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from exact_core.clues.pixels import fit_pixels
from exact_core.clues.selection import BINS, otsu_threshold
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.data.windows.regular_series import calendar_of, pixel_features
from exact_core.errors import DataError, ExactError
from exact_core.evaluation.score import majority_guess, summarise
from exact_core.mapping.blend import SceneMosaic
from exact_core.metrics import confusion_matrix

__all__ = ["PixelFloor", "first_classes", "floors", "markdown", "score_split", "tag_prior"]

INSTANCES = 30_000
"""Pixels learned from, over all windows; every window gives equally many."""
MINIMUM_INSTANCES = 20
RIDGE = 0.01
"""Inverse strength of the ridge on standardised features."""
ROUNDS = 2
"""Refinements. Measured on a season generated from another seed (mIoU): 86.6 without, then 90.1, 90.7, 90.8."""


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
    pixel = PixelFloor(windows, seed=seed)
    constant = np.eye(len(prior))[prior.argmax()]

    def drawn(_: int) -> NDArray[np.float64]:
        return np.asarray(np.eye(len(prior))[rng.choice(len(prior), side * side, p=prior)])

    def always(_: int) -> NDArray[np.float64]:
        return np.tile(constant, (side * side, 1))

    names = windows.manifest.classes
    confusions = {
        "class prior": score_split(windows, split, drawn),
        "best constant": score_split(windows, split, always),
        "per pixel": score_split(windows, split, pixel.probabilities),
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


@dataclass
class PixelFloor:
    """A classifier of single pixels, learned from window tags as multiple instances.

    1. Logistic regression predicts each of a window's tags from each of its pixels. A pixel of crop k lies in windows
       tagged k always, any other pixel as often as chance has it: the predicted frequency tells them apart.
    2. In each window a pixel goes to its likeliest tagged crop, or to background where that is below a threshold
       (Otsu on the frequencies of the training pixels, `exact_core.clues.selection`).
    3. Multinomial regression learns those classes, and pixels are reassigned among background and their window's tags,
       `ROUNDS` times.
    Windows give equally many pixels, so each weighs the same. A pixel is described by its series on a regular calendar
    and, per band, mean, standard deviation, maximum and minimum of that series.
    """

    windows: WindowDataset
    seed: int = 0
    calendar: NDArray[np.float64] = field(init=False)
    threshold: float = field(init=False)

    def __post_init__(self) -> None:
        """Learn from the training split's tags."""
        self.calendar = calendar_of(self.windows)
        features, tags = self._instances()
        self._scaler = StandardScaler().fit(features)
        features = self._scaler.transform(features)
        frequencies = np.stack([fit_pixels(features, tag, classes=2, ridge=RIDGE)(features)[:, 1] for tag in tags.T], 1)
        assigned, self.threshold = first_classes(frequencies, tags)
        allowed = np.concatenate([np.ones((len(tags), 1)), tags], 1)
        classes = self.windows.classes + 1
        for _ in range(ROUNDS):
            assigned = (fit_pixels(features, assigned, classes=classes, ridge=RIDGE)(features) * allowed).argmax(1)
        self._predict = fit_pixels(features, assigned, classes=classes, ridge=RIDGE)

    def probabilities(self, index: int) -> NDArray[np.float64]:
        """Probabilities (H * W, K + 1) of one window's pixels, whatever its tags."""
        return self._predict(self._scaler.transform(self._features(index)))

    def _instances(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        rng = np.random.default_rng((self.seed, 1))
        chosen = self.windows.indices("train")
        each = max(MINIMUM_INSTANCES, INSTANCES // len(chosen))
        parts, tags = [], []
        for index in chosen:
            features = self._features(int(index))
            picked = rng.permutation(len(features))[:each]
            parts.append(features[picked])
            tags.append(np.tile(np.array(self.windows.records[index].tags, np.uint8), (len(picked), 1)))
        return np.concatenate(parts), np.concatenate(tags)

    def _features(self, index: int) -> NDArray[np.float32]:
        return pixel_features(self.windows.window(index), self.calendar)


def first_classes(frequencies: NDArray[np.float64], tags: NDArray[np.uint8]) -> tuple[NDArray[np.int64], float]:
    """The likeliest tagged crop of each pixel, or background below the threshold, which is returned too.

    Args:
        frequencies: (n, K), how often windows around such a pixel carry each tag.
        tags: (n, K), those of each pixel's window.
    """
    tagged = frequencies * tags
    strongest = tagged.max(1)
    threshold = otsu_threshold(np.histogram(strongest[tags.any(1)], BINS, (0, 1))[0])
    return np.where(strongest > threshold, tagged.argmax(1) + 1, 0), threshold


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
