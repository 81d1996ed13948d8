"""The folder that `exact map` wrote, opened for what is counted, sampled and summarised from it.

Rows are read in bands of full width, so memory does not follow the size of the map, nor any result how it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from exact_core.data.windows.dataset import VOID
from exact_core.errors import CorruptError, DataError
from exact_core.files import file_facts
from exact_core.manifest import read_record
from exact_core.mapping.cogs import BLOCK, CLASS, CONFIDENCE

__all__ = ["CLASS", "CONFIDENCE", "CropMap", "open_map"]

BAND_PIXELS = 4_000_000
"""Pixels in memory at a time, at least one row."""


@dataclass(frozen=True)
class CropMap:
    """A finished map.

    folder: where it lies. classes: names of labels 0..K, background first. height, width: pixels. crs, transform: of
    the pixels. hectares: area of a pixel, None where the CRS has no metres.
    """

    folder: Path
    classes: tuple[str, ...]
    height: int
    width: int
    crs: Any
    transform: Any
    hectares: float | None

    def rows(self, *, pixels: int = BAND_PIXELS) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """First row and labels uint8 (h, W) of each band from top to bottom, about so many pixels at a time.

        Raises:
            CorruptError: the file cannot be read, or has labels that are no class.
        """
        step = max(1, pixels // self.width)
        try:
            with rasterio.open(self.folder / CLASS) as file:
                for first in range(0, self.height, step):
                    label = file.read(1, window=Window(0, first, self.width, min(step, self.height - first)))
                    self._check(label)
                    yield first, label
        except RasterioError as error:
            raise self._unreadable(error) from error

    def count(self) -> NDArray[np.int64]:
        """Pixels of each label 0..K, and last those without one (K + 2,)."""
        total = np.zeros(VOID + 1, np.int64)
        for _, label in self.rows():
            total += np.bincount(label.ravel(), minlength=VOID + 1)
        return np.append(total[: len(self.classes)], total[VOID])

    def labels_at(self, row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Labels (n,) of pixels. VOID outside the map. Each block is read once."""
        found = np.full(len(row), VOID, np.uint8)
        inside = np.flatnonzero((row >= 0) & (row < self.height) & (col >= 0) & (col < self.width))
        across = -(-self.width // BLOCK)
        block = row[inside] // BLOCK * across + col[inside] // BLOCK
        order = np.argsort(block, kind="stable")
        starts = np.flatnonzero(np.diff(block[order], prepend=-1))
        try:
            with rasterio.open(self.folder / CLASS) as file:
                for part in np.split(inside[order], starts[1:]) if len(order) else ():
                    top, left = row[part[0]] // BLOCK * BLOCK, col[part[0]] // BLOCK * BLOCK
                    window = Window(left, top, min(BLOCK, self.width - left), min(BLOCK, self.height - top))
                    found[part] = file.read(1, window=window)[row[part] - top, col[part] - left]
        except RasterioError as error:
            raise self._unreadable(error) from error
        self._check(found)
        return found

    def name_of(self, label: int) -> str:
        """The class of a label.

        Raises:
            CorruptError: it has none.
        """
        if label >= len(self.classes):
            raise CorruptError(
                f"{self.folder / CLASS}: label {label}, but map.json names {len(self.classes)} classes (0 to "
                f"{len(self.classes) - 1}); the files are not of one map: make it again with `exact map`"
            )
        return self.classes[label]

    def _check(self, label: NDArray[np.uint8]) -> None:
        wrong = label[(label >= len(self.classes)) & (label != VOID)]
        if wrong.size:
            self.name_of(int(wrong[0]))

    def _unreadable(self, error: Exception) -> CorruptError:
        return CorruptError(f"{self.folder / CLASS}: cannot be read: {error}. Make the map again with `exact map`")


def open_map(folder: Path) -> CropMap:
    """The map in a folder.

    Raises:
        DataError: no finished map is there.
        CorruptError: its files are not what `exact map` writes.
    """
    manifest = folder / "map.json"
    if not manifest.is_file():
        raise DataError(f"{folder}: no map here, map.json is missing. Make one with `exact map`")
    record = read_record(manifest)
    classes = record.get("classes")
    if not isinstance(classes, dict) or not 0 < len(classes) <= VOID:
        raise CorruptError(
            f"{manifest}: classes {classes!r:.80}, expected names and colours, as `exact map` writes them"
        )
    # Maps of older versions name no files.
    files = record.get("files", {})
    if not isinstance(files, dict):
        raise CorruptError(f"{manifest}: files {files!r:.80}, expected names and facts, as `exact map` writes them")
    for name, facts in files.items():
        if name in (CLASS, CONFIDENCE) and (not (folder / name).is_file() or file_facts(folder / name) != facts):
            raise CorruptError(f"{folder / name}: corrupt: it is not what was written. Make or copy the map again")
    try:
        with rasterio.open(folder / CLASS) as file:
            if file.crs is None or file.dtypes[0] != "uint8" or file.nodata != VOID:
                raise CorruptError(
                    f"{folder / CLASS}: {file.dtypes[0]}, CRS {file.crs}, nodata {file.nodata}, expected uint8 with a "
                    f"CRS and nodata {VOID}: make the map again with `exact map`"
                )
            metres = file.crs.is_projected and file.crs.linear_units_factor[1]
            return CropMap(
                folder=folder,
                classes=tuple(classes),
                height=file.height,
                width=file.width,
                crs=file.crs,
                transform=file.transform,
                hectares=abs(file.transform.determinant) * metres**2 / 10_000 if metres else None,
            )
    except RasterioError as error:
        raise CorruptError(f"{folder / CLASS}: cannot be read: {error}. Make the map again with `exact map`") from error
