"""The training loop: fetch, step, schedule, log, validate, save. Nothing in it knows what is being learned."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from exact_core.config import TrainingConfig
from exact_core.data.windows.batches import Augmentation, Batch, BatchLoader
from exact_core.environment import TERMINAL_VARIABLE
from exact_core.errors import ConfigError, TrainingError
from exact_core.models.attention import compile_blocks
from exact_core.models.precision import choose_precision
from exact_core.models.threads import side_by_side
from exact_core.training.checkpoint import Checkpoints, Progress
from exact_core.training.distributed import Processes
from exact_core.training.meters import CostMeter, LossTally
from exact_core.training.schedule import learning_rate

__all__ = ["MetricLog", "Task", "choose_device", "fit", "seed_everything"]

log = logging.getLogger(__name__)


class Task(Protocol):
    """The task of a training: a model, a loss with named parts, and a metric for validation."""

    figure: str
    """Name of the validation metric that chooses the best epoch. Higher is better."""

    @property
    def model(self) -> nn.Module:
        """The network whose parameters are learned."""

    @property
    def processes(self) -> Processes:
        """Who trains. By default this process alone."""

    def losses(self, batch: Batch, *, progress: float, update: int) -> dict[str, Tensor]:
        """Named scalars, this process's parts of the joint batch's; "loss" is minimised.

        `update` counts the updates already made, `progress` is their share of all.
        """

    def after_update(self) -> None:
        """What follows the optimiser's step, such as moving prototypes."""

    def deliverable(self, *, progress: float) -> bool:
        """Whether the model of an epoch that began at this share of the updates may be the one to deliver."""

    def validate(self) -> dict[str, float]:
        """Metrics on the validation split. Empty when there is none."""


WITHIN, WITHIN_ON_TERMINAL = 60.0, 1.0
"""Seconds between two lines within an epoch, in a log and where the runner of the stage overwrites them on a screen."""


