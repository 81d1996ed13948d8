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
    threshold = thresholds["cams"][0]
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
        histogram=tuple(thresholds["cams"][1].tolist()),
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
    """CAMs float16 of the loader's windows, 0 where a class is not tagged, and fused ones (n, K, h, w) beside them.

    CAMs are (n, K, H, W) with shifts, otherwise (n, K, h, w).
    """
    cams, fused = [], []
    for batch in loader:
        output = model(batch.series)
        baseline = by_maximum(fused_cam(output.spatial_map, output.temporal_map)) * batch.tags[:, :, None, None]
        fused.append(baseline.half().cpu())
        if config.masks.cam == "clue":

            def cams_of(series: Series, tags: torch.Tensor = batch.tags) -> torch.Tensor:
                return clue_cams(
                    model(series),
                    tags,
                    series.seen,
                    model.prototypes,
                    trained.classifier.affinity,
                    stretch=config.masks.stretch,
                )

            patch = trained.classifier.encoder.patch
            shifts = config.masks.shifts
            clue = mean_over_shifts(cams_of, batch.series, patch=patch) if shifts else cams_of(batch.series)
            cams.append(clue.half().cpu())
    return {
        "index": loader.indices,
        "cams": torch.cat(cams or fused).numpy(),
        "fused": torch.cat(fused).numpy(),
    }


def _enlarged(cams: NDArray[np.generic], side: int, config: RunConfig) -> torch.Tensor:
    return enlarge(torch.from_numpy(cams), side, align_corners=config.masks.align_corners)


def _threshold(shards: list[Arrays], name: str, side: int, config: RunConfig) -> tuple[float, NDArray[np.int64]]:
    """The threshold, given or chosen from the CAMs' own histogram, and that histogram."""
    histogram = np.zeros(BINS, np.int64)
    for arrays in shards:
        histogram += cam_histogram(_enlarged(arrays[name], side, config))
    if not histogram.any():
        raise TrainingError(
            f"every {name} map of the classifier is zero: it has learned nothing that separates the crops; "
            f"train longer (classifier.training.epochs) or check the tags"
        )
    given = config.masks.threshold
    return (otsu_threshold(histogram) if isinstance(given, str) else given), histogram
