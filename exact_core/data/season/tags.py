"""Image-level tags, placed on images: which crops grow in which square, and nothing else.

`exact_core.data.season.tag_tables` reads them. A square larger than a window is cut into windows, and each of them
takes the whole list. So they belong together: apart, one would tell the list of another. Axes are K crop classes, N
windows, R rows of a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.warp import transform

from exact_core.data.season.rasters import Grid
from exact_core.data.windows.dataset import CLEAR_PATCH
from exact_core.errors import DataError

__all__ = ["Placed", "Square", "TagRow", "TagTable", "groups"]


@dataclass(frozen=True)
class TagRow:
    """A row: its crops, and its scene, its centre and side, or its outline.

    where: its position, for messages. centre: in the CRS of the table. size: side of the square, in units of the
    images' CRS. If None, a window. outline: of a square, in the CRS of the table.
    """

    where: str
    crops: tuple[str, ...]
    scene: str | None = None
    centre: tuple[float, float] | None = None
    size: float | None = None
    outline: shapely.Geometry | None = None

    @property
    def name(self) -> str:
        """Its position without the file: line 3."""
        return self.where.rpartition(", ")[2]


@dataclass(frozen=True)
class Placed:
    """A window of a scene, and what grows in it: tags (K,) uint8.

    square: the same number in the windows of one square, and of squares that share a window with it. If None, the
    window is a square of its own.
    """

    row: int
    col: int
    tags: NDArray[np.uint8]
    square: int | None = None


@dataclass(frozen=True)
class Square:
    """The square of a row in pixels of a grid: its centre from the upper left corner, and its side. NaN: unknown."""

    tag: TagRow
    row: float
    col: float
    side: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, in pixels."""
        half = self.side / 2
        return self.col - half, self.row - half, self.col + half, self.row + half


@dataclass(frozen=True)
class TagTable:
    """A table of tags.

    classes: names of crops 1..K. colours: name -> #rrggbb, of those that have one. crs: of the coordinates. If None,
    that of the images. notes: remarks for its reader. questions: possible mistakes.
    """

    path: Path
    rows: tuple[TagRow, ...]
    classes: tuple[str, ...]
    colours: Mapping[str, str]
    crs: Any = None
    notes: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()

    def place(self, scene: str, grid: Grid, *, window: int) -> tuple[list[Placed], list[TagRow]]:
        """The tagged windows of a scene, row-major, and the rows without one in it.

        Where squares of two rows give the same window, it has the tags of both.

        Raises:
            DataError: coordinates that cannot be brought to the CRS of the images.
        """
        found: dict[tuple[int, int], NDArray[np.uint8]] = {}
        several: dict[int, list[tuple[int, int]]] = {}
        outside = []
        squares = {id(square.tag): square for square in self.squares(grid, window=window)}
        for number, row in enumerate(self.rows):
            if row.scene is not None:
                corners = _tiles(grid, window) if row.scene == scene else []
            else:
                corners = _windows_of(squares[id(row)], grid, window)
            if not corners:
                outside.append(row)
            if len(corners) > 1:
                several[number] = corners
            tags = np.array([name in row.crops for name in self.classes], np.uint8)
            for corner in corners:
                found[corner] = np.maximum(found.get(corner, 0), tags).astype(np.uint8)
        order = sorted(found)
        at = {corner: place for place, corner in enumerate(order)}
        # Windows are one pixel here: what else they share does not make their squares one.
        of = groups(order, window=1, squares=[[at[corner] for corner in own] for own in several.values()])
        squares_of: dict[int, int] = {}
        for number, corners in several.items():
            squares_of.setdefault(of[at[corners[0]]], number)
        placed = [
            Placed(*corner, found[corner], squares_of.get(group)) for corner, group in zip(order, of, strict=True)
        ]
        return placed, outside

    def squares(self, grid: Grid, *, window: int, swapped: bool = False, scale: float = 1.0) -> list[Square]:
        """The positions of the rows with coordinates on a grid, inside or outside of it.

        Args:
            grid: of the images.
            window: side of a window, pixels: that of a square without a size.
            swapped: read both coordinates the other way round.
            scale: of the coordinates, as 1000 for kilometres.

        Raises:
            DataError: coordinates that cannot be brought to the CRS of the images.
        """
        pixel = math.sqrt(abs(grid.transform.determinant))
        placed = [row for row in self.rows if row.scene is None]
        corners = [_corners(row) * scale for row in placed]
        if swapped:
            corners = [each[:, ::-1] for each in corners]
        moved = _in_images(corners, self.crs, grid, placed)
        squares = []
        for row, points in zip(placed, moved, strict=True):
            if np.isfinite(points).all():
                col, line = ~grid.transform @ tuple(points.mean(0))
                size = math.sqrt(shapely.Polygon(points).area) if len(points) > 2 else row.size
            else:
                col, line, size = math.nan, math.nan, None
            squares.append(Square(row, line, col, window if size is None else size / pixel))
        return squares


