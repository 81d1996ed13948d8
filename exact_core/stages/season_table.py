"""Stage `season_table`: what became of each season that was left out -> one table of all, mean and worst. A page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exact_core.artifacts.folders import fresh_folder
from exact_core.errors import DataError
from exact_core.evaluation.run_report.seasons_page import season_names, write_seasons_page
from exact_core.evaluation.score import HEADLINE
from exact_core.files import copy_file
from exact_core.manifest import publish_record, read_record
from exact_core.markdown import as_markdown
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker
from exact_core.undefined import defined

__all__ = ["RECORD", "ROW", "STAGE", "season_table", "table"]

STAGE = Stage(name="season_table", size="small", minutes=30, writes={"comparison": ("leave_one_season_out.json",)})

log = logging.getLogger(__name__)

RECORD = "leave_one_season_out.json"
ROW = "season_row.json"
"""Manifest of the folder of one season that was left out."""
ALIKE = ("settings", "supervision")


def season_table(*, rows: Sequence[Path], out: Path, tracker: Tracker, report: Path | None = None) -> dict[str, float]:
    """Mean and worst over the seasons.

    Args:
        rows: folders of stage `leave_season_out`, one a season. All of them, in any order.
        out: folder for report.html and leave_one_season_out.json, which is written last.
        tracker: gets both, and the metrics.
        report: file that gets a copy of the report. If None, nowhere.

    Returns:
        For each metric that is defined for every season: `mean_`, `worst_` and, on the seasons of training,
            `seen_mean_`.

    Raises:
        DataError: rows of different runs, or not all of them.
    """
    fresh_folder(out, RECORD)
    seasons = sorted((read_record(folder / ROW) for folder in rows), key=lambda row: row["season_start"])
    _check(seasons)
    figures = _summary(seasons)
    record = {"seasons": seasons, "supervision": seasons[0]["supervision"], **figures}
    write_seasons_page(out / "report.html", record)
    if report is not None:
        copy_file(out / "report.html", report)
    publish_record(out / RECORD, record)
    tracker.log_file(out / RECORD)
    tracker.log_file(out / "report.html", folder="report")
    summary = defined({f"{kind}_{name}": value for kind, values in figures.items() for name, value in values.items()})
    tracker.log_summary(summary)
    for line in table(out).splitlines():
        log.info("season_table: %s", line)
    return summary


def table(out: Path) -> str:
    """The result as Markdown, metrics in percent."""
    record = read_record(out / RECORD)
    lines = ["| left out | OA | mIoU | F1 | mIoU, seasons seen |", "| --- | --- | --- | --- | --- |"]
    for name, row in zip(season_names(record["seasons"]), record["seasons"], strict=True):
        lines.append(_line(as_markdown(name), row["new"], row["seen"]))
    lines.append(_line("**mean**", record["mean"], record["seen_mean"]))
    lines.append(_line("**worst**", record["worst"], {}))
    return "\n".join(lines)


def _line(name: str, figures: dict[str, float | None], seen: dict[str, float | None]) -> str:
    values = [*(figures.get(key) for key in HEADLINE), seen.get("miou_macro")]
    return f"| {name} | {' | '.join('–' if value is None else f'{100 * value:.1f}' for value in values)} |"


def _check(seasons: list[dict[str, Any]]) -> None:
    """Raise DataError unless the rows are one comparison: each season left out once, learned from all others."""
    for key in ALIKE:
        if len(values := {row[key] for row in seasons}) > 1:
            raise DataError(f"seasons of different runs: {key} {' and '.join(sorted(values))}. Run all of them anew")
    for row in seasons:
        others = [each["digest"] for each in seasons if each is not row]
        if not others or sorted(row["learned_from"]) != sorted(others):
            raise DataError(
                f"the season from {row['season_start']} ({row['source']}) was scored by a model of "
                f"{len(row['learned_from'])} seasons, which are not the {len(others)} others given. Give all of a run"
            )


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
