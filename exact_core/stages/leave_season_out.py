"""Stage `leave_season_out`: how well a model maps a season that it has not seen. The command does all in turn."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from exact_core.artifacts.folders import code_version, fresh_folder
from exact_core.config import RunConfig
from exact_core.data.windows.combined import join_datasets
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import DataError
from exact_core.evaluation.score import HEADLINE
from exact_core.files import copy_file
from exact_core.manifest import publish_record, read_record
from exact_core.stages.evaluate import evaluate
from exact_core.stages.gather_seasons import Fold, check_seasons
from exact_core.stages.generate_masks import generate_masks
from exact_core.stages.season_table import RECORD, ROW, season_table
from exact_core.stages.stage import Stage
from exact_core.stages.train_classifier import train_classifier
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.runs import NoTracker, Tracker
from exact_core.undefined import defined

__all__ = ["STAGE", "leave_each_season_out", "leave_season_out"]

STAGE = Stage(
    name="leave_season_out", size="train", minutes=2880, in_parts=True, writes={"season_row": ("season_row.json",)}
)

log = logging.getLogger(__name__)

TASK = "task.json"
"""What a folder that is not finished was begun with."""
MODELS = ("dataset", "classifier", "masks", "segmenter")
"""Folders behind a season's metrics."""


def leave_season_out(
    config: RunConfig,
    fold: Fold,
    *,
    dense: bool,
    out: Path,
    tracker: Tracker,
    report: Path | None = None,
    keep_models: bool = False,
) -> dict[str, float]:
    """Train on all seasons but one, and score on the evaluation split of that one, and on those of training.

    The difference is the loss on a new season. Finished parts in `out` are not repeated.

    Args:
        config: as for the stages of a run.
        fold: folders of the datasets, of equal bands, classes and window.
        dense: learn from dense labels instead of tags.
        out: folder; evaluation_new/ and evaluation_seen/, and last season_row.json.
        tracker: gets metrics and report of the season left out, and the metrics on those of training.
        report: file that gets a copy of the report. If None, nowhere.
        keep_models: leave the joint dataset, the models and the masks in `out`.

    Returns:
        OA, mIoU and F1 on the season left out, and `seen_` each on the others. Only those that are defined.

    Raises:
        ConfigError: the datasets differ, or one is there twice.
        DataError: `out` holds a finished result.
    """
    windows = [WindowDataset(folder) for folder in (fold.left_out, *fold.seen)]
    check_seasons(windows)
    fresh_folder(out, ROW)
    manifest = windows[0].manifest
    tracker.set_tags({"exact.left_out": str(manifest.season_start)})
    log.info("leave_season_out: %s (from %s), learned from %d", manifest.source, manifest.season_start, len(fold.seen))
    _train(config, fold, dense=dense, out=out)
    row = _row(config, windows, dense=dense) | {
        "new": _scored(config, fold.left_out, "new", out=out, tracker=tracker),
        "seen": _scored(config, out / "dataset", "seen", out=out, tracker=NoTracker()),
    }
    if report is not None:
        copy_file(out / "evaluation_new" / "report.html", report)
    if not keep_models:
        for name in MODELS:
            shutil.rmtree(out / name, ignore_errors=True)
    publish_record(out / ROW, row)
    tracker.log_file(out / ROW)
    summary = {
        prefix + name: row[kind][name]
        for kind, prefix in (("new", ""), ("seen", "seen_"))
        for name in HEADLINE
        if row[kind][name] is not None
    }
    tracker.log_summary(summary)
    return defined(summary)


def _row(config: RunConfig, windows: list[WindowDataset], *, dense: bool) -> dict[str, Any]:
    """Content of season_row.json beside the metrics. The season left out is the first of `windows`."""
    manifest = windows[0].manifest
    return {
        "season_start": str(manifest.season_start),
        "season_days": manifest.season_days,
        "source": manifest.source,
        "digest": manifest.digest,
        "split": manifest.evaluation_split,
        "self_scored": manifest.self_scored,
        "learned_from": [each.manifest.digest for each in windows[1:]],
        "supervision": "dense" if dense else "tags",
        "settings": config.digest("classifier", "masks", "segmenter", "seed"),
        "code_version": code_version(),
    }


def leave_each_season_out(
    config: RunConfig, *, datasets: list[Path], dense: bool, out: Path, tracker: Tracker
) -> dict[str, float]:
    """`leave_season_out` for each season in turn, and their table. Finished seasons are not repeated.

    Args:
        config: as for the stages of a run.
        datasets: folders, one a season, of equal bands, classes and window.
        dense: learn from dense labels instead of tags.
        out: folder. NN/ for the season of that number, report.html, and last leave_one_season_out.json.
        tracker: gets the table and its metrics.

    Returns:
        For each metric that is defined for every season: mean and worst, and the mean on seasons of training.

    Raises:
        ConfigError: fewer than two datasets, they differ, or one is there twice.
        DataError: `out` holds a finished result, or was started with other settings or datasets.
    """
    windows = [WindowDataset(folder) for folder in datasets]
    check_seasons(windows)
    fresh_folder(out, RECORD)
    _same_task(
        out,
        {
            "settings": config.digest("classifier", "masks", "segmenter", "seed"),
            "supervision": "dense" if dense else "tags",
            "datasets": [each.manifest.digest for each in windows],
        },
    )
    rows = []
    for number, left_out in enumerate(datasets):
        rows.append(out / f"{number:02d}")
        if (rows[-1] / ROW).exists():
            log.info("leave-one-season-out: %s: done already", left_out)
            continue
        fold = Fold(left_out, tuple(folder for place, folder in enumerate(datasets) if place != number))
        leave_season_out(config, fold, dense=dense, out=rows[-1], tracker=NoTracker(), keep_models=True)
    return season_table(rows=rows, out=out, tracker=tracker)


def _same_task(out: Path, task: dict[str, Any]) -> None:
    """Raise DataError if `out` is unfinished with other settings or datasets, or these in another order."""
    path = out / TASK
    if path.is_file() and read_record(path) != task:
        raise DataError(f"{out}: started with other settings or datasets. Choose another folder, or delete this one")
    publish_record(path, task)


def _train(config: RunConfig, fold: Fold, *, dense: bool, out: Path) -> None:
    """A segmenter of the seasons that are learned from, in `out`."""
    joint, silent = out / "dataset", NoTracker()
    if not (joint / "dataset.json").exists():
        join_datasets(fold.seen, joint)
    if not dense and not (out / "masks" / "masks.json").exists():
        if not (out / "classifier" / "model.json").exists():
            train_classifier(config, dataset=joint, out=out / "classifier", tracker=silent)
        generate_masks(config, dataset=joint, classifier=out / "classifier", out=out / "masks", tracker=silent)
    if not (out / "segmenter" / "model.json").exists():
        masks = None if dense else out / "masks"
        train_segmenter(config, dataset=joint, masks=masks, out=out / "segmenter", tracker=silent)


def _scored(config: RunConfig, dataset: Path, name: str, *, out: Path, tracker: Tracker) -> dict[str, Any]:
    """Metrics of the segmenter on a dataset, and the IoU of each class."""
    place = out / f"evaluation_{name}"
    if not (place / "metrics.json").exists():
        evaluate(
            config,
            dataset=dataset,
            segmenter=out / "segmenter",
            classifier=None,
            masks=None,
            out=place,
            report=out / f"report_{name}.html",
            tracker=tracker,
        )
    metrics = read_record(place / "metrics.json")
    iou = {crop: figures["iou"] for crop, figures in metrics["per_class"].items()}
    return {**{key: metrics[key] for key in HEADLINE}, "iou": iou}
