"""Seasons that were left out in turn: one HTML file that needs no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exact_core.evaluation.html_page import render
from exact_core.files import publish_text

__all__ = ["season_names", "write_seasons_page"]

FIGURES = {"oa_micro": "OA", "miou_macro": "mIoU", "f1_macro": "F1"}


def season_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the seasons, by first day and, if that is not unique, by source and digest."""
    names = [row["season_start"] for row in rows]
    for more in (
        lambda row: Path(row["source"].partition(":")[2] or row["source"]).name,
        lambda row: row["digest"][:8],
    ):
        twice = {name for name, count in Counter(names).items() if count > 1}
        names = [f"{name} {more(row)}" if name in twice else name for name, row in zip(names, rows, strict=True)]
    return names


def write_seasons_page(path: Path, record: dict[str, Any]) -> None:
    """Write the page to `path`, complete or not at all.

    Args:
        path: HTML file.
        record: content of leave_one_season_out.json (docs/data-format.md).
    """
    rows = record["seasons"]
    names = season_names(rows)
    worst = min((row["new"]["miou_macro"] for row in rows if row["new"]["miou_macro"] is not None), default=None)
    content = {
        "supervision": record["supervision"],
        "count": len(rows),
        "tiles": [
            ("mIoU on a season not seen, mean", record["mean"].get("miou_macro")),
            ("the worst season", record["worst"].get("miou_macro")),
            ("on the seasons learned from, mean", record["seen_mean"].get("miou_macro")),
        ],
        "notes": _notes(rows, names),
        "columns": list(FIGURES.values()),
        "seasons": [
            {
                "name": name,
                "source": row["source"],
                "values": [row["new"][key] for key in FIGURES],
                "seen": row["seen"]["miou_macro"],
                "lost": _lost(row["new"]["miou_macro"], row["seen"]["miou_macro"]),
                "worst": worst is not None and row["new"]["miou_macro"] == worst,
            }
            for name, row in zip(names, rows, strict=True)
        ],
        "mean": {
            "values": [record["mean"].get(key) for key in FIGURES],
            "seen": record["seen_mean"].get("miou_macro"),
            "lost": _lost(record["mean"].get("miou_macro"), record["seen_mean"].get("miou_macro")),
        },
        "names": names,
        "classes": [_class(crop, rows) for crop in rows[0]["new"]["iou"]],
    }
    publish_text(path, render("run_report/seasons.html.j2", content))


def _lost(new: float | None, seen: float | None) -> str:
    """Points between the two."""
    return "–" if new is None or seen is None else f"{100 * (new - seen):+.1f}".replace("-", "−")


def _class(crop: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A class over the seasons. Its worst one is marked."""
    values = [row["new"]["iou"].get(crop) for row in rows]
    known = [value for value in values if value is not None]
    lowest = min(known) if len(set(known)) > 1 else None
    return {
        "name": crop,
        "cells": [{"value": value, "worst": value is not None and value == lowest} for value in values],
        "mean": sum(known) / len(known) if known else None,
    }


def _notes(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Caveats for reading the metrics."""
    notes = []
    if any(row["new"]["miou_macro"] is None for row in rows):
        notes.append("Some seasons have no dense labels, so there is no mean over all of them.")
    if alone := [name for name, row in zip(names, rows, strict=True) if row["self_scored"]]:
        notes.append(
            f"No split of its own for scoring in: {', '.join(alone)}. All windows of such a season are scored when it "
            f"is left out; when it is in training, it makes the metrics on seasons of training too high."
        )
    if len(rows) == 2:
        notes.append("Two seasons: each model was trained on a single one, so the mean of two values is uncertain.")
    return notes
