"""Training the tag classifier with both clues (paper)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from exact_core.clues.affinity import refine
from exact_core.clues.cams import by_maximum, fused_cam, tagged_embedding
from exact_core.clues.prototypes import PrototypeClues, SharedBatch, prototype_clues
from exact_core.config import ClassifierConfig
from exact_core.data.windows.batches import Batch, BatchLoader
from exact_core.losses import ClassifierLosses, affinity_loss, tag_loss
from exact_core.metrics import average_precision
from exact_core.models.classifier import ClassifierOutput, TagClassifier
from exact_core.training.distributed import ALONE, Processes

__all__ = ["ClassifierTask", "classifier_losses"]


def classifier_losses(
    output: ClassifierOutput,
    batch: Batch,
    model: TagClassifier,
    config: ClassifierConfig,
    *,
    contrast: bool,
    processes: Processes = ALONE,
    draw: int = 0,
) -> tuple[ClassifierLosses, PrototypeClues | None]:
    """All parts of the loss and, once the prototypes have started, the moved prototypes.

    L_tap compares fused CAMs as they are. The prototypes see them divided by their maxima. Of a batch that `processes`
    share, the losses are this one's parts of the batch's. `draw` is the seed of sampled assignments.
    """
    # Autocast serves the forward pass alone: similarities divided by 0.05 and small moves of prototypes need float32.
    with torch.autocast(output.logits.device.type, enabled=False):
        return _losses(output.float(), batch, model, config, contrast=contrast, processes=processes, draw=draw)


def _losses(
    output: ClassifierOutput,
    batch: Batch,
    model: TagClassifier,
    config: ClassifierConfig,
    *,
    contrast: bool,
    processes: Processes,
    draw: int,
) -> tuple[ClassifierLosses, PrototypeClues | None]:
    own, windows = processes.own(batch), processes.windows(batch)
    output, tags, loss = _first(output, len(own)), batch.tags[: len(own)], config.loss
    cams = fused_cam(output.spatial_map, output.temporal_map)
    tagged, refined = _tagged_cams(cams, output, batch, config) if len(own) else (cams[:, 0], cams[:, 0])
    known = None if batch.known is None else batch.known[: len(own)]
    auxiliary = tag_loss(output.spatial_logits, tags, windows=windows, known=known)
    auxiliary = (auxiliary + tag_loss(output.temporal_logits, tags, windows=windows, known=known)) / 2
    clues = None
    if contrast:
        shared = None
        if processes.count > 1:
            shared = SharedBatch(lambda rows: processes.gather(rows, batch.shares), own.start)
        normalised = by_maximum(cams.detach()).flatten(2)
        clues = prototype_clues(
            output.class_tokens,
            normalised,
            tags,
            model.prototypes,
            config.prototypes,
            shared=shared,
            draw=draw,
            teaching_BKP=_teaching(batch, len(own)),
        )
    losses = ClassifierLosses(
        tags=tag_loss(output.logits, tags, windows=windows, known=known),
        auxiliary=loss.auxiliary * auxiliary,
        affinity=loss.affinity * affinity_loss(tagged, refined, maps=processes.sum(tags.sum())),
        contrast=None if clues is None else loss.contrast * clues.loss,
    )
    return losses, clues


def _teaching(batch: Batch, windows: int) -> Tensor | None:
    """Patches of the first windows that show a crop or its absence (B, K, P). If None, all do.

    A patch of unknown ground shows neither, nor does a window of which it is not known whether the crop grows there.
    """
    if batch.known is None or batch.teaching is None:
        return None
    return batch.known[:windows, :, None].bool() & batch.teaching[:windows, None]


def _tagged_cams(
    cams: Tensor, output: ClassifierOutput, batch: Batch, config: ClassifierConfig
) -> tuple[Tensor, Tensor]:
    """The fused CAMs of the tagged (window, class) pairs (M, h, w), as they are and refined."""
    pairs = int(batch.tags.sum()) if batch.tagged is None else batch.tagged
    if not pairs:
        return cams[:0, 0], cams[:0, 0]
    embedding = tagged_embedding(output, batch.tags, batch.series.seen, config.affinity)
    # Their positions by a sort, since their number is known: a mask would make the host wait for the device again.
    order = batch.tags.flatten().argsort(descending=True, stable=True)[:pairs]
    tagged = cams.flatten(0, 1)[order]
    return tagged, refine(tagged, embedding, config.affinity)


def _first(output: ClassifierOutput, windows: int) -> ClassifierOutput:
    """The losses' input for the first windows: a process without a window has computed another's only for the graph."""
    if windows == len(output.logits):
        return output
    names = ("logits", "spatial_logits", "temporal_logits", "spatial_map", "temporal_map", "class_tokens")
    return replace(output, **{name: getattr(output, name)[:windows] for name in names})


@dataclass
class ClassifierTask:
    """The classifier as a task of the loop, validated by the tags' mean average precision.

    With several processes, each validates its own windows. `seed` is that of sampled prototype assignments.
    """

    model: TagClassifier
    config: ClassifierConfig
    validation: BatchLoader
    figure: str = "validation_tag_map"
    processes: Processes = ALONE
    seed: int = 0
    _network: nn.Module = field(init=False, repr=False)
    _clues: PrototypeClues | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self._network = self.processes.parallel(self.model)

    def losses(self, batch: Batch, *, progress: float, update: int) -> dict[str, Tensor]:
        """One forward pass. The contrast joins when `progress` reaches its start."""
        output = self._network(batch.series)
        losses, self._clues = classifier_losses(
            output,
            batch,
            self.model,
            self.config,
            contrast=progress >= self.config.loss.contrast_start,
            processes=self.processes,
            draw=int(np.random.SeedSequence((self.seed, update)).generate_state(1)[0]),
        )
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
        device, classes = self.validation.device, self.validation.dataset.classes
        logits, tags, known = ([torch.empty(0, classes, device=device)] for _ in range(3))
        for batch in self.validation:
            logits.append(self.model.tag_logits(batch.series).float())
            tags.append(batch.tags)
            known.append(torch.ones_like(batch.tags) if batch.known is None else batch.known)
        scores, truth, told = (self.processes.gather(torch.cat(rows)).cpu() for rows in (logits, tags, known))
        if not len(scores):
            return {}
        precision = average_precision(scores.numpy(), truth.numpy().astype(np.uint8), known=told.numpy() > 0)
        defined = precision[~np.isnan(precision)]
        return {
            "validation_loss_tags": float(tag_loss(scores, truth, known=told)),
            "validation_tag_map": float(defined.mean()) if len(defined) else float("nan"),
        }
