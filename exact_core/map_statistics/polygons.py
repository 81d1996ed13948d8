"""The fields that a map shows, as polygons: each region of one crop, with its area and mean confidence.

The map is read in strips of rows. A region that reaches the last row of a strip stays open until it ends. So memory
follows the regions that a line across the map cuts, and a polygon has no seam.

Axes are h rows, W columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rasterio
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from exact_core.data.vectors import CHUNK
from exact_core.data.windows.dataset import VOID
from exact_core.errors import ConfigError, CorruptError, DataError
from exact_core.files import check_output
from exact_core.map_statistics.map_folder import BAND_PIXELS, CONFIDENCE, CropMap
from exact_core.map_statistics.parcel_files import FORMATS, parcel_file
from exact_core.mapping.generalise import regions_of

__all__ = ["PolygonSummary", "write_polygons"]


@dataclass
class PolygonSummary:
    """What was written. polygons: of each crop. small: regions left out below the minimum, and their pixels."""

    polygons: Counter[str] = field(default_factory=Counter)
    small: int = 0
    small_pixels: int = 0


@dataclass
class _Region:
    """A region as far as it is known. confidence: sum over its pixels, percent."""

    label: int
    pieces: list[Any]
    pixels: int
    confidence: float

    def take_in(self, other: _Region) -> None:
        """Another part of the same region."""
        self.pieces += other.pieces
        self.pixels += other.pixels
        self.confidence += other.confidence

    def outline(self) -> Any:
        """One polygon without the corners that ends of strips left on straight lines."""
        if len(self.pieces) == 1:
            return self.pieces[0]
        return shapely.union_all(self.pieces).simplify(0)


def write_polygons(
    crop_map: CropMap, out: Path, *, minimum_hectares: float = 0.0, pixels: int = BAND_PIXELS, force: bool = False
) -> PolygonSummary:
    """Write the regions of a map's crops, those that hang together by sides of pixels dissolved.

    Args:
        crop_map: the map. Background and land without a class become no polygon.
        out: file to write, .gpkg or .parquet (GeoParquet): `field` (a number), `crop`, `hectares` (null where the CRS
            has no metres), `confidence` (mean, percent), `pixels`, and the outline in the CRS of the map.
        minimum_hectares: smaller regions are left out.
        pixels: of the map in memory at a time.
        force: replace a file that is there.

    Raises:
        ConfigError: a file that must not be written, or a minimum for a map without metres.
        CorruptError: the map cannot be read.
        DataError: no region is left.
        ServiceError: the file cannot be written.
    """
    check_output(out, suffixes=tuple(FORMATS), inputs=(crop_map.folder,), force=force)
    if minimum_hectares and crop_map.hectares is None:
        raise ConfigError(
            f"--minimum-hectares {minimum_hectares:g}: the pixels of this map have no size in metres. Leave it out"
        )
    fewest = minimum_hectares / crop_map.hectares - 1e-9 if crop_map.hectares else 0.0
    summary = PolygonSummary()
    with parcel_file(out, crop_map.crs, layer="fields") as file:
        waiting: list[_Region] = []
        written = 0
        for region in _regions(crop_map, pixels):
            if region.pixels < fewest:
                summary.small += 1
                summary.small_pixels += region.pixels
                continue
            summary.polygons[crop_map.name_of(region.label)] += 1
            waiting.append(region)
            if len(waiting) == CHUNK:
                file.add(*_table(waiting, written, crop_map))
                written, waiting = written + len(waiting), []
        if waiting:
            file.add(*_table(waiting, written, crop_map))
        if not file.begun:
            raise DataError(
                f"{crop_map.folder}: no region of a crop of {minimum_hectares:g} ha or more. Lower the minimum"
            )
    return summary


def _table(regions: list[_Region], first: int, crop_map: CropMap) -> tuple[Any, NDArray[np.object_]]:
    """A chunk as it is written (Arrow), and its outlines."""
    outlines = np.array([each.outline() for each in regions], object)
    hectares = [each.pixels * crop_map.hectares if crop_map.hectares else None for each in regions]
    table = pa.table(
        {
            "field": pa.array(range(first + 1, first + len(regions) + 1), pa.int64()),
            "crop": pa.array([crop_map.name_of(each.label) for each in regions], pa.string()),
            "hectares": pa.array(hectares, pa.float64()),
            "confidence": pa.array([each.confidence / each.pixels for each in regions], pa.float64()),
            "pixels": pa.array([each.pixels for each in regions], pa.int64()),
            "geometry": pa.array(shapely.to_wkb(outlines), pa.binary()),
        }
    )
    return table, outlines


def _regions(crop_map: CropMap, pixels: int) -> Iterator[_Region]:
    """The regions of crops, each when its last row is known."""
    # Regions that reach the last row of the strip above, and which of them each pixel of that row is of; -1: none.
    open_regions: list[_Region] = []
    above = np.full(crop_map.width, -1)
    for first, label, percent in _strips(crop_map, pixels):
        numbers, count = regions_of(np.where(label == 0, np.uint8(VOID), label))
        found = _pieces(numbers, count, label, percent, crop_map.transform @ rasterio.Affine.translation(0, first))
        joined = open_regions + found
        top, last = (np.where(row > 0, row - 1 + len(open_regions), -1) for row in (numbers[0], numbers[-1]))
        label_of = np.array([each.label for each in joined])
        touching = (above >= 0) & (top >= 0)
        upper, lower = above[touching], top[touching]
        same = label_of[upper] == label_of[lower]
        links = coo_array((np.ones(same.sum()), (upper[same], lower[same])), shape=(len(joined), len(joined)))
        _, whole_of = connected_components(links, directed=False)
        wholes: dict[int, _Region] = {}
        for number, region in zip(whole_of.tolist(), joined, strict=True):
            if number in wholes:
                wholes[number].take_in(region)
            else:
                wholes[number] = region
        held, places = np.unique(whole_of[last[last >= 0]], return_inverse=True)
        above = np.full(crop_map.width, -1)
        above[last >= 0] = places
        open_regions = [wholes.pop(number) for number in held.tolist()]
        yield from wholes.values()
    yield from open_regions


def _strips(crop_map: CropMap, pixels: int) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """First row, labels and confidence of each strip."""
    try:
        with rasterio.open(crop_map.folder / CONFIDENCE) as file:
            for first, label in crop_map.rows(pixels=pixels):
                yield first, label, file.read(1, window=Window(0, first, crop_map.width, len(label)))
    except RasterioError as error:
        raise CorruptError(
            f"{crop_map.folder}: cannot be read: {error}. Make the map again with `exact map`"
        ) from error


def _pieces(
    numbers: NDArray[np.int32], count: int, label: NDArray[np.uint8], percent: NDArray[np.uint8], transform: Any
) -> list[_Region]:
    """The regions of a strip, 1..n in the order of their numbers."""
    flat = numbers.ravel()
    sizes = np.bincount(flat, minlength=count + 1)
    sums = np.bincount(flat, percent.ravel(), minlength=count + 1)
    labels = np.zeros(count + 1, np.int64)
    labels[flat] = label.ravel()
    outlines: list[list[Any]] = [[] for _ in range(count + 1)]
    for shape, number in rasterio.features.shapes(numbers, mask=numbers > 0, connectivity=4, transform=transform):
        outlines[int(number)].append(shapely.geometry.shape(shape))
    return [
        _Region(int(labels[place]), outlines[place], int(sizes[place]), float(sums[place]))
        for place in range(1, count + 1)
    ]
