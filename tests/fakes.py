"""Small datasets in the layouts of the real ones; every value follows from a stated formula.

PASTIS: pixel of patch p at array position t, band c, row i, column j
    1000 + 100 p + 20 t + 2 c + (i + j) % 2                        (`pastis_pixel`)
label of a pixel
    0 in the first 8 rows, else 1 + (j // 8) % K                   (`stripes`)
patch p has the upper left corner (600000 + 5000 p, 6800000) and pixels of 10 m.

Season: pixel of date t, band c
    10 m bands:  1000 + 50 t + 5 c + j % 3
    20 m bands:  1000 + 50 t + 5 c + 40 x, x the column of the 20 m pixel; a ramp, whose bilinear value at 10 m is
                 1000 + 50 t + 5 c + 20 j - 10, held at the first and last centre (`season_pixel`)
crop codes: 0 in the first 8 rows, else 100 in the left half and 200 in the right half (`halves`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.warp
from rasterio.transform import Affine

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
PASTIS_TOP, PASTIS_LEFT = 6_800_000.0, 600_000.0
SEASON_LEFT, SEASON_TOP = 500_000.0, 5_600_000.0
# Across a new year, and not in the order of the calendar.
PASTIS_DATES = (20181105, 20190210, 20181220, 20190102)
SEASON_DATES = ("20180401", "20180411", "20180421", "20180501")


def pastis_pixel(patch: int, position: int, size: int) -> np.ndarray[Any, Any]:
    """Image (10, H, W) of a patch at one position of its array."""
    c, i, j = np.ogrid[:10, :size, :size]
    return (1000 + 100 * patch + 20 * position + 2 * c + (i + j) % 2).astype(np.int16)


def stripes(size: int, classes: int) -> np.ndarray[Any, Any]:
    """Labels (H, W): crops in vertical stripes of 8 pixels under 8 rows of background."""
    i, j = np.ogrid[:size, :size]
    return np.where(i < 8, 0, 1 + (j // 8) % classes).astype(np.uint8)


def write_pastis(
    root: Path,
    *,
    patches: int = 5,
    size: int = 48,
    classes: int = 18,
    dates: Sequence[int] = PASTIS_DATES,
    folds: Sequence[int] = (1, 2, 3, 4, 5),
    labels: np.ndarray[Any, Any] | None = None,
    change: Callable[[int, np.ndarray[Any, Any]], np.ndarray[Any, Any]] | None = None,
    dates_as_text: bool = False,
    crs: str | None = "urn:ogc:def:crs:EPSG::2154",
) -> Path:
    """A PASTIS folder; patch p has ID 10000 + p and fold folds[p % len(folds)]. `change` edits an image array."""
    (root / "DATA_S2").mkdir(parents=True)
    (root / "ANNOTATIONS").mkdir()
    features = []
    for patch in range(patches):
        number = 10_000 + patch
        images = np.stack([pastis_pixel(patch, position, size) for position in range(len(dates))])
        np.save(root / f"DATA_S2/S2_{number}.npy", change(patch, images) if change else images)
        target = np.zeros((3, size, size), np.uint8)
        target[0] = stripes(size, classes) if labels is None else labels
        np.save(root / f"ANNOTATIONS/TARGET_{number}.npy", target)
        left, top, extent = PASTIS_LEFT + 5000 * patch, PASTIS_TOP, 10.0 * size
        corners = [(left, top), (left + extent, top), (left + extent, top - extent), (left, top - extent), (left, top)]
        table: Any = {str(position): date for position, date in enumerate(dates)}
        features.append(
            {
                "type": "Feature",
                "properties": {
                    "ID_PATCH": number,
                    "Fold": folds[patch % len(folds)],
                    "dates-S2": json.dumps(table) if dates_as_text else table,
                },
                "geometry": {"type": "MultiPolygon", "coordinates": [[corners]]},
            }
        )
    collection: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs:
        collection["crs"] = {"type": "name", "properties": {"name": crs}}
    (root / "metadata.geojson").write_text(json.dumps(collection), encoding="utf-8")
    return root


def halves(height: int, width: int) -> np.ndarray[Any, Any]:
    """Crop codes (H, W): 100 left, 200 right, under 8 rows without a parcel."""
    i, j = np.ogrid[:height, :width]
    return np.where(i < 8, 0, np.where(j < width // 2, 100, 200)).astype(np.uint16)


def season_pixel(date: int, band: str, height: int, width: int) -> np.ndarray[Any, Any]:
    """What band `band` of date number `date` is on the 10 m grid (H, W)."""
    base = 1000 + 50 * date + 5 * BANDS.index(band)
    j = np.arange(width)
    row = np.clip(20 * j - 10, 0, 20 * width - 40) if band in COARSE else j % 3
    return np.broadcast_to(base + row, (height, width)).astype(np.int64)


def write_raster(
    path: Path,
    values: np.ndarray[Any, Any],
    *,
    pixel: float = 10.0,
    crs: str = "EPSG:32631",
    left: float = SEASON_LEFT,
    top: float = SEASON_TOP,
    nodata: float | None = 0,
) -> None:
    """A one-band GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    profile = {"driver": "GTiff", "dtype": values.dtype, "count": 1, "height": height, "width": width}
    transform = Affine(pixel, 0, left, 0, -pixel, top)
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=nodata) as file:
        file.write(values, 1)


