"""Resampling of rasters whose pixels nest in those of a grid, in integers.

Nearly all rasters of a Sentinel-2 season are bands of 20 m for a grid of 10 m, with pixel edges on pixel edges. The
centre of each fine pixel is a quarter of a coarse one from the centre of the coarse pixel around it. So the bilinear
weights are 9, 3, 3 and 1 sixteenths. This is exact, and several times as fast as a general warper. Tests hold the
values equal to those of GDAL's warper, bit by bit.

Axes are h w pixels of the coarse raster, H W those of the grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

__all__ = ["resample_in_integers"]

ROWS = 16
"""Coarse rows that are worked on at a time: few enough for what they take to stay in the processor's cache."""

_Alignment = tuple[int, int, int]
"""How many pixels of a grid a coarse pixel is wide and high. The grid's first row and column, from the raster's, in
pixels of the grid."""


def resample_in_integers(
    values: NDArray[Any], transform: Affine, onto: Affine, out: NDArray[Any], *, nearest: bool, fill: int
) -> bool:
    """Bring a raster to a grid in the same CRS, if its pixels nest in the grid's. Say whether they do.

    Args:
        values: (h, w).
        transform: of the raster.
        onto: of the grid.
        out: gets them, (H, W). Pixels beside the raster stay as they are.
        nearest: the value of the coarse pixel around each fine one, instead of a bilinear one.
        fill: value of pixels that were not measured.
    """
    nest = _alignment(transform, onto, height=out.shape[0], width=out.shape[1])
    if nest is None:
        return False
    if nearest or nest[0] == 1:
        _repeat(values, nest, out)
        return True
    # A raster one pixel wide is blended over its corners by the warper; nobody has such a season.
    if nest[0] == 2 and values.dtype == np.int16 and min(values.shape) > 1:
        _double(values, nest, out, fill=fill)
        return True
    return False


def _alignment(transform: Affine, onto: Affine, *, height: int, width: int) -> _Alignment | None:
    """How a grid's pixels nest in a raster's. None if they do not, or not to the last bit.

    Only exact nesting counts: with rounded coordinates, a value half way between two counts may be rounded otherwise.

    Args:
        transform: of the raster.
        onto: of the grid, in the same CRS.
        height: H.
        width: W.
    """
    if any((transform.b, transform.d, onto.b, onto.d)) or transform.a <= 0 or transform.e >= 0 or onto.e >= 0:
        return None
    factor = round(transform.a / onto.a) if onto.a > 0 else 0
    if factor < 1 or factor & (factor - 1):
        return None
    firsts = []
    for start, size, fine_start, fine_size, count in (
        (transform.f, transform.e, onto.f, onto.e, height),
        (transform.c, transform.a, onto.c, onto.a, width),
    ):
        # As a warper does: from the grid to the ground, and from there to the raster.
        middles = (fine_start + (np.arange(count) + 0.5) * fine_size) * (1 / size) - start / size
        first = round((fine_start - start) / fine_size)
        if not np.array_equal(middles, (np.arange(first, first + count) + 0.5) / factor):
            return None
        firsts.append(first)
    return factor, firsts[0], firsts[1]


def _overlap(first: int, count: int, there: int) -> tuple[int, int]:
    """Range of the `count` fine pixels from `first` on that are inside a raster `there` fine pixels long: from, to."""
    begin = min(max(-first, 0), count)
    return begin, max(begin, min(count, there - first))


def _repeat(values: NDArray[Any], nest: _Alignment, out: NDArray[Any]) -> None:
    """The value of the coarse pixel around each fine one, into `out` (H, W), which keeps its own beside the raster."""
    factor, first_row, first_col = nest
    top, bottom = _overlap(first_row, out.shape[0], factor * values.shape[0])
    left, right = _overlap(first_col, out.shape[1], factor * values.shape[1])
    rows = np.arange(first_row + top, first_row + bottom) // factor
    begin, end = (first_col + left) // factor, -(-(first_col + right) // factor)
    cut = first_col + left - begin * factor
    wide = values[:, begin:end].repeat(factor, 1)[:, cut : cut + right - left]
    out[top:bottom, left:right] = wide[rows]


