"""What one of several processes does in test_distributed: `python -m tests.training.worker CASE DATASET FOLDER`."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from exact_core.data.windows.batches import Augmentation, BatchLoader
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import TrainingError
from exact_core.models.classifier import TagClassifier
from exact_core.models.segmenter import Segmenter
from exact_core.recipes import resolve
from exact_core.training.checkpoint import Checkpoints
from exact_core.training.classifier import ClassifierTask
from exact_core.training.distributed import ALONE, Processes, join
from exact_core.training.loop import _step, fit, seed_everything
from exact_core.training.segmenter import SegmenterTask
from tests.conftest import TINY

CPU = torch.device("cpu")
# Eight windows: of the second batch the second process has none.
BATCH = 7
SETTINGS = [
    *TINY,
    "data.synthetic.scenes=4",
    "classifier.loss.contrast_start=0",
    # Large parts, so that a wrong one shows in the loss.
    "classifier.loss.contrast=0.5",
    "classifier.loss.affinity=0.5",
    "classifier.prototypes.assignment=gumbel",
    "classifier.encoder.heads=1",
    "segmenter.encoder.heads=1",
    *(f"{model}.training.epochs=3" for model in ("classifier", "segmenter")),
    *(f"{model}.training.batch={BATCH}" for model in ("classifier", "segmenter")),
    *(f"{model}.training.clip_norm=1.0" for model in ("classifier", "segmenter")),
    *(f"{model}.training.keep_dates=0.6" for model in ("classifier", "segmenter")),
]
CONFIG = resolve("demo", seed=1, overrides=SETTINGS)


class Log:
    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, *, step, **_):
        self.rows.append((step, metrics))


class KilledCheckpoints(Checkpoints):
    """Stops every process after the second epoch, once it is saved."""

    def save(self, model, optimizer, progress, *, best, write=True):
        super().save(model, optimizer, progress, best=best, write=write)
        if progress.epoch == 2:
            raise KeyboardInterrupt


class BrokenTask(ClassifierTask):
    """Its loss is not a number from update 1 on, on the second process alone."""

    def losses(self, batch, *, progress, update):
        parts = super().losses(batch, progress=progress, update=update)
        if update >= 1 and self.processes.rank == 1:
            parts["loss"] = parts["loss"] * float("nan")
        return parts


def loader(dataset, settings, indices, targets=None):
    return BatchLoader(
        dataset, indices, batch=settings.training.batch, encoder=settings.encoder, device=CPU, targets=targets
    )


def task_for(kind, dataset, processes=ALONE, task=ClassifierTask):
    seed_everything(3)
    validation = processes.share(dataset.indices("validation"))
    if kind == "segmenter":
        model = Segmenter(CONFIG.segmenter, bands=10, classes=dataset.classes, window=24)
        held = loader(dataset, CONFIG.segmenter, validation, dataset.labels)
        weights = torch.linspace(0.5, 1.5, dataset.classes + 1)
        return SegmenterTask(model, dataset.classes, held, weights=weights, processes=processes)
    model = TagClassifier(CONFIG.classifier, bands=10, classes=dataset.classes, window=24)
    return task(model, CONFIG.classifier, loader(dataset, CONFIG.classifier, validation), processes=processes, seed=3)


def train(kind, dataset, processes=ALONE, checkpoints=None, task=ClassifierTask):
    """The same training on any number of processes."""
    work = task_for(kind, dataset, processes, task)
    settings = getattr(CONFIG, kind)
    log = Log()
    progress = fit(
        work,
        loader(dataset, settings, dataset.indices("train"), dataset.labels),
        settings.training,
        seed=3,
        device=CPU,
        checkpoints=checkpoints or Checkpoints(None),
        metrics=log,
        name=kind,
    )
    return work.model, progress, log


def gradients(kind, dataset, number, processes=ALONE):
    """Gradients of the joint loss of an epoch's batch number 0 or 1, before any update, and its parts."""
    work = task_for(kind, dataset, processes)
    settings = getattr(CONFIG, kind)
    source = loader(dataset, settings, dataset.indices("train"), dataset.labels)
    augmentation = Augmentation(flips=True, keep_dates=0.6)
    batch = list(source.epoch(0, seed=3, augmentation=augmentation, part=processes.part))[number]
    parts = work.losses(batch, progress=0.5, update=number)
    # The loop's own step: Adam would hide a wrong scale of the gradients, this shows it.
    training = settings.training.model_copy(update={"clip_norm": None})
    _step(work, parts["loss"], torch.optim.SGD(work.model.parameters(), lr=0.0), training)
    tensors = {f"gradient.{name}": value.grad for name, value in work.model.named_parameters()}
    tensors |= {f"part.{name}": processes.sum(value) for name, value in parts.items()}
    if kind == "classifier":
        tensors |= {f"prototypes.{name}": value for name, value in work.model.prototypes.state_dict().items()}
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def equal(processes: Processes, dataset: WindowDataset, folder: Path) -> None:
    """Everything that several processes should do like one; each writes what it got."""
    rows = torch.arange(6.0).view(3, 2)[processes.rank :]
    (folder / f"gathered{processes.rank}.json").write_text(json.dumps(processes.gather(rows).tolist()))
    for kind in ("classifier", "segmenter"):
        for number in (0, 1):
            save_file(gradients(kind, dataset, number, processes), folder / f"{kind}-{number}-{processes.rank}.st")
        model, progress, log = train(kind, dataset, processes)
        save_file(model.state_dict(), folder / f"{kind}-{processes.rank}.st")
        text = {"history": progress.history, "cost": progress.cost, "logged": len(log.rows)}
        (folder / f"{kind}-{processes.rank}.json").write_text(json.dumps(text))
    try:
        train("classifier", dataset, processes, checkpoints=KilledCheckpoints(folder / "state"))
    except KeyboardInterrupt:
        return


def diverging(processes: Processes, dataset: WindowDataset, folder: Path) -> None:
    """All processes find out together."""
    try:
        train("classifier", dataset, processes, task=BrokenTask, checkpoints=Checkpoints(folder / "state"))
    except TrainingError as error:
        (folder / f"diverged{processes.rank}").write_text(str(error))
    try:
        processes.agree(processes.rank, on="their ranks", otherwise="of course")
    except TrainingError as error:
        (folder / f"disagreed{processes.rank}").write_text(str(error))


def failing(processes: Processes, dataset: WindowDataset, folder: Path) -> None:
    """The second process stops in the middle."""
    if processes.rank == 1:
        raise TrainingError("the second process has stopped")
    train("segmenter", dataset, processes)


def hanging(processes: Processes, dataset: WindowDataset, folder: Path) -> None:
    """The second process never comes."""
    if processes.rank == 1:
        while not (folder / "over").exists():
            time.sleep(0.2)
        return
    processes.sum(torch.ones(1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    case, source, target = sys.argv[1:]
    np.seterr(all="raise", under="ignore")
    patience = dt.timedelta(seconds=5 if case == "hanging" else 200)
    with join(CPU, patience=patience) as (joined, _):
        globals()[case](joined, WindowDataset(Path(source)), Path(target))