def write_season(
    root: Path,
    *,
    size: tuple[int, int] = (32, 32),
    dates: Sequence[str] = SEASON_DATES,
    layout: str = "folders",
    scl: Callable[[int], np.ndarray[Any, Any]] | None = None,
    codes: np.ndarray[Any, Any] | None = None,
    legend: str | None = "code,name\n100,wheat\n200,maize\n",
    change: Callable[[int, str, np.ndarray[Any, Any]], np.ndarray[Any, Any]] | None = None,
    labels: bool = True,
) -> Path:
    """A season folder in the layout 'folders', 'flat' or 'stac'.

    `scl` gives the classes (H/2, W/2) of a date; `change` edits the values of (date, band) before they are written.
    """
    height, width = size
    items: list[tuple[str, str, dict[str, Path]]] = []
    for number, date in enumerate(dates):
        name = f"S2_{date}"
        files: dict[str, Path] = {}
        for band in (*BANDS, *(["SCL"] if scl else [])):
            coarse = band in COARSE or band == "SCL"
            if band == "SCL" and scl is not None:
                values = scl(number).astype(np.uint8)
            elif coarse:
                ramp = 1000 + 50 * number + 5 * BANDS.index(band) + 40 * np.arange(width // 2)
                values = np.broadcast_to(ramp, (height // 2, width // 2)).astype(np.uint16)
            else:
                values = season_pixel(number, band, height, width).astype(np.uint16)
            values = change(number, band, values) if change else values
            suffix = "_20m" if coarse else ""
            files[band] = root / (f"{name}_{band}{suffix}.tif" if layout == "flat" else f"{name}/{band}.tif")
            write_raster(files[band], values, pixel=20.0 if coarse else 10.0)
        items.append((name, date, files))
    if layout == "stac":
        _write_catalogue(root, items)
    if labels:
        write_raster(root / "labels/crop_type.tif", halves(height, width) if codes is None else codes)
    if legend is not None:
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels/legend.csv").write_text(legend, encoding="utf-8")
    return root


def _write_catalogue(root: Path, items: Sequence[tuple[str, str, Mapping[str, Path]]]) -> None:
    for name, date, files in items:
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "geometry": None,
            "properties": {"datetime": f"{date[:4]}-{date[4:6]}-{date[6:]}T10:50:00Z"},
            "links": [],
            "assets": {band: {"href": f"./{path.name}"} for band, path in files.items()},
        }
        (root / name / f"{name}.json").write_text(json.dumps(item), encoding="utf-8")
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "fake",
        "description": "A generated season",
        "license": "other",
        "extent": {"spatial": {"bbox": [[3, 50, 4, 51]]}, "temporal": {"interval": [[None, None]]}},
        "links": [{"rel": "item", "href": f"./{name}/{name}.json"} for name, _, _ in items],
    }
    (root / "collection.json").write_text(json.dumps(collection), encoding="utf-8")


def write_parcels(
    path: Path, parcels: Sequence[tuple[int, tuple[float, float, float, float]]], *, crs: str = "EPSG:32631"
) -> None:
    """GeoJSON of rectangles (left, bottom, right, top) in metres of EPSG:32631, written in `crs`."""
    features = []
    for code, (left, bottom, right, top) in parcels:
        ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        outline: Any = {"type": "Polygon", "coordinates": [ring]}
        if crs != "EPSG:32631":
            outline = rasterio.warp.transform_geom("EPSG:32631", crs, outline)
        features.append({"type": "Feature", "properties": {"crop_code": code}, "geometry": outline})
    name = f"urn:ogc:def:crs:{crs.replace(':', '::')}"
    collection = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": name}},
        "features": features,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(collection), encoding="utf-8")
