"""What a person may not have meant with a table of tags: places beside the images, sizes, squares that contradict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely

from exact_core.data.season.rasters import Grid
from exact_core.data.season.tags import Square, TagRow, TagTable
from exact_core.errors import DataError

__all__ = ["check_places", "check_sizes", "contradictions"]

SHOWN = 5
MOSTLY = 0.5
"""Share of the smaller of two squares inside the larger, from which both describe the same land."""


def check_sizes(table: TagTable, grid: Grid, *, window: int) -> list[str]:
    """What is to be said of the sides of squares, a sentence each.

    Raises:
        DataError: a square smaller than a pixel, which no one means.
    """
    pixel = math.sqrt(abs(grid.transform.determinant))
    unit = "m" if grid.crs.is_projected else "degrees"
    squares = table.squares(grid, window=window)
    for square in squares:
        if square.side < 1:
            size = square.side * pixel
            raise DataError(
                f"{square.tag.where}: the square has a side of {size:g} {unit}, less than a pixel ({pixel:g} {unit}). "
                f"Sizes are in {unit}" + (f": write {size * 1000:g} if kilometres were meant" if unit == "m" else "")
            )
    small = [square.tag for square in squares if square.side < window - 1]
    large = [square.tag for square in squares if square.side > max(grid.height, grid.width)]
    notes = []
    if small:
        notes.append(
            f"{len(small)} squares of {table.path.name} are smaller than a window of {window * pixel:g} {unit} "
            f"({_named(small)}): their crops count for the whole window"
        )
    if large:
        notes.append(
            f"{len(large)} squares of {table.path.name} are larger than the images, {grid.width * pixel:g} x "
            f"{grid.height * pixel:g} {unit} ({_named(large)}): each window in them takes all of their crops"
        )
    return notes


def check_places(table: TagTable, outside: Sequence[TagRow], grid: Grid, *, window: int, source: str) -> list[str]:
    """Warnings about rows without a window in the images.

    Raises:
        DataError: all rows are outside. With a correction that would fit.
    """
    if not outside:
        return []
    hint = _hint(table, {id(row) for row in outside}, grid, window)
    if len(outside) == len(table.rows):
        raise DataError(
            f"{table.path}: none of its {len(table.rows)} squares is in the images of {source}. "
            + (hint or "check the columns (lon,lat are degrees, x,y are in the CRS of the images), or the area")
        )
    return [
        f"{len(outside)} of {len(table.rows)} squares of {table.path.name} are not in the images: {_named(outside)}"
        + (f"; {hint}" if hint else "")
    ]


def contradictions(table: TagTable, grid: Grid, *, window: int) -> list[str]:
    """Squares on the same land of which one names a crop that the other leaves out.

    A list is complete for its square. A square that is mostly inside another cannot have a crop that the other lacks.
    """
    squares = [each for each in table.squares(grid, window=window) if np.isfinite([each.row, each.col]).all()]
    if len(squares) < 2:
        return []
    boxes = np.array([shapely.box(*square.box) for square in squares])
    found: list[tuple[Square, Square, str]] = []
    first, second = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    order = np.lexsort((second, first))
    shared = shapely.area(shapely.intersection(boxes[first], boxes[second]))
    for place in order:
        one, other = squares[first[place]], squares[second[place]]
        if one is other or shared[place] < MOSTLY * one.side**2 or one.side > other.side:
            continue
        missing = [crop for crop in one.tag.crops if crop not in other.tag.crops]
        # Of squares of one size each is held against the other; one sentence is enough.
        if missing and not any((b, a) == (one, other) for a, b, _ in found):
            found.append((one, other, missing[0]))
    if not found:
        return []
    told = ", ".join(f"{a.tag.name} has {crop}, {b.tag.name} has not" for a, b, crop in found[:3])
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return [
        f"{len(found)} squares of {table.path.name} are in others that leave out one of their crops ({told}{more}). A "
        f"window takes the crops of all squares that cover it"
    ]


def _hint(table: TagTable, outside: set[int], grid: Grid, window: int) -> str:
    """What would bring the rows into the images, if something plain does."""
    if all(row.scene is not None for row in table.rows):
        return ""

    def fit(*, swapped: bool = False, scale: float = 1.0, crs: str | None = "") -> bool:
        read = table if crs == "" else TagTable(table.path, table.rows, table.classes, table.colours, crs)
        try:
            squares = read.squares(grid, window=window, swapped=swapped, scale=scale)
        except DataError:
            return False
        here = [each for each in squares if id(each.tag) in outside]
        return bool(here) and all(0 <= each.row <= grid.height and 0 <= each.col <= grid.width for each in here)

    names = ("lon", "lat") if table.crs is not None else ("x", "y")
    if fit(swapped=True):
        return f"with {names[0]} and {names[1]} exchanged they would: exchange the names of the columns"
    if table.crs is None and fit(scale=1000):
        return "they would if they were kilometres: write metres"
    if table.crs is None and fit(crs="EPSG:4326"):
        return "they would if they were degrees: name the columns lon,lat"
    return ""


def _named(rows: Sequence[TagRow]) -> str:
    """Places of the first few rows."""
    shown = ", ".join(row.name for row in rows[:SHOWN])
    return shown if len(rows) <= SHOWN else f"{shown} and {len(rows) - SHOWN} more"
