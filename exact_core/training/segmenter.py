"""Training the segmenter on pseudo masks or, for comparison, on true ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from exact_core.data.windows.batches import Batch, BatchLoader
from exact_core.data.windows.dataset import VOID
from exact_core.losses import segmentation_loss
from exact_core.metrics import Scores, confusion_matrix
from exact_core.models.segmenter import AnySegmenter
from exact_core.training.distributed import ALONE, Processes

__all__ = ["SegmenterTask"]


@dataclass
class SegmenterTask:
    """The segmenter as a task of the loop, validated by mIoU against the validation targets.

    Those targets are of the same kind as the training ones: pseudo masks where it learns from pseudo masks. Of several
    processes each validates its own windows. `weights` (K + 1,) says what a pixel of a class counts in the loss, 1 if
    None.
    """

    model: AnySegmenter
    classes: int
    validation: BatchLoader
    weights: Tensor | None = None
    figure: str = "validation_miou"
    processes: Processes = ALONE
    _network: nn.Module = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._network = self.processes.parallel(self.model)

    def losses(self, batch: Batch, *, progress: float, update: int) -> dict[str, Tensor]:  # noqa: ARG002 - the protocol
        """Cross-entropy over the pixels that are not void."""
        assert batch.target is not None
        own = len(self.processes.own(batch))
        target = batch.target[:own]
        pixels = self.processes.sum((target != VOID).sum())
        logits = self._network(batch.series)[:own]
        return {"loss": segmentation_loss(logits, target, pixels=pixels, weights_K=self.weights)}

    def after_update(self) -> None:
        """Nothing follows an update."""

    def deliverable(self, *, progress: float) -> bool:  # noqa: ARG002 - the loop's protocol
        """Any epoch."""
        return True

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """MIoU and overall accuracy against the validation targets."""
        confusion = np.zeros((self.classes + 1, self.classes + 1), np.int64)
        for batch in self.validation:
            assert batch.target is not None
            predicted = self.model(batch.series).argmax(1).to(torch.uint8).cpu().numpy()
            truth = batch.target.to(torch.uint8).cpu().numpy()
            confusion += confusion_matrix(truth, predicted, classes=self.classes)
        # On the device, where the processes meet.
        counted = self.processes.sum(torch.from_numpy(confusion).to(self.validation.device)).cpu().numpy()
        windows = self.processes.sum(torch.tensor(len(self.validation.indices), device=self.validation.device))
        if not int(windows):
            return {}
        scores = Scores(counted)
        return {"validation_miou": scores.miou_macro, "validation_oa": scores.oa_micro}
