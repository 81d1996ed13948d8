"""Few tags, as people have them: a scene told by some squares, against what all of its labels say.

    python -m benchmarks.tags --source season:PATH [--squares 10 25 50 100] [--draws 0 1 2] [--size 120]
                              [--outlines FILE] [--dense] [--recipe season] [--workdir runs/tags]

Squares of `--size` metres are drawn anywhere in the scene, their crops taken from its labels (those that cover more
than data.tag_share), and written to a table of tags; the run sees that table and the images, nothing else. Its map of
the whole scene is scored by pixel against the labels, void left out. Where outlines are given, so is the same map with
one crop a field, and a map whose season folder has the outlines, so that masks and map have one crop a field.
`--dense` adds maps of segmenters that learn the labels of the squares' pixels in the place of masks: what the squares
can teach at most. What is there is not made again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from exact_core.config import RunConfig, override
from exact_core.data.season.folder import merged, open_season
from exact_core.data.season.labels import LabelLayer, open_labels
from exact_core.data.season.rasters import Grid
from exact_core.data.sources import parse_source
from exact_core.data.windows.cutting import tags_from_labels
from exact_core.data.windows.dataset import CLEAR_PATCH, VOID, WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet, write_mask_shard
from exact_core.metrics import Scores, confusion_matrix
from exact_core.recipes import resolve
from exact_core.stages.generate_masks import generate_masks
from exact_core.stages.ingest import ingest
from exact_core.stages.map_season import map_season
from exact_core.stages.train_classifier import train_classifier
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.runs import NoTracker

__all__ = ["draw_squares", "main", "measure", "score"]

TRACKER = NoTracker()


def truth_of(source: Path, config: RunConfig) -> tuple[NDArray[np.uint8], tuple[str, ...], Grid]:
    """Labels (H, W) of a scene, the names of its crops 1..K, and its pixels."""
    images = open_season(source, config.data)
    layer = open_labels(source, merged(source, config.data).season, [])
    if not isinstance(layer, LabelLayer):
        raise SystemExit(f"{source}: its labels are a table of tags already; give a scene with a raster or parcels")
    classes = layer.classes(layer.present(images.grid), [])
    return layer.labels(classes, images.grid, []), classes.classes, images.grid


def draw_squares(
    labels: NDArray[np.uint8],
    names: tuple[str, ...],
    grid: Grid,
    config: RunConfig,
    *,
    count: int,
    size: float,
    draw: int,
) -> str:
    """A table of tags: so many squares of `size` metres anywhere in the scene, none of them all void."""
    rng = np.random.default_rng((draw, count))
    side = max(CLEAR_PATCH, round(size / abs(grid.transform.a) / CLEAR_PATCH) * CLEAR_PATCH)
    lines = ["x,y,size,crops"]
    while len(lines) <= count:
        row, col = (int(rng.integers(0, (length - side) // CLEAR_PATCH + 1)) * CLEAR_PATCH for length in labels.shape)
        part = labels[row : row + side, col : col + side]
        if (part == VOID).all():
            continue
        tags = tags_from_labels(part, classes=len(names), share=config.data.tag_share)
        crops = ";".join(name for name, tag in zip(names, tags, strict=True) if tag)
        x, y = grid.transform @ (col + side / 2, row + side / 2)
        lines.append(f"{x},{y},{side * abs(grid.transform.a):g},{crops}")
    return "\n".join(lines) + "\n"


def told(source: Path, folder: Path, table: str, outlines: Path | None = None) -> Path:
    """The images of a season with a table of tags in the place of its labels, and outlines of fields."""
    if not (folder / "labels" / "tags.csv").is_file():
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        for each in source.iterdir():
            if each.name != "labels" and not (folder / each.name).exists():
                (folder / each.name).symlink_to(each.resolve())
        if outlines is not None:
            (folder / "labels" / f"outlines{outlines.suffix}").symlink_to(outlines.resolve())
        (folder / "labels" / "tags.csv").write_text(table, encoding="utf-8")
    return folder


def score(folder: Path, truth: NDArray[np.uint8], names: tuple[str, ...]) -> Scores:
    """A map against labels; its classes are found by their names."""
    with rasterio.open(folder / "class.tif") as file:
        label, tags = file.read(1), file.tags(1)
    known = {"background": 0, **{name: number for number, name in enumerate(names, 1)}}
    ours = np.zeros(VOID + 1, np.uint8)
    for key, name in tags.items():
        if key.startswith("CLASS_"):
            ours[int(key.removeprefix("CLASS_"))] = known[name]
    # What could not be mapped counts as background: it is not right.
    return Scores(confusion_matrix(truth, ours[label], classes=len(names)))


def once(folder: Path, last: str, make: Callable[[], object]) -> None:
    """Make what is not there."""
    if not (folder / last).is_file():
        make()


def make_masks(config: RunConfig, source: str, *, data: Path, classifier: Path, masks: Path) -> None:
    """Dataset, classifier and masks of a source, as far as they are not there."""
    once(data, "dataset.json", lambda: ingest(config, source=source, season="", out=data, tracker=TRACKER))
    once(classifier, "model.json", lambda: train_classifier(config, dataset=data, out=classifier, tracker=TRACKER))
    once(
        masks,
        "masks.json",
        lambda: generate_masks(config, dataset=data, classifier=classifier, out=masks, tracker=TRACKER),
    )


def measure(config: RunConfig, source: Path, place: Path, outlines: Path | None) -> dict[str, Path]:
    """The maps of a run on a season with a table of tags: from pixels, and with one crop a field in the map."""
    data, classifier, masks = (place / name for name in ("dataset", "classifier", "masks"))
    address = f"season:{source}"
    make_masks(config, address, data=data, classifier=classifier, masks=masks)
    return maps_from(config, address, data=data, masks=masks, place=place, outlines=outlines)


def maps_from(
    config: RunConfig, address: str, *, data: Path, masks: Path, place: Path, outlines: Path | None
) -> dict[str, Path]:
    """The maps of a segmenter that learns these masks."""
    segmenter = place / "segmenter"
    once(
        segmenter,
        "model.json",
        lambda: train_segmenter(config, dataset=data, masks=masks, out=segmenter, tracker=TRACKER),
    )
    maps = {"map": place / "map"}
    arguments = {"source": address, "season": "", "segmenter": segmenter, "tracker": TRACKER}
    pixels = override(config, ["mapping.outside=pixels", "mapping.outlines=null"])
    once(place / "map", "map.json", lambda: map_season(pixels, out=place / "map", **arguments))
    if outlines is not None:
        maps["fields in the map"] = place / "fields"
        once(
            place / "fields",
            "map.json",
            lambda: map_season(override(config, [f"mapping.outlines={outlines}"]), out=place / "fields", **arguments),
        )
    return maps


def write_truth(data: Path, masks: Path, out: Path, truth: NDArray[np.uint8], names: tuple[str, ...]) -> None:
    """A mask set like another one, with the labels in the place of its masks. Crops that no square names are void."""
    windows = WindowDataset(data)
    made, side = MaskSet(masks, windows), windows.manifest.window
    ours = np.full(VOID + 1, VOID, np.uint8)
    ours[0] = 0
    for label, name in enumerate(windows.manifest.classes, 1):
        ours[names.index(name) + 1] = label
    indices = windows.indices("train").tolist()
    corners = [(windows.records[index].row, windows.records[index].col) for index in indices]
    arrays: dict[str, NDArray[np.generic]] = {
        "index": np.array(indices),
        "masks": np.stack([ours[truth[row : row + side, col : col + side]] for row, col in corners]),
        "cams": np.stack([made.cam(index) for index in indices]),
        "fused": np.stack([made.cam(index, fused=True) for index in indices]),
    }
    out.mkdir(parents=True, exist_ok=True)
    shards = (write_mask_shard(out, 0, arrays),)
    # What was expected of the masks is not said of labels.
    unknown = dict.fromkeys(("expected_oa", "expected_miou", "expected_low", "expected_high"))
    quality = made.manifest.quality.model_copy(update=unknown)
    changed = {"shards": shards, "splits": ("train",), "rule": "labels", "quality": quality}
    made.manifest.model_copy(update=changed).publish(out)


def main() -> None:
    """Run what is missing and print a line a number of squares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--squares", type=int, nargs="+", default=[10, 25, 50, 100])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=float, default=120.0)
    parser.add_argument("--outlines", type=Path)
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--recipe", default="season")
    parser.add_argument("--workdir", type=Path, default=Path("runs/tags"))
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    source = Path(parse_source(options.source)[1])
    config = resolve(options.recipe, seed=0, overrides=options.changes)
    truth, names, grid = truth_of(source, config)
    sys.stdout.write(f"| squares | draw | map | OA | mIoU | {' | '.join(('background', *names))} |\n")
    sys.stdout.write("|" + " --- |" * (6 + len(names)) + "\n")
    for count in options.squares:
        for draw in options.draws:
            place = options.workdir / f"{count}-{draw}"
            table = draw_squares(truth, names, grid, config, count=count, size=options.size, draw=draw)
            seeded = config.model_copy(update={"seed": draw})
            maps = measure(seeded, told(source, place / "season", table), place, options.outlines)
            if options.outlines is not None:
                inside = place / "outlines"
                season = told(source, inside / "season", table, options.outlines)
                found = measure(seeded, season, inside, options.outlines)
                maps["fields in masks and map"] = found["fields in the map"]
            if options.dense:
                inside = place / "dense"
                given = {"data": place / "dataset", "masks": inside / "masks"}
                once(
                    given["masks"],
                    "masks.json",
                    lambda place=place, given=given: write_truth(  # type: ignore[misc]
                        given["data"], place / "masks", given["masks"], truth, names
                    ),
                )
                address = f"season:{place / 'season'}"
                found = maps_from(seeded, address, place=inside, outlines=options.outlines, **given)
                maps |= {f"{name}, dense labels of the squares": folder for name, folder in found.items()}
            for name, folder in maps.items():
                found = score(folder, truth, names)
                ious = " | ".join("–" if np.isnan(iou) else f"{100 * iou:.0f}" for iou in found.iou)
                figures = f"{100 * found.oa_micro:.1f} | {100 * found.miou_macro:.1f}"
                sys.stdout.write(f"| {count} | {draw} | {name} | {figures} | {ious} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