class MetricLog(Protocol):
    """Receiver of the metrics of each epoch."""

    def log_metrics(self, metrics: dict[str, float], *, step: int, at: int | None = None) -> None:
        """Record the metrics of an epoch that was complete `at` milliseconds since 1970.

        A training that continues records the epochs before once more.
        """


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
    validation split exist, otherwise the last. If there are several processes, all call this with the same
    arguments, and return the same. The first one logs and saves.

    Raises:
        TrainingError: the loss is not finite, there is nothing to train on, or processes find different checkpoints
            or differ in precision.
    """
    if not len(loader.indices):
        raise TrainingError(f"{name}: there is no window to train on. Check the splits and tags of the dataset")
    model, processes = task.model, task.processes
    lower = choose_precision(config.precision, model, device) == "bf16"
    processes.agree(int(lower), on="bfloat16", otherwise="set training.precision, or use machines of one kind")
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=lower)
    if config.compile:
        compile_blocks(model)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    progress = checkpoints.resume(model, optimizer)
    processes.agree(
        progress.epoch, on="the epoch of the last checkpoint", otherwise="give all the same EXACT_STATE_DIR"
    )
    if progress.epoch:
        log.info("%s: continuing after epoch %d of %d", name, progress.epoch, config.epochs)
    if processes.first:
        # The machine that trained them may be lost, and with it what it had not sent yet.
        for step, (row, moment) in enumerate(zip(progress.history, progress.times, strict=True), 1):
            metrics.log_metrics(row, step=step, at=moment)
    total = config.epochs * len(loader)
    meter = CostMeter(device)
    began, first = time.monotonic(), progress.epoch
    while progress.epoch < config.epochs:
        deliverable = task.deliverable(progress=progress.update / total)
        with side_by_side(device, model):
            row = _epoch(
                task, loader, optimizer, config, autocast, seed=seed, device=device, progress=progress, name=name
            )
            model.eval()
            with autocast():
                row |= task.validate()
        progress.epoch += 1
        progress.history.append(row)
        progress.times.append(int(time.time() * 1000))
        progress.cost = meter.cost(row["windows_per_second"], processes)
        best = deliverable and _is_best(row, task.figure, progress, keep=config.keep_best)
        # Before anything is sent anywhere: what only records must not cost an epoch.
        checkpoints.save(model, optimizer, progress, best=best, write=processes.first)
        if processes.first:
            metrics.log_metrics(row, step=progress.epoch, at=progress.times[-1])
        each = (time.monotonic() - began) / (progress.epoch - first)
        _report(name, row, progress, config, task.figure, left=each * (config.epochs - progress.epoch))
    checkpoints.deliver(model)
    model.eval()
    _report_cost(name, progress, processes)
    return progress


def _epoch(
    task: Task,
    loader: BatchLoader,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    autocast: Callable[[], torch.autocast],
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
    name: str,
) -> dict[str, float]:
    """One pass over the training windows: means of the loss's parts, last rate, windows a second."""
    processes, total = task.processes, config.epochs * len(loader)
    started = time.perf_counter()
    # Dropout draws from here on what (seed, epoch) says, so that a resumed run needs no random state.
    torch.manual_seed(int(np.random.SeedSequence((seed, progress.epoch, processes.rank)).generate_state(1)[0]))
    augmentation = Augmentation(
        flips=config.flips, keep_dates=config.keep_dates, prefixes=config.prefixes, shortest=config.shortest_prefix
    )
    batches = loader.epoch(progress.epoch, seed=seed, augmentation=augmentation, part=processes.part)
    tally = LossTally(device, processes, name=name, epoch=progress.epoch + 1)
    task.model.train()
    label = f"{name} {progress.epoch + 1}/{config.epochs}"
    for batch in _bar(batches, len(loader), label, shown=processes.first):
        rate = learning_rate(progress.update, steps_per_epoch=len(loader), config=config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast():
            parts = task.losses(batch, progress=progress.update / total, update=progress.update)
        _step(task, parts["loss"], optimizer, config)
        tally.add(parts, windows=processes.windows(batch), update=progress.update)
        progress.update += 1
    row = tally.means(loader.drawn)
    return row | {"learning_rate": rate, "windows_per_second": loader.drawn / (time.perf_counter() - started)}


def _step(task: Task, loss: Tensor, optimizer: torch.optim.Optimizer, config: TrainingConfig) -> None:
    optimizer.zero_grad(set_to_none=True)
    # The processes' gradients are averaged; their losses are parts of a sum.
    (loss * task.processes.count).backward()  # type: ignore[no-untyped-call]
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(task.model.parameters(), config.clip_norm)
    optimizer.step()
    task.after_update()


def _is_best(row: dict[str, float], figure: str, progress: Progress, *, keep: bool) -> bool:
    """Whether an epoch is the best so far. On a tie the later one wins, because it was trained longer."""
    value = row.get(figure)
    if not keep or value is None or math.isnan(value) or (progress.best is not None and value < progress.best):
        return False
    progress.best, progress.best_epoch = value, progress.epoch
    return True


def _report(
    name: str, row: dict[str, float], progress: Progress, config: TrainingConfig, figure: str, *, left: float
) -> None:
    """A line an epoch. left: seconds that the other epochs are likely to take."""
    score = f", {figure} {row[figure]:.3f}" if figure in row else ""
    log.info(
        "%s: epoch %d/%d, loss %.4f%s, %.0f windows/s%s",
        name,
        progress.epoch,
        config.epochs,
        row["loss"],
        score,
        row["windows_per_second"],
        f", about {duration(left)} left" if left else "",
    )


def duration(seconds: float) -> str:
    """A time as a person says it: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _report_cost(name: str, progress: Progress, processes: Processes) -> None:
    if progress.cost:
        log.info(
            "%s: %.4g windows/s (median of epochs, training alone), peak memory %.2f GB, processes: %d",
            name,
            progress.cost["windows_per_second"],
            progress.cost["peak_memory_gb"],
            processes.count,
        )


def _bar(batches: Iterator[Batch], total: int, label: str, *, shown: bool) -> Iterator[Batch]:
    """A progress bar on a terminal. Elsewhere a line every minute of a long epoch, or every second if a runner asks."""
    if shown and sys.stderr.isatty():
        yield from tqdm(batches, total=total, desc=label, unit="batch", leave=False)
        return
    between = WITHIN_ON_TERMINAL if os.environ.get(TERMINAL_VARIABLE) else WITHIN
    began = said = time.monotonic()
    for number, batch in enumerate(batches):
        now = time.monotonic()
        if shown and number and now - said >= between:
            left = (now - began) / number * (total - number)
            log.info("%s: %d of %d batches, about %s of this epoch left", label, number, total, duration(left))
            said = now
        yield batch


def choose_device(wanted: str) -> torch.device:
    """The device to compute on.

    Raises:
        ConfigError: a name torch does not know, or CUDA asked for where there is none.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': no CUDA device is visible here. Use device=auto or device=cpu")
    return device


def seed_everything(seed: int) -> None:
    """Seed torch. Runs repeat to the last bit on CPU. On CUDA some backward kernels add in any order."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
