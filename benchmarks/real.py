"""The bench of real land: a table over any scenes, each trained from its tags and scored against its labels.

    python -m benchmarks.real --folder PATH [PATH ...] [--seeds 0 1 2] [--recipe season] [--outlines labels/FILE]
                              [--quadrants] [--workdir runs/real]

A scene is a season folder with images and labels. Its columns:

- majority: every pixel of the most frequent class, which knows the answer; pixel floor: `benchmarks.floors`;
- fused CAM and masks: of the training windows, against labels; expected: what was expected of the masks without labels;
- map: of a segmenter that learns from the masks, and from dense labels, on the split that is scored (test where the
  scene is large enough to be split, else the scene itself, which the column says);
- with fields: masks and segmenter made with outlines of fields, mapped with one crop a field (`exact map --outlines`),
  on the same pixels. Outlines are labels/outlines.*, else those of labels/parcels.*, whose crops are not read.

mIoU in percent, mean ± standard deviation over seeds; below it IoU by class of the map from tags. `--quadrants` adds
land that no model saw (`benchmarks.quadrants`) for the scenes that are scored on themselves. What is there is not made
again. Labels score, and train the dense row alone.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.floors import floors
from benchmarks.supervision import read, spread
from benchmarks.tags import TRACKER, make_masks, once, score, truth_of
from exact_core.config import RunConfig, override
from exact_core.data.season.outlines import VECTORS
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.recipes import resolve
from exact_core.stages.evaluate import evaluate
from exact_core.stages.map_season import map_season
from exact_core.stages.train_segmenter import train_segmenter

__all__ = ["Row", "class_table", "main", "measure", "outlines_of", "table", "without"]

COLUMNS = ("majority", "pixel floor", "fused CAM", "masks", "expected", "map from tags", "map from dense")
FIELDS = ("masks with fields", "map with fields")


@dataclass(frozen=True)
class Row:
    """A scene and a seed: training windows, the split that is scored, mIoU of 1 by column, and IoU by class."""

    windows: int
    split: str
    figures: dict[str, float]
    classes: dict[str, float]


def outlines_of(folder: Path, named: str | None) -> str | None:
    """The outlines of a scene, as `data.season.outlines` takes them; None: it has none."""
    if named:
        return named
    stems = ("outlines", "parcels")
    places = [f"labels/{stem}{suffix}" for stem in stems for suffix in VECTORS]
    return next((place for place in places if (folder / place).is_file()), None)


def without(truth: NDArray[np.uint8], windows: WindowDataset, split: str) -> NDArray[np.uint8]:
    """Labels (H, W) of a scene, void outside of the windows of a split."""
    kept, side = np.full_like(truth, VOID), windows.manifest.window
    for index in windows.indices(split):
        record = windows.records[int(index)]
        here = np.s_[record.row : record.row + side, record.col : record.col + side]
        kept[here] = truth[here]
    return kept


def _trained(config: RunConfig, source: Path, place: Path, *, classifier: Path, dense: bool) -> None:
    """Dataset, classifier, masks and segmenters of a scene, and their evaluation."""
    data, masks = place / "dataset", place / "masks"
    make_masks(config, f"season:{source}", data=data, classifier=classifier, masks=masks)
    for name, given in (("tags", masks), ("dense", None))[: 2 if dense else 1]:
        model, scored = place / f"segmenter-{name}", place / f"evaluation-{name}"
        learn = {"dataset": data, "masks": given, "tracker": TRACKER}
        once(model, "model.json", lambda model=model, learn=learn: train_segmenter(config, out=model, **learn))  # type: ignore[misc]
        look = {**learn, "segmenter": model, "classifier": None, "report": place / f"report-{name}.html"}
        once(scored, "metrics.json", lambda scored=scored, look=look: evaluate(config, out=scored, **look))  # type: ignore[misc]


def measure(config: RunConfig, source: Path, place: Path, outlines: str | None) -> Row:
    """All figures of a scene and a seed; what is missing is made."""
    plain = place / "plain"
    _trained(config, source, plain, classifier=plain / "classifier", dense=True)
    tags, dense = read(plain / "evaluation-tags"), read(plain / "evaluation-dense")
    windows = WindowDataset(plain / "dataset")
    figures = {
        "majority": tags["baselines"]["majority"]["miou_macro"],
        "pixel floor": floors(plain / "dataset", seed=config.seed)["per pixel"]["miou_macro"],
        "fused CAM": tags["baselines"]["fused_cam"]["miou_macro"],
        "masks": tags["pseudo_masks"]["miou_macro"],
        "expected": tags["mask_quality"]["expected_miou"],
        "map from tags": tags["miou_macro"],
        "map from dense": dense["miou_macro"],
    }
    if outlines is not None:
        figures |= _with_fields(config, source, place, outlines, windows)
    classes = {name: each["iou"] for name, each in tags["per_class"].items() if each["iou"] is not None}
    split = "itself" if windows.manifest.self_scored else windows.manifest.evaluation_split
    return Row(len(windows.indices("train")), split, figures, classes)


def _with_fields(
    config: RunConfig, source: Path, place: Path, outlines: str, windows: WindowDataset
) -> dict[str, float]:
    """The masks and the map of the same classifier where outlines of fields are known."""
    fields = place / "fields"
    outlined = override(config, [f"data.season.outlines={outlines}", f"mapping.outlines={source / outlines}"])
    _trained(outlined, source, fields, classifier=place / "plain" / "classifier", dense=False)
    out = fields / "map"
    once(
        out,
        "map.json",
        lambda: map_season(
            outlined,
            source=f"season:{source}",
            season="",
            segmenter=fields / "segmenter-tags",
            out=out,
            tracker=TRACKER,
        ),
    )
    truth, names, _ = truth_of(source, config)
    found = score(out, without(truth, windows, windows.manifest.evaluation_split), names)
    masks: dict[str, Any] = read(fields / "evaluation-tags")["pseudo_masks"]
    return {"masks with fields": masks["miou_macro"], "map with fields": found.miou_macro}


def table(scenes: dict[str, list[Row]]) -> str:
    """A line a scene: mIoU in percent over seeds."""
    columns = (*COLUMNS, *FIELDS)
    lines = [f"| scene | windows | scored on | {' | '.join(columns)} |", "|" + " --- |" * (3 + len(columns))]
    for name, rows in scenes.items():
        cells = []
        for column in columns:
            values = [100 * row.figures[column] for row in rows if column in row.figures]
            cells.append(spread(values) if values else "–")
        lines.append(f"| {name} | {rows[0].windows} | {rows[0].split} | {' | '.join(cells)} |")
    return "\n".join(lines)


def class_table(scenes: dict[str, list[Row]]) -> str:
    """A line a scene: IoU of each class of the map from tags in percent, over the seeds in which it occurs."""
    lines = ["| scene | IoU by class, map from tags |", "| --- | --- |"]
    for name, rows in scenes.items():
        known = dict.fromkeys(each for row in rows for each in row.classes)
        cells = [f"{each} {spread([100 * row.classes[each] for row in rows if each in row.classes])}" for each in known]
        lines.append(f"| {name} | {', '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="season")
    parser.add_argument("--outlines", help="layer of outlines in each folder")
    parser.add_argument("--quadrants", action="store_true")
    parser.add_argument("--workdir", type=Path, default=Path("runs/real"))
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    scenes: dict[str, list[Row]] = {}
    for folder in options.folder:
        outlines = outlines_of(folder, options.outlines)
        for seed in options.seeds:
            config = resolve(options.recipe, seed=seed, overrides=options.changes)
            place = options.workdir / folder.name / f"seed{seed}"
            scenes.setdefault(folder.name, []).append(measure(config, folder, place, outlines))
    sys.stdout.write(table(scenes) + "\n\n" + class_table(scenes) + "\n")
    for folder in options.folder:
        if options.quadrants and scenes[folder.name][0].split == "itself":
            sys.stdout.write(f"\n{folder.name}, land that no model saw\n\n")
            sys.stdout.flush()
            command = [sys.executable, "-m", "benchmarks.quadrants", "--source", f"season:{folder}"]
            command += ["--recipe", options.recipe, "--workdir", str(options.workdir / folder.name / "quadrants")]
            command += ["--seeds", *map(str, options.seeds)]
            command += [part for change in options.changes for part in ("--set", change)]
            subprocess.run(command, check=True)  # noqa: S603 - our own command


if __name__ == "__main__":
    main()
