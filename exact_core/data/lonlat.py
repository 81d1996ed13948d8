"""Outlines in longitude and latitude, on either side of the 180th meridian, as GeoJSON and STAC have them.

RFC 7946, 3.1.9: what crosses the meridian is cut there. 5.2: its box has a west greater than its east.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.warp import transform

__all__ = ["box_of", "cut_at_180", "degrees", "in_degrees", "unwrapped"]

POINTS = 40
"""Points on the longest side of an outline when it changes its CRS: its edges are straight in one of them only."""


def in_degrees(outline: shapely.Geometry, crs: Any) -> shapely.Geometry:
    """An outline of a CRS in longitude and latitude, cut at the 180th meridian where it crosses it."""
    left, bottom, right, top = outline.bounds
    dense = shapely.segmentize(outline, max(right - left, top - bottom) / POINTS)
    moved = shapely.transform(dense, lambda points: np.column_stack(transform(crs, "EPSG:4326", *points.T)[:2]))
    return cut_at_180(unwrapped(moved))


def degrees(lat: float, lon: float) -> str:
    """A place as text: 50.8198° N, 3.0193° E."""
    return f"{abs(lat):.4f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.4f}° {'E' if lon >= 0 else 'W'}"


def unwrapped(outline: shapely.Geometry) -> shapely.Geometry:
    """All longitudes within half the world of the first one, beyond 180 degrees if need be."""
    first = shapely.get_coordinates(outline)[0, 0]

    def turn(points: NDArray[np.float64]) -> NDArray[np.float64]:
        lon, lat = points.T
        return np.column_stack([lon + 360 * np.rint((first - lon) / 360), lat])

    return shapely.transform(outline, turn)


def cut_at_180(outline: shapely.Geometry) -> shapely.Geometry:
    """The same area within -180 to 180 degrees: in two parts if it crosses the meridian."""
    west, _, east, _ = outline.bounds
    if west >= -180 and east <= 180:
        return outline
    parts = []
    for turns in (-1, 0, 1):
        part = shapely.intersection(outline, shapely.box(360 * turns - 180, -90, 360 * turns + 180, 90))
        parts.append(shapely.transform(part, lambda points, turns=turns: points - [360 * turns, 0]))
    return shapely.union_all(parts)


def box_of(outline: shapely.Geometry) -> list[float]:
    """West, south, east, north of an outline. West > east where it crosses the 180th meridian."""
    whole = unwrapped(outline)
    west, south, east, north = whole.bounds
    if west >= -180 and east <= 180:
        return [west, south, east, north]
    return [(west + 180) % 360 - 180, south, (east + 180) % 360 - 180, north]
