"""A season's images and a segmenter -> finished rows of a crop map: of all the area, or of a part of it.

A part is a run of bands of rows (`exact_core.mapping.rows`). `exact_core.mapping.cogs` makes the map's files of one or
of many.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from exact_core.config import MappingConfig
from exact_core.data.season.archives import size_of
from exact_core.data.season.folder import SeasonImages
from exact_core.data.season.strips import Strips
from exact_core.data.windows.dataset import VOID
from exact_core.errors import ConfigError, DataError, ServiceError
from exact_core.manifest import Manifest
from exact_core.mapping.calibration import Calibration, DatedCalibration, tempered
from exact_core.mapping.cogs import MapRecord
from exact_core.mapping.finished_rows import FinishedRows, RowFiles
from exact_core.mapping.rows import MappedRows, Mapper, bands_of_part, map_rows, window_starts

__all__ = ["PART", "PartManifest", "extent_of_part", "map_part", "map_record", "open_part", "parse_part"]

PART = "part.json"


class PartManifest(Manifest):
    """`part.json`, written last: some of the rows of a map, which `exact join-map` makes a map of."""

    schema_version: Literal[1] = 1
    part: int = Field(ge=1)
    parts: int = Field(ge=1)
    first: int = Field(ge=0, description="first row")
    end: int = Field(ge=0, description="one past the last row")
    batch: int = Field(ge=1, description="windows a forward pass")
    seconds: float = Field(ge=0, description="that the mapping took")
    record: MapRecord

    def publish(self, folder: Path) -> None:
        """Write it. With it the part is complete."""
        self.write(folder / PART)


def open_part(folder: Path) -> PartManifest:
    """The manifest of a finished part.

    Raises:
        DataError: none there, or one that this version does not read.
    """
    path = folder / PART
    if not path.is_file():
        raise DataError(f"{path}: no part of a map here. Make one with `exact map ... --part 1/2`")
    return PartManifest.read(path)


def parse_part(text: str) -> tuple[int, int]:
    """Part and number of parts of "2/4".

    Raises:
        ConfigError: not of this form, or no such part.
    """
    first, slash, last = text.partition("/")
    if slash and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last):
        return int(first), int(last)
    raise ConfigError(f"part {text!r}: expected I/N with I from 1 to N, as 2/4")


def map_record(
    images: SeasonImages,
    *,
    source: str,
    side: int,
    stride: int,
    classes: tuple[str, ...],
    colours: list[str],
    mapping: MappingConfig,
    calibration: Calibration,
    weights_sha256: str,
    code_version: str,
    by_date: tuple[DatedCalibration, ...] = (),
    expected_mask_oa: float | None = None,
) -> MapRecord:
    """What a map of these images says of itself. Equal for all its parts.

    Args:
        images: the season.
        source: as given.
        side: window side, pixels.
        stride: step between windows, pixels.
        classes: names of crops 1..K.
        colours: of labels 0..K, #rrggbb.
        mapping: all that is done to finished rows, and probabilities, apply.
        calibration: of the segmenter, for what is seen of the season.
        weights_sha256: of the segmenter.
        code_version: of this package.
        by_date: calibrations of the segmenter for parts of the season and all of it, as far as they are known.
        expected_mask_oa: OA expected of the masks that the segmenter learned from, if known.

    Raises:
        ConfigError: a minimum mapping unit, and pixels without a size in metres.
        DataError: the images are smaller than a window, rotated or south up.
    """
    grid = images.grid
    onto = grid.transform
    if onto.b or onto.d or onto.a < 0 or onto.e > 0:
        raise DataError(
            f"{grid.file}: its pixels do not run from north-west to south-east ({tuple(onto)[:6]}): maps of such "
            f"pixels are not readable everywhere. Warp all images north up first, as gdalwarp does"
        )
    if min(grid.height, grid.width) < side:
        raise DataError(
            f"{grid.file}: {grid.height} x {grid.width} pixels, smaller than the model's window of {side}. "
            f"Give a larger area, or a model of smaller windows"
        )
    # Names and sizes, not places and times: parts made on machines that each have their own copy belong together.
    files = [
        [str(each.date), band, path.name, size_of(path)]
        for each in images.acquisitions
        for band, path in sorted(each.files.items())
    ]
    record = MapRecord(
        source=source,
        name=images.name,
        season_start=images.start,
        season_days=images.length,
        until=images.settings.until,
        bands=images.bands,
        dates=tuple(acquisition.date for acquisition in images.acquisitions),
        inputs=hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        crs=grid.crs.to_wkt(version="WKT2_2019"),
        transform=tuple(grid.transform)[:6],
        height=grid.height,
        width=grid.width,
        window=side,
        stride=stride,
        classes=classes,
        colours=tuple(colours),
        probabilities=mapping.probabilities,
        majority=mapping.majority,
        minimum_hectares=mapping.minimum_hectares,
        cropland=mapping.cropland,
        cropland_values=mapping.cropland_values,
        outlines=mapping.outlines,
        outside=mapping.outside,
        polygons=mapping.polygons,
        calibration=calibration,
        by_date=by_date,
        expected_mask_oa=expected_mask_oa,
        model_weights_sha256=weights_sha256,
        code_version=code_version,
        notes=tuple(images.notes),
    )
    # Refused now, and not when all is mapped.
    _ = record.minimum_pixels
    return record


def extent_of_part(record: MapRecord, part: int, parts: int) -> tuple[int, int]:
    """First row of a part, and one past its last."""
    edges = [*window_starts(record.height, record.window, record.step), record.height]
    first, end = bands_of_part(record.height, record.window, record.step, part, parts)
    return edges[first], edges[end]


def map_part(
    images: SeasonImages,
    mapper: Mapper,
    record: MapRecord,
    pieces: RowFiles,
    *,
    end: int,
    chunk: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Map the rows that are still missing.

    Args:
        images: the season.
        mapper: the segmenter.
        record: of the map.
        pieces: what is finished, to which the rest is added. Its batch applies.
        end: one past the last row of the part.
        chunk: rows of images read, and kept together, at a time.
        progress: notified of finished rows.

    Raises:
        DataError: an image cannot be read.
        ServiceError: rows cannot be kept.
    """
    starts = [*window_starts(record.height, record.window, record.step), record.height]
    chunk = max(chunk - chunk % 2, record.window)
    try:
        # The last windows reach beyond the rows of the part; what is read at a time, beyond these.
        reach = min(end + record.window + chunk, record.height)
        with Strips(images, pieces.folder, chunk=chunk, spans=[(0, reach)]) as strips:
            rows = map_rows(
                strips.read,
                mapper,
                height=record.height,
                width=record.width,
                side=record.window,
                stride=record.step,
                classes=len(record.classes),
                batch=pieces.batch,
                chunk=chunk,
                bands=(starts.index(pieces.end), starts.index(end)),
            )
            for finished in _together((_finish(each, record, progress) for each in rows), chunk):
                pieces.add(finished)
    except OSError as error:
        raise ServiceError(
            f"{pieces.folder}: rows of the map cannot be kept there: {error}. Make room, and repeat: finished rows stay"
        ) from error


