"""The learning rate at each update."""

from __future__ import annotations

import math

from exact_core.config import TrainingConfig

__all__ = ["learning_rate", "published_rate"]


def learning_rate(update: int, *, steps_per_epoch: int, config: TrainingConfig) -> float:
    """The rate in use for update number `update` (from 0).

    "cosine": linear from start_rate to learning_rate over the warm-up, then a cosine to minimum_rate at the end,
    moved every update. "published": see `published_rate`, moved once an epoch, the first epoch all at start_rate.
    """
    if config.schedule == "published":
        finished = update // steps_per_epoch * steps_per_epoch
        return config.start_rate if finished == 0 else published_rate(finished, steps_per_epoch, config)
    total = config.epochs * steps_per_epoch
    warmup = min(config.warmup_epochs * steps_per_epoch, total)
    if update < warmup:
        return config.start_rate + (config.learning_rate - config.start_rate) * update / warmup
    return _cosine((update - warmup) / max(total - warmup, 1), config)


def published_rate(update: int, steps_per_epoch: int, config: TrainingConfig) -> float:
    """The published function of the update: its cosine counts from update 0, so it steps down after the warm-up."""
    warmup = config.warmup_epochs * steps_per_epoch
    if update < warmup:
        return config.start_rate + (config.learning_rate - config.start_rate) * update / warmup
    return _cosine(update / (config.epochs * steps_per_epoch), config)


def _cosine(progress: float, config: TrainingConfig) -> float:
    fall = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return config.minimum_rate + (config.learning_rate - config.minimum_rate) * fall
