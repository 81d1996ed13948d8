"""`exact leave-one-season-out`: how well a model maps a season that it has not seen, season by season."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from exact_core.config import RunConfig
from exact_core.data.dataset import WindowDataset
from exact_core.data.joined import check_alike, join_datasets
from exact_core.errors import ConfigError, DataError
from exact_core.evaluation.score import HEADLINE
from exact_core.files import publish_text
from exact_core.stages.evaluate import evaluate
from exact_core.stages.frame import fresh_folder
from exact_core.stages.generate_masks import generate_masks
from exact_core.stages.train_classifier import train_classifier
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking import NoTracker, Tracker

__all__ = ["leave_season_out", "table"]

log = logging.getLogger(__name__)

RECORD = "leave_one_season_out.json"
TASK = "task.json"
"""What a folder that is not finished was begun with."""


def leave_season_out(
    config: RunConfig, *, datasets: list[Path], dense: bool, out: Path, tracker: Tracker
) -> dict[str, float]:
    """Train on all seasons but one and score on that one's evaluation split, for each in turn.

    The same model is also scored on the evaluation split of the seasons it has seen: what is lost between the two is
    what a new season costs. A season that is done is not done again.

    Args:
        config: as for the stages of a run.
        datasets: folders, one a season, of equal bands, classes and window.
        dense: learn from dense labels instead of tags.
        out: folder; NN/ for the season of that number, and last leave_one_season_out.json.
        tracker: gets mean and worst.

    Returns:
        Of each figure that is defined for every season: mean and worst, and the mean on seen seasons.

    Raises:
        ConfigError: fewer than two datasets, or they differ.
        DataError: `out` holds a finished result, or was begun with other settings or datasets.
    """
    if len(datasets) < 2:
        raise ConfigError(f"{len(datasets)} dataset: give two seasons or more, one to be left out in turn")
    windows = [WindowDataset(folder) for folder in datasets]
    check_alike(windows)
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
        seen = [folder for place, folder in enumerate(datasets) if place != number]
        log.info("leave-one-season-out: %s is left out of %d", left_out, len(datasets))
        rows.append(_row(config, left_out, seen, dense=dense, out=out / f"{number:02d}"))
    figures = _summary(rows)
    record = {"seasons": rows, "supervision": "dense" if dense else "tags", **figures}
    publish_text(out / RECORD, json.dumps(record, indent=2))
    tracker.log_file(out / RECORD)
    summary = {f"{kind}_{name}": value for kind, values in figures.items() for name, value in values.items()}
    tracker.log_summary(summary)
    return summary


def _same_task(out: Path, task: dict[str, Any]) -> None:
    """Raise DataError if what lies half done in `out` is of other settings or datasets, or these in another order."""
    path = out / TASK
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != task:
        raise DataError(f"{out}: begun with other settings or datasets; choose another folder, or delete this one")
    publish_text(path, json.dumps(task, indent=2))


def table(out: Path) -> str:
    """The result as Markdown, figures in percent."""
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    lines = ["| left out | OA | mIoU | F1 | mIoU, seasons seen |", "| --- | --- | --- | --- | --- |"]
    for row in record["seasons"]:
        lines.append(_line(f"{row['season_start']} ({Path(row['dataset']).name})", row["new"], row["seen"]))
    lines.append(_line("**mean**", record["mean"], record["seen_mean"]))
    lines.append(_line("**worst**", record["worst"], {}))
    return "\n".join(lines)


def _line(name: str, figures: dict[str, float | None], seen: dict[str, float | None]) -> str:
    values = [*(figures.get(key) for key in HEADLINE), seen.get("miou_macro")]
    return f"| {name} | {' | '.join('–' if value is None else f'{100 * value:.1f}' for value in values)} |"


def _row(config: RunConfig, left_out: Path, seen: list[Path], *, dense: bool, out: Path) -> dict[str, Any]:
    """One season: trained on the others, scored on it."""
    joint, segmenter = out / "dataset", out / "segmenter"
    silent = NoTracker()
    if not (joint / "dataset.json").exists():
        join_datasets(seen, joint)
    if not dense and not (out / "masks" / "masks.json").exists():
        if not (out / "classifier" / "model.json").exists():
            train_classifier(config, dataset=joint, out=out / "classifier", tracker=silent)
        generate_masks(config, dataset=joint, classifier=out / "classifier", out=out / "masks", tracker=silent)
    if not (segmenter / "model.json").exists():
        masks = None if dense else out / "masks"
        train_segmenter(config, dataset=joint, masks=masks, out=segmenter, tracker=silent)
    figures = {}
    for name, folder in (("new", left_out), ("seen", joint)):
        place = out / f"evaluation_{name}"
        if not (place / "metrics.json").exists():
            evaluate(
                config,
                dataset=folder,
                segmenter=segmenter,
                classifier=None,
                masks=None,
                out=place,
                report=out / f"report_{name}.html",
                tracker=silent,
            )
        metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        figures[name] = {key: metrics[key] for key in HEADLINE}
    manifest = WindowDataset(left_out).manifest
    return {
        "dataset": str(left_out),
        "digest": manifest.digest,
        "season_start": str(manifest.season_start),
        "split": manifest.evaluation_split,
        **figures,
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and worst of what is known of every season."""
    found: dict[str, dict[str, float]] = {"mean": {}, "worst": {}, "seen_mean": {}}
    for key in HEADLINE:
        new, seen = ([row[kind][key] for row in rows] for kind in ("new", "seen"))
        if None not in new:
            found["mean"][key], found["worst"][key] = sum(new) / len(new), min(new)
        if None not in seen:
            found["seen_mean"][key] = sum(seen) / len(seen)
    return found