def _finish(rows: MappedRows, record: MapRecord, progress: Callable[[int], None] | None) -> FinishedRows:
    """Rows as they go into the files. The temperature touches the confidence, and never the class."""
    void = rows.label == VOID
    calibrated = tempered(rows.probabilities, record.calibration.temperature)
    percent = np.rint(100 * (calibrated if record.probabilities else calibrated.max(0, keepdims=True)))
    planes = np.where(void, VOID, percent).astype(np.uint8)
    if progress is not None:
        progress(len(rows.label))
    if not record.probabilities:
        return FinishedRows(rows.first, rows.label, planes[0], None, rows.agree)
    confidence = np.where(void, VOID, percent.max(0)).astype(np.uint8)
    return FinishedRows(rows.first, rows.label, confidence, planes, rows.agree)


def _together(rows: Iterator[FinishedRows], height: int) -> Iterator[FinishedRows]:
    """The same rows, at least so many at a time: a file for each band would be many small ones."""
    waiting: list[FinishedRows] = []
    for each in rows:
        waiting.append(each)
        if each.end - waiting[0].first >= height:
            yield _stacked(waiting)
            waiting = []
    if waiting:
        yield _stacked(waiting)


def _stacked(rows: list[FinishedRows]) -> FinishedRows:
    planes = [each.probabilities for each in rows if each.probabilities is not None]
    agree = [each.agree for each in rows if each.agree is not None]
    return FinishedRows(
        rows[0].first,
        np.concatenate([each.label for each in rows]),
        np.concatenate([each.confidence for each in rows]),
        np.concatenate(planes, 1) if planes else None,
        np.concatenate(agree) if agree else None,
    )
