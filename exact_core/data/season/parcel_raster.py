"""Outlines of parcels -> the codes of the pixels whose centres they contain.

Where parcels of different crops overlap, the truth is unknown, unless an attribute puts them in order.

Axes are H W pixels.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize

from exact_core.data.season.rasters import Grid

__all__ = ["Burnt", "Parcel", "burn_parcels"]

ROWS = 2048
"""Rows that are burnt together: each takes two whole numbers a pixel."""


@dataclass(frozen=True)
class Parcel:
    """An outline in the CRS of the images, and its code. rank: of overlapping parcels, the lowest holds."""

    outline: Any
    code: int
    rank: float = 0.0


@dataclass(frozen=True)
class Burnt:
    """codes: int32 (H, W). overlaps: pixels in parcels of different crops of one rank. parcels: how many these are."""

    codes: NDArray[np.int32]
    overlaps: int
    parcels: int


def burn_parcels(
    parcels: Sequence[Parcel], grid: Grid, *, crops: Mapping[int, Hashable], overlap: int, background: int = 0
) -> Burnt:
    """Codes of pixels.

    Args:
        parcels: polygons and multipolygons, valid.
        grid: the pixels.
        crops: crop of each code: parcels of one crop may overlap. A code that is missing here is a crop of its own.
        overlap: code of pixels in parcels of different crops.
        background: code of pixels in none.
    """
    codes = np.full((grid.height, grid.width), background, np.int32)
    if not parcels:
        return Burnt(codes, 0, 0)
    # Whole numbers for crops, so that they can be put in order, up and down.
    kinds = [crops.get(each.code, each.code) for each in parcels]
    number = {kind: place for place, kind in enumerate(dict.fromkeys(kinds))}
    crop = np.array([number[kind] for kind in kinds])
    rank = np.array([each.rank for each in parcels])
    code = np.array([each.code for each in parcels], np.int32)
    edges = np.array([each.outline.bounds for each in parcels])
    places = np.arange(len(parcels))
    overlaps, involved = 0, set[int]()
    for first in range(0, grid.height, ROWS):
        part = grid.rows(first, min(first + ROWS, grid.height))
        rows = np.sort([(part.transform @ (0, row))[1] for row in (0, part.height)])
        near = (edges[:, 1] <= rows[1]) & (edges[:, 3] >= rows[0])
        if part.transform.b or part.transform.d:
            near[:] = True
        # What is burnt last stays: the lowest rank, and of that the first crop or the last. Where these differ, parcels
        # of different crops overlap.
        top, bottom = (
            _burn([parcels[place] for place in places[near][order]], places[near][order], part)
            for order in (np.lexsort((step * crop[near], -rank[near])) for step in (1, -1))
        )
        inside = top >= 0
        here = codes[first : first + part.height]
        here[inside] = code[top[inside]]
        differ = inside & (crop[top] != crop[bottom])
        if differ.any():
            here[differ] = overlap
            overlaps += int(differ.sum())
            involved.update(np.unique(np.concatenate([top[differ], bottom[differ]])).tolist())
    return Burnt(codes, overlaps, len(involved))


def _burn(parcels: Sequence[Parcel], places: NDArray[np.int64], grid: Grid) -> NDArray[np.int32]:
    """Which parcel was burnt last (H, W), -1 where none."""
    shape = (grid.height, grid.width)
    if not parcels:
        return np.full(shape, -1, np.int32)
    shapes = ((each.outline, int(place)) for each, place in zip(parcels, places, strict=True))
    burnt: NDArray[np.int32] = rasterize(shapes, out_shape=shape, transform=grid.transform, fill=-1, dtype="int32")
    return burnt
