"""The losses, each with named parts (paper).

A mean may be taken over more than what is given: of a batch shared by processes each computes the sum over its own
part, divided by the count in all of it, and these add up to the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from exact_core.data.windows.dataset import VOID

__all__ = ["ClassifierLosses", "affinity_loss", "segmentation_loss", "tag_loss"]


@dataclass(frozen=True)
class ClassifierLosses:
    """Weighted parts of the classifier's loss, scalars. `contrast` is None until the prototypes have started."""

    tags: Tensor
    auxiliary: Tensor
    affinity: Tensor
    contrast: Tensor | None

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        total = self.tags + self.auxiliary + self.affinity
        return total if self.contrast is None else total + self.contrast


def tag_loss(logits_BK: Tensor, tags_BK: Tensor, *, windows: int | None = None, known: Tensor | None = None) -> Tensor:
    """Multi-label soft margin loss, mean over classes and over `windows` windows (None: those given).

    `known` (B, K): 0 where it is not known whether a crop grows. Such a pair adds nothing, the others weigh as ever.
    """
    per_window = F.multilabel_soft_margin_loss(logits_BK.float(), tags_BK, weight=known, reduction="none")
    return per_window.sum() / (len(tags_BK) if windows is None else windows)


def affinity_loss(cams_Mhw: Tensor, refined_Mhw: Tensor, *, maps: Tensor | None = None) -> Tensor:
    """L_tap: mean absolute difference over `maps` tagged maps (None: those given). 0 for a batch without any tag."""
    per_map = (cams_Mhw.float() - refined_Mhw.float()).abs().mean((-2, -1))
    return per_map.sum() / (max(len(cams_Mhw), 1) if maps is None else maps.clamp(min=1))


def segmentation_loss(logits_BKHW: Tensor, target_BHW: Tensor, *, pixels: Tensor | None = None) -> Tensor:
    """Cross-entropy, mean over `pixels` pixels (None: those given that are not void). 0 when all are void."""
    loss = F.cross_entropy(logits_BKHW.float(), target_BHW, ignore_index=VOID, reduction="sum")
    return loss / ((target_BHW != VOID).sum() if pixels is None else pixels).clamp(min=1)
