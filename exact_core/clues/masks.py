"""CAM + tags + threshold -> pseudo mask (paper).

Axes are B batch, K crop classes, h w patches, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["enlarge", "pseudo_masks", "strongest_class"]


def enlarge(cams_BKhw: Tensor, side: int, *, align_corners: bool) -> Tensor:
    """CAMs at pixel resolution (B, K, side, side), bilinear."""
    return F.interpolate(cams_BKhw.float(), size=(side, side), mode="bilinear", align_corners=align_corners)


def strongest_class(cams_BKHW: Tensor) -> tuple[Tensor, Tensor]:
    """Strongest CAM (B, H, W) of every pixel and its class as a label 1..K, uint8. On a tie the lower label."""
    strongest, label = cams_BKHW.max(1)
    return strongest, (label + 1).to(torch.uint8)


def pseudo_masks(cams_BKHW: Tensor, threshold: float) -> Tensor:
    """Labels uint8 (B, H, W): the strongest class, or 0 where none exceeds the constant background plane.

    CAMs must be 0 for classes that are not tagged. On a tie the lower label wins, background first.
    """
    strongest, label = strongest_class(cams_BKHW)
    return torch.where(strongest > threshold, label, 0).to(torch.uint8)
