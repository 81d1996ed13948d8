"""The training loop: fetch, step, schedule, log, validate, save. Nothing in it knows what is being learned."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from exact_core.config import TrainingConfig
from exact_core.data.batches import Augmentation, Batch, BatchLoader
from exact_core.errors import ConfigError, TrainingError
from exact_core.training.checkpoint import Checkpoints, Progress
from exact_core.training.schedule import learning_rate

__all__ = ["MetricLog", "Task", "choose_device", "fit", "seed_everything"]

log = logging.getLogger(__name__)


class Task(Protocol):
    """What is learned: a model, a loss with named parts, and a figure to validate by."""

    figure: str
    """Name of the validation figure that chooses the best epoch; higher is better."""

    @property
    def model(self) -> nn.Module:
        """The network whose parameters are learned."""

    def losses(self, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """Named scalars; "loss" is minimised. `progress` is the share of all updates already made."""

    def after_update(self) -> None:
        """What follows the optimiser's step, such as moving prototypes."""

    def deliverable(self, *, progress: float) -> bool:
        """Whether the model of an epoch that began at this share of the updates may be the one to deliver."""

    def validate(self) -> dict[str, float]:
        """Figures on the validation split; empty when there is none."""


class MetricLog(Protocol):
    """Where per-epoch figures go."""

    def log_metrics(self, metrics: dict[str, float], *, step: int) -> None:
        """Record figures of an epoch."""


def fit(
    task: Task,
    loader: BatchLoader,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
    checkpoints: Checkpoints,
    metrics: MetricLog,
    name: str,
) -> Progress:
    """Train for `config.epochs` epochs, or what of them is left after the last checkpoint.

    Afterwards the task's model is the one to deliver: the best by `task.figure` where `config.keep_best` and a
    validation split exist, otherwise the last.

    Raises:
        TrainingError: the loss is not finite, or there is nothing to train on.
    """
    if not len(loader.indices):
        raise TrainingError(f"{name}: there is no window to train on; check the splits and tags of the dataset")
    model = task.model
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )
    progress = checkpoints.resume(model, optimizer)
    if progress.epoch:
        log.info("%s: continuing after epoch %d of %d", name, progress.epoch, config.epochs)
    augmentation = Augmentation(flips=config.flips, keep_dates=config.keep_dates)
    total = config.epochs * len(loader)
    while progress.epoch < config.epochs:
        started = time.perf_counter()
        deliverable = task.deliverable(progress=progress.update / total)
        batches = loader.epoch(progress.epoch, seed=seed, augmentation=augmentation)
        sums: dict[str, float] = defaultdict(float)
        model.train()
        for batch in _bar(batches, len(loader), f"{name} {progress.epoch + 1}/{config.epochs}"):
            rate = learning_rate(progress.update, steps_per_epoch=len(loader), config=config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            parts = _step(task, batch, optimizer, config, device, share=progress.update / total)
            for part, value in parts.items():
                sums[part] += value * len(batch.index)
            _check_finite(parts["loss"], name, progress)
            progress.update += 1
        row = {part: value / len(loader.indices) for part, value in sums.items()}
        model.eval()
        row |= task.validate()
        row |= {"learning_rate": rate, "windows_per_second": len(loader.indices) / (time.perf_counter() - started)}
        progress.epoch += 1
        progress.history.append(row)
        metrics.log_metrics(row, step=progress.epoch)
        best = deliverable and _is_best(row, task.figure, progress, keep=config.keep_best)
        checkpoints.save(model, optimizer, progress, best=best)
        _report(name, row, progress, config, task.figure)
    checkpoints.deliver(model)
    model.eval()
    return progress


def _step(
    task: Task,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    device: torch.device,
    *,
    share: float,
) -> dict[str, float]:
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        parts = task.losses(batch, progress=share)
    optimizer.zero_grad(set_to_none=True)
    parts["loss"].backward()  # type: ignore[no-untyped-call]
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(task.model.parameters(), config.clip_norm)
    optimizer.step()
    task.after_update()
    # One transfer for all parts: each .item() would wait for the device.
    values = torch.stack([value.detach().float() for value in parts.values()]).tolist()
    return dict(zip(parts, values, strict=True))


def _check_finite(loss: float, name: str, progress: Progress) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"{name}: the loss is {loss} at update {progress.update} (epoch {progress.epoch + 1}); "
            f"lower training.learning_rate or set training.clip_norm=1. The last good checkpoint is kept"
        )


def _is_best(row: dict[str, float], figure: str, progress: Progress, *, keep: bool) -> bool:
    """Whether an epoch is the best so far; of equal ones the later, which has learned longer."""
    value = row.get(figure)
    if not keep or value is None or math.isnan(value) or (progress.best is not None and value < progress.best):
        return False
    progress.best, progress.best_epoch = value, progress.epoch
    return True


def _report(name: str, row: dict[str, float], progress: Progress, config: TrainingConfig, figure: str) -> None:
    score = f", {figure} {row[figure]:.3f}" if figure in row else ""
    log.info(
        "%s: epoch %d/%d, loss %.4f%s, %.0f windows/s",
        name,
        progress.epoch,
        config.epochs,
        row["loss"],
        score,
        row["windows_per_second"],
    )


def _bar(batches: Iterator[Batch], total: int, label: str) -> Iterator[Batch]:
    """A progress bar on a terminal; elsewhere the line an epoch of `_report` is enough."""
    if not sys.stderr.isatty():
        yield from batches
        return
    yield from tqdm(batches, total=total, desc=label, unit="batch", leave=False)


def choose_device(wanted: str) -> torch.device:
    """The device to compute on.

    Raises:
        ConfigError: a name torch does not know, or CUDA asked for where there is none.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': no CUDA device is visible here; use device=auto or device=cpu")
    return device


def seed_everything(seed: int) -> None:
    """Seed torch. Runs repeat to the last bit on CPU; on CUDA some backward kernels add in any order."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
