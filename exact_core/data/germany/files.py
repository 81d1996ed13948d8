"""The folder of the Germany dataset (MTLCC): its tables, and one tile of it.

    classes.txt             id|name a line. 0 is unknown: land without a declared field of the 17 crops
    geotransforms.csv       tile, left, pixel, 0, top, 0, -pixel, EPSG code
    tileids/                train_foldN.tileids, test_foldN.tileids, eval.tileids: a tile a line
    data16/, data17/        N.tfrecord.gz, a tile a file and season

A tile is one tf.train.Example: `x10/data` int64 (T, H, W, 4), `x20/data` (T, H/2, W/2, 6), `x60/data` (T, H/6, W/6, 3),
`dates/doy` (T,), where 0 marks padding, and `labels/data` (T, H, W), the same for all dates. Their `/shape` beside them
(that of the dates: `dates/shape`). `dates/year` is not read, because it is 2017 in both folders.
Axes are T dates, C bands, H W pixels of 10 m.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from exact_core.data.germany.tfrecords import Example, read_examples
from exact_core.errors import DataError
from exact_core.files import read_table_text

__all__ = ["BANDS", "Place", "Tile", "read_classes", "read_places", "read_splits", "read_tile", "tile_file"]

BANDS = {
    "x10": ("B04", "B03", "B02", "B08"),
    "x20": ("B05", "B06", "B07", "B8A", "B11", "B12"),
    "x60": ("B01", "B09", "B10"),
}
"""Bands of each array, in its order: that of GDAL's subdatasets, and of DeepSatModels' reader of the same arrays."""
COARSER = {"x10": 1, "x20": 2, "x60": 6}
"""Pixels of 10 m that are one of the array's."""
LISTS = {"train": "train_fold{fold}", "validation": "test_fold{fold}", "test": "eval"}
"""The list of each split: the folds were for choosing settings, `eval` for the published metrics."""
GREATEST = 65_535
"""Sentinel-2 counts in uint16."""


@dataclass(frozen=True)
class Place:
    """Position of a tile: CRS, and the transform of its upper left corner."""

    crs: str
    transform: tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Tile:
    """A tile without padding: arrays int64 (T, h, w, C) by name, doy (T,), labels (H, W) as ids of classes.txt."""

    arrays: dict[str, NDArray[np.int64]]
    doy: NDArray[np.int64]
    labels: NDArray[np.int64]


def read_classes(root: Path) -> dict[int, str]:
    """Names of the crops by id, in the order of the file. 0, unknown, is left out."""
    path = root / "classes.txt"
    names: dict[int, str] = {}
    for number, line in enumerate(_table(path, root).splitlines(), 1):
        identity, bar, name = line.partition("|")
        if not bar:
            continue
        try:
            label = int(identity)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {line!r}, expected a whole number, | and a name") from error
        if label in names:
            raise DataError(f"{path}, line {number}: class {label} stands twice. Keep one of the lines")
        names[label] = name.strip()
    names.pop(0, None)
    if not names:
        raise DataError(f"{path}: no class, expected lines such as 1|sugar beet")
    return names


def read_places(root: Path) -> dict[str, Place]:
    """Position of each tile."""
    path = root / "geotransforms.csv"
    places = {}
    for number, row in enumerate(csv.reader(_table(path, root).splitlines()), 1):
        if not row:
            continue
        try:
            left, pixel, shear, top, other, down = (float(value) for value in row[1:7])
            crs = CRS.from_epsg(int(row[7])).to_string()
            if not (math.isfinite(left + top) and pixel > 0 > down):
                raise ValueError("no place")
        except (IndexError, ValueError, CRSError) as error:
            raise DataError(
                f"{path}, line {number}: {','.join(row)}, expected tile, left, pixel, 0, top, 0, -pixel, EPSG code"
            ) from error
        places[row[0].strip()] = Place(crs, (pixel, shear, left, other, down, top))
    return places


