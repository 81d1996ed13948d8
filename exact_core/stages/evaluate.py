"""Stage `evaluate`: models and masks -> figures, confusion matrix and report."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.clues.masks import enlarge, pseudo_masks
from exact_core.config import RunConfig
from exact_core.data.batches import BatchLoader
from exact_core.data.dataset import VOID, Statistics, WindowDataset
from exact_core.data.maskset import MaskSet
from exact_core.evaluation.figures import true_colour
from exact_core.evaluation.report import Panel, ReportData, SceneMap, figure_files, write_report
from exact_core.mapping.blend import SceneMosaic
from exact_core.metrics import Scores, average_precision, confusion_matrix
from exact_core.models.segmenter import Segmenter
from exact_core.stages.common import code_version, fresh_folder, load_classifier, load_segmenter, read_metrics
from exact_core.tracking import Tracker
from exact_core.training.loop import choose_device

__all__ = ["evaluate"]

log = logging.getLogger(__name__)

SHOWN_SCENES = 2
Labels = NDArray[np.uint8]


def evaluate(
    config: RunConfig,
    *,
    dataset: Path,
    segmenter: Path,
    classifier: Path | None,
    masks: Path | None,
    out: Path,
    report: Path,
    tracker: Tracker,
) -> dict[str, float]:
    """Score the segmenter's map and, where there are any, the pseudo masks; write metrics.json and the report.

    Windows of a scene are blended before they are scored, so each pixel counts once. Void is left out.

    Args:
        config: `config.evaluation` applies.
        dataset: folder of the window dataset.
        segmenter: model folder of the segmenter.
        classifier: model folder of the classifier that made the masks; None under dense supervision.
        masks: folder of the mask set; None under dense supervision.
        out: folder for metrics.json and the report's figures.
        report: HTML file to write.
        tracker: gets figures, pictures and report.

    Returns:
        OA (micro), mIoU and F1 (macro) of the map, and those of the masks; only those that are defined.
    """
    fresh_folder(out, "metrics.json")
    started = datetime.now(UTC)
    windows = WindowDataset(dataset)
    device = choose_device(config.device)
    model, manifest, trained = load_segmenter(segmenter, windows)
    predictor = _Predictor(model.to(device), windows, trained, config, manifest.statistics, device)
    mask_set = None if masks is None else MaskSet(masks, windows)

    split = windows.manifest.evaluation_split
    mapped = _map_split(predictor, split)
    metrics: dict[str, Any] = {
        "split": split,
        "self_scored": windows.manifest.self_scored,
        "supervision": manifest.supervision,
        **_summary(mapped.confusion, windows),
        "pseudo_masks": None,
        "baselines": {"fused_cam": None, "majority": _majority(mapped.confusion, split, windows)},
        "tags": None if classifier is None else _tag_figures(classifier, windows, config, device, split),
        "threshold": None,
        "threshold_rule": None,
    }
    if mask_set is not None:
        metrics |= {"threshold": mask_set.manifest.threshold, "threshold_rule": mask_set.manifest.rule}
        if windows.manifest.has_labels:
            metrics["pseudo_masks"] = _score_masks(mask_set, windows, fused=False)
            metrics["baselines"]["fused_cam"] = _score_masks(mask_set, windows, fused=True)
    config.save(out / "config.yaml")
    data = ReportData(
        config=trained,
        manifest=windows.manifest,
        metrics=metrics,
        masks=None if mask_set is None else mask_set.manifest.model_dump(mode="json"),
        classifier_history=[] if classifier is None else read_metrics(classifier),
        segmenter_history=read_metrics(segmenter),
        panels=_panels(predictor, mask_set, config.evaluation.panels),
        maps=mapped.maps,
        provenance={
            "recipe": config.recipe,
            "seed": str(config.seed),
            "source": windows.manifest.source,
            "dataset digest": windows.manifest.digest,
            "code version": code_version(),
            "torch": torch.__version__,
            "device": str(device),
            "created": started.isoformat(timespec="seconds"),
        },
    )
    report.parent.mkdir(parents=True, exist_ok=True)
    write_report(report, data)
    tracker.log_dataset(name=windows.manifest.name, digest=windows.manifest.digest, source=windows.manifest.source)
    (out / "figures").mkdir(exist_ok=True)
    for figure in figure_files(data, out / "figures"):
        tracker.log_file(figure, folder="figures")
    tracker.log_file(report, folder="report")
    partial = out / "metrics.json.partial"
    partial.write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    os.replace(partial, out / "metrics.json")
    tracker.log_file(out / "metrics.json")
    summary = _headline(metrics)
    tracker.log_summary(summary)
    log.info("evaluate: %s split, %s", split, ", ".join(f"{name} {value:.3f}" for name, value in summary.items()))
    return summary


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float | None] = {}
    groups = {"": metrics, "masks_": metrics["pseudo_masks"], "fused_cam_": metrics["baselines"]["fused_cam"]}
    for prefix, group in groups.items():
        for name in ("oa_micro", "miou_macro", "f1_macro"):
            found[prefix + name] = None if group is None else group[name]
    return {name: value for name, value in found.items() if value is not None}


def _summary(confusion: NDArray[np.int64], windows: WindowDataset) -> dict[str, Any]:
    names = windows.manifest.classes
    counts = {"classes": ["background", *names], "counts": confusion.tolist()}
    return {**Scores(confusion).summary(names), "confusion": counts}


@dataclass(frozen=True)
class _Predictor:
    """The segmenter, ready to be asked for class probabilities of windows."""

    model: Segmenter
    windows: WindowDataset
    trained: RunConfig
    config: RunConfig
    statistics: Statistics
    device: torch.device

    @torch.no_grad()
    def probabilities(self, indices: list[int]) -> NDArray[np.float32]:
        """(n, K + 1, H, W)."""
        loader = BatchLoader(
            self.windows,
            np.array(indices, np.int64),
            batch=self.config.evaluation.batch,
            encoder=self.trained.segmenter.encoder,
            device=self.device,
            statistics=self.statistics,
        )
        return torch.cat([self.model(batch.series).float().softmax(1).cpu() for batch in loader]).numpy()


@dataclass
class _Mapped:
    confusion: NDArray[np.int64]
    maps: list[SceneMap] = field(default_factory=list)


def _map_split(predictor: _Predictor, split: str) -> _Mapped:
    """Every scene of a split, blended and scored; the first few kept for the report."""
    windows, classes = predictor.windows, predictor.windows.classes
    mapped = _Mapped(np.zeros((classes + 1, classes + 1), np.int64))
    for name, indices in windows.scenes(split):
        records = [windows.records[index] for index in indices]
        mosaic = SceneMosaic(records, side=windows.manifest.window, channels=classes + 1)
        for record, values in zip(records, predictor.probabilities(indices), strict=True):
            mosaic.add(record, values)
        label, confidence = mosaic.labels()
        truth = None
        if windows.manifest.has_labels:
            truth = np.full(mosaic.shape, VOID, np.uint8)
            for index, record in zip(indices, records, strict=True):
                truth[mosaic.place(record)] = windows.labels(index)
            mapped.confusion += confusion_matrix(truth, label, classes=classes)
        if len(mapped.maps) < SHOWN_SCENES:
            image = _scene_image(windows, indices, mosaic)
            mapped.maps.append(SceneMap(name, image, label, confidence, truth))
    return mapped


def _scene_image(windows: WindowDataset, indices: list[int], mosaic: SceneMosaic) -> NDArray[np.float64]:
    """True colour of the scene on its clearest date."""
    days: dict[int, list[float]] = {}
    read = {index: windows.window(index) for index in indices}
    for window in read.values():
        for position, day in enumerate(window.days.tolist()):
            share = 1.0 if window.clear is None else float(window.clear[position].mean())
            days.setdefault(day, []).append(share)
    # Summed, not averaged: a date that only some windows have cannot show the scene. Midsummer breaks ties.
    middle = windows.manifest.season_days / 2
    best = max(days, key=lambda day: (round(sum(days[day]) / len(indices), 2), -abs(day - middle)))
    canvas = np.zeros((len(windows.manifest.bands), *mosaic.shape), np.int16)
    for index, window in read.items():
        positions = np.flatnonzero(window.days == best)
        if len(positions):
            canvas[(slice(None), *mosaic.place(windows.records[index]))] = window.pixels[positions[0]]
    return true_colour(canvas, windows.manifest.bands)


def _majority(confusion: NDArray[np.int64], split: str, windows: WindowDataset) -> dict[str, Any]:
    """The best constant guess: every pixel given to the class that the scored split has most of."""
    guess = np.zeros_like(confusion)
    winner = int(confusion.sum(1).argmax())
    guess[:, winner] = confusion.sum(1)
    scores = Scores(guess).summary(windows.manifest.classes)
    figures = {name: scores[name] for name in ("oa_micro", "miou_macro", "f1_macro")}
    return {"class": ("background", *windows.manifest.classes)[winner], "split": split, **figures}


@torch.no_grad()
def _tag_figures(
    folder: Path, windows: WindowDataset, config: RunConfig, device: torch.device, split: str
) -> dict[str, Any]:
    """Average precision of the classifier's tags on the evaluation split."""
    model, manifest, trained = load_classifier(folder, windows)
    model.to(device)
    loader = BatchLoader(
        windows,
        windows.indices(split),
        batch=config.evaluation.batch,
        encoder=trained.classifier.encoder,
        device=device,
        statistics=manifest.statistics,
    )
    scores = torch.cat([model(batch.series).logits.float().cpu() for batch in loader]).numpy()
    precision = average_precision(scores, windows.tags[loader.indices])
    known = precision[~np.isnan(precision)]
    per_class = {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(windows.manifest.classes, precision, strict=True)
    }
    return {"split": split, "map_macro": float(known.mean()) if len(known) else None, "per_class": per_class}


