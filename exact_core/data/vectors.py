"""Vector layers of any format: a layer's CRS and attributes, and its features in chunks.

GeoParquet is read by pyarrow (GDAL as pyogrio ships it has no driver for it), all else by GDAL. A file of several
layers needs the name of one, as QGIS writes it: `fields.gpkg|layername=parcels_2023`. Axes are n features of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError

from exact_core.errors import DataError
from exact_core.json_values import read_json

__all__ = ["CHUNK", "Features", "VectorLayer", "areas_of", "open_layer", "split_layer"]

CHUNK = 20_000
"""Features in memory at a time."""
BY_NAME = "|layername="
PARQUET = (".parquet", ".geoparquet", ".pq")
RAGGED = {
    "point": shapely.GeometryType.POINT,
    "multipoint": shapely.GeometryType.MULTIPOINT,
    "linestring": shapely.GeometryType.LINESTRING,
    "multilinestring": shapely.GeometryType.MULTILINESTRING,
    "polygon": shapely.GeometryType.POLYGON,
    "multipolygon": shapely.GeometryType.MULTIPOLYGON,
}
"""Native encodings of GeoParquet 1.1, nested lists of coordinates."""
UNREADABLE = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.GeometryError,
    pyogrio.errors.CRSError,
    pa.ArrowException,
    shapely.errors.ShapelyError,
    OSError,
    ValueError,
    CPLE_BaseError,
    CRSError,
)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Features:
    """A chunk. identities: int64 (n,). outlines: WKB (n,), None for none. columns: attributes (Arrow), n rows."""

    identities: Any
    outlines: NDArray[np.object_]
    columns: Any


@dataclass(frozen=True)
class VectorLayer:
    """A layer that can be read.

    path: its file. name: of the layer, None where the file has no more than one. what: its name in messages. crs: None
    where the file does not say. fields: its attributes. has_outlines: False for a mere table. is_empty: it states that
    it has no feature.
    """

    path: Path
    name: str | None
    what: str
    crs: Any
    fields: tuple[str, ...]
    has_outlines: bool
    is_empty: bool

    def read(self, columns: Sequence[str] = (), *, near: Box | None = None, size: int = CHUNK) -> Iterator[Features]:
        """The features in chunks, curves as lines.

        Args:
            columns: attributes to read.
            near: left, bottom, right, top in the layer's CRS: features elsewhere may be left out. Left beyond right:
                across the 180th meridian.
            size: of a chunk.

        Raises:
            DataError: the layer cannot be read.
        """
        chunks = _parquet_chunks if self.path.suffix.lower() in PARQUET else _gdal_chunks
        try:
            for part in chunks(self, columns, near, size):
                self._check_text(part.columns)
                yield part
        except UNREADABLE as error:
            raise _unreadable(self.path, self.what, error) from error

    def extent(self) -> Box | None:
        """Left, bottom, right, top of all outlines, in the layer's CRS. None where that is not to be had."""
        try:
            if self.path.suffix.lower() in PARQUET:
                with pq.ParquetFile(self.path) as file:
                    stated = _geometry_of(file, self.path).get("bbox") or ()
                # With heights there are six.
                flat = stated if len(stated) == 4 else (*stated[:2], *stated[3:5])
            else:
                flat = pyogrio.read_info(self.path, layer=self.name, force_total_bounds=True)["total_bounds"]
        except UNREADABLE:
            return None
        edges = tuple(map(float, flat if flat is not None else ()))
        return (edges[0], edges[1], edges[2], edges[3]) if len(edges) == 4 and np.isfinite(edges).all() else None

    def _check_text(self, columns: Any) -> None:
        for name, column in zip(columns.column_names, columns.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                stated = self.path.with_suffix(".cpg")
                if stated.is_file():
                    advice = f"as {stated} says. Write the encoding that it has there, for example ISO-8859-1"
                elif self.path.suffix.lower() == ".shp":
                    advice = f"and {stated} is missing. Write the encoding that it has there, for example ISO-8859-1"
                else:
                    advice = "which is what this format is read as. Export the layer again as UTF-8"
                raise DataError(f"{self.path}: attribute {name!r} is not UTF-8, {advice}") from error


def areas_of(outline: Any) -> Any:
    """What of an outline is an area, valid: holes are taken out, parts are put together, lines and points dropped."""
    parts = [part for part in shapely.get_parts(outline) if part.geom_type in ("Polygon", "MultiPolygon")]
    if len(parts) == 1 or outline.geom_type == "MultiPolygon":
        whole = outline if outline.geom_type == "MultiPolygon" else parts[0]
        # Not by its lines, shapely's default: a hole that sticks out would be an area, and an overlap a hole.
        return whole if shapely.is_valid(whole) else shapely.make_valid(whole, method="structure", keep_collapsed=False)
    return shapely.union_all([areas_of(part) for part in parts]) if parts else shapely.Polygon()


def split_layer(text: str | Path) -> tuple[Path, str | None]:
    """The file and the layer that `FILE|layername=NAME` names. None where no layer is named."""
    file, named, layer = str(text).partition(BY_NAME)
    return Path(file), layer if named else None


def open_layer(text: str | Path, *, what: str) -> VectorLayer:
    """A layer by its file, or `FILE|layername=NAME`.

    Args:
        text: the file, and the layer where there are several.
        what: what messages call such a layer: parcel layer, point layer.

    Raises:
        DataError: no such file or layer, several of which none is named, or an unreadable one.
    """
    path, name = split_layer(text)
    if not path.exists():
        raise DataError(f"{path}: no such file. Give a {what}, as .gpkg, .geojson or .parquet")
    try:
        if path.suffix.lower() in PARQUET:
            if name is not None:
                raise DataError(f"{path}: a Parquet file has no layers. Leave {BY_NAME}{name} out")
            return _open_parquet(path, what)
        name = _choose_layer(path, name)
        info = pyogrio.read_info(path, layer=name)
        crs = None if info["crs"] is None else rasterio.crs.CRS.from_user_input(info["crs"])
    except UNREADABLE as error:
        raise _unreadable(path, what, error) from error
    # Drivers that cannot count say -1.
    fields, has_outlines = tuple(map(str, info["fields"])), info["geometry_type"] is not None
    return VectorLayer(path, name, what, crs, fields, has_outlines, info["features"] == 0)


def _unreadable(path: Path, what: str, error: Exception) -> DataError:
    return DataError(f"{path}: not a readable {what}: {error}. Export it again, as .gpkg")


def _choose_layer(path: Path, name: str | None) -> str | None:
    """The layer to read. None for the only one."""
    known = {str(layer): kind for layer, kind in pyogrio.list_layers(path)}
    # Styles and other tables stand beside the layers of many files.
    with_outlines = [layer for layer, kind in known.items() if kind is not None]
    if name is not None:
        if name not in known:
            raise DataError(f"{path}: no layer {name!r}, it has {_listed(list(known))}. Name one of these")
        return name
    if len(with_outlines) > 1:
        raise DataError(
            f"{path}: {len(with_outlines)} layers, {_listed(with_outlines)}. Name one, as "
            f"'{path.name}{BY_NAME}{with_outlines[0]}'"
        )
    return with_outlines[0] if with_outlines and len(known) > 1 else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")


# By GDAL


def _gdal_chunks(layer: VectorLayer, columns: Sequence[str], near: Box | None, size: int) -> Iterator[Features]:
    seen: set[int] = set()
    boxes = _boxes(near)
    for box in boxes:
        for part in _gdal_box(layer, columns, box, size):
            if len(boxes) == 1:
                yield part
                continue
            new = np.array([number not in seen for number in part.identities.to_pylist()], bool)
            seen.update(part.identities.to_pylist())
            yield _kept(part, new)


def _boxes(near: Box | None) -> list[Box | None]:
    """The boxes to search: two for one across the 180th meridian, of which one has its east above 180."""
    if near is None or near[0] <= near[2]:
        return [near]
    left, bottom, right, top = near
    return [(left, bottom, right + 360, top), (-180.0, bottom, right, top)]


def _gdal_box(layer: VectorLayer, columns: Sequence[str], box: Box | None, size: int) -> Iterator[Features]:
    with pyogrio.raw.open_arrow(
        layer.path,
        layer=layer.name,
        columns=list(columns),
        bbox=box,
        batch_size=size,
        use_pyarrow=True,
        return_fids=True,
    ) as (meta, reader):
        for batch in reader:
            # The features' numbers come first, at times by the name of an attribute, as "id" in GeoJSON.
            identities = batch.column(0).cast(pa.int64())
            others = {name: number for number, name in enumerate(batch.schema.names[1:], 1)}
            chosen = {name: batch.column(others[name]) for name in columns}
            table = pa.table(chosen) if columns else _no_columns(batch.num_rows)
            outlines = np.full(batch.num_rows, None)
            if layer.has_outlines:
                geometry = batch.column(others[meta["geometry_name"] or "wkb_geometry"])
                found = geometry.to_numpy(zero_copy_only=False)
                outlines[:] = found
                _straighten(layer, identities, outlines)
            yield Features(identities, outlines, table)


def _no_columns(rows: int) -> Any:
    return pa.table({"row": np.arange(rows)}).select([])


@np.errstate(invalid="ignore")
def _straighten(layer: VectorLayer, identities: Any, outlines: NDArray[np.object_]) -> None:
    """Replace curves, which shapely does not support, by lines."""
    try:
        shapely.from_wkb(outlines, on_invalid="ignore")
    except NotImplementedError:
        curved = [place for place, outline in enumerate(outlines) if _is_curve(outline)]
        fids = [identities[place].as_py() for place in curved]
        _, _, straight, _ = pyogrio.raw.read(layer.path, layer=layer.name, columns=[], fids=fids)
        outlines[curved] = straight


def _is_curve(outline: bytes | None) -> bool:
    try:
        shapely.from_wkb(outline, on_invalid="ignore")
    except NotImplementedError:
        return True
    return False


# GeoParquet


def _open_parquet(path: Path, what: str) -> VectorLayer:
    with pq.ParquetFile(path) as file:
        schema, rows, column = file.schema_arrow, file.metadata.num_rows, _geometry_of(file, path)
    encoding = str(column.get("encoding", "WKB"))
    if encoding != "WKB" and encoding not in RAGGED:
        raise DataError(
            f"{path}: outlines in the encoding {encoding!r}, expected WKB or one of {', '.join(RAGGED)}. Write it "
            f"again with WKB"
        )
    # Without a CRS it is longitude and latitude; null says that it is not known.
    stated = column.get("crs", "OGC:CRS84")
    crs = None if stated is None else rasterio.crs.CRS.from_user_input(stated)
    fields = tuple(name for name in schema.names if name != column["name"])
    return VectorLayer(path, None, what, crs, fields, has_outlines=True, is_empty=rows == 0)


def _geometry_of(file: Any, path: Path) -> dict[str, Any]:
    """What the file says of its column of outlines, its name beside it."""
    text = (file.metadata.metadata or {}).get(b"geo")
    if text is None:
        raise DataError(
            f"{path}: a Parquet table, but no GeoParquet: nothing in it says which column holds outlines (the metadata "
            f"`geo`). Write it again as GeoParquet, or as .gpkg"
        )
    try:
        geo = read_json(text)
        name = geo["primary_column"]
        return {**geo["columns"][name], "name": name, "place": file.schema_arrow.names.index(name)}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its GeoParquet metadata are broken: {error}. Write the file again") from error


def _parquet_chunks(layer: VectorLayer, columns: Sequence[str], near: Box | None, size: int) -> Iterator[Features]:
    first = 0
    with pq.ParquetFile(layer.path) as file:
        column = _geometry_of(file, layer.path)
        for batch in file.iter_batches(size, columns=[*columns, column["name"]]):
            encoding = str(column.get("encoding", "WKB"))
            outlines = _wkb(batch.column(column["name"]), encoding)
            identities = pa.array(np.arange(first, first + batch.num_rows))
            table = pa.table({name: batch.column(name) for name in columns}) if columns else _no_columns(batch.num_rows)
            part = Features(identities, outlines, table)
            first += batch.num_rows
            yield part if near is None else _kept(part, _may_touch(outlines, near))


def _wkb(column: Any, encoding: str) -> NDArray[np.object_]:
    column = getattr(column, "storage", column)
    found = np.full(len(column), None)
    if encoding == "WKB":
        found[:] = column.to_pylist()
        return found
    present = column.drop_null()
    offsets = []
    while pa.types.is_list(present.type) or pa.types.is_large_list(present.type):
        starts = present.offsets.to_numpy()
        offsets.append(starts - starts[0])
        present = present.flatten()
    if pa.types.is_struct(present.type):
        places = np.stack([present.field(axis).to_numpy(zero_copy_only=False) for axis in ("x", "y")], 1)
    else:
        wide = present.type.list_size
        places = present.flatten().to_numpy(zero_copy_only=False).reshape(-1, wide)[:, :2]
    outlines = shapely.from_ragged_array(RAGGED[encoding], places, tuple(reversed(offsets)) or None)
    found[column.is_valid().to_numpy(zero_copy_only=False)] = shapely.to_wkb(outlines)
    return found


@np.errstate(invalid="ignore")
def _may_touch(outlines: NDArray[np.object_], near: Box) -> NDArray[np.bool_]:
    """Outlines (n,) whose box touches another, and those without a box, which are judged elsewhere."""
    left, bottom, right, top = shapely.bounds(shapely.from_wkb(outlines, on_invalid="ignore")).T
    touched: NDArray[np.bool_] = np.isnan(left) & np.array([outline is not None for outline in outlines], bool)
    for west, south, east, north in filter(None, _boxes(near)):
        touched |= (left <= east) & (right >= west) & (bottom <= north) & (top >= south)
    return touched


def _kept(part: Features, kept: NDArray[np.bool_]) -> Features:
    places = pa.array(np.flatnonzero(kept))
    return Features(part.identities.take(places), part.outlines[kept], part.columns.take(places))
