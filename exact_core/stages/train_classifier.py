"""Stage `train_classifier`: windows and their tags -> a classifier with prototypes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exact_core.artifacts.folders import fresh_folder
from exact_core.artifacts.model_folders import checkpoints_for, save_model
from exact_core.config import RunConfig
from exact_core.data.sources import dataset_title
from exact_core.data.windows.batches import BatchLoader
from exact_core.data.windows.dataset import WindowDataset
from exact_core.models.classifier import TagClassifier
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker
from exact_core.training.classifier import ClassifierTask
from exact_core.training.distributed import join
from exact_core.training.loop import choose_device, fit, seed_everything
from exact_core.undefined import defined

__all__ = ["STAGE", "train_classifier"]

STAGE = Stage(
    name="train_classifier",
    size="train",
    minutes=1440,
    settings=("classifier",),
    writes={"classifier": ("model.json",)},
)


def train_classifier(config: RunConfig, *, dataset: Path, out: Path, tracker: Tracker) -> dict[str, float]:
    """Train on the image-level tags of the training split. No mask is read.

    Args:
        config: `config.classifier`, `config.seed` and `config.device` apply.
        dataset: folder of the window dataset.
        out: model folder to write.
        tracker: gets the metrics of each epoch.

    Returns:
        Final loss, windows a second, peak memory and, where there is a validation split, the best mean average
        precision of the tags. The same on every process that torchrun started. The first one writes and tracks.
    """
    fresh_folder(out, "model.json")
    windows = WindowDataset(dataset)
    settings = config.classifier
    manifest = windows.manifest
    tracker.log_dataset(dataset, name=dataset_title(manifest), digest=manifest.digest, source=manifest.source)
    with join(choose_device(config.device)) as (processes, device):
        seed_everything(config.seed)
        model = TagClassifier(
            settings, bands=len(windows.manifest.bands), classes=windows.classes, window=windows.manifest.window
        ).to(device)

        share = windows.share_of_epoch(settings.training.most_looks)

        def loader(indices: NDArray[np.int64], share: float = 1.0) -> BatchLoader:
            batch = settings.training.batch_of(len(windows.indices("train")), share)
            return BatchLoader(windows, indices, batch=batch, encoder=settings.encoder, device=device, share=share)

        validation = loader(processes.share(windows.indices("validation")))
        progress = fit(
            ClassifierTask(model, settings, validation, processes=processes, seed=config.seed),
            loader(windows.indices("train"), share),
            settings.training,
            seed=config.seed,
            device=device,
            checkpoints=checkpoints_for("classifier", config.digest("classifier", "seed"), windows.manifest.digest),
            metrics=tracker,
            name="classifier",
        )
    if processes.first:
        save_model(out, model, config=config, dataset=windows, progress=progress)
    summary = {"loss": progress.history[-1]["loss"], **progress.cost}
    figure = progress.history[-1].get("validation_tag_map") if progress.best is None else progress.best
    if figure is not None:
        summary["validation_tag_map"] = figure
    summary = defined(summary)
    tracker.log_summary({f"final_{name}": value for name, value in summary.items()})
    return summary
