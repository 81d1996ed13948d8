"""Image-level tags in the forms that users write: a table, or a layer of squares or points.

    labels/tags.csv    lon,lat,crops            3.021,50.815,maize;potatoes
                       x,y,size,crops           501440,5629400,240,maize       (metres of the images' CRS)
                       scene,crops              E501360_N5629040,maize;grass   (a whole scene)
    labels/tags.gpkg   squares or points with the column crops, in any CRS

`crops` are names, or codes of the class map, separated by `;`. A row without crops, with `-` or `none`, states that
none of the classes grows there. Names that differ only by case and blanks are one. `size` is the side of the square, in
units of the images' CRS (metres). Without it, a window.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from exact_core.data.season.class_map import ClassMap, is_missing, meant
from exact_core.data.season.tags import TagRow, TagTable
from exact_core.data.tables import number_of, read_table
from exact_core.data.vectors import VectorLayer
from exact_core.errors import DataError

__all__ = ["CROPS", "crop_field", "read_tag_layer", "read_tag_table"]

PLACES = (("scene",), ("lon", "lat"), ("x", "y"))
ALIASES = {"longitude": "lon", "long": "lon", "lng": "lon", "latitude": "lat", "crop": "crops"}
CROPS = ("crops", "crop")
"""Names of the column of crops."""
NO_CROP = frozenset({"", "-", "–", "none"})
SHOWN = 5
SQUARE = 0.9
"""Share of its box that a square fills: those of one CRS are not quite square in another."""


def read_tag_table(path: Path, class_map: ClassMap | None) -> TagTable:
    """Read a table of tags.

    Args:
        path: the file, UTF-8, separated by commas, semicolons or tabs.
        class_map: the classes, if they are given. Otherwise every name of the table is a class, in alphabetical order.

    Raises:
        DataError: a missing column, or a row with a wrong number or an unknown crop. The line is named.
    """
    table = read_table(path)
    columns = [ALIASES.get(name, name) for name in table.header]
    twice = [name for name, count in Counter(columns).items() if count > 1 and name in {"crops", *sum(PLACES, ())}]
    if twice:
        raise DataError(f"{path}, line 1: the column {twice[0]} stands there twice. Name each once")
    place = next((each for each in PLACES if set(each) <= set(columns)), None)
    if place is None or "crops" not in columns:
        raise DataError(
            f"{path}, line 1: columns {list(table.header)}, expected crops and scene, or crops and lon,lat, or crops "
            f"and x,y"
        )
    rows = []
    for where, cells in table.rows:
        if table.separator == ";" and columns[-1] == "crops" and len(cells) > len(columns):
            # The table's own separator between the crops of the last column.
            cells = (*cells[: len(columns) - 1], ";".join(cells[len(columns) - 1 :]))
        if len(cells) != len(columns):
            raise DataError(
                f"{where}: another number of values than the header has. Separate several crops by ;, not ,"
            )
        rows.append(_row(dict(zip(columns, cells, strict=True)), where, place))
    if not rows:
        raise DataError(f"{path}: no rows. Write a line a square under the header")
    return _table(path, rows, class_map, crs="EPSG:4326" if place == ("lon", "lat") else None)


def read_tag_layer(layer: VectorLayer, class_map: ClassMap | None) -> TagTable:
    """Read a layer of squares or points with a column of crops. A column `size` is the side of a point's square.

    Raises:
        DataError: no CRS, a feature that is neither, or a wrong crop or size. The feature is named.
    """
    field = crop_field(layer.fields)
    if layer.crs is None:
        raise DataError(f"{layer.path}: no CRS. Name one in the file (ogr2ogr -a_srs)")
    if field is None or not layer.has_outlines:
        raise DataError(f"{layer.path}: no outlines with a column crops. Give squares or points and their crops")
    size = next((name for name in layer.fields if name.strip().lower() == "size"), None)
    rows = []
    for part in layer.read([field, *([size] if size else [])]):
        crops = part.columns.column(field).to_pylist()
        sizes = part.columns.column(size).to_pylist() if size else [None] * len(crops)
        for fid, outline, crop, side in zip(part.identities.to_pylist(), part.outlines, crops, sizes, strict=True):
            rows.append(_feature(outline, crop, side, where=f"{layer.path}, feature {fid}"))
    if not rows:
        raise DataError(f"{layer.path}: the layer is empty. Add squares or points with their crops")
    return _table(layer.path, rows, class_map, crs=layer.crs)


def crop_field(fields: Sequence[str]) -> str | None:
    """The column of crops among those of a layer."""
    return next((name for name in fields if name.strip().lower() in CROPS), None)


def _feature(outline: bytes | None, crop: Any, side: Any, *, where: str) -> TagRow:
    shape = None if outline is None else shapely.from_wkb(outline, on_invalid="ignore")
    if shape is None or shape.is_empty:
        raise DataError(f"{where}: no outline. Give a square or a point, or take it out")
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise DataError(f"{where}: a coordinate that is no finite number. Give a square or a point, or take it out")
    parts = shapely.get_parts(shape)
    crops = _names("" if is_missing(crop) else str(crop))
    if len(parts) == 1 and parts[0].geom_type == "Point":
        size = None if is_missing(side) else _size(str(side), where)
        return TagRow(where, crops, centre=(parts[0].x, parts[0].y), size=size)
    if len(parts) != 1 or parts[0].geom_type != "Polygon" or not _is_square(parts[0]):
        raise DataError(
            f"{where}: a {shape.geom_type} that is no square. Tags are squares or points. Outlines of fields with "
            f"one crop each are parcels: name them labels/parcels.*, or their attribute by data.season.attribute"
        )
    return TagRow(where, crops, outline=parts[0])


def _is_square(outline: shapely.Polygon) -> bool:
    """Whether it fills its box. Sides may differ as they do in degrees."""
    box = shapely.oriented_envelope(outline)
    return bool(box.area > 0 and outline.area >= SQUARE * box.area)


def _row(values: Mapping[str, str], where: str, place: Sequence[str]) -> TagRow:
    crops = _names(values["crops"])
    size = _size(values["size"], where) if values.get("size") else None
    if place == ("scene",):
        if not values["scene"]:
            raise DataError(f"{where}: no scene, expected the name of one")
        return TagRow(where, crops, scene=values["scene"], size=size)
    x, y = (number_of(values[name], f"{where}: {name}") for name in place)
    if place == ("lon", "lat") and not (-180 <= x <= 180 and -90 <= y <= 90):
        raise DataError(f"{where}: lon {x:g}, lat {y:g} are no degrees. Name the columns x,y if they are metres")
    return TagRow(where, crops, centre=(x, y), size=size)


def _size(text: str, where: str) -> float:
    size = number_of(text, f"{where}: size")
    if size <= 0:
        raise DataError(f"{where}: size {size:g}, expected the side of the square, more than 0")
    return size


def _names(text: str) -> tuple[str, ...]:
    """The crops of a cell, each once, with single blanks."""
    names = (" ".join(each.split()) for each in text.split(";"))
    return tuple(dict.fromkeys(name for name in names if name.casefold() not in NO_CROP))


def _table(path: Path, rows: list[TagRow], class_map: ClassMap | None, *, crs: Any) -> TagTable:
    """The table, each crop under one name, and what there is to say of the names."""
    known = _known(class_map)
    notes: list[str] = []
    spelled: dict[str, Counter[str]] = {}
    for row in rows:
        for crop in row.crops:
            if known and crop.casefold() not in known:
                raise DataError(
                    f"{row.where}: crop {crop!r} is not in the class map{meant(crop, known.values())}. Name it in "
                    f"labels/legend.csv, or correct it"
                )
            if not known and "," in crop:
                raise DataError(f"{row.where}: crop {crop!r} has a comma. Separate several crops by ;")
            spelled.setdefault(crop.casefold(), Counter())[crop] += 1
    if not spelled:
        raise DataError(f"{path}: no row names a crop. Write names into the column crops, apart by ;")
    names = {each: known.get(each) or counts.most_common(1)[0][0] for each, counts in spelled.items()}
    if not known:
        several = [[repr(one) for one in sorted(counts)] for counts in spelled.values() if len(counts) > 1]
        notes += [f"{path.name}: {', '.join(each[:-1])} and {each[-1]} are one crop" for each in several]
    rows = [_renamed(row, names) for row in rows]
    counts = Counter(crop for row in rows for crop in row.crops)
    ordered = dict.fromkeys(known.values()) if known else sorted(counts)
    classes = tuple(name for name in ordered if name in counts)
    if len(classes) > 254:
        raise DataError(f"{path}: {len(classes)} crops, at most 254. Join some by a class map (labels/legend.csv)")
    if any(name.casefold() == "background" for name in classes):
        raise DataError(f"{path}: 'background' is the name of what is no crop. Leave it out of the lists")
    bare = sum(not row.crops for row in rows)
    notes.append(
        f"{path.name}: {len(rows)} squares; "
        + ", ".join(f"{name} in {count}" for name, count in counts.most_common())
        + (f". No crop in {bare}" if bare else "")
    )
    colours = (
        {} if class_map is None else {name: class_map.colours[name] for name in classes if name in class_map.colours}
    )
    return TagTable(
        path, tuple(rows), classes, colours, crs, tuple(notes), () if known else tuple(_alike(path, counts))
    )


def _renamed(row: TagRow, names: Mapping[str, str]) -> TagRow:
    crops = tuple(dict.fromkeys(names[crop.casefold()] for crop in row.crops))
    return TagRow(row.where, crops, row.scene, row.centre, row.size, row.outline)


def _known(class_map: ClassMap | None) -> dict[str, str]:
    """Allowed values of the column crops, in lower case -> class: codes and names of the class map."""
    if class_map is None:
        return {}
    names = {str(code).casefold(): name for code, name in class_map.names.items()}
    return {**names, **{" ".join(name.split()).casefold(): name for name in class_map.names.values()}}


def _alike(path: Path, counts: Mapping[str, int]) -> list[str]:
    """A question for each pair of names that a slip of the keyboard may have made of one."""
    pairs = [
        (one, other)
        for one, other in itertools.combinations(sorted(counts), 2)
        if _distance(one.casefold(), other.casefold()) <= (2 if min(len(one), len(other)) >= 6 else 1)
    ]
    questions = [
        f"{path.name}: are {one!r} ({counts[one]}) and {other!r} ({counts[other]}) one crop? If so, use one spelling. "
        f"As they are, they are two"
        for one, other in pairs
    ]
    more = len(questions) - SHOWN
    return questions[:SHOWN] + ([f"{path.name}: {more} more pairs of names are as near"] if more > 0 else [])


def _distance(one: str, other: str) -> int:
    """Letters to insert, take out or exchange to make one of the other (Levenshtein 1966). 3 stands for more than 2."""
    if abs(len(one) - len(other)) > 2:
        return 3
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != against))
    return min(row[-1], 3)
