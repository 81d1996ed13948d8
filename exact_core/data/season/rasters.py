"""Rasters of any file brought to one grid of pixels.

Axes are H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from rasterio.windows import Window

from exact_core.cgroup import memory_free
from exact_core.data.season.archives import for_gdal
from exact_core.data.season.integer_resampling import resample_in_integers
from exact_core.errors import DataError

__all__ = ["RASTERS", "Grid", "fit_to_grid", "open_raster", "own_rows", "pixel_metres", "read_raster"]

RASTERS = (".tif", ".tiff", ".jp2", ".vrt")
MARGIN = 2
"""Pixels of a coarser raster beside a grid that its bilinear values draw on."""
ALWAYS_ROOM = 2**28
"""Bytes that are unpacked without a check of free memory."""
ALIGNED = 1e-4
"""Pixels by which two grids may differ and still be one."""


@dataclass(frozen=True)
class Grid:
    """The common pixel grid.

    file: the source of the grid. top: of a part, how many rows of the whole are above it.
    """

    crs: Any
    transform: Any
    height: int
    width: int
    file: Path
    top: int = 0

    def rows(self, first: int, last: int) -> Grid:
        """The part from row `first` to before row `last`."""
        transform = self.transform @ Affine.translation(0, first)
        return replace(self, transform=transform, height=last - first, top=self.top + first)

    def columns(self, first: int, last: int) -> Grid:
        """The part from column `first` to before column `last`."""
        return replace(self, transform=self.transform @ Affine.translation(first, 0), width=last - first)

    def step(self, longest: int) -> int:
        """The least whole number of pixels in one that leaves about `longest` on the longer side."""
        return max(1, math.ceil(max(self.height, self.width) / longest))

    def coarse(self, step: int) -> Grid:
        """The same land in pixels that are `step` times as large."""
        transform = self.transform @ Affine.scale(step)
        return replace(self, transform=transform, height=max(1, self.height // step), width=max(1, self.width // step))


DEGREE = 111_195.0
"""Metres of a degree along a meridian of a sphere of 6,371 km."""


def pixel_metres(grid: Grid) -> float:
    """Side in metres of a square with a pixel's area. Pixels in degrees are measured in the middle of the grid."""
    side = math.sqrt(abs(grid.transform.determinant))
    if grid.crs.is_projected:
        return float(side * grid.crs.linear_units_factor[1])
    _, latitude = grid.transform @ (grid.width / 2, grid.height / 2)
    return float(side * DEGREE * math.sqrt(max(math.cos(math.radians(latitude)), 0.01)))


def open_raster(path: Path) -> Any:
    """The file for reading, in an archive or not. DataError if it is no raster, or it has no geotransform."""
    try:
        file = rasterio.open(for_gdal(path))
    # GDAL gives damaged names and numbers as they are; rasterio cannot decode them.
    except (RasterioError, UnicodeDecodeError, CPLE_BaseError) as error:
        raise DataError(f"{path}: not a readable raster: {error}. Download it again or leave its date out") from error
    determinant = file.transform.determinant
    if not (math.isfinite(determinant) and determinant):
        file.close()
        raise DataError(
            f"{path}: its geotransform {tuple(file.transform)[:6]} gives pixels no area. Georeference or download "
            f"it again"
        )
    # A file can be small and its blocks larger than memory: one tile that holds one value.
    height, width = file.block_shapes[0] if file.block_shapes else (1, 1)
    try:
        _check_room(path, height, width, file.dtypes[0], "in one block. Write it again in tiles (a COG)")
    except DataError:
        file.close()
        raise
    return file


def _check_room(path: Path, height: int, width: int, dtype: str, more: str) -> None:
    """Refuse to unpack more than memory has room for, which would end the process without a word."""
    try:
        needed = height * width * np.dtype(dtype).itemsize
    except TypeError:  # a type of GDAL's that no array has; reading it says so
        return
    if needed < ALWAYS_ROOM or needed <= (free := memory_free()):
        return
    raise DataError(
        f"{path}: {width:,} x {height:,} pixels unpack to {needed / 1e9:,.1f} GB, where {free / 1e9:,.1f} GB of memory "
        f"are free, {more}"
    )


