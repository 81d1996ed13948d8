"""The report of a run: one HTML file that needs no network, and its main figures as PNG files.

`write_report` turns a ReportData into plain values and fills `report.html.j2` with them; the template holds all text
and style, `figures` all pictures. Figures that are unknown (no dense labels) stay unknown: they read "–".
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from exact_core.config import RunConfig
from exact_core.data.windows.dataset import DatasetManifest
from exact_core.evaluation.html_page import _is_number, _percent, data_uri, embed, png_of, render
from exact_core.evaluation.palette import colours_of
from exact_core.evaluation.run_report.figures import (
    Panel,
    SceneMap,
    columns_of_map,
    columns_of_panel,
    confusion_figure,
    curves_figure,
    dates_figure,
    histogram_figure,
    map_figure,
    panels_figure,
    per_class_figure,
)
from exact_core.files import publish_text

__all__ = ["Panel", "ReportData", "SceneMap", "figure_files", "write_report"]

PIXEL_BUDGET = 600_000
"""Pixels of all shown scenes together; beyond it they are thinned, so that the report stays below 5 MB."""
MAX_SCENES = 6
"""Scenes shown; a test split may have hundreds."""


@dataclass(frozen=True)
class ReportData:
    """What a report is made of.

    Args:
        config: the resolved configuration.
        manifest: the dataset's manifest.
        metrics: content of metrics.json.
        masks: content of masks.json; None with dense supervision.
        classifier_history, segmenter_history: one dict of figures an epoch.
        panels: windows to show on their way from tags to map.
        maps: mapped scenes of the evaluation split.
        provenance: what ran, where and when, as label -> value.
    """

    config: RunConfig
    manifest: DatasetManifest
    metrics: dict[str, Any]
    masks: dict[str, Any] | None
    classifier_history: list[dict[str, float]]
    segmenter_history: list[dict[str, float]]
    panels: list[Panel]
    maps: list[SceneMap]
    provenance: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of labels 0..K."""
        return ("background", *self.manifest.classes)


def write_report(path: Path, data: ReportData) -> None:
    """Write the report to `path`, complete or not at all."""
    publish_text(path, render("run_report/report.html.j2", _content(data)))


