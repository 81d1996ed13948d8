"""Training the segmenter on pseudo masks or, for comparison, on true ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exact_core.data.batches import Batch, BatchLoader
from exact_core.losses import segmentation_loss
from exact_core.metrics import Scores, confusion_matrix
from exact_core.models.segmenter import AnySegmenter

__all__ = ["SegmenterTask"]


@dataclass
class SegmenterTask:
    """The segmenter as a task of the loop; its figure is mIoU against the validation targets.

    Those targets are of the same kind as the training ones: pseudo masks where it learns from pseudo masks.
    """

    model: AnySegmenter
    classes: int
    validation: BatchLoader
    figure: str = "validation_miou"

    def losses(self, batch: Batch, *, progress: float) -> dict[str, Tensor]:  # noqa: ARG002 - the loop's protocol
        """Cross-entropy over the pixels that are not void."""
        assert batch.target is not None
        return {"loss": segmentation_loss(self.model(batch.series), batch.target)}

    def after_update(self) -> None:
        """Nothing follows an update."""

    def deliverable(self, *, progress: float) -> bool:  # noqa: ARG002 - the loop's protocol
        """Any epoch."""
        return True

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """MIoU and overall accuracy against the validation targets."""
        if not len(self.validation.indices):
            return {}
        confusion = np.zeros((self.classes + 1, self.classes + 1), np.int64)
        for batch in self.validation:
            assert batch.target is not None
            predicted = self.model(batch.series).argmax(1).to(torch.uint8).cpu().numpy()
            truth = batch.target.to(torch.uint8).cpu().numpy()
            confusion += confusion_matrix(truth, predicted, classes=self.classes)
        scores = Scores(confusion)
        return {"validation_miou": scores.miou_macro, "validation_oa": scores.oa_micro}
