"""Evaluated maps side by side: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exact_core.errors import DataError
from exact_core.evaluation.html_page import UNKNOWN, data_uri, png_of, render
from exact_core.evaluation.run_report.figures import confusion_figure
from exact_core.files import publish_text

__all__ = ["Candidate", "text_table", "write_comparison"]

FIGURES = {
    "Overall accuracy": ("oa_micro",),
    "mIoU": ("miou_macro",),
    "F1, macro": ("f1_macro",),
    "Pseudo masks, mIoU": ("pseudo_masks", "miou_macro"),
    "Expected OA of the map": ("map_quality", "expected_oa"),
    "Expected OA of the masks": ("mask_quality", "expected_oa"),
    "Expected mIoU of the masks": ("mask_quality", "expected_miou"),
    "Tags, mAP": ("tags", "map_macro"),
}
"""Rows by label, and where metrics.json has each. Those that no map has are left out."""


@dataclass(frozen=True)
class Candidate:
    """One evaluated map.

    Args:
        title: what it is called.
        metrics: content of its metrics.json (docs/data-format.md).
        facts: what it was made of, as label -> value.
        map_png: picture of its map. If None, there is none.
    """

    title: str
    metrics: dict[str, Any]
    facts: dict[str, str] = field(default_factory=dict)
    map_png: bytes | None = None


def write_comparison(path: Path, candidates: Sequence[Candidate]) -> None:
    """Write the comparison of two or more maps to `path`, complete or not at all.

    Raises:
        DataError: fewer than two, or they have no class in common.
    """
    if len(candidates) < 2:
        raise DataError(f"a comparison needs at least two maps, got {len(candidates)}. Name another run or model")
    names = [name for name in _classes(candidates[0]) if all(name in _classes(each) for each in candidates)]
    if not names:
        raise DataError(f"{' and '.join(each.title for each in candidates)} have no class in common")
    labels = list(dict.fromkeys(label for each in candidates for label in each.facts))
    content = {
        "columns": [{"title": each.title} for each in candidates],
        "notes": _notes(candidates),
        "figures": _figures(candidates),
        "facts": [{"label": label, "cells": [each.facts.get(label, "–") for each in candidates]} for label in labels],
        "classes": _classes_of(candidates, names),
        "pictures": _pictures(candidates),
    }
    publish_text(path, render("run_report/comparison.html.j2", content))


def text_table(candidates: Sequence[Candidate]) -> str:
    """Metrics and IoU by class in percent, for a terminal. Each map has a column, with its difference to the first."""
    names = [name for name in _classes(candidates[0]) if all(name in _classes(each) for each in candidates)]
    rows = _figures(candidates)
    rows += [{**row, "label": f"IoU {row['label']}"} for row in _classes_of(candidates, names)]
    table = [["%", *(each.title for each in candidates)]]
    for row in rows:
        cells = [
            "–" if cell["value"] is None else f"{100 * cell['value']:.1f}{f' ({difference})' if difference else ''}"
            for cell in row["cells"]
            for difference in [cell["difference"]]
        ]
        table.append([row["label"], *cells])
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in _notes(candidates))])


def _classes(candidate: Candidate) -> list[str]:
    return list(candidate.metrics.get("per_class") or {})


def _figures(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Rows of the metrics that any of the maps has."""
    rows = []
    for label, keys in FIGURES.items():
        values: list[Any] = [each.metrics for each in candidates]
        for key in keys:
            values = [(value or {}).get(key) for value in values]
        if any(value is not None for value in values):
            rows.append(_row(label, values))
    return rows


def _classes_of(candidates: Sequence[Candidate], names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the IoU of these classes. None where no map has any, as without dense labels."""
    rows = [_row(name, [each.metrics["per_class"][name]["iou"] for each in candidates]) for name in names]
    return [row for row in rows if any(cell["value"] is not None for cell in row["cells"])]


def _row(label: str, values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    best = max(known) if len(set(known)) > 1 else None
    first = values[0]
    cells = []
    for number, value in enumerate(values):
        difference = "" if number == 0 or value is None or first is None else f"{100 * (value - first):+.1f}"
        cells.append({"value": value, "difference": difference, "best": value is not None and value == best})
    return {"label": label, "cells": cells}


def _notes(candidates: Sequence[Candidate]) -> list[str]:
    """What stands in the way of a fair comparison."""
    notes = []
    for label, what in (("dataset", "datasets"), ("split", "splits")):
        values = {each.facts.get(label) for each in candidates} - {None, UNKNOWN}
        if len(values) > 1:
            notes.append(f"These maps were scored on different {what}, so their metrics are not comparable.")
    if len({tuple(_classes(each)) for each in candidates}) > 1:
        notes.append("They do not have the same classes. The table shows the common ones.")
    return notes


def _pictures(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    sections = []
    maps = [(each.title, data_uri(each.map_png)) for each in candidates if each.map_png is not None]
    if maps:
        sections.append({"title": "Maps", "narrow": False, "figures": maps})
    matrices = []
    for each in candidates:
        confusion = each.metrics.get("confusion") or {}
        counts = np.array(confusion.get("counts") or [], np.int64)
        if counts.sum():
            matrices.append((each.title, data_uri(png_of(confusion_figure(confusion["classes"], counts)))))
    if matrices:
        sections.append({"title": "Confusion", "narrow": True, "figures": matrices})
    return sections
