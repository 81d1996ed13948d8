"""The window dataset: a manifest, an index and memory-mapped shards (docs/data-format.md specifies the files).

The cost of reading a window does not depend on the number of windows. The index stays in columns, and shards stay
mapped. Pages of them that were read are given back to the system once they add up.

    dataset.json          DatasetManifest, written last: a folder without it is unfinished
    index.parquet         one WindowRecord a row
    shards/NNNNN.safetensors
        pixels  int16 (N, T, C, H, W)   reflectance x 10,000
        days    int16 (N, T)            days since season start, ascending. PAD_DAY marks padding
        tags    uint8 (N, K)            1 where crop k grows in the window
        labels  uint8 (N, H, W)         0 background, 1..K crops, VOID. Only when the truth is known
        clear   uint8 (N, T, H/2, W/2)  1 where a 2x2 patch is free of cloud and shadow. Only when known
        unknown uint8 (N, H, W)         1 where nothing is known of the ground. Only where a window of the shard has any
        fields  int32 (N, H, W)         number of the field, the same in all windows of a scene, 0 outside of all
                                        outlines. Only when there are outlines

Axes are N windows, T dates, C bands, H W pixels, K crop classes.
"""

from __future__ import annotations

import datetime as dt
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import save_file

from exact_core.config import Settings
from exact_core.errors import CorruptError, DataError
from exact_core.files import publishing_tensors, sha256_of
from exact_core.json_values import read_json
from exact_core.manifest import Manifest

__all__ = [
    "CLEAR_PATCH",
    "VOID",
    "DatasetManifest",
    "FileEntry",
    "Statistics",
    "Window",
    "WindowDataset",
    "WindowRecord",
    "sha256_of",
    "verify",
    "write_shard",
]

VOID = 255
"""Label of a pixel whose truth is unknown: never trained on, never scored."""
CLEAR_PATCH = 2
"""Side, in pixels, of the patch that one value of `clear` describes."""
SPLITS = ("train", "validation", "test")
RESIDENT = 2**28
"""Bytes read from shards after which their pages are given back: what bounds the resident memory of a reader."""


class FileEntry(Settings):
    """A file of the dataset, named relative to the manifest."""

    name: str
    sha256: str
    bytes: int
    windows: int


class Statistics(Settings):
    """Per-band normalisation constants, in stored units (reflectance x 10,000)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int = Field(description="pixel-dates that were counted")
    origin: str = Field(description="what they were computed from")


class DatasetManifest(Manifest):
    """`dataset.json`."""

    schema_version: Literal[1] = 1
    name: str
    source: str = Field(description="where the windows come from, as given to ingest")
    bands: tuple[str, ...]
    classes: tuple[str, ...] = Field(description="names of crops 1..K; 0 is background")
    colours: dict[str, str] = Field({}, description="#rrggbb of the classes that were given one")
    window: int = Field(description="window side, pixels")
    season_start: dt.date = Field(description="day 0 of `days`")
    season_days: int = Field(description="length of the season, days")
    has_labels: bool
    has_clear: bool
    has_fields: bool = Field(False, description="whether outlines state the field of each pixel")
    self_scored: bool = Field(description="there is no test split: trained and scored on itself")
    statistics: Statistics
    splits: dict[str, int] = Field(description="number of windows in each split")
    tag_counts: dict[str, int] = Field(description="training windows in which each crop is tagged")
    index: FileEntry
    shards: tuple[FileEntry, ...]
    notes: tuple[str, ...] = Field((), description="remarks of ingest for the reader")
    digest: str = Field(description="SHA-256 over everything above but the notes: equal data, equal digest")

    @property
    def evaluation_split(self) -> str:
        """The split that final metrics are computed on."""
        return "train" if self.self_scored else "test"


@dataclass(frozen=True)
class WindowRecord:
    """One row of the index: a window's identity and position.

    row and col are the pixel offsets of the window's upper left corner in its scene. Transform holds the six affine
    coefficients (a, b, c, d, e, f) of the window itself, in units of `crs` (empty when unknown).
    """

    id: str
    scene: str
    row: int
    col: int
    crs: str
    transform: tuple[float, ...]
    split: str
    fold: int
    dates: int
    tags: tuple[int, ...]
    open: tuple[int, ...] = ()
    """1 where a crop that is not tagged may grow in the window all the same (K,). If empty, every tag is known."""
    square: int | None = None
    """The same number in all windows that have the list of one square. If None, the window is a square of its own."""


@dataclass(frozen=True)
class Window:
    """A window's arrays. Shapes and dtypes as in the shard, padding dates cut off.

    unknown: If None, all is known. fields: If None, there are no outlines, or `WindowDataset.fields` reads them.
    """

    pixels: NDArray[np.int16]
    days: NDArray[np.int16]
    tags: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None
    clear: NDArray[np.uint8] | None
    unknown: NDArray[np.uint8] | None = None
    fields: NDArray[np.int32] | None = None


class Records(Sequence[WindowRecord]):
    """The index as a sequence of records, each made from the columns when asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> WindowRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[WindowRecord]: ...

    def __getitem__(self, index: int | slice) -> WindowRecord | list[WindowRecord]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        row = {name: self._table[name][position].as_py() for name in self._table.column_names}
        lists = {name: tuple(row[name]) for name in ("transform", "tags", "open") if name in row}
        return WindowRecord(**{**row, **lists})


