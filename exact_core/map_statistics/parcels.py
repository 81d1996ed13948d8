"""What a map says of each parcel of a layer: majority class, its share, coverage and mean confidence.

Pixels that an outline cuts count by the part inside (exactextract). The layer is read and written in chunks, so memory
depends on neither the number of parcels nor the size of the map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rasterio
import shapely
from exactextract import Operation, exact_extract
from exactextract.feature import Feature, FeatureSource
from exactextract.raster import RasterioRasterSource
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from exact_core.data.vectors import CHUNK, Features, VectorLayer, open_layer, split_layer
from exact_core.errors import ConfigError, CorruptError, DataError
from exact_core.files import check_output
from exact_core.map_statistics.map_folder import CLASS, CONFIDENCE, CropMap
from exact_core.map_statistics.outlines import Placed, place_outlines
from exact_core.map_statistics.parcel_files import FORMATS, ParcelFile, parcel_file

__all__ = ["ParcelSummary", "summarise_parcels"]

CELLS = 4_000_000
"""Pixels of one parcel in memory at a time."""
FIGURES: dict[str, Any] = {
    "majority": pa.string(),
    "majority_share": pa.float64(),
    "coverage": pa.float64(),
    "confidence": pa.float64(),
    "pixels": pa.float64(),
}


@dataclass
class ParcelSummary:
    """What became of a layer's parcels.

    written: rows. majority: parcels of each class. unmapped: written, but nothing is mapped inside. repaired: written,
    though the outline crossed itself. empty, broken, other, outside: left out, see `Placed`.
    """

    written: int = 0
    majority: Counter[str] = field(default_factory=Counter)
    unmapped: int = 0
    repaired: int = 0
    empty: int = 0
    broken: int = 0
    other: int = 0
    outside: int = 0

    def add(self, placed: Placed, majorities: list[str | None]) -> None:
        """Take in a chunk."""
        for name in ("repaired", "empty", "broken", "other", "outside"):
            setattr(self, name, getattr(self, name) + getattr(placed, name))
        self.written += len(majorities)
        self.majority.update(name for name in majorities if name is not None)
        self.unmapped += majorities.count(None)

    def notes(self) -> list[str]:
        """What a reader of the file must know, a sentence each."""
        said = {
            "empty": "without an outline, left out",
            "broken": "with a broken outline or coordinates that are no place, left out",
            "other": "that are points or lines, left out",
            "outside": "beside the map, left out",
            "repaired": "whose outline crosses itself, repaired",
            "unmapped": "in which nothing is mapped, without a majority",
        }
        return [f"parcels {text}: {getattr(self, name)}" for name, text in said.items() if getattr(self, name)]


def summarise_parcels(
    crop_map: CropMap,
    layer: Path,
    out: Path,
    *,
    attributes: tuple[str, ...] = (),
    chunk: int = CHUNK,
    force: bool = False,
) -> ParcelSummary:
    """Summarise a map within the parcels of a layer.

    Args:
        crop_map: the map.
        layer: GeoParquet, or any vector file that GDAL reads. `FILE|layername=NAME` where it has several layers. Its
            parcels are brought to the CRS of the map.
        out: file to write, .parquet (GeoParquet 1.1.0, WKB) or .gpkg: `parcel` (identity in the layer), `majority`
            (class), `majority_share` (of the mapped part), `coverage` (mapped share of the parcel), `confidence` (mean
            over the mapped part, percent), `pixels` (mapped, with parts), the attributes, and the outline in the CRS of
            the map.
        attributes: of the layer, to be taken along.
        chunk: parcels in memory at a time.
        force: replace a file that is there.

    Raises:
        ConfigError: an attribute that the layer has not, or whose name is taken. A file that must not be written.
        DataError: the layer cannot be read.
        CorruptError: the map cannot be read.
        ServiceError: the file cannot be written.
    """
    check_output(out, suffixes=tuple(FORMATS), inputs=(split_layer(layer)[0], crop_map.folder), force=force)
    parcels = open_layer(layer, what="parcel layer")
    _check_layer(parcels, attributes)
    summary = ParcelSummary()
    with parcel_file(out, crop_map.crs) as file:
        try:
            _summarise(crop_map, parcels.read(attributes, size=chunk), parcels.crs, file, summary)
        except RasterioError as error:
            raise CorruptError(
                f"{crop_map.folder}: cannot be read: {error}. Make the map again with `exact map`"
            ) from error
        if not file.begun:
            raise DataError(f"{layer}: the layer is empty. Give one with parcels")
    return summary


def _summarise(
    crop_map: CropMap, parts: Iterator[Features], crs: Any, file: ParcelFile, summary: ParcelSummary
) -> None:
    """Write each chunk of parcels with what the map says of them."""
    with rasterio.open(crop_map.folder / CLASS) as labels, rasterio.open(crop_map.folder / CONFIDENCE) as percent:
        if (percent.shape, percent.transform) != (labels.shape, labels.transform):
            raise CorruptError(f"{crop_map.folder}: {CONFIDENCE} has other pixels than {CLASS}. Make the map again")
        # Sources are told apart by name: two without one are taken for the same.
        sources = RasterioRasterSource(labels, name="class"), RasterioRasterSource(percent, name="confidence")
        zones = _Zones(crop_map, *sources)
        for part in parts:
            placed = place_outlines(part.outlines, crs, crop_map)
            figures = zones.figures(placed.outlines)
            file.add(_table(_rows(part).take(pa.array(placed.kept)), figures, placed.outlines), placed.outlines)
            summary.add(placed, figures["majority"])


def _check_layer(layer: VectorLayer, attributes: tuple[str, ...]) -> None:
    """Raise unless a layer has outlines, a CRS and the attributes."""
    if layer.crs is None:
        raise DataError(f"{layer.path}: no CRS. Name one in the file (ogr2ogr -a_srs)")
    if not layer.has_outlines:
        raise DataError(f"{layer.path}: a table without outlines. Give a layer of parcels")
    taken = {*FIGURES, "parcel", "geometry"}
    for name in attributes:
        if name not in layer.fields:
            raise ConfigError(
                f"{layer.path}: no attribute {name!r}, it has {', '.join(layer.fields) or 'none'}. Name one of these"
            )
        if name in taken:
            raise ConfigError(
                f"{layer.path}: the attribute {name!r} has the name of another column. Rename it, or name it once"
            )
        taken.add(name)


def _rows(part: Features) -> Any:
    """Identities and attributes of a chunk, a table (Arrow)."""
    return pa.table({"parcel": part.identities, **{name: part.columns[name] for name in part.columns.column_names}})


class _Outline(Feature):  # type: ignore[misc]  # exactextract has no types
    """An outline as exactextract expects it."""

    def __init__(self, number: int, outline: bytes) -> None:
        super().__init__()
        self._number, self._outline = number, outline

    def geometry(self) -> bytes:
        """WKB."""
        return self._outline

    def get(self, _name: str) -> int:
        """Its position, the only column."""
        return self._number

    def fields(self) -> list[str]:
        """Names of the columns."""
        return ["id"]


class _Outlines(FeatureSource):  # type: ignore[misc]  # as above
    """Outlines of a chunk, in the CRS of the map."""

    def __init__(self, outlines: NDArray[np.object_], wkt: str) -> None:
        super().__init__()
        self._outlines, self._wkt = shapely.to_wkb(outlines), wkt

    def __iter__(self) -> Iterator[_Outline]:
        return (_Outline(number, outline) for number, outline in enumerate(self._outlines))

    def count(self) -> int:
        """Number of outlines."""
        return len(self._outlines)

    def srs_wkt(self) -> str:
        """The CRS, in the words of the raster, as it is the raster's."""
        return self._wkt


