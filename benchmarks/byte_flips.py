"""Does the reader of each kind of file notice a changed byte before a number is computed from it?

    python -m benchmarks.byte_flips [--tries 100] [--seed 0]

A small generated season and a season folder go through all stages. Then, file by file, one byte at a random place gets
another value, and what reads that file in the product reads it; noticed is what ends in an error of ours. A byte is
put back before the next.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from exact_core.artifacts.folders import STATE_VARIABLE
from exact_core.artifacts.model_folders import load_classifier, load_segmenter, open_season_samples, read_metrics
from exact_core.config import RunConfig
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.errors import ExactError
from exact_core.manifest import read_record
from exact_core.map_statistics.map_folder import open_map
from exact_core.mapping.finished_rows import read_rows
from exact_core.mapping.season_map import open_part
from exact_core.models.classifier import TagClassifier
from exact_core.recipes import resolve
from exact_core.stages.evaluate import evaluate
from exact_core.stages.generate_masks import generate_masks
from exact_core.stages.ingest import ingest
from exact_core.stages.map_season import map_season
from exact_core.stages.train_classifier import train_classifier
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.storage import Cache, fetch_folder, publish_folder
from exact_core.tracking.runs import NoTracker
from exact_core.training.checkpoint import Checkpoints
from tests.conftest import TINY
from tests.fakes import write_season

TRACKER = NoTracker()


@dataclass(frozen=True)
class Kind:
    """A kind of artifact: its files, and what reads all of them."""

    name: str
    files: tuple[Path, ...]
    read: Callable[[], object]


class Interrupted(NoTracker):
    """Ends a training after its second epoch, so that its checkpoint stays."""

    def log_metrics(self, metrics: dict[str, float], *, step: int, **_: object) -> None:
        """See `NoTracker`."""
        if metrics and step == 2:
            raise KeyboardInterrupt


def kinds(root: Path) -> Iterator[Kind]:
    """Every kind of artifact, made in `root`."""
    config = resolve("demo", seed=1, overrides=TINY)
    dataset, classifier, masks, segmenter = (root / name for name in ("dataset", "classifier", "masks", "segmenter"))
    ingest(config, source="synthetic", season="", out=dataset, tracker=TRACKER)
    os.environ[STATE_VARIABLE] = str(root / "state")
    try:
        train_classifier(config, dataset=dataset, out=classifier, tracker=Interrupted())
    except KeyboardInterrupt:
        (state,) = (root / "state").iterdir()
    finally:
        del os.environ[STATE_VARIABLE]
    train_classifier(config, dataset=dataset, out=classifier, tracker=TRACKER)
    generate_masks(config, dataset=dataset, classifier=classifier, out=masks, tracker=TRACKER)
    train_segmenter(config, dataset=dataset, masks=masks, out=segmenter, tracker=TRACKER)
    evaluate(
        config,
        dataset=dataset,
        segmenter=segmenter,
        classifier=None,
        masks=None,
        out=root / "evaluation",
        report=root / "report.html",
        tracker=TRACKER,
    )
    windows = WindowDataset(dataset)

    def read_dataset() -> None:
        found = WindowDataset(dataset)
        for index in range(len(found)):
            found.window(index)
            found.labels(index)

    def read_segmenter() -> None:
        _, manifest, _ = load_segmenter(segmenter, windows)
        open_season_samples(segmenter, manifest)
        read_metrics(segmenter)

    def read_classifier() -> None:
        load_classifier(classifier, windows)
        read_metrics(classifier)

    def read_state() -> None:
        model = TagClassifier(config.classifier, bands=10, classes=windows.classes, window=config.data.window)
        Checkpoints(state).resume(model, torch.optim.AdamW(model.parameters()))

    yield Kind("dataset", _files(dataset, but=("config.yaml",)), read_dataset)
    yield Kind("classifier", _files(classifier), read_classifier)
    yield Kind("checkpoint", _files(state), read_state)
    yield Kind("masks", _files(masks, but=("config.yaml",)), lambda: MaskSet(masks, windows))
    yield Kind("segmenter", _files(segmenter), read_segmenter)
    figures = root / "evaluation" / "metrics.json"
    yield Kind("evaluation", (figures,), lambda: read_record(figures))
    yield _stored(root, dataset)
    yield from _maps(root, config)


def _stored(root: Path, dataset: Path) -> Kind:
    """A published folder: its pointer and its objects."""
    pointer = publish_folder(dataset, "dataset.json", str(root / "store"))

    def read() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            cache = Cache(Path(scratch) / "cache", bound=10**9)
            fetch_folder(pointer.uri, Path(scratch) / "folder", cache=cache)

    return Kind("stored folder", _files(root / "store"), read)


def _maps(root: Path, config: RunConfig) -> Iterator[Kind]:
    """A map, and a part of one."""
    write_season(root / "season", size=(58, 74))
    sizes = [setting for setting in TINY if not setting.startswith(("data.synthetic", "device"))]
    config = resolve("season", seed=1, overrides=[*sizes, "device=cpu", "data.window=8"])
    source = f"season:{root / 'season'}"
    ingest(config, source=source, season="", out=root / "windows", tracker=TRACKER)
    train_segmenter(config, dataset=root / "windows", masks=None, out=root / "model", tracker=TRACKER)
    for name, part in (("map", ""), ("part", "1/2")):
        map_season(
            config,
            source=source,
            season="",
            segmenter=root / "model",
            out=root / name,
            tracker=TRACKER,
            part=part,
        )

    def read_part() -> None:
        manifest = open_part(root / "part")
        for _ in read_rows(root / "part" / "rows", first=manifest.first, end=manifest.end):
            pass

    # The others are for programs of other people, who find their checksums in item.json and map.json.
    read_by_us = tuple(root / "map" / name for name in ("map.json", "class.tif", "confidence.tif"))
    yield Kind("map", read_by_us, lambda: open_map(root / "map").count())
    yield Kind("part of a map", (root / "part" / "part.json", *sorted((root / "part").rglob("*.npz"))), read_part)


def _files(folder: Path, *, but: tuple[str, ...] = ()) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in but))


def flip(kind: Kind, *, tries: int, seed: int) -> list[tuple[Path, int]]:
    """File and place of each flip that the reader did not notice; `tries` flips, shared out among the files."""
    kind.read()
    draw, missed = random.Random(f"{seed} {kind.name}"), []  # noqa: S311 - any will do
    for number in range(tries):
        path = kind.files[number % len(kind.files)]
        content = path.read_bytes()
        place = draw.randrange(len(content))
        wrong = bytes([content[place] ^ draw.randrange(1, 256)])
        mode = path.stat().st_mode
        path.chmod(0o644)
        path.write_bytes(content[:place] + wrong + content[place + 1 :])
        try:
            kind.read()
            missed.append((path, place))
        except ExactError:
            pass
        finally:
            path.write_bytes(content)
            path.chmod(mode)
    return missed


def main() -> None:
    """Print kind, files, tried and noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=100, help="flips for each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # What the cache says of each copy that it fetches again.
    logging.disable(logging.WARNING)
    lost = 0
    with tempfile.TemporaryDirectory() as folder:
        print("| kind | files | tried | noticed |\n| --- | --- | --- | --- |")
        for kind in kinds(Path(folder)):
            missed = flip(kind, tries=arguments.tries, seed=arguments.seed)
            lost += len(missed)
            noticed = arguments.tries - len(missed)
            print(f"| {kind.name} | {len(kind.files)} | {arguments.tries} | {noticed} |", flush=True)
            for path, place in missed:
                print(f"not noticed: {path.relative_to(folder)}, byte {place}", file=sys.stderr)
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
