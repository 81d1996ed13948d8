"""Outlines of parcels in the CRS of a map. Invalid ones are counted by kind and never end the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.warp import transform

from exact_core.data.vectors import areas_of
from exact_core.map_statistics.map_folder import CropMap

__all__ = ["Placed", "place_outlines"]

POLYGONS = (3, 6)
"""GEOS types of polygons and multipolygons."""
NO_PLACE = (CPLE_BaseError, RasterioError, shapely.errors.GEOSException)


@dataclass(frozen=True)
class Placed:
    """Outlines of a chunk.

    kept: positions in the chunk of those that lie on the map. outlines: these, in its CRS. empty, broken, other,
    outside: how many were left out, as they have no outline, one that is no outline or has no place, one that is no
    area, or lie beside the map. repaired: how many of the kept crossed themselves.
    """

    kept: NDArray[np.intp]
    outlines: NDArray[np.object_]
    empty: int
    broken: int
    other: int
    outside: int
    repaired: int


@np.errstate(invalid="ignore", over="ignore")
def place_outlines(data: NDArray[np.object_], crs: Any, crop_map: CropMap) -> Placed:
    """Outlines (n,) as WKB, None for none, and their CRS -> those that lie on the map."""
    outlines = shapely.force_2d(shapely.from_wkb(data, on_invalid="ignore"))
    missing = np.array([each is None or not len(each) for each in data], bool)
    unread = shapely.is_missing(outlines) & ~missing
    empty = missing | (~unread & shapely.is_empty(outlines))
    flat = ~np.isin(shapely.get_type_id(outlines), POLYGONS) & ~empty & ~unread
    good = ~(unread | empty | flat)
    outlines[good] = _in_crs(outlines[good], crs, crop_map.crs)
    lost = unread | (good & shapely.is_missing(outlines))
    good &= ~lost
    crossed = good & ~shapely.is_valid(outlines)
    for place in np.flatnonzero(crossed):
        outlines[place] = areas_of(outlines[place])
    # Nothing is left of an outline that enclosed nothing.
    hollow = good & ~(shapely.area(outlines) > 0)
    good &= ~hollow
    on_map = good & shapely.intersects(outlines, _outline_of(crop_map))
    return Placed(
        kept=np.flatnonzero(on_map),
        outlines=outlines[on_map],
        empty=int(empty.sum()),
        broken=int((lost | hollow).sum()),
        other=int(flat.sum()),
        outside=int((good & ~on_map).sum()),
        repaired=int((crossed & on_map).sum()),
    )


def _in_crs(outlines: NDArray[np.object_], source: Any, target: Any) -> NDArray[np.object_]:
    """Outlines in another CRS. None for those that have no place there."""

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(transform(source, target, points[:, 0], points[:, 1]), 1)

    found = outlines.copy()
    if source != target and len(outlines):
        try:
            found = shapely.transform(outlines, moved)
        except NO_PLACE:
            # One point without a place spoils the call for all of them.
            found = np.array([_moved_alone(outline, moved) for outline in outlines], object)
    places, owners = shapely.get_coordinates(found, return_index=True)
    lost = np.zeros(len(found), bool)
    lost[owners[~np.isfinite(places).all(1)]] = True
    found[lost] = None
    return found


def _moved_alone(outline: Any, moved: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Any:
    try:
        return shapely.transform(outline, moved)
    except NO_PLACE:
        return None


def _outline_of(crop_map: CropMap) -> Any:
    corners = ((0, 0), (crop_map.width, 0), (crop_map.width, crop_map.height), (0, crop_map.height))
    return shapely.Polygon([crop_map.transform @ corner for corner in corners])
