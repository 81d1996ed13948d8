"""Metrics of maps and masks, and the baselines to compare them with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.clues.masks import pseudo_masks
from exact_core.data.windows.batches import BatchLoader
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.mapping.blend import SceneMosaic
from exact_core.metrics import Scores, average_precision, confusion_matrix
from exact_core.models.classifier import TagClassifier

__all__ = ["HEADLINE", "majority_guess", "score_masks", "score_tags", "summarise"]

HEADLINE = ("oa_micro", "miou_macro", "f1_macro")


def summarise(confusion: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Any]:
    """JSON-ready metrics of a confusion matrix, with the matrix. `names` are those of crops 1..K."""
    counts = {"classes": ["background", *names], "counts": confusion.tolist()}
    return {**Scores(confusion).summary(names), "confusion": counts}


def majority_guess(confusion: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Any]:
    """The best constant guess: every pixel given to the class that the scored split has most of."""
    guess = np.zeros_like(confusion)
    winner = int(confusion.sum(1).argmax())
    guess[:, winner] = confusion.sum(1)
    scores = Scores(guess).summary(names)
    return {"class": ("background", *names)[winner], **{name: scores[name] for name in HEADLINE}}


def score_masks(masks: MaskSet, windows: WindowDataset, *, split: str, fused: bool) -> dict[str, Any]:
    """A split's pseudo masks against dense labels, or (`fused`) those that the fused CAM alone would give.

    Where windows overlap, their masks vote, so that each pixel counts once, as it does for the map. "majority" holds
    the best constant guess for the same pixels.
    """
    classes, names, side = windows.classes, windows.manifest.classes, windows.manifest.window
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    # A pixel of which nothing is known votes for nothing.
    one_hot = np.concatenate([np.eye(classes + 1), np.zeros((VOID - classes, classes + 1))]).astype(np.float32)
    for _, indices in windows.scenes(split):
        records = [windows.records[index] for index in indices]
        votes = SceneMosaic(records, side=side, channels=classes + 1)
        truth = np.full(votes.shape, VOID, np.uint8)
        for index, record in zip(indices, records, strict=True):
            mask = _fused_mask(masks, index) if fused else masks.mask(index)
            votes.add(record, one_hot[mask].transpose(2, 0, 1))
            truth[votes.place(record)] = windows.labels(index)
        confusion += confusion_matrix(truth, votes.labels()[0], classes=classes)
    threshold = masks.manifest.fused_threshold if fused else masks.manifest.threshold
    return {
        "split": split,
        "threshold": threshold,
        **summarise(confusion, names),
        "majority": majority_guess(confusion, names),
    }


def _fused_mask(masks: MaskSet, index: int) -> NDArray[np.uint8]:
    cam = torch.from_numpy(masks.cam(index, fused=True))[None].float()
    mask = np.asarray(pseudo_masks(cam, masks.manifest.fused_threshold)[0].numpy())
    return np.where(masks.mask(index) == VOID, VOID, mask).astype(np.uint8)


@torch.no_grad()
def score_tags(model: TagClassifier, loader: BatchLoader, names: tuple[str, ...]) -> dict[str, Any]:
    """Average precision of the classifier's tags on the loader's windows. Null for a crop that is tagged in none."""
    scores = torch.cat([model.tag_logits(batch.series).float().cpu() for batch in loader]).numpy()
    untold = loader.dataset.open
    known = None if untold is None else untold[loader.indices] == 0
    precision = average_precision(scores, loader.dataset.tags[loader.indices], known=known)
    per_class = {name: None if np.isnan(value) else float(value) for name, value in zip(names, precision, strict=True)}
    known = [value for value in per_class.values() if value is not None]
    return {"map_macro": sum(known) / len(known) if known else None, "per_class": per_class}