class _Zones:
    """The map, asked about outlines."""

    def __init__(self, crop_map: CropMap, labels: Any, percent: Any) -> None:
        self._map, self._sources = crop_map, [labels, percent]
        self._operations = [
            Operation("unique", "labels", labels),
            Operation("frac", "shares", labels),
            Operation("count", "pixels", labels),
            Operation("mean", "confidence", percent),
        ]

    def figures(self, outlines: NDArray[np.object_]) -> dict[str, list[Any]]:
        """The columns of values, one for each outline."""
        found: list[Any] = []
        if len(outlines):
            zones = _Outlines(outlines, self._sources[0].srs_wkt())
            found = exact_extract(self._sources, zones, self._operations, max_cells_in_memory=CELLS, output="geojson")
        pixel = abs(self._map.transform.determinant)
        columns: dict[str, list[Any]] = {name: [] for name in FIGURES}
        for each, area in zip(found, shapely.area(outlines), strict=True):
            figures = each["properties"]
            mapped = figures["pixels"] > 0
            label, share = _majority(figures["labels"], figures["shares"]) if mapped else (None, None)
            columns["majority"].append(None if label is None else self._map.name_of(label))
            columns["majority_share"].append(share)
            # Parts of pixels are summed in single precision.
            columns["coverage"].append(min(1.0, figures["pixels"] * pixel / area))
            columns["confidence"].append(figures["confidence"] if mapped else None)
            columns["pixels"].append(figures["pixels"])
        return columns


def _table(rows: Any, figures: dict[str, list[Any]], outlines: NDArray[np.object_]) -> Any:
    """A chunk of the output (Arrow), with identity, values, attributes and outline."""
    columns = {"parcel": rows.column("parcel")}
    columns |= {name: pa.array(figures[name], kind) for name, kind in FIGURES.items()}
    columns |= {name: rows.column(name) for name in rows.column_names[1:]}
    return pa.table(columns | {"geometry": pa.array(shapely.to_wkb(outlines), pa.binary())})


def _majority(labels: NDArray[np.int32], shares: NDArray[np.float64]) -> tuple[int, float]:
    """The label with the largest share, and that share. On a tie the lowest label wins."""
    best = min(zip(-shares, labels, strict=True))
    return int(best[1]), float(-best[0])
