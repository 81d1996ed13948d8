"""Writing window datasets: checks what comes in, keeps the statistics, publishes the manifest last."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from exact_core.data.windows.dataset import (
    CLEAR_PATCH,
    SPLITS,
    VOID,
    DatasetManifest,
    FileEntry,
    Statistics,
    Window,
    WindowRecord,
    sha256_of,
    write_shard,
)
from exact_core.data.windows.dates import MIN_DATES, PAD_DAY, stack_dates
from exact_core.errors import DataError
from exact_core.files import publishing

__all__ = ["DatasetWriter", "check_labels", "manifest_digest"]

MAX_CLASSES = 254


class DatasetWriter:
    """Writes windows to shards as they come, then the index, then the manifest.

    Use as a context manager. A normal exit publishes the dataset. An exception leaves a folder without a manifest,
    which nothing reads and the next writer clears.

    Args:
        out: folder to write. Refused if it already holds a dataset or foreign files.
        classes: names of crops 1..K.
        window: window side, pixels.
        season_start, season_days: the season that `days` count from.
        colours: name -> #rrggbb of classes that have one of their own.
        min_support: a crop that is tagged in fewer training windows is refused.

    Raises:
        DataError: a window that breaks the contract, an occupied folder, no training window, or no tag.
    """

    def __init__(
        self,
        out: Path,
        *,
        name: str,
        source: str,
        bands: tuple[str, ...],
        classes: tuple[str, ...],
        window: int,
        season_start: dt.date,
        season_days: int,
        shard_windows: int = 64,
        colours: Mapping[str, str] | None = None,
        min_support: int = 0,
    ) -> None:
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise DataError(f"{source}: {len(classes)} crop classes, expected 1 to {MAX_CLASSES}")
        names = ["background", *classes]
        if len(set(names)) < len(names) or not all(names):
            raise DataError(
                f"{source}: the classes {list(classes)} need names of their own, none empty and none 'background', "
                f"which is the name of label 0. Rename the class"
            )
        if (out / "dataset.json").exists():
            raise DataError(f"{out} already holds a dataset. Choose another folder or delete this one first")
        self.out, self.name, self.source = out, name, source
        self.bands, self.classes, self.window = bands, classes, window
        self.season_start, self.season_days, self.shard_windows = season_start, season_days, shard_windows
        self.colours, self.min_support = dict(colours or {}), min_support
        self.notes: list[str] = []
        self.self_scored = False
        shards = out / "shards"
        shards.mkdir(parents=True, exist_ok=True)
        for leftover in [*shards.glob("*.safetensors*"), *out.glob("index.parquet*")]:
            leftover.unlink()
        self._pending: list[Window] = []
        self._records: list[WindowRecord] = []
        self._shards: list[FileEntry] = []
        self._moments: list[_Moments | None] = []
        self._has_fields = self._has_unknown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        if kind is None:
            self._finish()

    def add(self, record: WindowRecord, window: Window, *, origin: str) -> None:
        """Add a window. `origin` is the file for error messages.

        Its split may be another name, such as that of a block, until `name_splits` resolves it.
        """
        self._check(record, window, origin)
        # Of windows that may come into the training split, the statistics; those of a split that is named later, too.
        self._moments.append(None if record.split in ("validation", "test") else _moments(window.pixels))
        self._records.append(record)
        self._pending.append(window)
        if len(self._pending) == self.shard_windows:
            self._write_shard()

    def name_splits(self, splits: Mapping[str, str]) -> None:
        """Put windows into splits that were added under names of their own: name -> split."""
        for number, record in enumerate(self._records):
            if record.split in splits:
                self._records[number] = replace(record, split=splits[record.split])

    def keep_squares_whole(self) -> None:
        """Put all windows of a square into one split: the last of train, validation and test that any of them is in."""
        whole: dict[int, str] = {}
        for record in self._records:
            if record.square is not None:
                whole[record.square] = max(record.split, whole.get(record.square, record.split), key=SPLITS.index)
        for number, record in enumerate(self._records):
            if record.square is not None:
                self._records[number] = replace(record, split=whole[record.square])

    @property
    def counts(self) -> dict[str, int]:
        """Windows so far of each split."""
        return {split: sum(record.split == split for record in self._records) for split in SPLITS}

    def _check(self, record: WindowRecord, window: Window, origin: str) -> None:
        side, bands, classes = self.window, len(self.bands), len(self.classes)
        dates = len(window.days)
        where = f"{origin} (window {record.id})"
        if window.pixels.shape != (dates, bands, side, side) or window.pixels.dtype != np.int16:
            raise DataError(
                f"{where}: pixels are {window.pixels.dtype} {window.pixels.shape}, expected int16 "
                f"({dates}, {bands}, {side}, {side}): one image for each of the {dates} dates"
            )
        if dates < MIN_DATES:
            raise DataError(
                f"{where}: {dates} date. A time series needs at least {MIN_DATES}: add acquisitions, or leave it out"
            )
        if not window.pixels.any():
            raise DataError(f"{where}: every pixel is 0 (nodata) on all {dates} dates. Leave this patch out")
        if (np.diff(window.days) < 0).any() or window.days.min() < 0:
            raise DataError(f"{where}: days since season start must ascend from 0, got {window.days.tolist()}")
        if window.tags.shape != (classes,):
            raise DataError(f"{where}: tags have shape {window.tags.shape}, expected ({classes},)")
        if record.open and len(record.open) != classes:
            raise DataError(f"{where}: open has {len(record.open)} entries, expected one for each of {classes} crops")
        if window.labels is not None:
            check_labels(window.labels, classes=classes, origin=where)
        if window.unknown is not None and window.unknown.shape != (side, side):
            raise DataError(f"{where}: unknown has shape {window.unknown.shape}, expected ({side}, {side})")
        token = side // CLEAR_PATCH
        if window.clear is not None and window.clear.shape != (dates, token, token):
            raise DataError(f"{where}: clear has shape {window.clear.shape}, expected ({dates}, {token}, {token})")
        if self._pending:
            first = self._pending[0]
            for name in ("labels", "clear", "fields"):
                if (getattr(first, name) is None) != (getattr(window, name) is None):
                    raise DataError(f"{where}: {name} are given for some windows only. Give them for all or none")

    def _write_shard(self) -> None:
        windows, self._pending = self._pending, []
        tensors: dict[str, NDArray[Any]] = {
            "pixels": stack_dates([window.pixels for window in windows], 0),
            "days": stack_dates([window.days for window in windows], PAD_DAY),
            "tags": np.stack([window.tags for window in windows]),
        }
        if windows[0].labels is not None:
            tensors["labels"] = np.stack([window.labels for window in windows if window.labels is not None])
        if windows[0].clear is not None:
            tensors["clear"] = stack_dates([window.clear for window in windows if window.clear is not None], 0)
        if any(window.unknown is not None for window in windows):
            known = np.zeros((self.window, self.window), np.uint8)
            self._has_unknown = True
            tensors["unknown"] = np.stack([known if each.unknown is None else each.unknown for each in windows])
        if windows[0].fields is not None:
            tensors["fields"] = np.stack([window.fields for window in windows if window.fields is not None])
            self._has_fields = True
        name = f"shards/{len(self._shards):05d}.safetensors"
        self._shards.append(write_shard(self.out, name, tensors, windows=len(windows)))
        self._has_labels, self._has_clear = "labels" in tensors, "clear" in tensors

    def _check_support(self, tagged: NDArray[np.int64]) -> None:
        """Note crops that cannot be learned, or refuse those with too little to learn from."""
        for crop, count in zip(self.classes, tagged.tolist(), strict=True):
            if count < self.min_support:
                raise DataError(
                    f"{self.source}: {crop!r} is tagged in {count} training windows, fewer than data.min_support = "
                    f"{self.min_support}. Add windows that have it, join it with another crop (the same name in the "
                    f"class map, or data.season.level: group), make it void (data.season.void_codes), or allow fewer"
                )
            if not count:
                self.notes.append(f"{crop!r} is tagged in no training window: it cannot be learned")

    def _statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Mean and standard deviation (C,) over the measured pixels of the training windows, and how many these are."""
        total, squares, pixels = np.zeros(len(self.bands)), np.zeros(len(self.bands)), 0
        for record, moments in zip(self._records, self._moments, strict=True):
            if record.split == "train" and moments is not None:
                total += moments[0]
                squares += moments[1]
                pixels += moments[2]
        mean = total / pixels
        # A constant band carries nothing; dividing by 1 keeps it at 0 instead of at NaN.
        std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
        std[std < 1e-6] = 1.0
        return mean + _SHIFT, std, pixels

    def _finish(self) -> None:
        if self._pending:
            self._write_shard()
        splits = self.counts
        if stray := next((record for record in self._records if record.split not in SPLITS), None):
            raise DataError(
                f"{self.source} (window {stray.id}): unknown split {stray.split!r}, expected one of {SPLITS}"
            )
        if not splits["train"]:
            raise DataError(
                f"{self.source}: no training window (windows by split: {splits}). "
                f"The source must have at least {self.window} pixels on a side, and the training split must not be "
                f"empty"
            )
        tagged = np.sum([record.tags for record in self._records if record.split == "train"], axis=0)
        if not tagged.any():
            raise DataError(
                f"{self.source}: the tag set is empty: none of {splits['train']} training windows has a crop tag. "
                f"Check the labels, or lower data.tag_share"
            )
        self._check_support(tagged)
        table = pa.table(
            {
                "id": [record.id for record in self._records],
                "scene": [record.scene for record in self._records],
                "row": pa.array([record.row for record in self._records], pa.int32()),
                "col": pa.array([record.col for record in self._records], pa.int32()),
                "crs": [record.crs for record in self._records],
                "transform": pa.array([record.transform for record in self._records], pa.list_(pa.float64())),
                "split": [record.split for record in self._records],
                "fold": pa.array([record.fold for record in self._records], pa.int32()),
                "dates": pa.array([record.dates for record in self._records], pa.int32()),
                "tags": pa.array([record.tags for record in self._records], pa.list_(pa.uint8())),
            }
        )
        # Both or neither: who reads the index knows whether there are unknown pixels.
        if self._has_unknown or any(any(record.open) for record in self._records):
            complete = (0,) * len(self.classes)
            stated = [record.open or complete for record in self._records]
            table = table.append_column("open", pa.array(stated, pa.list_(pa.uint8())))
        squares = pa.array([record.square for record in self._records], pa.int32())
        if squares.null_count < len(squares):
            table = table.append_column("square", squares)
        index = self.out / "index.parquet"
        with publishing(index, size=table.nbytes) as partial:
            pq.write_table(table, partial)
        mean, std, pixels = self._statistics()
        content = {
            "name": self.name,
            "source": self.source,
            "bands": self.bands,
            "classes": self.classes,
            "colours": self.colours,
            "window": self.window,
            "season_start": self.season_start,
            "season_days": self.season_days,
            "has_labels": self._has_labels,
            "has_clear": self._has_clear,
            "has_fields": self._has_fields,
            "self_scored": self.self_scored,
            "statistics": Statistics(
                mean=tuple(mean.tolist()),
                std=tuple(std.tolist()),
                pixels=pixels,
                origin=f"training split: {splits['train']} windows, all their dates, pixels without data left out",
            ),
            "splits": splits,
            "tag_counts": {crop: int(count) for crop, count in zip(self.classes, tagged, strict=True)},
            "index": FileEntry(
                name="index.parquet", sha256=sha256_of(index), bytes=index.stat().st_size, windows=len(self._records)
            ),
            "shards": tuple(self._shards),
        }
        digest = manifest_digest(content)
        manifest = DatasetManifest.model_validate({**content, "notes": tuple(self.notes), "digest": digest})
        manifest.write(self.out / "dataset.json")


