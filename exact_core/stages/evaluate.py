"""Stage `evaluate`: models and masks -> metrics, confusion matrix and report."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exact_core.artifacts.folders import code_version, fresh_folder
from exact_core.artifacts.model_folders import ModelManifest, load_classifier, load_segmenter, read_metrics
from exact_core.config import RunConfig
from exact_core.data.sources import dataset_title, source_title
from exact_core.data.windows.batches import BatchLoader, days_of
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.errors import ConfigError
from exact_core.evaluation.cross_validation import cross_validate_tags, held_out_words
from exact_core.evaluation.map_picture import LONGEST, read_thinned
from exact_core.evaluation.run_report.figures import paint_confidence
from exact_core.evaluation.run_report.panels import panels, scene_image
from exact_core.evaluation.run_report.report import (
    MAX_SCENES,
    FinishedMap,
    ReportData,
    SceneMap,
    figure_files,
    write_report,
)
from exact_core.evaluation.score import HEADLINE, majority_guess, score_masks, score_tags, summarise
from exact_core.files import copy_file
from exact_core.manifest import publish_record, read_record
from exact_core.map_statistics.area_table import seam_words
from exact_core.mapping.cogs import CONFIDENCE
from exact_core.mapping.expected import MapQuality, expected_quality
from exact_core.mapping.item import QUICKLOOK, TRUE_COLOUR
from exact_core.mapping.predict import Predictor, map_scene
from exact_core.metrics import Scores, confusion_matrix
from exact_core.models.precision import choose_precision, for_inference
from exact_core.models.segmenter import AnySegmenter
from exact_core.stages.join_map import MAP
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker, metric_name
from exact_core.training.loop import choose_device
from exact_core.undefined import defined

__all__ = ["STAGE", "evaluate", "read_confusion"]

STAGE = Stage(
    name="evaluate", size="train", minutes=480, settings=("evaluation",), writes={"evaluation": ("metrics.json",)}
)

log = logging.getLogger(__name__)

MASKED_SPLIT = "train"
"""The split on which pseudo masks are scored: what the segmenter learns from."""


def evaluate(
    config: RunConfig,
    *,
    dataset: Path,
    segmenter: Path,
    classifier: Path | None,
    masks: Path | None,
    out: Path,
    tracker: Tracker,
    report: Path | None = None,
    crop_map: Path | None = None,
) -> dict[str, float]:
    """Score the segmenter's map and, where there are any, the pseudo masks. Write metrics.json and the report.

    Windows of a scene are blended before they are scored, so each pixel counts once. Void is left out.

    Args:
        config: `config.evaluation` applies.
        dataset: folder of the window dataset.
        segmenter: model folder of the segmenter.
        classifier: model folder of the classifier that made the masks. None under dense supervision.
        masks: folder of the mask set. None under dense supervision.
        out: folder for metrics.json, report.html and its images.
        tracker: gets metrics, images and report.
        report: file that gets a copy of the report. None: only `out` has it.
        crop_map: folder of its finished map of the whole area. None, or a part of a map: the report shows none.

    Returns:
        OA (micro), mIoU and F1 (macro) of the map, and those of the masks. Only those that are defined. For PASTIS
        also `miou_published`, in which an absent class counts as 0. What is known without dense labels: the OA
        expected of masks and map, the masks' mIoU, and mean average precisions of tags, left-out squares' among them.
    """
    fresh_folder(out, "metrics.json")
    _check_report(report)
    started = dt.datetime.now(dt.UTC)
    windows, device = WindowDataset(dataset), choose_device(config.device)
    predictor, manifest, trained = _predictor(segmenter, windows, config, device)
    mask_set = None if masks is None else MaskSet(masks, windows)
    split = windows.manifest.evaluation_split
    expected = _expected_of_masks(manifest, mask_set)
    whole = _map_split(predictor, split, masks=expected)
    tags = None if classifier is None else _tag_figures(classifier, windows, config, device, split)
    metrics = _metrics(manifest, trained, windows, whole, mask_set, tags)
    metrics["by_date"] = _by_date(predictor, trained, whole, masks=expected)
    data = ReportData(
        config=trained,
        manifest=windows.manifest,
        metrics=metrics,
        masks=None if mask_set is None else mask_set.manifest.model_dump(mode="json"),
        classifier_history=[] if classifier is None else read_metrics(classifier),
        segmenter_history=read_metrics(segmenter),
        panels=panels(predictor, mask_set, config.evaluation.panels),
        maps=whole.maps,
        provenance=_provenance(config, windows, predictor.model, device, started),
        title=source_title(windows.manifest),
        generated=windows.manifest.name == "synthetic",
        finished=None if crop_map is None else _finished(crop_map),
    )
    return _publish(config, data, dataset=dataset, out=out, report=report, tracker=tracker)


def _expected_of_masks(manifest: ModelManifest, masks: MaskSet | None) -> float | None:
    """OA expected of the masks that the model learned from. A model of an earlier version does not say it."""
    if manifest.expected_mask_oa is not None or masks is None:
        return manifest.expected_mask_oa
    return masks.manifest.quality.expected_oa


def _check_report(report: Path | None) -> None:
    if report is not None and report.is_dir():
        raise ConfigError(f"{report} is a folder. Name the report's file, for example {report / 'report.html'}")


def _predictor(
    segmenter: Path, windows: WindowDataset, config: RunConfig, device: torch.device
) -> tuple[Predictor, ModelManifest, RunConfig]:
    """The segmenter for the windows, with its manifest and the settings that it was trained with."""
    model, manifest, trained = load_segmenter(segmenter, windows)
    encoder, batch = trained.segmenter.reading, config.evaluation.batch
    model = for_inference(model, device, config.precision)
    return Predictor(model, windows, encoder, manifest.statistics, device, batch), manifest, trained


def _metrics(
    manifest: ModelManifest,
    trained: RunConfig,
    windows: WindowDataset,
    whole: _Split,
    mask_set: MaskSet | None,
    tags: dict[str, Any] | None,
) -> dict[str, Any]:
    """Content of metrics.json."""
    split, names = windows.manifest.evaluation_split, windows.manifest.classes
    metrics: dict[str, Any] = {
        "split": split,
        "self_scored": windows.manifest.self_scored,
        "supervision": manifest.supervision,
        "segmenter": trained.segmenter.model,
        **summarise(whole.confusion, names),
        "pseudo_masks": None,
        "baselines": {"fused_cam": None, "majority": {"split": split, **majority_guess(whole.confusion, names)}},
        "tags": tags,
        "cross_validation": None,
        "threshold": None,
        "threshold_rule": None,
        "mask_quality": None,
        "map_quality": whole.quality.model_dump(mode="json"),
    }
    if mask_set is not None:
        metrics |= {"threshold": mask_set.manifest.threshold, "threshold_rule": mask_set.manifest.rule}
        metrics["mask_quality"] = mask_set.manifest.quality.model_dump(mode="json")
        if windows.manifest.has_labels:
            metrics["pseudo_masks"] = score_masks(mask_set, windows, split=MASKED_SPLIT, fused=False)
            metrics["baselines"]["fused_cam"] = score_masks(mask_set, windows, split=MASKED_SPLIT, fused=True)
        elif windows.manifest.self_scored:
            metrics["cross_validation"] = cross_validate_tags(windows, trained)
    if windows.manifest.name == "pastis":
        _add_published_miou(metrics, metrics["pseudo_masks"], metrics["baselines"]["fused_cam"])
    return metrics


def _finished(folder: Path) -> FinishedMap | None:
    """The map of the whole area, for the report. None of a part of one."""
    if not (folder / MAP).is_file():
        return None
    record = read_record(folder / MAP)
    percent = read_thinned(folder / CONFIDENCE, longest=LONGEST)
    image = folder / TRUE_COLOUR
    return FinishedMap(
        picture=(folder / QUICKLOOK).read_bytes(),
        image=image.read_bytes() if image.is_file() else None,
        confidence=paint_confidence(percent.astype(np.float32) / 100, percent != VOID),
        areas={name: (each["pixels"], each["hectares"]) for name, each in record["areas"].items()},
        unmapped=record["unmapped_pixels"],
        seams=seam_words(record["seams"]),
    )


def _provenance(
    config: RunConfig, windows: WindowDataset, model: AnySegmenter, device: torch.device, started: dt.datetime
) -> dict[str, str]:
    """The origin of the metrics, as the report lists it."""
    return {
        "recipe": config.recipe,
        "seed": str(config.seed),
        "source": windows.manifest.source,
        "dataset digest": windows.manifest.digest,
        "code version": code_version(),
        "torch": torch.__version__,
        "device": str(device),
        "precision of the map": choose_precision(config.precision, model, device),
        "created": started.isoformat(timespec="seconds"),
    }


def _publish(
    config: RunConfig, data: ReportData, *, dataset: Path, out: Path, report: Path | None, tracker: Tracker
) -> dict[str, float]:
    """Write and track report and metrics. The main metrics of the run are returned."""
    manifest = data.manifest
    config.save(out / "config.yaml")
    write_report(out / "report.html", data)
    if report is not None:
        copy_file(out / "report.html", report)
    title = dataset_title(manifest)
    tracker.log_dataset(dataset, name=title, digest=manifest.digest, source=manifest.source, whole=True)
    (out / "figures").mkdir(exist_ok=True)
    for figure in figure_files(data, out / "figures"):
        tracker.log_file(figure, folder="figures")
    # Under a name that a browser knows, whatever the runner calls its output.
    tracker.log_file(out / "report.html", folder="report", whole=True)
    publish_record(out / "metrics.json", data.metrics)
    for name in ("metrics.json", "config.yaml"):
        tracker.log_file(out / name)
    summary = defined(_headline(data.metrics))
    tracker.log_headline({**summary, **_by_class(data.metrics)})
    log.info("evaluate: %s", _said(data.metrics, summary))
    return summary


def _by_class(metrics: dict[str, Any]) -> dict[str, float]:
    """IoU of each class, where it is defined, under names that MLflow takes."""
    found = {f"iou.{metric_name(name)}": each["iou"] for name, each in (metrics.get("per_class") or {}).items()}
    return {name: value for name, value in found.items() if value is not None}


def _said(metrics: dict[str, Any], summary: dict[str, float]) -> str:
    """The metrics in a line or, without dense labels, what is expected."""
    if "oa_micro" in summary:
        return f"{metrics['split']} split, " + ", ".join(f"{name} {value:.3f}" for name, value in summary.items())
    quality = metrics["mask_quality"]
    expected = ""
    if quality and quality["expected_oa"] is not None:
        expected = f", expected OA of the masks {quality['expected_oa']:.2f}, mIoU {quality['expected_miou']:.2f}"
    if (of_map := metrics["map_quality"]["expected_oa"]) is not None:
        expected += f", expected OA of the map {of_map:.2f}"
    held_out = ""
    if (found := metrics["cross_validation"]) is not None:
        held_out = f", tags of left-out squares: {held_out_words(found)}"
    return f"no dense labels, so the accuracy is not known{expected}{held_out}"


def read_confusion(folder: Path) -> tuple[list[str], list[list[int]]]:
    """Class names, background first, and the confusion matrix (rows = truth) of an evaluation folder."""
    matrix = read_record(folder / "metrics.json")["confusion"]
    return matrix["classes"], matrix["counts"]


def _add_published_miou(*groups: dict[str, Any] | None) -> None:
    """For comparison with published tables of PASTIS: the mIoU that counts an absent class as 0."""
    for group in groups:
        if group is not None:
            group["miou_published"] = Scores(np.array(group["confusion"]["counts"])).miou_published


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float | None] = {}
    groups = {"": metrics, "masks_": metrics["pseudo_masks"], "fused_cam_": metrics["baselines"]["fused_cam"]}
    for prefix, group in groups.items():
        for name in (*HEADLINE, "miou_published"):
            found[prefix + name] = None if group is None else group.get(name)
    if quality := metrics["mask_quality"]:
        found |= {name: quality.get(name) for name in ("expected_oa", "expected_miou", "expected_low")}
    found["expected_map_oa"] = metrics["map_quality"]["expected_oa"]
    found["tag_map"] = (metrics["tags"] or {}).get("map_macro")
    for name, key in (("", "map_macro"), ("_low", "low"), ("_guess_high", "guess_high")):
        found[f"tag_map_held_out{name}"] = (metrics["cross_validation"] or {}).get(key)
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class _Split:
    """What a segmenter makes of a split: confusion (rows = truth), what is expected without labels, some pictures."""

    confusion: np.ndarray[Any, np.dtype[np.int64]]
    quality: MapQuality
    maps: list[SceneMap]


def _map_split(predictor: Predictor, split: str, *, masks: float | None, pictures: int = MAX_SCENES) -> _Split:
    """Map all scenes of a split, each blended first. masks: OA expected of those that the segmenter learned from."""
    windows, classes = predictor.windows, predictor.windows.classes
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    agreed, pixels = 0, 0
    maps: list[SceneMap] = []
    for name, indices in windows.scenes(split):
        scene = map_scene(predictor, indices)
        mapped = scene.label != VOID
        pixels += int(mapped.sum())
        if scene.agree is not None:
            agreed += int(scene.agree[mapped].sum())
        truth = None
        if windows.manifest.has_labels:
            truth = np.full(scene.mosaic.shape, VOID, np.uint8)
            for index in indices:
                truth[scene.mosaic.place(windows.records[index])] = windows.labels(index)
            confusion += confusion_matrix(truth, scene.label, classes=classes)
        if len(maps) < pictures:
            image = scene_image(windows, indices, scene.mosaic)
            maps.append(SceneMap(name, image, scene.label, scene.confidence, truth))
    return _Split(confusion, expected_quality(agreed if predictor.agreement else None, pixels, masks=masks), maps)


def _by_date(predictor: Predictor, trained: RunConfig, whole: _Split, *, masks: float | None) -> list[dict[str, Any]]:
    """Accuracy of the map for what is seen of the season until some days, and of all of it, and what is expected of it.

    Empty where nothing can be told.
    """
    manifest = predictor.windows.manifest
    if not manifest.has_labels and whole.quality.expected_oa is None:
        return []
    split, parts = manifest.evaluation_split, days_of(trained.segmenter.season_shares, manifest.season_days)
    found = [(days, _map_split(replace(predictor, until=days), split, masks=masks, pictures=0)) for days in parts]
    return [
        {
            "days": days,
            "until": str(manifest.season_start + dt.timedelta(days=days - 1)),
            **{name: value for name, value in summarise(each.confusion, manifest.classes).items() if name in HEADLINE},
            **each.quality.model_dump(mode="json"),
        }
        for days, each in [*found, (manifest.season_days, whole)]
    ]


def _tag_figures(
    folder: Path, windows: WindowDataset, config: RunConfig, device: torch.device, split: str
) -> dict[str, Any]:
    """Average precision of the classifier's tags on the evaluation split."""
    model, manifest, trained = load_classifier(folder, windows)
    loader = BatchLoader(
        windows,
        windows.indices(split),
        batch=config.evaluation.batch,
        encoder=trained.classifier.encoder,
        device=device,
        statistics=manifest.statistics,
    )
    model = for_inference(model, device, config.precision)
    return {"split": split, **score_tags(model, loader, windows.manifest.classes)}