def figure_files(data: ReportData, folder: Path) -> list[Path]:
    """Write the figures that the run has something for, as PNG.

    Returns:
        Paths of map.png, panels.png, confusion.png, per_class.png, curves.png and dates.png, as far as they were
        written.
    """
    classes = data.manifest.classes
    colours = colours_of(classes, data.manifest.colours)
    figures: dict[str, Figure | None] = {
        "map": map_figure(_thinned(data.maps[:MAX_SCENES]), classes, colours) if data.maps else None,
        "panels": panels_figure(data.panels, classes, colours) if data.panels else None,
        **_charts(data),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        if figure is not None and name != "histogram":
            path = folder / f"{name}.png"
            partial = folder / f"{name}.png.partial"
            partial.write_bytes(png_of(figure))
            partial.replace(path)
            written.append(path)
    return written


def _charts(data: ReportData) -> dict[str, Figure | None]:
    """The drawn charts by name; None where there is nothing to draw."""
    names, metrics = data.names, data.metrics
    counts = np.array((metrics.get("confusion") or {}).get("counts") or [], np.int64)
    series = {
        caption: [((scores.get("per_class") or {}).get(name) or {}).get("iou") for name in names]
        for caption, scores in (
            ("Crop map", metrics),
            ("Pseudo masks", metrics.get("pseudo_masks")),
            ("Fused CAM", (metrics.get("baselines") or {}).get("fused_cam")),
        )
        if scores is not None and _scored(scores)
    }
    histories = {"Classifier": data.classifier_history, "Segmenter": data.segmenter_history}
    by_date = metrics.get("by_date") or []
    histogram = data.masks is not None and sum(data.masks.get("histogram") or []) > 0
    return {
        "confusion": confusion_figure(names, counts) if counts.sum() else None,
        "per_class": per_class_figure(names, series) if series else None,
        "curves": curves_figure(histories) if any(histories.values()) else None,
        "dates": dates_figure(by_date) if len(by_date) > 1 else None,
        "histogram": histogram_figure(data.masks) if data.masks is not None and histogram else None,
    }


def _content(data: ReportData) -> dict[str, Any]:
    """Values of the template."""
    manifest, metrics = data.manifest, data.metrics
    palette = colours_of(manifest.classes, manifest.colours)
    colours = dict(zip(data.names, palette, strict=True))
    shown = _thinned(data.maps[:MAX_SCENES])
    coverage = (data.masks or {}).get("coverage") or {}
    return {
        "manifest": manifest,
        "metrics": metrics,
        "masks": data.masks,
        "dense": metrics.get("supervision") == "dense",
        "scored": _scored(metrics),
        "self_scored": bool(metrics.get("self_scored")),
        "season_end": manifest.season_start + dt.timedelta(days=manifest.season_days - 1),
        "recipe": data.config.recipe,
        "segmenter": data.config.segmenter.title,
        "tiles": _tiles(metrics),
        "colours": colours,
        "maps": [
            {"name": scene.name, "columns": embed(columns_of_map(scene, palette)), "size": full.prediction.shape}
            for scene, full in zip(shown, data.maps, strict=False)
        ],
        "thinned": any(len(a.image) != len(b.image) for a, b in zip(shown, data.maps, strict=False)),
        "all_maps": len(data.maps),
        "panels": [
            {"title": panel.title, "tags": panel.tags, "columns": embed(columns_of_panel(panel, palette))}
            for panel in data.panels
        ],
        "rows": [(name, (metrics.get("per_class") or {}).get(name) or {}) for name in data.names],
        "tag_scores": metrics.get("tags"),
        "charts": {
            name: None if figure is None else data_uri(png_of(figure)) for name, figure in _charts(data).items()
        },
        "coverage": [(name, coverage[name]) for name in data.names if coverage.get(name)],
        "largest_tag_count": max([1, *manifest.tag_counts.values()]),
        "yaml": yaml.safe_dump(data.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "provenance": data.provenance,
    }


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline figures: what it is, its value, a line below, and whether it is a comparison."""
    split = metrics.get("split", "")
    tiles = [
        {"label": label, "value": metrics.get(key), "note": note, "minor": False}
        for label, key, note in (
            ("Overall accuracy", "oa_micro", "micro: share of correct pixels"),
            ("mIoU", "miou_macro", "macro: mean over classes"),
            ("F1", "f1_macro", "macro: mean over classes"),
        )
    ]
    baselines = metrics.get("baselines") or {}
    for label, scores in (
        ("Pseudo masks, mIoU", metrics.get("pseudo_masks")),
        ("Fused CAM, mIoU", baselines.get("fused_cam")),
        ("Majority guess, mIoU", baselines.get("majority")),
    ):
        if scores is not None and _scored(scores):
            note = f"OA {_percent(scores.get('oa_micro'))} · {scores.get('split', split)} split"
            tiles.append({"label": label, "value": scores.get("miou_macro"), "note": note, "minor": True})
    tags = metrics.get("tags")
    if tags is not None:
        tiles.append({"label": "Tags, mAP", "value": tags.get("map_macro"), "note": "classifier, macro", "minor": True})
    return tiles


def _thinned(scenes: Sequence[SceneMap]) -> list[SceneMap]:
    """The scenes, every n-th row and column where together they exceed PIXEL_BUDGET."""
    step = max(1, math.ceil(math.sqrt(sum(scene.prediction.size for scene in scenes) / PIXEL_BUDGET)))
    return [
        SceneMap(
            name=scene.name,
            image=scene.image[::step, ::step],
            prediction=scene.prediction[::step, ::step],
            confidence=scene.confidence[::step, ::step],
            truth=None if scene.truth is None else scene.truth[::step, ::step],
        )
        for scene in scenes
    ]


def _scored(scores: Mapping[str, Any]) -> bool:
    """Whether there was a truth to score against."""
    return _is_number(scores.get("miou_macro"))
