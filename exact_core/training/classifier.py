"""Training the tag classifier with both clues (paper)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exact_core.clues.affinity import refine
from exact_core.clues.cams import by_maximum, fused_cam, tagged_embedding
from exact_core.clues.prototypes import PrototypeClues, prototype_clues
from exact_core.config import ClassifierConfig
from exact_core.data.batches import Batch, BatchLoader
from exact_core.losses import ClassifierLosses, affinity_loss, tag_loss
from exact_core.metrics import average_precision
from exact_core.models.classifier import ClassifierOutput, TagClassifier

__all__ = ["ClassifierTask", "classifier_losses"]


def classifier_losses(
    output: ClassifierOutput, batch: Batch, model: TagClassifier, config: ClassifierConfig, *, contrast: bool
) -> tuple[ClassifierLosses, PrototypeClues | None]:
    """All parts of the loss and, once the prototypes have started, the moved prototypes.

    L_tap compares fused CAMs as they are; the prototypes see them divided by their maxima.
    """
    # Autocast serves the forward pass alone: similarities divided by 0.05 and small moves of prototypes need float32.
    with torch.autocast(output.logits.device.type, enabled=False):
        return _losses(output.float(), batch, model, config, contrast=contrast)


def _losses(
    output: ClassifierOutput, batch: Batch, model: TagClassifier, config: ClassifierConfig, *, contrast: bool
) -> tuple[ClassifierLosses, PrototypeClues | None]:
    tags, loss = batch.tags, config.loss
    cams = fused_cam(output.spatial_map, output.temporal_map)
    tagged = cams[tags.bool()]
    refined = tagged
    if len(tagged):
        refined = refine(tagged, tagged_embedding(output, tags, batch.series.seen, config.affinity), config.affinity)
    auxiliary = (tag_loss(output.spatial_logits, tags) + tag_loss(output.temporal_logits, tags)) / 2
    clues = None
    if contrast:
        normalised = by_maximum(cams.detach()).flatten(2)
        clues = prototype_clues(output.class_tokens, normalised, tags, model.prototypes, config.prototypes)
    losses = ClassifierLosses(
        tags=tag_loss(output.logits, tags),
        auxiliary=loss.auxiliary * auxiliary,
        affinity=loss.affinity * affinity_loss(tagged, refined),
        contrast=None if clues is None else loss.contrast * clues.loss,
    )
    return losses, clues


@dataclass
class ClassifierTask:
    """The classifier as a task of the loop; its figure is the tags' mean average precision."""

    model: TagClassifier
    config: ClassifierConfig
    validation: BatchLoader
    figure: str = "validation_tag_map"
    _clues: PrototypeClues | None = None

    def losses(self, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """One forward pass; the contrast joins when `progress` reaches its start."""
        output = self.model(batch.series)
        contrast = progress >= self.config.loss.contrast_start
        losses, self._clues = classifier_losses(output, batch, self.model, self.config, contrast=contrast)
        parts = {"loss": losses.total, "loss_tags": losses.tags, "loss_auxiliary": losses.auxiliary}
        parts["loss_affinity"] = losses.affinity
        if losses.contrast is not None:
            parts["loss_contrast"] = losses.contrast
        return parts

    def deliverable(self, *, progress: float) -> bool:
        """Only epochs in which the prototypes moved from the start: CAMs are made of them."""
        return progress >= self.config.loss.contrast_start

    def after_update(self) -> None:
        """Move the prototypes."""
        if self._clues is not None:
            self._clues.move(self.model.prototypes)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss and mean average precision of the tags on the validation split."""
        if not len(self.validation.indices):
            return {}
        logits, tags = [], []
        for batch in self.validation:
            logits.append(self.model(batch.series).logits.float().cpu())
            tags.append(batch.tags.cpu())
        scores, truth = torch.cat(logits), torch.cat(tags)
        precision = average_precision(scores.numpy(), truth.numpy().astype(np.uint8))
        known = precision[~np.isnan(precision)]
        return {
            "validation_loss_tags": float(tag_loss(scores, truth)),
            "validation_tag_map": float(known.mean()) if len(known) else float("nan"),
        }
