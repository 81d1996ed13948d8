"""Stage `train_segmenter`: windows and pseudo masks (or, for comparison, true ones) -> a segmenter, calibrated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exact_core.artifacts.folders import fresh_folder
from exact_core.artifacts.model_folders import checkpoints_for, save_model
from exact_core.config import RunConfig, SegmenterConfig
from exact_core.data.sources import dataset_title
from exact_core.data.windows.batches import BatchLoader, Targets, count_targets, days_of
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.losses import class_weights
from exact_core.mapping.calibration import Calibration, DatedCalibration, calibrate
from exact_core.mapping.pixel_series import sample_training_season
from exact_core.mapping.predict import Predictor
from exact_core.models.precision import for_inference
from exact_core.models.segmenter import AnySegmenter, build_segmenter
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker
from exact_core.training.checkpoint import Progress
from exact_core.training.distributed import Processes, join
from exact_core.training.loop import choose_device, fit, seed_everything
from exact_core.training.pixel_regression import fit_pixel_regression
from exact_core.training.segmenter import SegmenterTask
from exact_core.undefined import defined

__all__ = ["STAGE", "train_segmenter"]

STAGE = Stage(
    name="train_segmenter",
    size="train",
    minutes=1440,
    settings=("segmenter", "transfer"),
    writes={"segmenter": ("model.json",)},
)

MORE_AT_ONCE = 4
"""Windows that a model tells in the memory in which it learns from one: it keeps nothing for a backward pass."""
AT_ONCE = 32
"""Windows that it tells at once at most, unless it learns from more."""


def train_segmenter(
    config: RunConfig, *, dataset: Path, masks: Path | None, out: Path, tracker: Tracker
) -> dict[str, float]:
    """Train on pseudo masks or, without any, on the dataset's dense labels.

    Args:
        config: `config.segmenter`, `config.transfer` (the sample it carries), `config.seed` and `config.device` apply.
        dataset: folder of the window dataset.
        masks: folder of the mask set. If None, dense supervision, for comparison.
        out: model folder to write.
        tracker: gets the metrics of each epoch.

    Returns:
        Final loss, windows a second, peak memory and, where there is a validation split, the best mIoU against
        validation targets of the same kind, and the basis of calibrated confidence (`exact_core.mapping.calibration`).
        The same on every process that torchrun started. The first one writes and tracks.

    Raises:
        DataError: the masks belong to another dataset, or dense labels are needed and there are none.
    """
    fresh_folder(out, "model.json")
    windows = WindowDataset(dataset)
    mask_set = None if masks is None else MaskSet(masks, windows)
    if mask_set is None:
        targets, origin = windows.labels, "dense labels"
    else:
        # Threshold and shards identify the masks: another classifier gives other shards.
        targets, origin = mask_set.mask, mask_set.manifest.model_dump_json()
    manifest = windows.manifest
    tracker.log_dataset(dataset, name=dataset_title(manifest), digest=manifest.digest, source=manifest.source)
    with join(choose_device(config.device)) as (processes, device):
        model, progress = _fit(config, windows, targets, origin, processes, device, tracker)
    summary = {"loss": progress.history[-1]["loss"], **progress.cost}
    if progress.best is not None:
        summary["validation_miou"] = progress.best
    if processes.first:
        _save(config, windows, mask_set, targets, model, progress, out=out, device=device, tracker=tracker)
    summary = defined(summary)
    tracker.log_summary({f"final_{name}": value for name, value in summary.items()})
    return summary


def _fit(
    config: RunConfig,
    windows: WindowDataset,
    targets: Targets,
    origin: str,
    processes: Processes,
    device: torch.device,
    tracker: Tracker,
) -> tuple[AnySegmenter, Progress]:
    """A segmenter that has learned the targets of the training split. `origin` names these targets."""
    settings = config.segmenter
    seed_everything(config.seed)
    model = build_segmenter(
        settings, bands=len(windows.manifest.bands), classes=windows.classes, window=windows.manifest.window
    ).to(device)

    share = windows.share_of_epoch(settings.training.most_looks)

    def loader(indices: NDArray[np.int64], *, batch: int, share: float = 1.0) -> BatchLoader:
        return BatchLoader(
            windows, indices, batch=batch, encoder=settings.reading, device=device, targets=targets, share=share
        )

    train = windows.indices("train")
    validation = loader(processes.share(windows.indices("validation")), batch=_telling_batch(settings.training.batch))
    weights = _weights(settings, windows, targets, device)
    progress = fit(
        SegmenterTask(model, windows.classes, validation, weights=weights, processes=processes),
        loader(train, batch=settings.training.batch_of(len(train), share), share=share),
        settings.training,
        seed=config.seed,
        device=device,
        checkpoints=checkpoints_for("segmenter", config.digest("segmenter", "seed"), windows.manifest.digest, origin),
        metrics=tracker,
        name="segmenter",
    )
    return model, progress


def _telling_batch(batch: int) -> int:
    """Windows to tell at once where `batch` are learned from: as fast as can be in the memory of the training."""
    return max(batch, min(MORE_AT_ONCE * batch, AT_ONCE))


def _weights(
    settings: SegmenterConfig, windows: WindowDataset, targets: Targets, device: torch.device
) -> Tensor | None:
    """Weights (K + 1,) of the classes by their pixels in the training split's targets. If None, all count 1.

    Every process counts all of the few windows, and so has the same.
    """
    train = windows.indices("train")
    if not settings.balance or len(train) >= settings.few_windows:
        return None
    return class_weights(count_targets(targets, train)[: windows.classes + 1], balance=settings.balance).to(device)


def _save(
    config: RunConfig,
    windows: WindowDataset,
    masks: MaskSet | None,
    targets: Targets,
    model: AnySegmenter,
    progress: Progress,
    *,
    out: Path,
    device: torch.device,
    tracker: Tracker,
) -> None:
    """Complete and calibrate the model and write its folder, with the sample for comparison with later seasons."""
    settings = config.segmenter
    supervision: Literal["dense", "tags"] = "dense" if masks is None else "tags"
    statistics = windows.manifest.statistics
    if settings.pixel_weight:
        model.pixels = fit_pixel_regression(windows, targets, settings, batch=settings.training.batch, seed=config.seed)
    model = for_inference(model, device, config.precision)
    teller = Predictor(model, windows, settings.reading, statistics, device, _telling_batch(settings.training.batch))
    calibration = _calibration(config, windows, masks, teller)
    parts = days_of(settings.season_shares, windows.manifest.season_days) if calibration.temperature is not None else ()
    by_date = tuple(
        DatedCalibration(days=days, calibration=_calibration(config, windows, masks, replace(teller, until=days)))
        for days in parts
    )
    save_model(
        out,
        model,
        config=config,
        dataset=windows,
        progress=progress,
        supervision=supervision,
        calibration=calibration,
        by_date=by_date,
        expected_mask_oa=None if masks is None else masks.manifest.quality.expected_oa,
        # What later seasons are held against travels with the model, wherever its dataset is by then.
        reference=sample_training_season(windows, teller, config.transfer, seed=config.seed),
    )
    figures = {"temperature": calibration.temperature, "calibration_error": calibration.error_after}
    tracker.log_summary(defined(figures))
    tracker.set_tags({"exact.calibrated_on": calibration.fitted_on})


def _calibration(config: RunConfig, windows: WindowDataset, masks: MaskSet | None, predictor: Predictor) -> Calibration:
    """The temperature of the model's confidence, by the validation split's pseudo masks or dense labels.

    Who learns from tags sees no dense label, here neither, unless `segmenter.calibrate_on` allows it. A dataset that is
    scored on itself has no other pixels than those of training. Only confidence depends on it.
    """
    manifest = windows.manifest
    split = "train" if manifest.self_scored else "validation"
    indices = windows.indices(split).tolist()
    if manifest.has_labels and (masks is None or config.segmenter.calibrate_on == "labels"):
        truth, fitted_on = windows.labels, f"dense labels of the {split} split"
    elif masks is not None and not manifest.self_scored:
        truth, fitted_on = masks.mask, f"pseudo masks of the {split} split"
        indices = [index for index in indices if index in masks]
    else:
        indices = []
    if not indices:
        return Calibration(temperature=None, fitted_on="nothing: no label or mask beside those of the training windows")
    if manifest.self_scored:
        fitted_on += ", which the model was trained on: there is no other"
    return calibrate(predictor.stream(indices), truth, count=len(indices), fitted_on=fitted_on, seed=config.seed)
