"""The losses, each with named parts (paper).

A mean may be taken over more than what is given: of a batch shared by processes each computes the sum over its own
part, divided by the count in all of it, and these add up to the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from exact_core.data.windows.dataset import VOID

__all__ = ["ClassifierLosses", "affinity_loss", "class_weights", "segmentation_loss", "tag_loss"]


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


def class_weights(pixels_K: NDArray[np.int64], *, balance: float) -> Tensor:
    """Weights float32 (K,) of classes by their pixels in the training targets, (their share) ** -balance.

    The mean weight of a pixel is 1. A class without a pixel gets 1, which no loss counts.

    Args:
        pixels_K: number of pixels of each class, void left out.
        balance: 0 gives pixels equal weight, 1 gives classes equal weight.
    """
    present = pixels_K > 0
    shares = pixels_K[present] / max(pixels_K.sum(), 1)
    weights = np.ones(len(pixels_K))
    weights[present] = shares**-balance / (shares ** (1 - balance)).sum()
    return torch.from_numpy(weights).float()


def segmentation_loss(
    logits_BKHW: Tensor, target_BHW: Tensor, *, pixels: Tensor | None = None, weights_K: Tensor | None = None
) -> Tensor:
    """Cross-entropy, mean over `pixels` pixels (None: those given that are not void). 0 when all are void.

    `weights_K` says what a pixel of a class counts (None: 1). The divisor stays the number of pixels.
    """
    loss = F.cross_entropy(logits_BKHW.float(), target_BHW, weights_K, ignore_index=VOID, reduction="sum")
    return loss / ((target_BHW != VOID).sum() if pixels is None else pixels).clamp(min=1)
