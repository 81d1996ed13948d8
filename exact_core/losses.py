"""The losses, each with named parts (paper)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from exact_core.data.dataset import VOID

__all__ = ["ClassifierLosses", "affinity_loss", "segmentation_loss", "tag_loss"]


@dataclass(frozen=True)
class ClassifierLosses:
    """Weighted parts of the classifier's loss, scalars; `contrast` is None until the prototypes have started."""

    tags: Tensor
    auxiliary: Tensor
    affinity: Tensor
    contrast: Tensor | None

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        total = self.tags + self.auxiliary + self.affinity
        return total if self.contrast is None else total + self.contrast


def tag_loss(logits_BK: Tensor, tags_BK: Tensor) -> Tensor:
    """Multi-label soft margin loss, mean over windows and classes."""
    return F.multilabel_soft_margin_loss(logits_BK.float(), tags_BK)


def affinity_loss(cams_Mhw: Tensor, refined_Mhw: Tensor) -> Tensor:
    """L_tap: mean absolute difference over the tagged maps; 0 for a batch without any tag."""
    if not len(cams_Mhw):
        return cams_Mhw.sum()
    return (cams_Mhw.float() - refined_Mhw.float()).abs().mean()


def segmentation_loss(logits_BKHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Cross-entropy, mean over the pixels that are not void; 0 when all are."""
    loss = F.cross_entropy(logits_BKHW.float(), target_BHW, ignore_index=VOID, reduction="sum")
    return loss / (target_BHW != VOID).sum().clamp(min=1)
