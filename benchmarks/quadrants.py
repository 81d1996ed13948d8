"""A scene too small for splits, held out a quarter at a time: maps from tags and from dense labels of unseen land.

    python -m benchmarks.quadrants --source season:PATH [--seeds 0 1 2] [--workdir runs/quadrants]
                                   [--set data.season.outlines=FILE]

Each quadrant of the scene is mapped by models that learned from the windows that do not touch it; the four confusion
matrices are added up. A crop is scored if it is tagged in at least `ENOUGH` training windows whichever quadrant is held
out: one that grows in a single field cannot be learned elsewhere, by anybody. Its pixels count in the overall accuracy,
where all miss them. With outlines of fields, a file in the season's folder, masks of tags have one crop a field, and so
has one more map from tags. What is done is kept in the work folder. The table goes to stdout as Markdown.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.floors import pixel_floor, score_split
from benchmarks.real import without
from benchmarks.supervision import spread
from benchmarks.tags import TRACKER, make_masks, once, score, truth_of
from exact_core.config import RunConfig, override
from exact_core.data.sources import parse_source
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.writer import DatasetWriter
from exact_core.metrics import Scores
from exact_core.recipes import resolve
from exact_core.stages.evaluate import evaluate, read_confusion
from exact_core.stages.ingest import ingest
from exact_core.stages.map_season import map_season
from exact_core.stages.train_segmenter import train_segmenter

QUADRANTS = (0, 1, 2, 3)
ENOUGH = 20
"""Training windows with a crop's tag."""
ROWS = {
    "pixels": "single pixels from tags (floor)",
    "utae": "map from tags, U-TAE on the same masks",
    "tags": "**map from tags**",
    "fields": "the same, one crop per field",
    "dense": "map from dense labels",
}


