"""Finished rows of a map on disk: what a killed map goes on from, and what the parts of a map are joined from.

    journal.json          what the rows belong to. Rows of anything else are forgotten
    rows-00000120.npz     the rows from 120 on: label, confidence and, where they are wanted, probabilities; where it is
                          known, the bits of what agrees

Each file is written under another name and renamed, and holds checksums of its own (zip): what is there is whole.

Axes are h rows, W columns, C = K + 1 classes.
"""

from __future__ import annotations

import json
import logging
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exact_core.errors import CorruptError
from exact_core.files import publish_text, publishing
from exact_core.json_values import read_json

__all__ = ["FinishedRows", "RowFiles", "read_rows"]

log = logging.getLogger(__name__)

DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What numpy and zipfile raise over damaged arrays, whose sizes may be any."""

JOURNAL = "journal.json"


@dataclass(frozen=True)
class FinishedRows:
    """Rows as they go into the files.

    first: the first row. label: uint8 (h, W), VOID where nothing was measured. confidence: uint8 (h, W), percent.
    probabilities: uint8 (C, h, W), percent. None where they are not wanted. agree: bool (h, W), whether network and
    regression of single pixels name the same class. None where there are not both.
    """

    first: int
    label: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None
    agree: NDArray[np.bool_] | None = None

    @property
    def end(self) -> int:
        """One past the last row."""
        return self.first + len(self.label)


class RowFiles:
    """The rows of a map that are finished, in the order of the map.

    Args:
        folder: where they lie.
        first: the first row that is wanted.
        key: digest of all that the rows follow from. A folder of another one is emptied.
        batch: windows a forward pass, kept with the rows: another number rounds otherwise.
    """

    def __init__(self, folder: Path, *, first: int, key: str, batch: int) -> None:
        self.folder = folder
        journal = {"key": key, "first": first}
        known = _journal(folder)
        if known is None or {name: known.get(name) for name in journal} != journal or not _is_count(known.get("batch")):
            if known is not None:
                log.info("%s: rows of another map or model, so the map begins anew", folder)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            known = {**journal, "batch": batch}
            publish_text(folder / JOURNAL, json.dumps(known))
        self.batch: int = known["batch"]
        self.end = first
        for path in sorted(folder.glob("rows-*")):
            if path.suffix == ".npz" and path.name == _name(self.end):
                try:
                    self.end = _read(path).end
                    continue
                except CorruptError as error:
                    log.warning("%s", error)
            path.unlink()

    def add(self, rows: FinishedRows) -> None:
        """Keep the next rows."""
        assert rows.first == self.end
        path = self.folder / _name(rows.first)
        arrays: dict[str, Any] = {"label": rows.label, "confidence": rows.confidence}
        if rows.probabilities is not None:
            arrays["probabilities"] = rows.probabilities
        if rows.agree is not None:
            arrays["agree"] = np.packbits(rows.agree)
        with (
            publishing(path, size=sum(each.nbytes for each in arrays.values())) as partial,
            partial.open("wb") as file,
        ):
            np.savez(file, **arrays)
        self.end = rows.end


def read_rows(folder: Path, *, first: int, end: int) -> Iterator[FinishedRows]:
    """The rows from `first` to before `end`, file by file.

    Raises:
        CorruptError: some are missing or damaged.
    """
    while first < end:
        rows = _read(folder / _name(first))
        yield rows
        first = rows.end
    if first != end:
        raise CorruptError(f"{folder}: its rows end at {first}, not at {end}. Map this part again")


def _name(first: int) -> str:
    return f"rows-{first:08d}.npz"


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _journal(folder: Path) -> dict[str, Any] | None:
    """The journal. None where there is none, empty where it says nothing."""
    if not folder.is_dir():
        return None
    try:
        known = read_json((folder / JOURNAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _read(path: Path) -> FinishedRows:
    try:
        with np.load(path, allow_pickle=False) as file:
            label = file["label"]
            probabilities = file["probabilities"] if "probabilities" in file.files else None
            agree = None
            if "agree" in file.files:
                agree = np.unpackbits(file["agree"], count=label.size).reshape(label.shape).astype(bool)
            rows = FinishedRows(int(path.stem[-8:]), label, file["confidence"], probabilities, agree)
    except DAMAGED as error:
        raise CorruptError(f"{path}: no whole rows of a map: {error}. Map this part again") from error
    return rows
