"""Image-level tags from a table: which crops grow in which square, and nothing else.

    labels/tags.csv    lon,lat,crops            3.021,50.815,maize;potatoes
                       x,y,size,crops           501440,5629400,240,maize       (metres of the images' CRS)
                       scene,crops              E501360_N5629040,maize;grass   (a whole scene)

`crops` are names, or codes of the class map, apart by `;`; a row without any says that none of the classes grows
there. `size` is the side of the square, in units of the images' CRS (metres); without it, a window. A square larger
than a window is cut into windows, and each of them takes the whole list. Axes: K crop classes, N windows.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError
from rasterio.warp import transform

from exact_core.data.season.class_map import ClassMap, meant
from exact_core.data.season.rasters import Grid
from exact_core.data.windows.dataset import CLEAR_PATCH
from exact_core.errors import DataError
from exact_core.files import read_table_text

__all__ = ["Placed", "TagRow", "TagTable", "groups", "read_tag_table"]

MOST_TIMES = 100
"""Sides of the images that the side of a tagged square has at most: a larger one is given in another unit."""
PLACES = (("scene",), ("lon", "lat"), ("x", "y"))


@dataclass(frozen=True)
class TagRow:
    """A row: its crops, and its scene, or its centre (degrees of WGS84, or units of the images' CRS) and its side."""

    where: str
    crops: tuple[str, ...]
    scene: str | None
    centre: tuple[float, float] | None
    degrees: bool
    size: float | None


@dataclass(frozen=True)
class Placed:
    """A window of a scene, and what grows in it: tags (K,) uint8."""

    row: int
    col: int
    tags: NDArray[np.uint8]


@dataclass(frozen=True)
class TagTable:
    """A table of tags. classes: names of crops 1..K. colours: name -> #rrggbb, of those that have one."""

    path: Path
    rows: tuple[TagRow, ...]
    classes: tuple[str, ...]
    colours: Mapping[str, str]

    def place(self, scene: str, grid: Grid, *, window: int) -> tuple[list[Placed], int]:
        """The windows of a scene that the table speaks of, row-major, and how many rows' squares do not lie in it.

        Squares of two rows that give the same window: its tags are those of both.
        """
        found: dict[tuple[int, int], NDArray[np.uint8]] = {}
        outside = 0
        for row in self.rows:
            corners = self._corners(row, scene, grid, window)
            outside += not corners
            tags = np.array([name in row.crops for name in self.classes], np.uint8)
            for corner in corners:
                found[corner] = np.maximum(found.get(corner, 0), tags).astype(np.uint8)
        return [Placed(row, col, tags) for (row, col), tags in sorted(found.items())], outside

    def _corners(self, row: TagRow, scene: str, grid: Grid, window: int) -> list[tuple[int, int]]:
        """Upper left corners of the windows of a row's square that lie in the scene."""
        if row.centre is None:
            if row.scene != scene:
                return []
            return [
                (top, left)
                for top in range(0, grid.height - window + 1, window)
                for left in range(0, grid.width - window + 1, window)
            ]
        x, y = row.centre
        if row.degrees:
            try:
                xs, ys = transform("EPSG:4326", grid.crs, [x], [y])
            except (CPLE_BaseError, CRSError) as error:
                raise DataError(
                    f"{row.where}: {x}, {y} cannot be brought to {grid.crs.to_string()}: {error}"
                ) from error
            x, y = xs[0], ys[0]
        if not (math.isfinite(x) and math.isfinite(y)):
            return []
        col, line = ~grid.transform @ (x, y)
        pixel = math.sqrt(abs(grid.transform.determinant))
        side = (row.size or 0) / pixel
        longest = max(grid.height, grid.width)
        if side > MOST_TIMES * max(longest, window):
            raise DataError(
                f"{row.where}: size {row.size:g}: a square of {side:,.0f} pixels a side, where the images have "
                f"{longest:,}; give the side in units of the images' CRS (metres), or name the scene instead of a place"
            )
        count = max(1, int(side) // window)
        # Even, because clear patches are 2x2.
        first = [round((place - count * window / 2) / CLEAR_PATCH) * CLEAR_PATCH for place in (line, col)]
        tops, lefts = (
            _within(start, count, window, length)
            for start, length in zip(first, (grid.height, grid.width), strict=True)
        )
        return [(top, left) for top in tops for left in lefts]


def _within(start: int, count: int, window: int, length: int) -> range:
    """The corners of `count` windows from `start` on that are within a length; the others are not even looked at."""
    skipped = max(0, -(start // window))
    last = min(count, (length - window - start) // window + 1)
    return range(start + skipped * window, start + last * window, window)


def read_tag_table(path: Path, class_map: ClassMap | None) -> TagTable:
    """Read a table of tags.

    Args:
        path: the file, UTF-8, apart by commas or semicolons in its header's way.
        class_map: the classes, if they are given; else every name of the table is one, in the order of the alphabet.

    Raises:
        DataError: a missing column, or a row with a wrong number or an unknown crop; the line is named.
    """
    try:
        text = read_table_text(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        place = next((each for each in PLACES if set(each) <= set(columns)), None)
        if place is None or "crops" not in columns:
            raise DataError(
                f"{path}, line 1: columns {columns}; expected crops and scene, or crops and lon,lat, or crops and x,y"
            )
        known = _known(class_map)
        rows = [_row(line, f"{path}, line {reader.line_num}", place, known) for line in reader]
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table: {error}; write a header and a line a square") from error
    if not rows:
        raise DataError(f"{path}: no rows; write a line a square under the header")
    used = {crop for row in rows for crop in row.crops}
    if not used:
        raise DataError(f"{path}: no row names a crop; write names into the column crops, apart by ;")
    ordered = dict.fromkeys(known.values()) if known else sorted(used)
    names = tuple(name for name in ordered if name in used)
    if len(names) > 254:
        raise DataError(f"{path}: {len(names)} crops; at most 254, join some by a class map (labels/legend.csv)")
    if "background" in names:
        raise DataError(f"{path}: 'background' is the name of what is no crop; leave it out of the lists")
    colours = (
        {} if class_map is None else {name: class_map.colours[name] for name in names if name in class_map.colours}
    )
    return TagTable(path, tuple(rows), names, colours)


def _known(class_map: ClassMap | None) -> dict[str, str]:
    """What may stand in the column crops -> class: codes and names of the class map."""
    if class_map is None:
        return {}
    names = {str(code): name for code, name in class_map.names.items()}
    return {**names, **{name: name for name in class_map.names.values()}}


def _row(
    line: Mapping[str | None, str | list[str] | None], where: str, place: Sequence[str], known: Mapping[str, str]
) -> TagRow:
    if None in line or any(value is None for value in line.values()):
        raise DataError(f"{where}: another number of values than the header has; several crops are apart by ;, not ,")
    values = {str(key): str(value).strip() for key, value in line.items()}
    crops = []
    for crop in (each.strip() for each in values["crops"].split(";")):
        if crop and known and crop not in known:
            raise DataError(
                f"{where}: crop {crop!r} is not in the class map{meant(crop, known)}; name it in labels/legend.csv, or "
                f"correct it"
            )
        if crop:
            crops.append(known.get(crop, crop))
    size = None
    if values.get("size"):
        size = _number(values["size"], f"{where}: size")
        if size <= 0:
            raise DataError(f"{where}: size {size:g}; expected the side of the square, more than 0")
    scene, centre = None, None
    if place == ("scene",):
        scene = values["scene"]
        if not scene:
            raise DataError(f"{where}: no scene; expected the name of one")
    else:
        x, y = (_number(values[name], f"{where}: {name}") for name in place)
        centre = (x, y)
        if place == ("lon", "lat") and not (-180 <= x <= 180 and -90 <= y <= 90):
            raise DataError(f"{where}: lon {x:g}, lat {y:g} are no degrees; name the columns x,y if they are metres")
    return TagRow(where, tuple(crops), scene, centre, place == ("lon", "lat"), size)


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where} {text!r} is not a number")
    return number


def groups(corners: Sequence[tuple[int, int]], *, window: int) -> list[int]:
    """Number of the group of each window: windows that share a pixel, directly or by others, are in one, from 0.

    Splits take groups whole, so that they share no pixel.
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
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(place), len(numbers)) for place in range(len(corners))]