def hold_out(whole: WindowDataset, quadrant: int, out: Path) -> None:
    """The dataset with the windows inside a quadrant of its only scene for test, and those that touch it left out.

    Args:
        whole: windows of one scene.
        quadrant: 0 to 3, row-major.
        out: folder to write.
    """
    manifest, side = whole.manifest, whole.manifest.window
    (_, indices), *others = whole.scenes("train")
    if others:
        raise SystemExit(f"{whole.root}: {1 + len(others)} scenes; quadrants are for a single one, which has no splits")
    corners = np.array([(whole.records[index].row, whole.records[index].col) for index in indices])
    # Even, as clear patches and the blocks of a split are.
    middle = (corners.max(0) + side) // 4 * 2
    low = np.where([quadrant // 2, quadrant % 2], middle, 0)
    high = np.where([quadrant // 2, quadrant % 2], corners.max(0) + side, middle)
    inside = ((corners >= low) & (corners + side <= high)).all(1)
    touching = ((corners + side > low) & (corners < high)).all(1)
    with DatasetWriter(
        out,
        name=manifest.name,
        source=f"{manifest.source}, quadrant {quadrant} held out",
        bands=manifest.bands,
        classes=manifest.classes,
        colours=manifest.colours,
        window=side,
        season_start=manifest.season_start,
        season_days=manifest.season_days,
    ) as writer:
        for index, test, left_out in zip(indices, inside, touching & ~inside, strict=True):
            if not left_out:
                record = replace(whole.records[index], split="test" if test else "train")
                window = replace(whole.window(index), labels=whole.labels(index), fields=whole.fields(index))
                writer.add(record, window, origin=str(whole.root))


def measure(config: RunConfig, whole: WindowDataset, quadrant: int, workdir: Path) -> dict[str, NDArray[np.int64]]:
    """Confusion matrices of the rows on one quadrant."""
    data = workdir / "dataset"
    once(data, "dataset.json", lambda: hold_out(whole, quadrant, data))
    folders = {"data": data, "classifier": workdir / "classifier", "masks": workdir / "masks"}
    make_masks(config, whole.manifest.source, **folders)
    found = {name: mapped(config, name, workdir) for name in ("utae", "tags", "dense")}
    if whole.manifest.has_fields:
        found["fields"] = one_crop_a_field(config, whole, workdir)
    floor = workdir / "pixels.json"
    if not floor.is_file():
        windows = WindowDataset(data)
        floor.write_text(json.dumps(score_split(windows, "test", pixel_floor(windows, seed=config.seed)).tolist()))
    return {**found, "pixels": np.array(json.loads(floor.read_text()))}


def mapped(config: RunConfig, name: str, workdir: Path) -> NDArray[np.int64]:
    """The confusion matrix of a segmenter: of the recipe from tags or dense labels, or another one from tags."""
    model, scored = workdir / f"segmenter-{name}", workdir / f"evaluation-{name}"
    masks = None if name == "dense" else workdir / "masks"
    if name == "utae":
        config = config.model_copy(update={"segmenter": config.segmenter.model_copy(update={"model": "utae"})})
    settings: dict[str, Any] = {"dataset": workdir / "dataset", "masks": masks, "tracker": TRACKER}
    once(model, "model.json", lambda: train_segmenter(config, out=model, **settings))
    once(
        scored,
        "metrics.json",
        lambda: evaluate(
            config, segmenter=model, classifier=None, out=scored, report=workdir / f"report-{name}.html", **settings
        ),
    )
    return np.array(read_confusion(scored)[1])


def one_crop_a_field(config: RunConfig, whole: WindowDataset, workdir: Path) -> NDArray[np.int64]:
    """The confusion matrix on the quadrant of the map from tags with the outlines that the dataset has."""
    address = whole.manifest.source
    source, out = Path(parse_source(address)[1]), workdir / "map"
    outlined = override(config, [f"mapping.outlines={source / str(config.data.season.outlines)}"])
    learned = {"segmenter": workdir / "segmenter-tags", "tracker": TRACKER}
    once(out, "map.json", lambda: map_season(outlined, source=address, season="", out=out, **learned))
    truth, names, _ = truth_of(source, config)
    return score(out, without(truth, WindowDataset(workdir / "dataset"), "test"), names).confusion


def scored_classes(folders: list[Path]) -> list[int]:
    """Background, and the crops that are tagged in enough windows of every dataset."""
    counts = [list(WindowDataset(folder).manifest.tag_counts.values()) for folder in folders]
    return [0, *(1 + np.flatnonzero(np.min(counts, axis=0) >= ENOUGH)).tolist()]


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="season")
    parser.add_argument("--source", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/quadrants"))
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    seeds: list[dict[str, Scores]] = []
    for seed in options.seeds:
        config = resolve(options.recipe, seed=seed, overrides=options.changes)
        place = options.workdir / f"seed{seed}"
        data = place / "dataset"
        if not (data / "dataset.json").is_file():
            ingest(config, source=options.source, season="", out=data, tracker=TRACKER)
        found = [measure(config, WindowDataset(data), q, place / f"quadrant{q}") for q in QUADRANTS]
        seeds.append({name: Scores(np.sum([each[name] for each in found], axis=0)) for name in found[0]})
    folders = [
        options.workdir / f"seed{seed}" / f"quadrant{q}" / "dataset" for seed in options.seeds for q in QUADRANTS
    ]
    sys.stdout.write(table(seeds, scored_classes(folders), WindowDataset(folders[0]).manifest.classes) + "\n")


def table(seeds: list[dict[str, Scores]], scored: list[int], names: tuple[str, ...]) -> str:
    """Mean ± standard deviation over seeds, in percent."""
    titles = [("background", *names)[number] for number in scored]
    lines = [f"| map | OA | mIoU | mIoU, % of dense | {' | '.join(titles)} |", "|" + " --- |" * (4 + len(scored))]
    for row in (each for each in ROWS if each in seeds[0]):
        ious = np.array([100 * each[row].iou[scored] for each in seeds])
        dense = np.array([100 * each["dense"].iou[scored] for each in seeds]).mean(1)
        columns = [[100 * each[row].oa_micro for each in seeds], ious.mean(1), 100 * ious.mean(1) / dense, *ious.T]
        lines.append(f"| {ROWS[row]} | {' | '.join(spread(list(map(float, column))) for column in columns)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
