"""Stage `generate_masks`: a classifier's CAMs, a threshold chosen without masks -> pseudo masks."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.clues.cams import by_maximum, clue_cams, fused_cam
from exact_core.clues.masks import enlarge, pseudo_masks
from exact_core.clues.selection import BINS, cam_histogram, otsu_threshold
from exact_core.clues.shifts import mean_over_shifts
from exact_core.config import RunConfig
from exact_core.data.batches import BatchLoader, Series
from exact_core.data.dataset import FileEntry, WindowDataset
from exact_core.data.maskset import MaskManifest, write_mask_shard
from exact_core.errors import TrainingError
from exact_core.models.classifier import TagClassifier
from exact_core.stages.common import code_version, fresh_folder, load_classifier
from exact_core.tracking import Tracker
from exact_core.training.loop import choose_device

__all__ = ["generate_masks"]

log = logging.getLogger(__name__)

SPLITS = ("train", "validation")
Arrays = dict[str, NDArray[np.generic]]


def generate_masks(
    config: RunConfig, *, dataset: Path, classifier: Path, out: Path, tracker: Tracker
) -> dict[str, float]:
    """Write CAMs and pseudo masks for the training and validation windows; dense labels are never read.

    Args:
        config: `config.masks` applies.
        dataset: folder of the window dataset.
        classifier: model folder of the classifier.
        out: folder of the mask set.
        tracker: gets threshold and coverage.

    Returns:
        The threshold and the share of pixels that became background.

    Raises:
        TrainingError: every CAM is zero, so that no threshold separates anything.
    """
    fresh_folder(out, "masks.json")
    windows = WindowDataset(dataset)
    device = choose_device(config.device)
    model, manifest, trained = load_classifier(classifier, windows)
    if config.masks.cam == "clue" and not model.prototypes.foreground_moves.any():
        raise TrainingError(
            f"{classifier}: the prototypes of this classifier never moved, so there are no clues to make CAMs from; "
            f"train longer or lower classifier.loss.contrast_start, or set masks.cam=fused"
        )
    model.to(device)
    chosen = np.concatenate([windows.indices(split) for split in SPLITS])
    starts = np.cumsum([0, *(shard.windows for shard in windows.manifest.shards)])
    shards: list[Arrays] = []
    for first, last in pairwise(starts):
        indices = chosen[(chosen >= first) & (chosen < last)]
        if len(indices):
            loader = BatchLoader(
                windows,
                indices,
                batch=config.masks.batch,
                encoder=trained.classifier.encoder,
                device=device,
                statistics=manifest.statistics,
            )
            shards.append(_cams(model, loader, trained, config))
    thresholds = {name: _threshold(shards, name, windows.manifest.window, config) for name in ("cams", "fused")}
    threshold, histogram = thresholds["cams"]
    if not histogram.any():
        raise TrainingError(
            "every CAM of the classifier is zero: it has learned nothing that separates the crops; "
            "train longer (classifier.training.epochs) or check the tags"
        )
    counts = np.zeros(windows.classes + 1, np.int64)
    entries: list[FileEntry] = []
    for number, arrays in enumerate(shards):
        cams = _enlarged(arrays["cams"], windows.manifest.window, config)
        arrays["masks"] = pseudo_masks(cams, threshold).numpy()
        counts += np.bincount(arrays["masks"].reshape(-1), minlength=len(counts))
        entries.append(write_mask_shard(out, number, arrays))
    coverage = dict(zip(("background", *windows.manifest.classes), (counts / counts.sum()).tolist(), strict=True))
    config.save(out / "config.yaml")
    MaskManifest(
        dataset_digest=windows.manifest.digest,
        classes=windows.manifest.classes,
        cam=config.masks.cam,
        threshold=threshold,
        rule=config.masks.threshold if isinstance(config.masks.threshold, str) else "given",
        fused_threshold=thresholds["fused"][0],
        align_corners=config.masks.align_corners,
        splits=SPLITS,
        windows=len(chosen),
        coverage=coverage,
        histogram=tuple(histogram.tolist()),
        code_version=code_version(),
        shards=tuple(entries),
    ).publish(out)
    log.info(
        "masks: %d windows, threshold %.2f, background %.0f %%", len(chosen), threshold, 100 * coverage["background"]
    )
    tracker.log_file(out / "masks.json")
    summary = {"threshold": threshold, "background_share": coverage["background"]}
    tracker.log_summary({**summary, **{f"coverage.{_key(name)}": share for name, share in coverage.items()}})
    return summary


def _key(name: str) -> str:
    """A class name as MLflow allows it in the name of a metric."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)


@torch.no_grad()
def _cams(model: TagClassifier, loader: BatchLoader, trained: RunConfig, config: RunConfig) -> Arrays:
    """CAMs float16 of the loader's windows, 0 where a class is not tagged, and fused ones beside them.

    Both are (n, K, H, W) with shifts, otherwise (n, K, h, w), and come from the same forward passes.
    """
    clue, fused = [], []
    classes = loader.dataset.classes
    for batch in loader:

        def both(series: Series, tags: torch.Tensor = batch.tags) -> torch.Tensor:
            output = model(series)
            baseline = by_maximum(fused_cam(output.spatial_map, output.temporal_map)) * tags[:, :, None, None]
            cams = clue_cams(
                output,
                tags,
                series.seen,
                model.prototypes,
                trained.classifier.affinity,
                stretch=config.masks.stretch,
            )
            return torch.cat([cams, baseline], 1)

        patch = trained.classifier.encoder.patch
        found = mean_over_shifts(both, batch.series, patch=patch) if config.masks.shifts else both(batch.series)
        clue.append(found[:, :classes].half().cpu())
        fused.append(found[:, classes:].half().cpu())
    arrays = {"clue": torch.cat(clue).numpy(), "fused": torch.cat(fused).numpy()}
    return {"index": loader.indices, "cams": arrays[config.masks.cam], "fused": arrays["fused"]}


def _enlarged(cams: NDArray[np.generic], side: int, config: RunConfig) -> torch.Tensor:
    return enlarge(torch.from_numpy(cams), side, align_corners=config.masks.align_corners)


def _threshold(shards: list[Arrays], name: str, side: int, config: RunConfig) -> tuple[float, NDArray[np.int64]]:
    """The threshold, given or chosen from the CAMs' own histogram, and that histogram."""
    histogram = np.zeros(BINS, np.int64)
    for arrays in shards:
        histogram += cam_histogram(_enlarged(arrays[name], side, config))
    given = config.masks.threshold
    if not isinstance(given, str):
        return given, histogram
    # Without any activation there is nothing to separate: all of it is background.
    return (otsu_threshold(histogram) if histogram.any() else 1.0), histogram
