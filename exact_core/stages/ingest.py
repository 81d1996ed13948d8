"""Stage `ingest`: a source of images and tags -> a window dataset."""

from __future__ import annotations

import logging
from pathlib import Path

from exact_core.config import RunConfig
from exact_core.data.sources import dataset_title, parse_source, source_of, with_season
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.tag_support import tag_findings
from exact_core.stages.fetch import local_place
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker

__all__ = ["STAGE", "ingest"]

STAGE = Stage(
    name="ingest",
    size="data",
    minutes=240,
    image="data",
    reads_source=True,
    settings=("data",),
    writes={"dataset": ("dataset.json",)},
)

log = logging.getLogger(__name__)


def ingest(config: RunConfig, *, source: str, season: str, out: Path, tracker: Tracker) -> dict[str, float]:
    """Read a source and write its windows to `out`.

    Args:
        config: `config.data` applies.
        source: one of `exact_core.data.sources`.
        season: of a source with images of an area, a year or START/DAYS. If empty, that of the source or of `config`.
        out: folder of the dataset. Its config.yaml has the settings in use, including the source's own.
        tracker: gets the dataset's name and digest.

    Returns:
        Numbers of windows, of training windows and of classes.

    Raises:
        ConfigError: unknown kind of source.
        DataError: the source is invalid.
    """
    kind, _ = parse_source(source)
    config = with_season(config, season, kind=kind)
    data, place = source_of(kind), local_place(config, source)
    config = config.model_copy(update={"data": data.settings(place, config.data)})
    data.ingest(place, config.data, out, seed=config.seed, origin=source)
    config.save(out / "config.yaml")
    dataset = WindowDataset(out)
    manifest = dataset.manifest
    tracker.log_dataset(out, name=dataset_title(manifest), digest=manifest.digest, source=source)
    tracker.log_file(out / "dataset.json")
    for note in (*manifest.notes, *_untagged(dataset)):
        log.info("ingest: note: %s", note)
    for finding in tag_findings(dataset.tags[dataset.indices("train")], manifest.classes):
        log.warning("ingest: tags: %s", finding)
    log.info(
        "ingest: %s windows (train %d, validation %d, test %d), %d crops, digest %s",
        sum(manifest.splits.values()),
        *(manifest.splits[split] for split in ("train", "validation", "test")),
        len(manifest.classes),
        manifest.digest[:12],
    )
    summary = {
        "windows": float(sum(manifest.splits.values())),
        "training_windows": float(manifest.splits["train"]),
        "classes": float(len(manifest.classes)),
    }
    tracker.log_summary(summary)
    return summary


def _untagged(dataset: WindowDataset) -> list[str]:
    """Splits in whose windows no crop is tagged (a town, a forest): scores of tags are not defined there."""
    return [
        f"no window of the {split} split has a tag: its scores of tags are not defined and are left out. Give it other "
        f"scenes, or more of them"
        for split in ("train", "validation", "test")
        if len(indices := dataset.indices(split)) and not dataset.tags[indices].any()
    ]