def read_splits(root: Path, fold: int) -> dict[str, list[str]]:
    """The tiles of each split, in the order of their numbers.

    Raises:
        DataError: a list is missing, or a tile is of two splits.
    """
    splits: dict[str, list[str]] = {}
    known: dict[str, str] = {}
    for split, pattern in LISTS.items():
        name = f"{pattern.format(fold=fold)}.tileids"
        tiles = {line.strip() for line in _table(root / "tileids" / name, root).splitlines() if line.strip()}
        for tile in tiles:
            if tile in known:
                raise DataError(
                    f"{root / 'tileids' / name}: tile {tile} is also in {known[tile]}: splits must not share pixels. "
                    f"Take it out of one of them"
                )
            known[tile] = name
        splits[split] = sorted(tiles, key=lambda tile: (len(tile), tile))
    return splits


def _table(path: Path, root: Path) -> str:
    """The text of one of the folder's tables."""
    try:
        return read_table_text(path)
    except FileNotFoundError:
        below = [table.parent for table in sorted(root.glob("*/classes.txt")) if table.parent != path.parent]
        raise DataError(
            f"{path}: missing. Give the folder that holds classes.txt, geotransforms.csv, tileids/ and data16/ or "
            f"data17/, as data_IJGI18/datasets/full/240{f': {below[0]}, for example' if below else ''}"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: not a readable file: {error.strerror}. Unpack it from its archive again") from error


def tile_file(root: Path, year: int, tile: str) -> Path | None:
    """The file of a tile and season, if it is there."""
    folder = root / f"data{year % 100:02d}"
    return next((path for end in (".tfrecord.gz", ".tfrecord") if (path := folder / f"{tile}{end}").is_file()), None)


def read_tile(path: Path, *, arrays: tuple[str, ...]) -> Tile:
    """One tile, without its padding.

    Args:
        path: N.tfrecord.gz, or unpacked.
        arrays: which of x10, x20 and x60 are wanted.

    Raises:
        DataError: the file is damaged, or is not what the layout says.
    """
    examples = list(read_examples(path))
    if len(examples) != 1:
        raise DataError(f"{path}: {len(examples)} records, expected one, a tile a file")
    example = examples[0]
    doy = _array(example, "dates/doy", "dates/shape", path, axes=(1,))
    labels = _array(example, "labels/data", "labels/shape", path, axes=(2, 3))
    height, width = labels.shape[-2:]
    if (labels.ndim == 3 and len(labels) != len(doy)) or height % 6 or width % 6:
        raise DataError(
            f"{path}: labels have shape {labels.shape}, dates {doy.shape}, expected ({len(doy)}, H, W), H and W "
            f"multiples of 6"
        )
    if doy.max(initial=0) > 366:
        raise DataError(f"{path}: day {doy.max()} of the year, expected 1 to 366, or 0 for padding")
    real = doy > 0
    read = {}
    for name in arrays:
        values = _array(example, f"{name}/data", f"{name}/shape", path, axes=(4,))
        pixels = COARSER[name]
        expected = (len(doy), height // pixels, width // pixels, len(BANDS[name]))
        if values.shape != expected:
            raise DataError(f"{path}: {name} has shape {values.shape}, expected {expected} beside the labels")
        read[name] = values[real]
        # Of padding, values say nothing.
        if read[name].min(initial=0) < 0 or read[name].max(initial=0) > GREATEST:
            raise DataError(
                f"{path}: {name} has values from {read[name].min()} to {read[name].max()}, expected reflectance x "
                f"10,000 as Sentinel-2 counts it, 0 to {GREATEST}"
            )
    if labels.ndim == 3:
        labels = labels[int(real.argmax())]
    return Tile(read, doy[real], labels)


def _array(example: Example, data: str, shape: str, path: Path, *, axes: tuple[int, ...]) -> NDArray[np.int64]:
    """An array of a record: raw int64, little-endian, in the stated shape."""
    values, size = example.texts.get(data), example.integers.get(shape)
    if values is None or len(values) != 1 or size is None:
        found = ", ".join(sorted([*example.texts, *example.integers])) or "nothing"
        raise DataError(f"{path}: no {data} with {shape}. It has {found}, expected a tile of the dataset MTLCC")
    if len(size) not in axes or min(size) < 1 or math.prod(size) * 8 != len(values[0]):
        raise DataError(
            f"{path}: {data} has {len(values[0])} bytes, {shape} says {size}, expected "
            f"{' or '.join(map(str, axes))} axes of int64"
        )
    return np.frombuffer(values[0], "<i8").reshape(size).astype(np.int64, copy=False)