def _double(values: NDArray[np.int16], nest: _Alignment, out: NDArray[np.int16], *, fill: int) -> None:
    """Bilinear values at twice the resolution, into `out` (H, W), which keeps its own beside the raster.

    A fine pixel is `fill` where the coarse pixel around it is. Other neighbours that are `fill`, or beyond the raster,
    are left out, and the weights of the others increase. Halves are rounded up. A result equal to `fill` becomes its
    neighbour, because the pixel was measured.

    Args:
        values: int16 (h, w).
        nest: with the factor 2.
        out: int16 (H, W).
        fill: value of pixels that were not measured.
    """
    _, first_row, first_col = nest
    height, width = values.shape
    top, bottom = _overlap(first_row, out.shape[0], 2 * height)
    left, right = _overlap(first_col, out.shape[1], 2 * width)
    if top == bottom or left == right:
        return
    # One coarse pixel around those that are wanted; at the raster's edges their own value, which weighs as if it were
    # not there.
    begin, end = (first_col + left) // 2, -(-(first_col + right) // 2)
    cols = np.arange(begin - 1, end + 1).clip(0, width - 1)
    inside = slice(int(cols[0]), int(cols[-1]) + 1)
    sides = (int(begin == 0), int(end == width))
    cut = slice(first_col + left - 2 * begin, first_col + right - 2 * begin)
    for row in range((first_row + top) // 2, -(-(first_row + bottom) // 2), ROWS):
        last = min(row + ROWS, -(-(first_row + bottom) // 2))
        rows = np.arange(row - 1, last + 1).clip(0, height - 1)
        block = np.pad(values[rows, inside], ((0, 0), sides), mode="edge")
        found = _double_block(block, fill)[:, cut]
        at = 2 * row - first_row
        skipped = max(0, top - at)
        place = slice(at + skipped, min(bottom, at + len(found)))
        out[place, left:right] = found[skipped : skipped + place.stop - place.start]


def _double_block(block: NDArray[np.int16], fill: int) -> NDArray[np.int16]:
    """int16 (h + 2, w + 2), with its neighbours -> int16 (2h, 2w)."""
    known = block != fill
    if known.all():
        total = _sixteenths(block.astype(np.int32))
        total += 8
        total >>= 4
    else:
        total = _sixteenths(np.where(known, block, 0).astype(np.int32))
        weight = _sixteenths(known.astype(np.int32))
        partly = np.nonzero(weight < 16)
        share = np.maximum(weight[partly], 1)
        mean = (2 * total[partly] + share) // (2 * share)
        total += 8
        total >>= 4
        total[partly] = mean
    found = total.astype(np.int16)
    taken = found == fill
    if taken.any():
        found[taken] = fill - 1 if fill > np.iinfo(np.int16).min else fill + 1
    if not known.all():
        found[~known[1:-1, 1:-1].repeat(2, 0).repeat(2, 1)] = fill
    return found


def _sixteenths(block: NDArray[np.int32]) -> NDArray[np.int32]:
    """int32 (h + 2, w + 2) -> int32 (2h, 2w): sums of four neighbours by weights that add up to 16."""
    height, width = block.shape[0] - 2, block.shape[1] - 2
    found = np.empty((height, 2, width, 2), np.int32)
    threefold = 3 * block[1:-1]
    for half, beside in enumerate((block[:-2], block[2:])):
        column = threefold + beside
        middle = 3 * column[:, 1:-1]
        np.add(middle, column[:, :-2], out=found[:, half, :, 0])
        np.add(middle, column[:, 2:], out=found[:, half, :, 1])
    return found.reshape(2 * height, 2 * width)
