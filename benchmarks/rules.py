"""Rules for the threshold that were weighed and not adopted; `benchmarks.selection` compares them.

Axes: B windows, K classes, P patches, T dates, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from exact_core.clues.maps import CamMaker
from exact_core.clues.masks import pseudo_masks
from exact_core.clues.quality import tag_agreement
from exact_core.data.windows.batches import BatchLoader, Series
from exact_core.metrics import confusion_matrix

GRID = np.arange(0.04, 0.9, 0.04)
COARSE = np.arange(0.1, 0.85, 0.1)


def without_shifts(maker: CamMaker) -> CamMaker:
    """The same without shifted windows: one pass per batch instead of one per shift, with similar CAMs."""
    return replace(maker, settings=maker.settings.model_copy(update={"shifts": False}))


def chosen(maker: CamMaker, series: Series, tags_BK: Tensor) -> Tensor:
    """CAMs (B, K, H, W) of the kind that `masks.cam` names."""
    cams: Tensor = getattr(maker(series, tags_BK), maker.settings.cam)
    return cams


def every_other_date(series: Series, first: int) -> Series:
    """The series with every second date, from position `first` (0 or 1)."""
    seen = series.seen
    return replace(
        series,
        pixels=series.pixels[:, first::2],
        dates=series.dates[:, first::2],
        seen=None if seen is None else seen[..., first::2],
    )


@torch.no_grad()
def evidence_threshold(maker: CamMaker, loader: BatchLoader) -> float:
    """Where keeping only a class's mask keeps its tag and taking the mask away drops it.

    That is the largest mean difference of the two tag probabilities. A patch is taken away by hiding all its looks.
    """
    maker = without_shifts(maker)
    score = np.zeros(len(COARSE))
    for batch in loader:
        cams = chosen(maker, batch.series, batch.tags)
        patches = F.avg_pool2d(cams, maker.trained.encoder.patch).flatten(2)
        for number, threshold in enumerate(COARSE):
            for k in range(cams.shape[1]):
                tagged = batch.tags[:, k].bool()
                if not tagged.any():
                    continue
                inside = patches[tagged, k] > threshold
                kept, removed = (_hidden(maker, batch.series, tagged, hide)[:, k] for hide in (~inside, inside))
                score[number] += float((kept - removed).sum())
    return float(COARSE[score.argmax()])


def _hidden(maker: CamMaker, series: Series, rows: Tensor, hide_BP: Tensor) -> Tensor:
    """Tag probabilities of some windows with some patches hidden."""
    count, dates = int(rows.sum()), series.pixels.shape[1]
    seen = torch.ones(count, 1, dates, dtype=torch.bool) if series.seen is None else series.seen[rows]
    seen = seen & ~hide_BP[:, :, None]
    part = replace(series, pixels=series.pixels[rows], dates=series.dates[rows], seen=seen)
    return maker.model(part).logits.sigmoid()


@torch.no_grad()
def agreement_threshold(maker: CamMaker, loader: BatchLoader) -> float:
    """Where the masks of every other date agree best with those of the dates between, beyond chance (Cohen's kappa)."""
    maker, classes = without_shifts(maker), loader.dataset.classes
    counts = np.zeros((len(GRID), classes + 1, classes + 1), np.int64)
    for batch in loader:
        halves = [chosen(maker, every_other_date(batch.series, first), batch.tags) for first in (0, 1)]
        for number, threshold in enumerate(GRID):
            one, other = (pseudo_masks(half, threshold).numpy() for half in halves)
            counts[number] += confusion_matrix(one, other, classes=classes)
    total = counts.sum((1, 2))
    agreed = np.trace(counts, axis1=1, axis2=2) / total
    chance = (counts.sum(1) * counts.sum(2)).sum(1) / total**2
    return float(GRID[((agreed - chance) / (1 - chance + 1e-9)).argmax()])


@torch.no_grad()
def tags_threshold(maker: CamMaker, loader: BatchLoader, *, share: float) -> float:
    """The highest threshold at which the masks still hold 98 % of the tags that they hold at the lowest."""
    maker = without_shifts(maker)
    kept = np.zeros(len(GRID))
    for batch in loader:
        cams, tags = chosen(maker, batch.series, batch.tags), batch.tags.numpy()
        kept += [tag_agreement(pseudo_masks(cams, at).numpy(), tags, share=share).sum() for at in GRID]
    return float(GRID[np.flatnonzero(kept >= 0.98 * kept[0])[-1]])
