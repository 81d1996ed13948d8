"""The labels of a season: a raster of crop codes or a layer of parcels, and a legend that names the codes.

    labels/crop_type.tif    crop codes, 0 = no declared parcel; or labels/parcels.geojson with an attribute crop_code
    labels/legend.csv       code,name

Codes are brought to the grid of the images, nearest (parcels: those that contain a pixel's centre), and numbered by the
legend: 0 background, 1..K crops, VOID. Axes: H W pixels, K crop classes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, RasterioError
from rasterio.features import rasterize
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds, transform_geom

from exact_core.config import SeasonConfig
from exact_core.data.dataset import VOID
from exact_core.data.rasters import RASTERS, Grid, fit_to_grid, read_raster
from exact_core.errors import DataError

__all__ = ["read_labels"]

VECTORS = (".geojson", ".gpkg", ".fgb", ".shp", ".parquet")
OUTSIDE = np.iinfo(np.int32).min
"""Code of a pixel that the label layer does not cover."""


def read_labels(
    folder: Path, settings: SeasonConfig, grid: Grid, notes: list[str]
) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Class names 1..K, and labels uint8 (H, W): 0 background, 1..K, VOID."""
    path = _find_labels(folder, settings.labels)
    if path.suffix.lower() in RASTERS:
        codes = _codes_from_raster(path, grid)
    else:
        codes = _codes_from_parcels(path, settings.attribute or "crop_code", grid, notes)
    classes, where = settings.classes, "data.season.classes"
    if classes is None:
        legend = folder / "labels" / "legend.csv"
        classes, where = _read_legend(legend), str(legend)
    if 0 in classes:
        notes.append(f"{where}: code 0 is background, its name {classes[0]!r} is not used")
    classes = {code: name for code, name in sorted(classes.items()) if code and code not in settings.void_codes}
    if not classes:
        raise DataError(f"{where}: no class; give a name for at least one crop code of {path}")
    for code, name in classes.items():
        if name.strip() in ("", "background"):
            raise DataError(
                f"{where}: crop code {code} has the name {name!r}, but 'background' is the name of label 0 and a crop "
                f"needs one of its own; rename it, or add {code} to data.season.void_codes if its truth is unknown"
            )
    present, inverse = np.unique(codes, return_inverse=True)
    if settings.classes is None:
        # A legend may be a whole country's. Classes named in the configuration stay, so that seasons can share them.
        absent = [name for code, name in classes.items() if code not in present]
        if absent and len(absent) < len(classes):
            notes.append(f"{where}: {len(absent)} of {len(classes)} crops do not occur in the scene and are left out")
            classes = {code: name for code, name in classes.items() if code in present}
    # Codes that share a name are one class; it takes the place of its lowest code.
    names = tuple(dict.fromkeys(classes.values()))
    numbers = {code: names.index(name) + 1 for code, name in classes.items()}
    numbers |= {0: 0, OUTSIDE: VOID, **dict.fromkeys(settings.void_codes, VOID)}
    unknown = [int(code) for code in present if int(code) not in numbers]
    if unknown:
        raise DataError(
            f"{path}: crop codes {', '.join(map(str, unknown))} are in neither {where} nor data.season.void_codes; "
            f"name them there, or add them to void_codes if their truth is unknown"
        )
    if len(names) >= VOID:
        raise DataError(f"{where}: {len(names)} classes; at most {VOID - 1}, give codes of one crop the same name")
    labels = np.array([numbers[int(code)] for code in present], np.uint8)[inverse.reshape(codes.shape)]
    if (codes == OUTSIDE).any():
        share = (codes == OUTSIDE).mean()
        notes.append(f"{path.name} does not cover {share:.1%} of the scene: void there")
    return names, labels


def _find_labels(folder: Path, labels: str | None) -> Path:
    usual = ["labels/crop_type.tif", *(f"labels/parcels{suffix}" for suffix in VECTORS)]
    path = next((path for path in (folder / name for name in ([labels] if labels else usual)) if path.is_file()), None)
    if path is None:
        sought = labels or ", ".join(usual)
        raise DataError(
            f"{folder}: no labels, looked for {sought}; name a label raster or parcel layer by data.season.labels"
        )
    return path


def _read_legend(path: Path) -> dict[int, str]:
    """Crop code -> class name from a table with the columns code and name."""
    if not path.is_file():
        raise DataError(f"{path}: missing; write code,name lines there, or name the classes by data.season.classes")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8: byte {error.object[error.start]:#x} at position {error.start}; save it as UTF-8"
        ) from error
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        if not {"code", "name"} <= set(rows.fieldnames or ()):
            raise DataError(f"{path}, line 1: columns {rows.fieldnames}; expected the header code,name")
        classes: dict[int, str] = {}
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            code, name = (row["code"] or "").strip(), (row["name"] or "").strip()
            if not re.fullmatch(r"-?\d+", code):
                raise DataError(f"{where}: code {code!r} is not a whole number; expected for example 1200,maize")
            if not name:
                raise DataError(f"{where}: code {code} has no name; expected for example 1200,maize")
            if int(code) in classes:
                raise DataError(f"{where}: code {code} stands here a second time; name each code once")
            classes[int(code)] = name
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table: {error}; write code,name lines there") from error
    return classes


