"""A cropland mask that the user gives: outside of it a map says nothing.

    raster    pixels are cropland where it is not 0 and not nodata, or where it has one of the values that are named
    vector    pixels are cropland whose centre lies in a polygon

Rows are masked as they come, so memory follows the rows that are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from exact_core.data.season.outlines import field_numbers
from exact_core.data.season.rasters import Grid, open_raster
from exact_core.data.vectors import VectorLayer, open_layer, split_layer
from exact_core.data.windows.dataset import VOID
from exact_core.errors import ConfigError, DataError
from exact_core.mapping.cogs import MapRecord
from exact_core.mapping.finished_rows import FinishedRows

__all__ = ["CroplandMask", "open_mask"]


def open_mask(path: Path, values: Sequence[int]) -> VectorLayer | None:
    """The layer of a vector mask. None where it is a raster. Errors as `CroplandMask`."""
    file, _ = split_layer(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file. Give a raster or a vector layer of cropland")
    try:
        with rasterio.open(file) as raster:
            if raster.count != 1 or raster.crs is None:
                raise DataError(f"{path}: {raster.count} bands, CRS {raster.crs}, expected one band with a CRS")
    except RasterioError:
        layer = open_layer(path, what="cropland mask")
        if not layer.has_outlines:
            raise DataError(f"{path}: a table without outlines. Give polygons of cropland") from None
        if values:
            raise ConfigError(
                f"--cropland-value {values[0]}: {path} is a vector layer, and has no values. Leave it out"
            ) from None
        return layer
    return None


class CroplandMask:
    """A mask, opened and brought to the pixels of a map.

    Args:
        path: raster, or any vector file that GDAL reads (`FILE|layername=NAME` where it has several layers).
        values: of a raster that are cropland. If empty, all but 0.
        record: of the map.

    Attributes:
        masked: mapped pixels that the last pass over the rows has left out.

    Raises:
        ConfigError: values for a vector layer.
        DataError: the file is not there, cannot be read, or is a raster of several bands or without a CRS.
    """

    def __init__(self, path: Path, values: Sequence[int], record: MapRecord) -> None:
        self.path, self.masked = path, 0
        self._found: set[float] = set()
        self._values = tuple(values)
        self._grid = Grid(record.rasterio_crs, Affine(*record.transform), record.height, record.width, path)
        self._layer = open_mask(path, values)

    def rows(self, rows: Iterable[FinishedRows]) -> Iterator[FinishedRows]:
        """The rows, with VOID in all files where there is no cropland.

        Raises:
            ConfigError: a raster of several values, none of which is named.
            DataError: the mask cannot be read, or leaves nothing of the map.
        """
        self.masked, kept = 0, 0
        self._found.clear()
        for each in rows:
            outside = ~self._cropland(self._grid.rows(each.first, each.end))
            self.masked += int((outside & (each.label != VOID)).sum())
            kept += int((~outside & (each.label != VOID)).sum())
            planes = each.probabilities
            yield replace(
                each,
                label=np.where(outside, np.uint8(VOID), each.label),
                confidence=np.where(outside, np.uint8(VOID), each.confidence),
                probabilities=None if planes is None else np.where(outside, np.uint8(VOID), planes),
            )
        if not kept:
            raise DataError(
                f"{self.path}: no mapped pixel is cropland by this mask. Give a mask of the area that is mapped"
            )

    def _cropland(self, part: Grid) -> NDArray[np.bool_]:
        """Whether the pixels of some rows are cropland (h, W)."""
        if self._layer is not None:
            return np.asarray(field_numbers(self._layer, part, []) > 0)
        with open_raster(self.path) as file:
            # The whole grid, of which some rows are read: a pixel is the same whatever is read with it.
            whole = self._grid
            try:
                with WarpedVRT(
                    file,
                    crs=whole.crs,
                    transform=whole.transform,
                    height=whole.height,
                    width=whole.width,
                    resampling=Resampling.nearest,
                    add_alpha=file.nodata is None,
                ) as warped:
                    window = Window(0, part.top, part.width, part.height)
                    values, seen = warped.read(1, window=window), warped.dataset_mask(window=window) > 0
            except RasterioError as error:
                raise DataError(f"{self.path}: cannot be brought to the pixels of the map: {error}") from error
        if self._values:
            return np.asarray(seen & np.isin(values, self._values))
        # Of all rows so far, however they are cut.
        self._found |= set(np.unique(values[seen & (values != 0)]).tolist())
        if len(found := sorted(self._found)) > 1:
            raise ConfigError(
                f"{self.path}: has several values ({', '.join(map(str, found[:8]))}). Name those that are cropland, as "
                f"--cropland-value {found[0]}"
            )
        return np.asarray(seen & (values != 0))
