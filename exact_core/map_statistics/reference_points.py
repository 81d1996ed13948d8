"""Reading the references of a map: points with their true class and how chance chose them.

A table (.csv) or any point layer with the columns
    reference       class in truth, a name of the map's classes (background for all else)
    stratum         name of the stratum it was drawn from     | only for design `stratified`;
    stratum_size    pixels of that stratum                    | `exact sample` writes both
and its place: the layer's geometry, longitude and latitude (WGS84), or in their stead `map_class`, what the map shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.warp import transform

from exact_core.data.tables import number_of, read_table
from exact_core.data.vectors import open_layer
from exact_core.data.windows.dataset import VOID
from exact_core.errors import ConfigError, DataError
from exact_core.map_statistics.areas import ProbabilitySample
from exact_core.map_statistics.map_folder import CropMap
from exact_core.map_statistics.paired import Differences

__all__ = ["COLUMNS", "DESIGNS", "read_pairs", "read_sample"]

DESIGNS = ("simple", "stratified")
COLUMNS = ("id", "reference", "stratum", "stratum_size", "map_class", "longitude", "latitude")
SIZE_TOLERANCE = 0.01
"""Strata and map may differ by this share of the pixels: a map made anew has its gaps elsewhere."""
LARGEST = 2**53


@dataclass(frozen=True)
class _Table:
    """A reference file. columns: name -> values as text. where: of each row. x, y: in the CRS, if places are known."""

    path: Path
    columns: dict[str, list[str]]
    where: list[str]
    x: NDArray[np.float64] | None = None
    y: NDArray[np.float64] | None = None
    crs: Any = None


def read_sample(path: Path, crop_map: CropMap, counts: NDArray[np.int64], *, design: str) -> ProbabilitySample:
    """The references in a file, as a probability sample of a map's pixels.

    Args:
        path: table or point layer.
        crop_map: the map.
        counts: its pixels of each label 0..K, and last those without one.
        design: how the places were chosen: `simple` (each pixel with the same chance) or `stratified`.

    Raises:
        ConfigError: a design that allows no estimate.
        DataError: the file is not readable, or not a sample of this map.
    """
    if design not in DESIGNS:
        raise ConfigError(
            f"design {design!r}: areas with errors can be estimated only from places that chance chose, each with a "
            f"known probability, expected {' or '.join(DESIGNS)}. Places chosen otherwise (along roads, by purpose, "
            f"where parcels were declared) tell nothing of the rest: draw a sample with `exact sample`, or count "
            f"pixels, without --reference"
        )
    table = _read(path)
    reference = _labels(table, "reference", crop_map)
    mapped, pixel = _mapped(table, crop_map)
    if pixel is not None:
        _check_distinct(table, pixel)
    population = int(counts[:-1].sum())
    if design == "simple":
        named = sorted(set(table.columns.get("stratum", [])))
        if len(named) > 1:
            raise DataError(
                f"{path}: declared simple, but it has the strata {_some(named)}; if it was drawn from these, "
                f"say --design stratified, else take the column 'stratum' out"
            )
        return ProbabilitySample(("map",), (population,), np.zeros(len(mapped), np.int64), mapped, reference)
    names, sizes, stratum = _strata(table, crop_map, counts, mapped)
    total = sum(sizes)
    if abs(total - population) > SIZE_TOLERANCE * population:
        raise DataError(
            f"{path}: its strata have {total} pixels, the map {population}. Give strata of all of the map, each with "
            f"its size in pixels, also those where nothing was found"
        )
    return ProbabilitySample(names, sizes, stratum, mapped, reference)


def read_pairs(path: Path, differences: Differences) -> list[tuple[str, str, str]]:
    """Class on the first map, on the second and in truth at each sample of where two maps differ, in order of drawing.

    Rows that are not filled in are left out if they are the last: the first so many of a random order are a random
    sample, too.

    Args:
        path: what `exact sample MAP --other OTHER` wrote, filled in.
        differences: of the maps.

    Raises:
        DataError: the file is not readable, or not a sample of where these maps differ.
    """
    table = _read(path)
    differing, _ = differences.counts
    for text in sorted(set(table.columns.get("stratum_size", []))):
        if text != str(differing):
            raise DataError(
                f"{path}: drawn from {text} pixels, and these maps differ at {differing}. Give the maps that it was "
                f"drawn from, the same first"
            )
    (one, pixel), (other, _) = (_mapped(table, each) for each in (differences.first, differences.second))
    if pixel is None:
        raise DataError(f"{path}: without places. Give the columns longitude and latitude, or a point layer with a CRS")
    _check_distinct(table, pixel)
    order = list(range(len(table.where)))
    if "id" in table.columns:
        numbers = [number_of(text, f"{at}: id") for text, at in zip(table.columns["id"], table.where, strict=True)]
        order.sort(key=lambda place: numbers[place])
    values = table.columns["reference"]
    filled = [place for place in order if values[place]]
    if not filled:
        raise DataError(f"{path}: no reference is filled in. Name the true class of the first places, in their order")
    if filled != order[: len(filled)]:
        gap = next(place for place in order if not values[place])
        raise DataError(
            f"{table.where[gap]}: reference is empty, and later ones are not. Fill in places in the order of `id`, as "
            f"chance chose them"
        )
    known = {*differences.first.classes, *differences.second.classes}
    unknown = [place for place in filled if values[place] not in known]
    if unknown:
        raise DataError(
            f"{table.where[unknown[0]]}: reference {values[unknown[0]]!r} is no class of these maps, they have "
            f"{', '.join(map(repr, sorted(known)))}; say 'background' for what is none of their crops"
        )
    return [
        (differences.first.name_of(int(one[each])), differences.second.name_of(int(other[each])), values[each])
        for each in filled
    ]


def _read(path: Path) -> _Table:
    table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_layer(path)
    if not table.where:
        raise DataError(f"{path}: no reference in it. Fill in what `exact sample` wrote")
    if "reference" not in table.columns:
        raise DataError(
            f"{path}: no column 'reference'. Name the true class of each place there, as a class of the map"
        )
    return table


def _read_csv(path: Path) -> _Table:
    table = read_table(path)
    wanted = [name for name in table.header if name in COLUMNS]
    if len(set(wanted)) < len(wanted):
        raise DataError(f"{path}: a column stands there twice: {', '.join(wanted)}. Name each once")
    columns: dict[str, list[str]] = {name: [] for name in wanted}
    for at, cells in table.rows:
        if len(cells) != len(table.header):
            raise DataError(f"{at}: {len(cells)} cells, the header has {len(table.header)}. Complete it")
        for name, value in zip(table.header, cells, strict=True):
            if name in columns:
                columns[name].append(value)
    where = [at for at, _ in table.rows]
    if "longitude" in columns and "latitude" in columns and where:
        x, y = (
            np.array([number_of(cell, f"{at}: {name}") for cell, at in zip(columns[name], where, strict=True)])
            for name in ("longitude", "latitude")
        )
        return _Table(path, columns, where, x, y, rasterio.crs.CRS.from_epsg(4326))
    return _Table(path, columns, where)


def _read_layer(path: Path) -> _Table:
    layer = open_layer(path, what="point layer")
    parts = list(layer.read(layer.fields))
    columns: dict[str, list[str]] = {
        name.lower(): [_text(cell) for part in parts for cell in part.columns.column(name).to_pylist()]
        for name in layer.fields
    }
    where = [f"{layer.path}, feature {fid}" for part in parts for fid in part.identities.to_pylist()]
    crs = layer.crs
    if crs is None or not layer.has_outlines or not where:
        return _Table(path, columns, where)
    outlines = np.concatenate([part.outlines for part in parts])
    points = shapely.from_wkb(outlines, on_invalid="ignore")
    odd = np.flatnonzero(shapely.get_type_id(points) != 0)
    if odd.size:
        raise DataError(f"{where[odd[0]]}: not a point; references are single places: give the point that was visited")
    return _Table(path, columns, where, shapely.get_x(points), shapely.get_y(points), crs)


def _text(value: Any) -> str:
    """A cell as text. Empty where the layer has none."""
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return ""
    return str(value).strip()


def _labels(table: _Table, column: str, crop_map: CropMap) -> NDArray[np.int64]:
    """Labels 0..K of a column of class names."""
    numbers = {name: label for label, name in enumerate(crop_map.classes)}
    values = table.columns[column]
    empty = [where for value, where in zip(values, table.where, strict=True) if not value]
    if empty:
        raise DataError(
            f"{empty[0]}: {column} is empty, as in {len(empty)} of {len(values)} rows. Fill it in. Rows may be taken "
            f"out only if what hindered the visit has nothing to do with the crop"
        )
    unknown = sorted({value for value in values if value not in numbers})
    if unknown:
        where = table.where[values.index(unknown[0])]
        raise DataError(
            f"{where}: {column} {_some(unknown)} is no class of the map, it has "
            f"{', '.join(map(repr, crop_map.classes))}. "
            f"Rename it, or say 'background' for what is none of its crops"
        )
    return np.array([numbers[value] for value in values], np.int64)


def _mapped(table: _Table, crop_map: CropMap) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """What the map shows at the samples (n,), and their pixels (n, 2), if places are known."""
    if table.x is None or table.y is None:
        if "map_class" not in table.columns:
            raise DataError(
                f"{table.path}: neither places nor the column 'map_class'. Give the columns longitude and latitude, "
                f"or a point layer with a CRS"
            )
        return _labels(table, "map_class", crop_map), None
    x, y = table.x, table.y
    if table.crs != crop_map.crs:
        try:
            x, y = map(np.asarray, transform(table.crs, crop_map.crs, x, y))
        except (CPLE_BaseError, RasterioError) as error:
            raise DataError(
                f"{table.path}: its places cannot be brought to {crop_map.crs.to_string()}: {error}. Correct them, or "
                f"the CRS"
            ) from error
    col, row = ~crop_map.transform @ (x, y)
    # What is no place at all lies outside, and so is what would overflow.
    inside = (col >= 0) & (col < crop_map.width) & (row >= 0) & (row < crop_map.height)
    pixel = np.where(inside[:, None], np.floor(np.stack([row, col], 1)), -1).astype(np.int64)
    label = crop_map.labels_at(pixel[:, 0], pixel[:, 1])
    lost = np.flatnonzero(label == VOID)
    if lost.size:
        raise DataError(
            f"{table.where[lost[0]]}: nothing is mapped there, as at {lost.size} of {len(label)} places; they are no "
            f"sample of this map: take the map that they were drawn from, or map all of their area"
        )
    return label.astype(np.int64), pixel


def _check_distinct(table: _Table, pixel: NDArray[np.int64]) -> None:
    _, first, times = np.unique(pixel, axis=0, return_index=True, return_counts=True)
    if (times > 1).any():
        place = pixel[first[times > 1][0]]
        rows = np.flatnonzero((pixel == place).all(1))
        raise DataError(
            f"{table.where[rows[1]]}: the same pixel as {table.where[rows[0]]}; each pixel counts once, take one of "
            f"them out"
        )


def _strata(
    table: _Table, crop_map: CropMap, counts: NDArray[np.int64], mapped: NDArray[np.int64]
) -> tuple[tuple[str, ...], tuple[int, ...], NDArray[np.int64]]:
    """Names and sizes of the strata, and the stratum of each sample."""
    path = table.path
    if "stratum" not in table.columns:
        raise DataError(
            f"{path}: declared stratified, but no column 'stratum'. Name there the stratum that each place was drawn "
            f"from, and its pixels in 'stratum_size', as `exact sample` does"
        )
    given = table.columns["stratum"]
    if "" in given:
        raise DataError(f"{table.where[given.index('')]}: stratum is empty. Name the one that it was drawn from")
    if "stratum_size" not in table.columns:
        shown = [crop_map.classes[label] for label in mapped]
        if given != shown:
            raise DataError(
                f"{path}: no column 'stratum_size', and the strata are not the classes of this map. Give there how "
                f"many pixels each stratum had when the sample was drawn"
            )
        names = tuple(name for name, count in zip(crop_map.classes, counts, strict=False) if count)
        sizes = tuple(int(count) for count in counts[: len(crop_map.classes)] if count)
        return names, sizes, np.array([names.index(name) for name in given], np.int64)
    found: dict[str, int] = {}
    for name, text, where in zip(given, table.columns["stratum_size"], table.where, strict=True):
        size = number_of(text, f"{where}: stratum_size")
        if not size.is_integer() or not 0 < size < LARGEST:
            raise DataError(f"{where}: stratum_size is {text}, expected a number of pixels")
        if found.setdefault(name, int(size)) != size:
            raise DataError(
                f"{where}: stratum {name!r} has {text} pixels here and {found[name]} above; it has one size"
            )
    names = tuple(found)
    numbers = {name: number for number, name in enumerate(names)}
    return names, tuple(found.values()), np.array([numbers[name] for name in given], np.int64)


def _some(names: Sequence[str] | Iterable[str]) -> str:
    """The first few of many names."""
    names = list(names)
    shown = ", ".join(repr(name[:40]) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