def _codes_from_raster(path: Path, grid: Grid) -> NDArray[np.int32]:
    """Codes int32 (H, W) on the grid, nearest; OUTSIDE where the raster has nodata (other than 0) or ends."""
    values, crs, transform, nodata = read_raster(path)
    if crs is None:
        raise DataError(f"{path}: no CRS; georeference it, for example with gdal_edit -a_srs EPSG:32631")
    # NaN is no code: it counts as nodata whatever the header says.
    outside = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if nodata is not None and nodata != 0:
        outside |= values == nodata
    values = np.where(outside, values.dtype.type(0), values)
    wrong = values[(values != np.rint(values)) | (values <= OUTSIDE) | (values > np.iinfo(np.int32).max)]
    if wrong.size:
        raise DataError(f"{path}: code {wrong[0]} is not a whole number of 32 bits; store crop codes as integers")
    codes = values.astype(np.int32)
    codes[outside] = OUTSIDE
    fitted: NDArray[np.int32] = fit_to_grid(codes, crs, transform, grid, nearest=True, fill=int(OUTSIDE))
    return fitted


def _codes_from_parcels(path: Path, attribute: str, grid: Grid, notes: list[str]) -> NDArray[np.int32]:
    """Codes int32 (H, W) of the parcels that contain a pixel's centre; 0 where there is none."""
    try:
        info = pyogrio.read_info(path)
        if info["crs"] is None:
            raise DataError(f"{path}: no CRS; name one in the file")
        # Drivers that cannot count say -1.
        if info["features"] == 0:
            raise DataError(f"{path}: the layer is empty; add parcels, or name another layer by data.season.labels")
        if attribute not in info["fields"]:
            raise DataError(
                f"{path}: no attribute {attribute!r}, it has {', '.join(info['fields']) or 'none'}; "
                f"name the one with the crop code by data.season.attribute"
            )
        crs = rasterio.crs.CRS.from_user_input(info["crs"])
        bounds = array_bounds(grid.height, grid.width, grid.transform)
        # A national layer has millions of parcels; only those on the scene are read.
        near = bounds if crs == grid.crs else transform_bounds(grid.crs, crs, *bounds)
        try:
            _, fids, outlines, (values,) = pyogrio.raw.read(path, columns=[attribute], bbox=near, return_fids=True)
        except pyogrio.errors.FeatureError:
            # A broken outline stops the search by place; read one by one, it is found below.
            _, fids, outlines, (values,) = pyogrio.raw.read(path, columns=[attribute], return_fids=True)
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        CPLE_BaseError,
        CRSError,
        RasterioError,
    ) as error:
        raise DataError(f"{path}: not a readable parcel layer: {error}; repair it or export it again") from error
    unplaced = 0
    parcels = []
    for fid, outline, value in zip(fids, outlines, values, strict=True):
        where = f"{path}, parcel {fid}"
        polygon = _outline(outline, where)
        if polygon is None or polygon.is_empty:
            continue
        if not np.isfinite(shapely.get_coordinates(polygon)).all():
            unplaced += 1
            continue
        geometry = shapely.geometry.mapping(polygon)
        if crs != grid.crs:
            try:
                geometry = transform_geom(crs, grid.crs, geometry)
            except CPLE_BaseError as error:
                raise DataError(
                    f"{where}: its coordinates {polygon.bounds} cannot be brought to {grid.crs.to_string()}: {error}; "
                    f"correct them or the CRS of the layer, or take this parcel out"
                ) from error
        parcels.append((geometry, _code(value, f"{where}: {attribute}")))
    if unplaced:
        notes.append(f"{unplaced} parcels of {path.name} have NaN or infinite coordinates and were left out")
    if not parcels:
        return np.zeros((grid.height, grid.width), np.int32)
    codes: NDArray[np.int32] = rasterize(
        parcels, out_shape=(grid.height, grid.width), transform=grid.transform, fill=0, dtype="int32"
    )
    return codes


def _outline(data: bytes | None, where: str) -> Any:
    """Geometry from WKB; one of NaN if its ring has NaN for both ends, which GEOS calls unclosed."""
    with np.errstate(invalid="ignore"):
        try:
            return shapely.from_wkb(data)
        except shapely.errors.GEOSException as error:
            # Any other unclosed ring can be closed.
            if "closed" in str(error) and shapely.from_wkb(data, on_invalid="fix") is None:
                return shapely.Point(math.nan, 0)
            raise DataError(
                f"{where}: invalid outline: {error}; close its rings and give each at least 4 points "
                f"(ogr2ogr -makevalid), or take this parcel out"
            ) from error


def _code(value: Any, where: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number.is_integer() or abs(number) >= -int(OUTSIDE):
        raise DataError(f"{where} is {value}; expected a whole number, give such parcels a code of their own")
    return int(number)