def _score_masks(mask_set: MaskSet, windows: WindowDataset, *, fused: bool) -> dict[str, Any]:
    """The training windows' pseudo masks against dense labels, or those that the fused CAM alone would give."""
    confusion = np.zeros((windows.classes + 1, windows.classes + 1), np.int64)
    for index in windows.indices("train"):
        mask = _fused_mask(mask_set, int(index), windows) if fused else mask_set.mask(int(index))
        confusion += confusion_matrix(windows.labels(int(index)), mask, classes=windows.classes)
    threshold = mask_set.manifest.fused_threshold if fused else mask_set.manifest.threshold
    return {"split": "train", "threshold": threshold, **_summary(confusion, windows)}


def _fused_mask(mask_set: MaskSet, index: int, windows: WindowDataset) -> Labels:
    cam = torch.from_numpy(mask_set.cam(index, fused=True))[None]
    large = enlarge(cam, windows.manifest.window, align_corners=mask_set.manifest.align_corners)
    return pseudo_masks(large, mask_set.manifest.fused_threshold)[0].numpy()


def _panels(predictor: _Predictor, mask_set: MaskSet | None, count: int) -> list[Panel]:
    """Windows for the report, of the validation split where it exists: masks reach it, training does not."""
    windows = predictor.windows
    indices = windows.indices("validation")
    if not len(indices):
        indices = windows.indices("train")
    # Windows with several crops show most; among those, spread over the split.
    several = [int(index) for index in indices if sum(windows.records[index].tags) >= 2] or indices.tolist()
    chosen = [
        several[i] for i in np.unique(np.linspace(0, len(several) - 1, min(count, len(several))).round().astype(int))
    ]
    return [_panel(predictor, mask_set, index) for index in chosen]


def _panel(predictor: _Predictor, mask_set: MaskSet | None, index: int) -> Panel:
    windows = predictor.windows
    window, record = windows.window(index), windows.records[index]
    clear = np.ones(len(window.days)) if window.clear is None else window.clear.mean((1, 2))
    middle = np.abs(window.days - windows.manifest.season_days / 2)
    date = int(np.lexsort((middle, -clear.round(2)))[0])
    cam = mask = None
    if mask_set is not None:
        small = torch.from_numpy(mask_set.cam(index))[None]
        large = enlarge(small, windows.manifest.window, align_corners=mask_set.manifest.align_corners)
        cam, mask = large[0].numpy(), mask_set.mask(index)
    return Panel(
        title=record.id,
        tags=tuple(name for name, tag in zip(windows.manifest.classes, record.tags, strict=True) if tag),
        image=true_colour(window.pixels[date], windows.manifest.bands),
        cam=cam,
        mask=mask,
        prediction=predictor.probabilities([index])[0].argmax(0).astype(np.uint8),
        truth=window.labels,
    )
