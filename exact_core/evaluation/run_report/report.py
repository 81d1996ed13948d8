"""The report of a run: one HTML file that needs no network, and its main images as PNG files.

`write_report` turns a ReportData into plain values and fills `report.html.j2` with them. The template holds all text
and style, `figures` all pictures. Metrics that are unknown, as without dense labels, read "–".
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from exact_core.config import RunConfig
from exact_core.data.windows.dataset import DatasetManifest
from exact_core.evaluation.chart_style import MUTED
from exact_core.evaluation.cross_validation import held_out_words
from exact_core.evaluation.html_page import _is_number, _percent, data_uri, embed, png_of, render
from exact_core.evaluation.palette import Image, colours_of
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

__all__ = ["FinishedMap", "Panel", "ReportData", "SceneMap", "figure_files", "write_report"]

PIXEL_BUDGET = 600_000
"""Pixels of all shown scenes together. Beyond it they are thinned, so that the report stays below 5 MB."""
MAX_SCENES = 6
"""Scenes shown. A test split may have hundreds."""


@dataclass(frozen=True)
class FinishedMap:
    """The map of the whole area, as it is delivered.

    Args:
        picture: PNG of the map with scale, north, place and legend.
        image: PNG of the area in true colour. If None, there is none.
        confidence: as an image (H, W, 3).
        areas: name -> pixels and hectares (None: the CRS has no metres), by counting.
        unmapped: pixels without a label.
        seams: what is said of window borders.
    """

    picture: bytes
    image: bytes | None
    confidence: Image
    areas: dict[str, tuple[int, float | None]]
    unmapped: int
    seams: str


@dataclass(frozen=True)
class ReportData:
    """What a report is made of.

    Args:
        config: the resolved configuration.
        manifest: the dataset's manifest.
        metrics: content of metrics.json.
        masks: content of masks.json. None with dense supervision.
        classifier_history, segmenter_history: one dict of metrics for each epoch.
        panels: windows to show on their way from tags to map.
        maps: mapped scenes of the evaluation split.
        provenance: what ran, where and when, as label -> value.
        title: what the data are called. A generated season says that it is one.
        generated: whether the data were generated.
        finished: the map of the whole area. If None, there is none, as of a source without images of an area.
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
    title: str
    generated: bool = False
    finished: FinishedMap | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of labels 0..K."""
        return ("background", *self.manifest.classes)

    @cached_property
    def charts(self) -> dict[str, bytes | None]:
        """The drawn charts by name, as PNG, once for the page and the files. None where there is nothing to draw."""
        return _drawn(_charts(self), self)


def write_report(path: Path, data: ReportData) -> None:
    """Write the report to `path`, complete or not at all."""
    publish_text(path, render("run_report/report.html.j2", _content(data)))


def figure_files(data: ReportData, folder: Path) -> list[Path]:
    """Write the images that the run has data for, as PNG.

    Returns:
        Paths of map.png, panels.png, confusion.png, per_class.png, curves.png and dates.png, as far as they were
        written.
    """
    classes = data.manifest.classes
    colours = colours_of(classes, data.manifest.colours)
    pictures: dict[str, Figure | None] = {
        "map": map_figure(_thinned(data.maps[:MAX_SCENES]), classes, colours, sensor=_sensor(data))
        if data.maps
        else None,
        "panels": panels_figure(data.panels, classes, colours, sensor=_sensor(data)) if data.panels else None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, png in (_drawn(pictures, data) | data.charts).items():
        if png is not None and name != "histogram":
            path = folder / f"{name}.png"
            partial = folder / f"{name}.png.partial"
            partial.write_bytes(png)
            partial.replace(path)
            written.append(path)
    return written


def _marked(figure: Figure, data: ReportData) -> Figure:
    """The image. It says so itself if the season is synthetic."""
    if data.generated:
        figure.supxlabel("Generated season", x=0.99, ha="right", fontsize=10, color=MUTED)
    return figure


def _drawn(figures: Mapping[str, Figure | None], data: ReportData) -> dict[str, bytes | None]:
    """Figures as PNG, by name."""
    return {name: None if figure is None else png_of(_marked(figure, data)) for name, figure in figures.items()}


def _charts(data: ReportData) -> dict[str, Figure | None]:
    """The charts by name. None where there is nothing to draw."""
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
        "title": data.title,
        "generated": data.generated,
        "finished": _finished(data, colours),
        "quality": (data.masks or {}).get("quality"),
        "crops": _crops(data),
        "metrics": metrics,
        "masks": data.masks,
        "dense": metrics.get("supervision") == "dense",
        "scored": _scored(metrics),
        "self_scored": bool(metrics.get("self_scored")),
        "season_end": manifest.season_start + dt.timedelta(days=manifest.season_days - 1),
        "recipe": data.config.recipe,
        "segmenter": data.config.segmenter.title,
        "single_pixels": data.config.segmenter.pixel_weight > 0,
        "tiles": _tiles(metrics) if _scored(metrics) else _expectations(metrics, data.masks),
        "colours": colours,
        "maps": [
            {
                "name": scene.name,
                "columns": embed(columns_of_map(scene, palette, sensor=_sensor(data))),
                "size": full.prediction.shape,
            }
            for scene, full in zip(shown, data.maps, strict=False)
        ],
        "thinned": any(len(a.image) != len(b.image) for a, b in zip(shown, data.maps, strict=False)),
        "all_maps": len(data.maps),
        "panels": [
            {
                "title": panel.title,
                "tags": panel.tags,
                "columns": embed(columns_of_panel(panel, palette, sensor=_sensor(data))),
            }
            for panel in data.panels
        ],
        "rows": [(name, (metrics.get("per_class") or {}).get(name) or {}) for name in data.names],
        "tag_scores": metrics.get("tags"),
        "held_out": held_out_words(metrics["cross_validation"]) if metrics.get("cross_validation") else None,
        "charts": {name: None if png is None else data_uri(png) for name, png in data.charts.items()},
        "coverage": [(name, coverage[name]) for name in data.names if coverage.get(name)],
        "largest_tag_count": max([1, *manifest.tag_counts.values()]),
        "yaml": yaml.safe_dump(data.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "provenance": data.provenance,
    }


def _sensor(data: ReportData) -> str:
    """What a picture in true colour shows."""
    return "Generated season" if data.generated else "Sentinel-2"


def _finished(data: ReportData, colours: Mapping[str, str]) -> dict[str, Any] | None:
    """The finished map, as the template has it. Its classes the largest first."""
    found = data.finished
    if found is None:
        return None
    mapped = sum(pixels for pixels, _ in found.areas.values())
    columns = [] if found.image is None else [(f"{_sensor(data)}, true colour", data_uri(found.image))]
    rows = sorted(found.areas.items(), key=lambda each: -each[1][0])
    return {
        "picture": data_uri(found.picture),
        "columns": [*columns, *embed([("Confidence", found.confidence)])],
        "rows": [(name, colours.get(name, "#fff"), *each, each[0] / max(1, mapped)) for name, each in rows],
        "unmapped": found.unmapped / max(1, mapped + found.unmapped),
        "seams": found.seams,
    }


def _crops(data: ReportData) -> list[dict[str, Any]]:
    """What to expect of each crop where nothing is scored: its tags, and how masks and classifier do by them."""
    quality = (data.masks or {}).get("quality") or {}
    precision, held_out = ((data.metrics.get(key) or {}).get("per_class") or {} for key in ("tags", "cross_validation"))
    shown, expected = (quality.get(key) or {} for key in ("shown_by_class", "expected_by_class"))
    return [
        {
            "name": name,
            "windows": windows,
            "precision": precision.get(name),
            "held_out": held_out.get(name),
            "shown": shown.get(name),
            "expected": expected.get(name),
            "words": ", ".join(word for word in ("lost", "rare") if name in (quality.get(word) or ())),
        }
        for name, windows in data.manifest.tag_counts.items()
    ]


def _expectations(metrics: Mapping[str, Any], masks: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The headline metrics where no dense labels are: what is known of the map without them."""
    quality, tags = (masks or {}).get("quality"), metrics.get("tags")
    tiles = []
    if (of_map := (metrics.get("map_quality") or {}).get("expected_oa")) is not None:
        tiles.append(("Expected OA of the map", of_map, "an estimate without labels"))
    if quality:
        low, high = (_percent(quality.get(f"expected_{end}")) for end in ("low", "high"))
        spread = f"{low} to {high}, an estimate without labels"
        tiles += [
            ("Expected OA of the masks", quality.get("expected_oa"), "an estimate without labels"),
            ("Expected mIoU of the masks", quality.get("expected_miou"), spread),
            ("Tags that the masks show", quality["tag_agreement"], "macro: mean over crops"),
        ]
    held_out = metrics.get("cross_validation") or {}
    if held_out.get("map_macro") is not None:
        spread = f"{_percent(held_out['low'])} to {_percent(held_out['high'])}, a guess {_percent(held_out['guess'])}"
        tiles.append(("Tags of left-out squares, mAP", held_out["map_macro"], f"{spread}; pixel model"))
    if tags is not None:
        seen = ", on the windows that trained it" if metrics.get("self_scored") else ", macro: mean over crops"
        tiles.append(("Tags, mAP", tags.get("map_macro"), f"classifier{seen}"))
    return [{"label": label, "value": value, "note": note, "minor": False} for label, value, note in tiles]


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline metrics: what it is, its value, a line below, and whether it is a comparison."""
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