def read_raster(path: Path, *, around: Grid | None = None) -> tuple[NDArray[Any], Any, Any, float | None]:
    """Values (H, W), CRS, transform and nodata of a one-band raster. `around` a grid, what it needs to be filled."""
    with open_raster(path) as file:
        if file.count != 1:
            raise DataError(f"{path}: {file.count} bands in one file, expected a file for each band")
        try:
            window = None if around is None else _window_around(file, around)
            transform = file.transform if window is None else file.window_transform(window)
            height, width = (file.height, file.width) if window is None else (window.height, window.width)
            _check_room(path, height, width, file.dtypes[0], "all at once. Cut it to the area of the images")
            return file.read(1, window=window), file.crs, transform, file.nodata
        except RasterioError as error:
            raise DataError(f"{path}: damaged: {error}. Download it again or leave its date out") from error


def own_rows(transform: Affine, part: Grid) -> slice:
    """Which rows of a raster that was read around a part of a grid were not read around the part above, too.

    The parts of a grid together have every row once, where each alone has neighbours for interpolation.

    Args:
        transform: of what `read_raster` gave.
        part: what it was read around.
    """
    rows, _ = _edges(~transform @ part.transform, part)
    above, _ = _edges(~transform @ part.transform, replace(part, height=0))
    return slice(max(above[1], 0) if part.top else 0, max(rows[1], 0))


def _window_around(file: Any, grid: Grid) -> Window | None:
    """The pixels of a file that a grid is filled from, with neighbours for interpolation. If None, all of them."""
    if file.crs != grid.crs:
        return None
    rows, cols = _edges(~file.transform @ grid.transform, grid)
    row0, row1 = (min(max(edge, 0), file.height) for edge in rows)
    col0, col1 = (min(max(edge, 0), file.width) for edge in cols)
    if row0 >= row1 or col0 >= col1:
        # Beside the grid: fitted as it is, it fills nothing.
        return Window(0, 0, 1, 1)
    return Window(col0, row0, col1 - col0, row1 - row0)


def _edges(onto: Affine, grid: Grid) -> tuple[tuple[int, int], tuple[int, int]]:
    """First row and one past the last, and so of columns, that a grid is filled from. `onto`: its pixels -> theirs."""
    corners = [onto @ (col, row) for col in (0, grid.width) for row in (0, grid.height)]
    left, right = min(col for col, _ in corners), max(col for col, _ in corners)
    top, bottom = min(row for _, row in corners), max(row for _, row in corners)
    same = np.allclose([onto.a, onto.b, onto.d, onto.e], [1, 0, 0, 1], atol=1e-9, rtol=0)
    if same and max(abs(left - round(left)), abs(top - round(top))) < ALIGNED:
        return (round(top), round(bottom)), (round(left), round(right))
    rows = math.floor(top) - MARGIN, math.ceil(bottom) + MARGIN
    return rows, (math.floor(left) - MARGIN, math.ceil(right) + MARGIN)


def fit_to_grid(
    values: NDArray[Any], crs: Any, transform: Any, grid: Grid, *, nearest: bool, fill: int
) -> NDArray[Any]:
    """Values on the grid. `fill` where there are none. A bilinear value leaves out neighbours that are `fill`.

    Raises:
        DataError: no way from the raster's CRS to the grid's.
    """
    covers = values.shape[0] >= grid.height and values.shape[1] >= grid.width
    if crs == grid.crs and covers and transform.almost_equals(grid.transform, precision=1e-6):
        return values[: grid.height, : grid.width]
    fitted = np.full((grid.height, grid.width), fill, values.dtype)
    if crs == grid.crs and resample_in_integers(values, transform, grid.transform, fitted, nearest=nearest, fill=fill):
        return fitted
    try:
        reproject(
            values,
            fitted,
            src_crs=crs,
            src_transform=transform,
            src_nodata=fill,
            dst_crs=grid.crs,
            dst_transform=grid.transform,
            dst_nodata=fill,
            resampling=Resampling.nearest if nearest else Resampling.bilinear,
        )
    except (RasterioError, CPLE_BaseError) as error:
        raise DataError(
            f"a raster in {crs.to_string()[:80]} cannot be brought to the grid of {grid.file}: {error}. Correct its "
            f"CRS and geotransform, or download it again"
        ) from error
    return fitted
