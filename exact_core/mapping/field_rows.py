"""Finished rows of a map -> the same with one crop a field, and a table of the fields.

The rows are read twice: to add up what the pixels of each field say, and to write. Memory follows the number of fields
and the rows read at a time, not the size of the area.

    fields.csv    field,class,share,confidence,pixels,remark    a line a field of the layer, by its identity there

Axes are h rows, W columns, F fields, K crop classes.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from exact_core.config import Outside
from exact_core.data.season.outlines import beside_fields, field_numbers, open_outlines
from exact_core.data.season.rasters import Grid
from exact_core.data.vectors import VectorLayer
from exact_core.data.windows.dataset import VOID
from exact_core.errors import ConfigError, DataError
from exact_core.mapping.cogs import MapRecord
from exact_core.mapping.finished_rows import FinishedRows

__all__ = ["FIELDS", "one_crop_a_field"]

FIELDS = "fields.csv"
MIXED = 0.6
"""Share of what a field's pixels say from which its crop is the field's. Below it, the pixels keep theirs."""
UNCERTAIN = 50
"""Mean confidence, percent, below which a field is called uncertain."""


@dataclass
class _Votes:
    """What the pixels of fields say. numbers: of the fields, ascending (F,). The rest (F, K + 1) and (F,)."""

    numbers: NDArray[np.int64]
    shares: NDArray[np.float64]
    confidence: NDArray[np.float64]
    pixels: NDArray[np.int64]

    @property
    def label(self) -> NDArray[np.int64]:
        return np.asarray(self.shares.argmax(1), np.int64)

    @property
    def share(self) -> NDArray[np.float64]:
        return np.asarray(self.shares.max(1, initial=0) / np.maximum(self.shares.sum(1), 1e-9))


def one_crop_a_field(
    rows: Callable[[], Iterable[FinishedRows]],
    record: MapRecord,
    outlines: Path,
    out: Path,
    *,
    outside: Outside = "pixels",
) -> tuple[MapRecord, Iterator[FinishedRows]]:
    """A map's rows with one crop a field, and what the map then says of itself.

    What a pixel says are its probabilities, where the map has those of all classes, or else its class. A field takes
    the class of the largest share. Where that is below MIXED, as in an outline around two fields, its pixels keep
    theirs. Pixels without a measurement stay, and those outside of all outlines as `outside` says. The confidence of a
    field is the mean over its pixels of what they give its class. A pixel of another class gives 0 where only classes
    are known. Probabilities stay those of the pixels.

    Args:
        rows: gives the rows of the map, from the first, each time it is called.
        record: of the map.
        outlines: the layer, as `exact_core.data.season.outlines` reads it.
        out: folder that gets fields.csv.
        outside: pixels outside of all outlines keep their classes, or those that share a side with a field become
            background, or all. Their confidence stays.

    Raises:
        DataError: the layer cannot be read, or none of its outlines is on the map.
    """
    layer = open_outlines(outlines.parent, outlines.name)
    if layer is None:
        raise ConfigError("no layer of field outlines is named. Give a file")
    votes = _counted(rows(), record, layer)
    if not len(votes.numbers):
        raise DataError(
            f"{layer.path}: none of its outlines holds the centre of a mapped pixel. Give outlines of the area mapped"
        )
    mixed, uncertain = votes.share < MIXED, votes.confidence < UNCERTAIN
    _write(out / FIELDS, votes, record, mixed, uncertain)
    note = (
        f"one crop a field by {layer.path.name}: {len(mixed)} fields; {int(mixed.sum())} are mixed (less than "
        f"{MIXED:.0%} of one class) and keep the classes of their pixels, {int((uncertain & ~mixed).sum())} of the "
        f"others are uncertain (confidence below {UNCERTAIN} %): {FIELDS} names them"
    )
    if outside != "pixels":
        which = "those beside a field" if outside == "borders" else "all"
        note += f"; of the pixels outside of all outlines, {which} are background"
    changed = _relabelled(rows(), record, layer, votes, ~mixed, outside)
    return record.model_copy(update={"notes": (*record.notes, note)}), changed


def _numbers(layer: VectorLayer, record: MapRecord, first: int, end: int) -> NDArray[np.int64]:
    """Field of each pixel of some rows (h, W): its identity in the layer + 1, or 0."""
    grid = Grid(record.rasterio_crs, Affine(*record.transform), record.height, record.width, Path(record.name))
    return field_numbers(layer, grid.rows(first, end), []).astype(np.int64)


def _around(layer: VectorLayer, record: MapRecord, rows: FinishedRows) -> NDArray[np.int64]:
    """Field of each pixel of some rows and of the row above and below (h + 2, W). Beyond the map 0."""
    first, end = max(0, rows.first - 1), min(record.height, rows.end + 1)
    fields = _numbers(layer, record, first, end)
    return np.pad(fields, ((int(first == rows.first), int(end == rows.end)), (0, 0)))


def _counted(rows: Iterable[FinishedRows], record: MapRecord, layer: VectorLayer) -> _Votes:
    classes = len(record.names)
    numbers = np.zeros(0, np.int64)
    # Shares of the classes, what is given to each, and pixels.
    sums = np.zeros((0, 2 * classes + 1))
    for each in rows:
        fields = _numbers(layer, record, each.first, each.end)
        known = (fields > 0) & (each.label != VOID)
        found, place = np.unique(fields[known], return_inverse=True)
        one_hot = np.eye(classes)[each.label[known]]
        given = one_hot * each.confidence[known][:, None]
        if each.probabilities is not None:
            given = each.probabilities[:, known].T.astype(np.float64)
        values = np.concatenate([one_hot if each.probabilities is None else given, given, np.ones((len(place), 1))], 1)
        part = np.stack([np.bincount(place, column, len(found)) for column in values.T], 1)
        joint = np.union1d(numbers, found)
        grown = np.zeros((len(joint), sums.shape[1]))
        grown[np.searchsorted(joint, numbers)] = sums
        grown[np.searchsorted(joint, found)] += part
        numbers, sums = joint, grown
    shares, given, pixels = sums[:, :classes], sums[:, classes:-1], sums[:, -1]
    winner = shares.argmax(1)[:, None]
    confidence = np.take_along_axis(given, winner, 1)[:, 0] / np.maximum(pixels, 1)
    return _Votes(numbers, shares, confidence, pixels.astype(np.int64))


def _relabelled(
    rows: Iterable[FinishedRows],
    record: MapRecord,
    layer: VectorLayer,
    votes: _Votes,
    one_crop: NDArray[np.bool_],
    outside: Outside,
) -> Iterator[FinishedRows]:
    label, confidence = votes.label.astype(np.uint8), np.rint(votes.confidence).astype(np.uint8)
    for each in rows:
        around = _around(layer, record, each)
        fields = around[1:-1]
        place = np.searchsorted(votes.numbers, fields).clip(max=len(label) - 1)
        inside = (fields > 0) & (each.label != VOID)
        inside[inside] = one_crop[place[inside]]
        kept = each.label
        if outside != "pixels":
            cleared = (fields == 0) & (each.label != VOID)
            kept = np.where(
                cleared & (outside == "background" or beside_fields(np.pad(around, ((0, 0), (1, 1))) > 0)),
                np.uint8(0),
                kept,
            )
        yield replace(
            each,
            label=np.where(inside, label[place], kept),
            confidence=np.where(inside, confidence[place], each.confidence),
        )


def _write(
    path: Path, votes: _Votes, record: MapRecord, mixed: NDArray[np.bool_], uncertain: NDArray[np.bool_]
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["field", "class", "share", "confidence", "pixels", "remark"])
        for place in range(len(votes.numbers)):
            table.writerow(
                [
                    int(votes.numbers[place]) - 1,
                    record.names[int(votes.label[place])],
                    f"{votes.share[place]:.3f}",
                    f"{votes.confidence[place]:.1f}",
                    int(votes.pixels[place]),
                    "mixed" if mixed[place] else "uncertain" if uncertain[place] else "",
                ]
            )
