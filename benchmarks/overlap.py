"""What less overlap costs: the map of a dataset's scenes at several strides and weights, scored, and its seams.

    python -m benchmarks.overlap DATASET SEGMENTER [--strides 1/2 2/3 3/4 5/6 1] [--weights squared_sine sine]

The windows of each scene that the dataset is scored on are put together again, and the whole is mapped as `exact map`
does, at each stride (a share of the window, rounded to an even number of pixels) and with each weight of a window's
pixels. A row says mIoU and OA against the labels, and how much more often the class changes at window borders than
elsewhere. Scenes whose windows leave gaps are not mapped; the last line counts them. Markdown goes to stdout.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.artifacts.model_folders import load_segmenter
from exact_core.data.season.folder import SeasonImages
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.mapping.predict import SeasonMapper, season_mapper
from exact_core.mapping.rows import Seams, map_rows
from exact_core.metrics import Scores, confusion_matrix

BATCH = 32
STRIDES = ("1/2", "2/3", "3/4", "5/6", "1")
WEIGHTS: dict[str, Callable[[NDArray[np.floating[Any]]], NDArray[np.floating[Any]]]] = {
    "squared_sine": lambda along: np.sin(np.pi * along) ** 2,
    "sine": lambda along: np.sin(np.pi * along),
    "triangle": lambda along: 1 - np.abs(2 * along - 1),
    "flat": np.ones_like,
}
"""Weight of a pixel at a share 0..1 of its window's side."""


@dataclass(frozen=True)
class Scene:
    """A scene: days (T,), pixels (T, C, H, W), clear patches (T, H/2, W/2) or None, labels (H, W).

    days, start and length are what `season_mapper` asks of a season's images.
    """

    days: NDArray[np.int64]
    start: dt.date
    length: int
    pixels: NDArray[np.int16]
    clear: NDArray[np.bool_] | None
    labels: NDArray[np.uint8]

    def read(self, first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.bool_] | None]:
        """Rows of it, as `map_rows` reads them."""
        return self.pixels[:, :, first:last], None if self.clear is None else self.clear[:, first // 2 : last // 2]


def put_together(windows: WindowDataset, indices: list[int]) -> Scene | None:
    """The scene of these windows; None where they leave a gap."""
    manifest, side = windows.manifest, windows.manifest.window
    corners = np.array([(windows.records[index].row, windows.records[index].col) for index in indices])
    corners -= corners.min(0)
    height, width = corners.max(0) + side
    days = np.unique(np.concatenate([windows.window(index).days for index in indices])).astype(np.int64)
    # What a window did not measure of a date is 0 there, and not clear.
    pixels = np.zeros((len(days), len(manifest.bands), height, width), np.int16)
    clear = np.zeros((len(days), height // 2, width // 2), bool)
    labels = np.full((height, width), VOID, np.uint8)
    covered = np.zeros((height, width), bool)
    for index, (row, col) in zip(indices, corners.tolist(), strict=True):
        window, place = windows.window(index), (slice(row, row + side), slice(col, col + side))
        dates = np.searchsorted(days, window.days)
        pixels[(dates, slice(None), *place)] = window.pixels
        if window.clear is not None:
            clear[dates, row // 2 : (row + side) // 2, col // 2 : (col + side) // 2] = window.clear
        labels[place] = windows.labels(index)
        covered[place] = True
    if not covered.all():
        return None
    seen = clear if manifest.has_clear else None
    return Scene(days, manifest.season_start, manifest.season_days, pixels, seen, labels)


def weights_of(kind: str) -> Callable[[int], NDArray[np.float32]]:
    """Weights (S, S) of a window's pixels, in place of `exact_core.mapping.rows.window_weights`."""

    def weights(side: int) -> NDArray[np.float32]:
        along = WEIGHTS[kind]((np.arange(side) + 0.5) / side)
        return np.outer(along, along).astype(np.float32)

    return weights


def stride_of(share: Fraction, side: int) -> int:
    """A share of the window's side as an even number of pixels, 2 at least."""
    return max(2, int(share * side) // 2 * 2)


def measure(
    scenes: list[tuple[Scene, SeasonMapper]], *, side: int, classes: int, stride: int, kind: str
) -> tuple[float, float, float | None]:
    """MIoU, OA and seams of all scenes, mapped at a stride with one kind of weights."""
    confusion, seams = np.zeros((classes + 1, classes + 1), np.int64), Seams(side, stride)
    with mock.patch("exact_core.mapping.rows.window_weights", weights_of(kind)):
        for scene, mapper in scenes:
            height, width = scene.labels.shape
            for rows in map_rows(
                scene.read,
                mapper,
                height=height,
                width=width,
                side=side,
                stride=stride,
                classes=classes,
                batch=BATCH,
                chunk=height,
            ):
                truth = scene.labels[rows.first : rows.first + len(rows.label)]
                known = rows.label != VOID
                confusion += confusion_matrix(
                    np.where(known, truth, VOID), np.where(known, rows.label, 0), classes=classes
                )
                seams.add(rows)
    scores = Scores(confusion)
    return scores.miou_macro, scores.oa_micro, seams.ratio()


def main() -> None:
    """Map, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("segmenter", type=Path)
    parser.add_argument("--strides", type=Fraction, nargs="+", default=[Fraction(each) for each in STRIDES])
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=list(WEIGHTS))
    options = parser.parse_args()
    windows = WindowDataset(options.dataset)
    model, manifest, config = load_segmenter(options.segmenter, windows)
    side, classes = windows.manifest.window, windows.classes
    whole = [put_together(windows, indices) for _, indices in windows.scenes(windows.manifest.evaluation_split)]
    scenes = []
    for scene in whole:
        if scene is not None:
            # Of the season's images it asks for their days, and when the season begins and ends.
            mapper = season_mapper(
                model.eval(),
                cast(SeasonImages, scene),
                statistics=manifest.statistics,
                encoder=config.segmenter.reading,
                device=torch.device("cpu"),
            )
            scenes.append((scene, mapper))
    if not scenes:
        raise SystemExit(
            f"{options.dataset}: the windows of every scene leave gaps; ingest with data.stride at most {side}"
        )
    lines = ["| stride, pixels | of a window | weight | mIoU | OA | seams |", "|" + " --- |" * 6]
    for kind in options.weights:
        for stride in sorted({stride_of(share, side) for share in options.strides}):
            miou, accuracy, seams = measure(scenes, side=side, classes=classes, stride=stride, kind=kind)
            shown = "–" if seams is None else f"{seams:.2f}"
            lines.append(
                f"| {stride} | {stride / side:.2f} | {kind} | {100 * miou:.2f} | {100 * accuracy:.2f} | {shown} |"
            )
    left_out = f"{len(whole) - len(scenes)} with gaps left out"
    lines += ["", f"{len(scenes)} scenes of the split {windows.manifest.evaluation_split}; {left_out}."]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