def _corners(row: TagRow) -> NDArray[np.float64]:
    """The corners of an outline (4, 2), or the centre (1, 2)."""
    if row.outline is not None:
        return np.asarray(shapely.get_coordinates(shapely.oriented_envelope(row.outline))[:4])
    return np.array([row.centre], np.float64)


def _in_images(
    corners: list[NDArray[np.float64]], crs: Any, grid: Grid, rows: list[TagRow]
) -> list[NDArray[np.float64]]:
    """Points in the CRS of the images. Points without a position there are not finite."""
    if crs is None or crs == grid.crs or not corners:
        return corners
    ends = np.cumsum([len(each) for each in corners])[:-1]
    try:
        x, y = transform(crs, grid.crs, *np.concatenate(corners).T)
    except (CPLE_BaseError, RasterioError) as error:
        if len(rows) > 1:
            # One place spoils the call for all of them: it is named.
            return [_in_images([each], crs, grid, [row])[0] for each, row in zip(corners, rows, strict=True)]
        raise DataError(
            f"{rows[0].where}: {', '.join(f'{value:g}' for value in corners[0][0])} cannot be brought to "
            f"{grid.crs.to_string()}: {error}. Correct it"
        ) from error
    return np.split(np.stack([x, y], 1), ends)


@lru_cache(maxsize=8)
def _tiles_of(height: int, width: int, window: int) -> list[tuple[int, int]]:
    tops, lefts = range(0, height - window + 1, window), range(0, width - window + 1, window)
    return [(top, left) for top in tops for left in lefts]


def _tiles(grid: Grid, window: int) -> list[tuple[int, int]]:
    return _tiles_of(grid.height, grid.width, window)


def _windows_of(square: Square, grid: Grid, window: int) -> list[tuple[int, int]]:
    """Upper left corners of the windows of a square that are in the scene. No others are ever made."""
    if not all(map(math.isfinite, (square.row, square.col, square.side))):
        return []
    count = max(1, int(square.side) // window)
    starts = []
    for middle, length in ((square.row, grid.height), (square.col, grid.width)):
        # Even, because clear patches are 2x2.
        first = round((middle - count * window / 2) / CLEAR_PATCH) * CLEAR_PATCH
        lowest, highest = max(0, -(first // window)), min(count - 1, (length - window - first) // window)
        starts.append([first + step * window for step in range(lowest, highest + 1)])
    return [(top, left) for top in starts[0] for left in starts[1]]


def groups(corners: Sequence[tuple[int, int]], *, window: int, squares: Iterable[Sequence[int]] = ()) -> list[int]:
    """Number of the group of each window, from 0: windows that share a pixel or a square, directly or by others.

    Splits take groups whole, so that they share no pixel and no list of crops.

    Args:
        corners: upper left corners of the windows.
        window: side, pixels.
        squares: positions of the windows of each square of several.
    """
    cells: dict[tuple[int, int], list[int]] = {}
    parent = list(range(len(corners)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for place, (row, col) in enumerate(corners):
        here = (row // window, col // window)
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                for other in cells.get((here[0] + i, here[1] + j), ()):
                    if abs(corners[other][0] - row) < window and abs(corners[other][1] - col) < window:
                        parent[root(place)] = root(other)
        cells.setdefault(here, []).append(place)
    for own in squares:
        for place in own:
            parent[root(place)] = root(own[0])
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(place), len(numbers)) for place in range(len(corners))]
