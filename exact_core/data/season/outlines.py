"""Outlines of fields -> the field of each pixel. No crop is read.

A layer of field outlines (block layers, cadastres, predicted polygons) groups pixels. They are numbered by the layer's
own identities, so that a field has the same number in every part of an area.

Axes are H W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds, transform_geom

from exact_core.data.season.parcel_raster import Parcel, burn_parcels
from exact_core.data.season.rasters import Grid
from exact_core.data.vectors import VectorLayer, areas_of, open_layer
from exact_core.errors import DataError

__all__ = ["VECTORS", "Outline", "beside_fields", "field_numbers", "open_outlines", "outlines_on"]

VECTORS = (".geojson", ".gpkg", ".fgb", ".shp", ".parquet")
LARGEST = int(np.iinfo(np.int32).max) - 1


@dataclass(frozen=True)
class Outline:
    """A field of a layer: its identity there, its area in the CRS of a grid, and what was read of its attributes."""

    identity: int
    where: str
    area: Any
    values: tuple[Any, ...]


def outlines_on(file: VectorLayer, grid: Grid, columns: Sequence[str], left_out: Counter[str]) -> Iterator[Outline]:
    """The areas of a layer that may overlap a grid, in its CRS, in the order of the layer.

    Args:
        file: the layer.
        grid: the pixels. Areas elsewhere may be left out.
        columns: attributes to read.
        left_out: gets the numbers of outlines `unplaced` (NaN or infinite coordinates) and `flat` (no area).

    Raises:
        DataError: no CRS, one that does not reach the grid, or an outline that is broken.
    """
    path, crs = file.path, file.crs
    if crs is None:
        raise DataError(f"{path}: no CRS. Name one in the file")
    bounds = array_bounds(grid.height, grid.width, grid.transform)
    # A national layer has millions of parcels; only those on the scene are read.
    try:
        near = bounds if crs == grid.crs else transform_bounds(grid.crs, crs, *bounds)
    except CPLE_BaseError as error:
        raise DataError(f"{path}: its CRS does not reach the images: {error}. Correct it") from error
    for part in file.read(list(dict.fromkeys(columns)), near=near):
        values = [part.columns.column(name).to_pylist() for name in columns]
        for place, (fid, outline) in enumerate(zip(part.identities.to_pylist(), part.outlines, strict=True)):
            where = f"{path}, parcel {fid}"
            polygon = _polygon(outline, where)
            if polygon is None or polygon.is_empty:
                continue
            if not np.isfinite(shapely.get_coordinates(polygon)).all():
                left_out["unplaced"] += 1
                continue
            polygon = areas_of(polygon)
            if polygon.is_empty:
                left_out["flat"] += 1
                continue
            geometry = shapely.geometry.mapping(polygon)
            if crs != grid.crs:
                try:
                    geometry = transform_geom(crs, grid.crs, geometry)
                except CPLE_BaseError as error:
                    raise DataError(
                        f"{where}: its coordinates {polygon.bounds} cannot be brought to {grid.crs.to_string()}: "
                        f"{error}. Correct them or the CRS of the layer, or take this parcel out"
                    ) from error
            yield Outline(fid, where, shapely.geometry.shape(geometry), tuple(each[place] for each in values))


def _polygon(data: bytes | None, where: str) -> Any:
    """Geometry from WKB. One of NaN if its ring has NaN for both ends, which GEOS calls unclosed."""
    with np.errstate(invalid="ignore"):
        try:
            # A height of NaN says nothing of the place.
            return shapely.force_2d(shapely.from_wkb(data))
        except shapely.errors.GEOSException as error:
            # Any other unclosed ring can be closed.
            if "closed" in str(error) and shapely.from_wkb(data, on_invalid="fix") is None:
                return shapely.Point(np.nan, 0)
            raise DataError(
                f"{where}: invalid outline: {error}. Close its rings and give each at least 4 points "
                f"(ogr2ogr -makevalid), or take this parcel out"
            ) from error


def open_outlines(folder: Path, named: str | None) -> VectorLayer | None:
    """The layer of field outlines of a season: the one that is named, else labels/outlines.*. If None, there is none.

    Raises:
        DataError: the named file is not there, or the layer cannot be read or is a table without outlines.
    """
    places = [folder / named] if named else [folder / f"labels/outlines{suffix}" for suffix in VECTORS]
    path = next((path for path in places if named or path.is_file()), None)
    if path is None:
        return None
    layer = open_layer(path, what="layer of field outlines")
    if not layer.has_outlines:
        raise DataError(f"{layer.path}: a table without outlines. Give a layer of field outlines, or none")
    return layer


def beside_fields(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (H, W) in no field that share a side with one, of what is known with a rim around it (H + 2, W + 2)."""
    near = inside[:-2, 1:-1] | inside[2:, 1:-1] | inside[1:-1, :-2] | inside[1:-1, 2:]
    return np.asarray(near & ~inside[1:-1, 1:-1])


def field_numbers(layer: VectorLayer, grid: Grid, notes: list[str]) -> NDArray[np.int32]:
    """The field of each pixel's centre (H, W): its identity in the layer + 1, or 0 where there is none.

    Where outlines overlap, as fields in a block, the smallest counts. Of two equally large ones that overlap, as a
    duplicated field, the first counts.

    Raises:
        DataError: the layer cannot be read or brought to the grid.
    """
    left_out = Counter[str]()
    outlines = list(outlines_on(layer, grid, (), left_out))
    for each in outlines:
        if not 0 <= each.identity <= LARGEST:
            raise DataError(f"{each.where}: its number does not fit in 32 bits. Write the layer again, without it")
    smallest_first = sorted(outlines, key=lambda each: float(each.area.area))
    found = [Parcel(each.area, each.identity + 1, float(rank)) for rank, each in enumerate(smallest_first)]
    if left_out:
        notes.append(f"{left_out.total()} outlines of {layer.path.name} enclose nothing or have no place: left out")
    numbers = burn_parcels(found, grid, crops={}, overlap=0).codes
    fields = len(np.unique(numbers[numbers > 0]))
    notes.append(
        f"{fields} field outlines of {layer.path.name} cover {(numbers > 0).mean():.0%} of {grid.height} x "
        f"{grid.width} pixels. No crop is read from them. If they cover every field, set masks.outside to "
        "background"
    )
    return numbers
