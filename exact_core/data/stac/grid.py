"""Where to read: an area in longitude and latitude, the CRS and the bounds it is read in, the cells of a large one.

Edges are multiples of SNAP metres of the CRS, like those of the 10 m and 20 m pixels of all Sentinel-2 tiles. Edges of
a cell are multiples of its size. Bounds are left, bottom, right, top.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform

from exact_core.data.stac.items import RemoteItem
from exact_core.errors import ConfigError, DataError
from exact_core.json_values import read_json

__all__ = ["SNAP", "Bounds", "Cell", "area_of", "bounds_in", "cells", "choose_crs", "crop", "projected"]

SNAP = 20
"""Metres: the coarsest pixel that is used."""
POINTS = 40
"""Points on the longest side of an outline when it changes its CRS: its edges are straight in one of them only."""
LONLAT = "EPSG:4326"

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Cell:
    """A square of the grid. geometry: the part of the area in it, longitude and latitude."""

    name: str
    crs: str
    bounds: Bounds
    geometry: shapely.Geometry


def area_of(*, bbox: tuple[float, ...] | None = None, file: Path | None = None) -> shapely.Geometry:
    """An area in longitude and latitude, by a box or a GeoJSON file.

    Raises:
        ConfigError: both or none, or a box that is none. DataError: a file that holds no area.
    """
    if (bbox is None) == (file is None):
        raise ConfigError("the area: give one of --bbox WEST SOUTH EAST NORTH and --area FILE.geojson")
    if file is None:
        assert bbox is not None
        west, south, east, north = bbox
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
            raise ConfigError(
                f"--bbox {west} {south} {east} {north}: expected WEST SOUTH EAST NORTH in degrees, west < east and "
                f"south < north. Cut an area across the 180th meridian in two"
            )
        return shapely.box(west, south, east, north)
    try:
        document = read_json(file.read_text(encoding="utf-8"))
        shapes = [shapely.make_valid(shapely.from_geojson(json.dumps(shape))) for shape in _geometries(document)]
        area = shapely.union_all(shapes)
        west, south, east, north = area.bounds
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}. Give a GeoJSON file") from error
    except (KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise DataError(f"{file}: no GeoJSON with polygons: {error}") from error
    if not (area.area > 0 and -180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise DataError(f"{file}: expected polygons in degrees of longitude and latitude, got bounds {area.bounds}")
    return area


def _geometries(document: Any) -> Iterator[Any]:
    if document["type"] == "FeatureCollection":
        for feature in document["features"]:
            yield feature["geometry"]
    else:
        yield document["geometry"] if document["type"] == "Feature" else document


def projected(crs: str, what: str) -> CRS:
    """A CRS in metres.

    Raises:
        DataError: an unknown one, or one of degrees.
    """
    try:
        found = CRS.from_string(crs)
    except (RasterioError, ValueError) as error:
        raise DataError(f"{what}: unknown CRS {crs!r}. Give one as EPSG:32631") from error
    if not found.is_projected:
        raise DataError(f"{what}: {crs} counts in degrees, expected images in a projected CRS, as UTM")
    return found


def _moved(geometry: shapely.Geometry, source: str, target: str) -> shapely.Geometry:
    left, bottom, right, top = geometry.bounds
    dense = shapely.segmentize(geometry, max(right - left, top - bottom) / POINTS)
    return shapely.transform(dense, lambda points: np.column_stack(transform(source, target, *points.T)[:2]))


def bounds_in(geometry: shapely.Geometry, crs: str) -> Bounds:
    """Bounds of an area in a CRS, extended to multiples of SNAP.

    Raises:
        DataError: an area that the CRS does not reach.
    """
    try:
        edges = _moved(geometry, LONLAT, crs).bounds
    except (RasterioError, ValueError) as error:
        raise DataError(f"the area is not to be shown in {crs}: {error}. Name another CRS by --crs") from error
    if not all(map(math.isfinite, edges)):
        raise DataError(f"the area is not to be shown in {crs}. Name another CRS by --crs")
    left, bottom, right, top = edges
    return (_down(left, SNAP), _down(bottom, SNAP), _up(right, SNAP), _up(top, SNAP))


def _down(value: float, step: float) -> float:
    return math.floor(value / step + 1e-6) * float(step)


def _up(value: float, step: float) -> float:
    return math.ceil(value / step - 1e-6) * float(step)


def crop(bounds: Bounds, extents: Iterable[Bounds]) -> Bounds:
    """The part of the bounds that the images together reach. Empty (left >= right or bottom >= top) if none."""
    lefts, bottoms, rights, tops = zip(*extents, strict=True)
    return (
        max(bounds[0], min(lefts)),
        max(bounds[1], min(bottoms)),
        min(bounds[2], max(rights)),
        min(bounds[3], max(tops)),
    )


def choose_crs(items: list[tuple[RemoteItem, str]], area: shapely.Geometry) -> tuple[str, str]:
    """The CRS whose images cover most of the area, and a note on the others.

    Args:
        items: each with its CRS.
        area: longitude and latitude.
    """
    groups: dict[str, list[RemoteItem]] = defaultdict(list)
    for item, crs in items:
        groups[crs].append(item)

    def covered(crs: str) -> float:
        seen = shapely.union_all([item.geometry for item in groups[crs]])
        return float(shapely.intersection(seen, area).area / area.area)

    shares = {crs: covered(crs) for crs in groups}
    # To six digits: footprints of one place are not cut alike in two zones.
    best = min(groups, key=lambda crs: (-round(shares[crs], 6), -len(groups[crs]), crs))
    others = [f"{len(groups[crs])} in {crs} ({shares[crs]:.0%})" for crs in sorted(groups) if crs != best]
    if not others:
        return best, ""
    return best, (
        f"{len(groups[best])} images in {best} cover {shares[best]:.0%} of the area. Others were left out: "
        f"{', '.join(others)}. --crs chooses another, --cell reads each part in its own"
    )


# Cells


def cells(area: shapely.Geometry, size: int, crs: str | None = None) -> Iterator[Cell]:
    """The squares of the grid that the area touches, zone by zone, from south to north, one at a time.

    The grid is that of multiples of `size` in the UTM zone of each point, or in `crs`. Along the border of two zones a
    point may be in a cell of each.

    Raises:
        ConfigError: a size that pixels do not fit into.
    """
    if size < 2 * SNAP or size % SNAP:
        raise ConfigError(
            f"--cell {size}: expected metres, a multiple of {SNAP} (the coarsest pixel), {2 * SNAP} or more"
        )
    for zone in [crs] if crs else _zones(area):
        left, bottom, right, top = bounds_in(area if crs else _near(area, zone), zone)
        rows = range(math.floor(bottom / size), math.ceil(top / size))
        for row, col in itertools.product(rows, range(math.floor(left / size), math.ceil(right / size))):
            bounds = tuple(float(size * index) for index in (col, row, col + 1, row + 1))
            outline = _unwrapped(_moved(shapely.box(*bounds), zone, LONLAT), area)
            part = shapely.intersection(outline, area)
            if part.area > 0 and (crs or _in_zone(outline, zone)):
                name = f"{zone.removeprefix('EPSG:')}_E{int(bounds[0]):07d}_N{int(bounds[1]):07d}"
                yield Cell(name, zone, (bounds[0], bounds[1], bounds[2], bounds[3]), part)


def _zones(area: shapely.Geometry) -> list[str]:
    """UTM zones that an area touches: looked for at steps of at most 1 degree, narrower than any zone."""
    west, south, east, north = area.bounds
    xs = np.linspace(west, east, 1 + math.ceil(east - west)).tolist()
    ys = np.linspace(south, north, 1 + math.ceil(north - south)).tolist()
    # Both sides of the equator, however near to it an area ends.
    ys += [lat for lat in (-1e-9, 0.0) if south < lat < north]
    return sorted({_utm(lon, lat) for lon in xs for lat in ys})


def _utm(lon: float, lat: float) -> str:
    """The UTM zone of a point, with the exceptions of Norway and Svalbard that Sentinel-2 tiles follow (MGRS)."""
    zone = min(60, max(1, int((lon + 180) // 6) + 1))
    if 56 <= lat < 64 and 3 <= lon < 12:
        zone = 32
    elif lat >= 72 and 0 <= lon < 42:
        zone = next(number for limit, number in ((9, 31), (21, 33), (33, 35), (42, 37)) if lon < limit)
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"


def _near(area: shapely.Geometry, zone: str) -> shapely.Geometry:
    """The part of an area that a zone may hold: a projection goes astray far from its meridian."""
    number = int(zone[-2:])
    middle = 6 * number - 183
    south, north = (0, 90) if zone.startswith("EPSG:326") else (-90, 0)
    # 9 degrees: the widest zone of Svalbard reaches 6 from its meridian, and a cell may stand out.
    return shapely.intersection(area, shapely.box(middle - 9, south - 1, middle + 9, north + 1))


def _unwrapped(outline: shapely.Geometry, area: shapely.Geometry) -> shapely.Geometry:
    """Longitudes on the side of the 180th meridian that the area is on, so that no outline goes round the world."""
    middle = (area.bounds[0] + area.bounds[2]) / 2

    def turn(points: NDArray[np.float64]) -> NDArray[np.float64]:
        lon, lat = points.T
        return np.column_stack([lon + 360 * np.rint((middle - lon) / 360), lat])

    return shapely.transform(outline, turn)


def _in_zone(outline: shapely.Geometry, zone: str) -> bool:
    """Whether its outline enters the zone: a border is too straight to cut a piece out of a cell's middle."""
    return any(_utm(lon, lat) == zone for lon, lat in shapely.get_coordinates(outline))