_SHIFT = 2000.0
_Moments = tuple[NDArray[np.float64], NDArray[np.float64], int]
"""Sums of a window's values and of their squares, (C,), and the number of pixels."""


def _moments(pixels: NDArray[np.int16]) -> _Moments:
    """Moments of the measured pixels of a window (T, C, H, W).

    Shifted by a typical reflectance: the difference of two large sums would lose digits. A pixel that is 0 in every
    band was not measured: it is no reflectance.
    """
    stored = pixels.transpose(1, 0, 2, 3).reshape(pixels.shape[1], -1)
    values = stored[:, stored.any(0)].astype(np.float64) - _SHIFT
    return values.sum(axis=1), np.square(values).sum(axis=1), values.shape[1]


def manifest_digest(content: Mapping[str, Any]) -> str:
    """Digest of a manifest's content. The path of the source and colours are left out: moved data is the same data."""
    manifest = DatasetManifest.model_validate({**content, "digest": ""})
    data = manifest.model_dump(mode="json", exclude={"digest", "notes", "source", "colours", "checksum"})
    # A dataset without outlines is the one that it was before there were any.
    if not data["has_fields"]:
        del data["has_fields"]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def check_labels(labels: NDArray[np.uint8], *, classes: int, origin: str) -> None:
    """Raise DataError unless every label is 0..K or VOID."""
    wrong = labels[(labels > classes) & (labels != VOID)]
    if wrong.size:
        raise DataError(
            f"{origin}: label value {int(wrong[0])} is out of range, expected 0 (background), 1..{classes} (crops) or "
            f"{VOID} (void). Check the class map or the number of classes"
        )