class Shard:
    """The arrays of a shard, views of its mapped file.

    Raises:
        CorruptError: not a safetensors file, or not of these arrays.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            (size,) = struct.unpack_from("<Q", self._map)
            header = read_json(self._map[8 : 8 + size])
            self.arrays = {
                name: np.frombuffer(
                    self._map,
                    _DTYPES[entry["dtype"]],
                    count=int(np.prod(entry["shape"])),
                    offset=8 + size + entry["data_offsets"][0],
                ).reshape(entry["shape"])
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise CorruptError(f"{path}: not a readable shard: {error}. Ingest again") from error

    def give_back(self) -> None:
        """Let the system have the pages that were read. They are read again when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


_DTYPES: dict[str, np.dtype[np.generic]] = {"I16": np.dtype("<i2"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}


class WindowDataset:
    """Read access to a dataset folder. Shards are memory-mapped, and checked (SHA-256) when first read.

    Args:
        root: the folder with dataset.json, or that file.

    Raises:
        DataError: no dataset there, or a manifest that this version does not read.
        CorruptError: the index or a shard differs from its recorded checksum.
    """

    def __init__(self, root: Path) -> None:
        path = root if root.name == "dataset.json" else root / "dataset.json"
        self.root = path.parent
        if not path.is_file():
            raise DataError(f"{path}: no dataset here. Make one with `exact ingest ... {self.root}`")
        self.manifest = DatasetManifest.read(path)
        verify(self.root, self.manifest.index)
        try:
            table = pq.read_table(self.root / self.manifest.index.name)
            self.records = Records(table)
            self.dates: NDArray[np.int64] = table["dates"].to_numpy().astype(np.int64)
            """Number of dates of each window (N,)."""
            tags = table["tags"].combine_chunks().flatten().to_numpy()
            self.tags: NDArray[np.uint8] = tags.astype(np.uint8).reshape(len(table), self.classes)
            """Tags of all windows (N, K)."""
            self.open: NDArray[np.uint8] | None = None
            """Crops that may grow in a window untagged (N, K). If None, the tags of all windows are complete, and no
            pixel is unknown."""
            if "open" in table.column_names:
                untagged = table["open"].combine_chunks().flatten().to_numpy()
                self.open = untagged.astype(np.uint8).reshape(self.tags.shape)
            self._splits: NDArray[np.object_] = table["split"].to_numpy()
            self._scenes = table["scene"]
            self._corners = np.stack([table["row"].to_numpy(), table["col"].to_numpy()], 1).astype(np.int64)
            self._starts = np.cumsum([0, *(shard.windows for shard in self.manifest.shards)])
            if len(table) != self._starts[-1] or any(shard.windows < 1 for shard in self.manifest.shards):
                raise ValueError(f"{len(table)} rows, and shards of {self._starts[-1]} windows")
        except (AttributeError, KeyError, OSError, OverflowError, TypeError, ValueError, pa.ArrowException) as error:
            raise CorruptError(f"{path}: its index is not that of these shards: {error}. Ingest again") from error
        self._open: dict[int, Shard] = {}
        self._read: set[int] = set()
        self._resident = 0

    def __len__(self) -> int:
        return len(self.records)

    @property
    def classes(self) -> int:
        """Number of crop classes K."""
        return len(self.manifest.classes)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Positions of a split's windows, in the order of the index."""
        return np.flatnonzero(self._splits == split)

    def scenes(self, split: str) -> Iterator[tuple[str, list[int]]]:
        """Scenes of a split with the positions of their windows, in the order of the index."""
        groups: dict[str, list[int]] = {}
        names = self._scenes.to_pylist()
        for index in self.indices(split).tolist():
            groups.setdefault(names[index], []).append(index)
        yield from groups.items()

    def share_of_epoch(self, most_looks: float | None) -> float:
        """Share of the training windows that shows a pixel `most_looks` times on average.

        1 if all of them do not show it as often, as without overlap, where each pixel is shown once, or if it is None.
        """
        if most_looks is None:
            return 1.0
        windows, pixels = 0, 0
        for _, indices in self.scenes("train"):
            windows, pixels = windows + len(indices), pixels + self._covered(indices)
        return min(1.0, most_looks * pixels / max(1, windows * self.manifest.window**2))

    def _covered(self, indices: list[int]) -> int:
        """Pixels of a scene that any of these windows shows, each once."""
        corners, side = self._corners[indices] - self._corners[indices].min(0), self.manifest.window
        # In cells as large as all corners allow: windows without overlap are one cell each.
        cell = int(np.gcd.reduce(corners, axis=None, initial=side))
        shown = np.zeros((corners.max(0) + side) // cell, np.bool_)
        rows, cols = (corners // cell).T
        for down in range(side // cell):
            for right in range(side // cell):
                shown[rows + down, cols + right] = True
        return int(shown.sum()) * cell**2

    def window(self, index: int) -> Window:
        """The arrays of one window, padding dates cut off, without its labels: those are asked for by `labels`.

        Pixels and clear are views of the mapped file: read them, or copy them to change them.
        """
        shard, row = self._locate(index)
        dates = int(self.dates[index])
        return Window(
            pixels=shard.arrays["pixels"][row, :dates],
            days=shard.arrays["days"][row, :dates],
            tags=self.tags[index],
            labels=None,
            clear=shard.arrays["clear"][row, :dates] if self.manifest.has_clear else None,
            unknown=shard.arrays["unknown"][row] if "unknown" in shard.arrays else None,
        )

    def unknown(self, index: int) -> NDArray[np.bool_] | None:
        """Pixels (H, W) of one window of which nothing is known. If None, there are none."""
        shard, row = self._locate(index)
        found = shard.arrays["unknown"][row].astype(bool) if "unknown" in shard.arrays else None
        return found if found is not None and found.any() else None

    def fields(self, index: int) -> NDArray[np.int32] | None:
        """Number of the field of each pixel (H, W) of one window, 0 outside of all. If None, there are no outlines."""
        if not self.manifest.has_fields:
            return None
        shard, row = self._locate(index)
        fields: NDArray[np.int32] = shard.arrays["fields"][row]
        return fields

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Dense labels (H, W) of one window.

        Raises:
            DataError: the dataset has none.
        """
        if not self.manifest.has_labels:
            raise DataError(f"{self.root}: this dataset has image-level tags only, no dense labels")
        shard, row = self._locate(index)
        labels: NDArray[np.uint8] = shard.arrays["labels"][row]
        return labels

    def _locate(self, index: int) -> tuple[Shard, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        if number not in self._open:
            entry = self.manifest.shards[number]
            verify(self.root, entry)
            self._open[number] = Shard(self.root / entry.name)
        entry = self.manifest.shards[number]
        self._resident += entry.bytes // entry.windows
        self._read.add(number)
        if self._resident > RESIDENT:
            for read in self._read:
                self._open[read].give_back()
            self._read, self._resident = {number}, 0
        return self._open[number], int(index - self._starts[number])


def verify(root: Path, entry: FileEntry) -> None:
    """Raise CorruptError unless a file is there and has its recorded SHA-256."""
    path = root / entry.name
    if not os.path.isfile(path):  # noqa: PTH113 - False also for a name that no file system takes
        raise CorruptError(f"{path}: missing, though the manifest lists it. Ingest again")
    found = sha256_of(path)
    if found != entry.sha256:
        raise CorruptError(
            f"{path}: corrupt: its SHA-256 is {found[:12]}…, the manifest says {entry.sha256[:12]}…. Ingest again"
        )


def write_shard(root: Path, name: str, tensors: dict[str, NDArray[Any]], *, windows: int) -> FileEntry:
    """Write the arrays of so many windows under a name in a folder once they are whole.

    Raises:
        ServiceError: the file cannot be written.
    """
    with publishing_tensors(root / name, size=sum(each.nbytes for each in tensors.values())) as partial:
        save_file(tensors, partial)
        return FileEntry(name=name, sha256=sha256_of(partial), bytes=partial.stat().st_size, windows=windows)
