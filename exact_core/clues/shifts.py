"""CAMs at pixel resolution, from windows shifted by less than a patch (not in the paper).

A model of p x p patches gives one CAM value per patch. Shifting the window by 0..p-1 pixels in each direction moves the
patch grid over the ground. The mean of the p * p CAMs, each shifted back, resolves single pixels.

Axes are B batch, K classes, h w patches, H W pixels, T dates, P = h * w.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from exact_core.data.windows.batches import Series
from exact_core.models.threads import each_part

__all__ = ["mean_over_shifts", "shift_series"]


def mean_over_shifts(cams_of: Callable[[Series], Tensor], series: Series, *, patch: int) -> Tensor:
    """Mean CAM (B, K, H, W) over all shifts of the window within a patch.

    Args:
        cams_of: gives CAMs (B, K, h, w) of a series.
        series: the batch as it is.
        patch: patch side p, pixels.
    """
    side = series.pixels.shape[-1]

    def placed(shift: tuple[int, int]) -> Tensor:
        down, right = shift
        cams = cams_of(shift_series(series, down, right, patch=patch))
        large = cams.repeat_interleave(patch, -2).repeat_interleave(patch, -1)
        # What the shift pushed out at the top and left is taken from the nearest patch that remained.
        return F.pad(large, (right, 0, down, 0), mode="replicate")[..., :side, :side]

    shifts = [(down, right) for down in range(patch) for right in range(patch)]
    first, *others = each_part(placed, shifts, series.pixels.device)
    return sum(others, first) / patch**2


def shift_series(series: Series, down: int, right: int, *, patch: int) -> Series:
    """The series seen by a window moved `down` and `right` pixels (less than a patch). Its far edge is repeated.

    A moved patch counts as seen where every patch that it overlaps is.
    """
    if not down and not right:
        return series
    batch, dates, bands, side, _ = series.pixels.shape
    padded = F.pad(series.pixels.flatten(0, 1), (0, right, 0, down), mode="replicate")
    pixels = padded[..., down:, right:].view(batch, dates, bands, side, side)
    seen = series.seen
    if seen is not None and seen.shape[1] > 1:
        tokens = side // patch
        grid = seen.transpose(1, 2).reshape(batch, dates, tokens, tokens).float()
        below, beside = int(down > 0), int(right > 0)
        grown = F.pad(grid, (0, beside, 0, below), mode="replicate")
        least = -F.max_pool2d(-grown, (1 + below, 1 + beside), stride=1)
        seen = least.bool().flatten(2).transpose(1, 2)
    return replace(series, pixels=pixels, seen=seen)
