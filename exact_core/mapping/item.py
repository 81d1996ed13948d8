"""The STAC item of a map: STAC 1.1 with the projection, raster and classification extensions."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import shapely
from rasterio.transform import Affine
from rasterio.warp import transform as transform_places

from exact_core.data.lonlat import box_of, cut_at_180, unwrapped
from exact_core.data.windows.dataset import VOID
from exact_core.files import file_facts, publish_text
from exact_core.mapping.cogs import CLASS, CONFIDENCE, PROBABILITIES, MapRecord
from exact_core.undefined import to_json

__all__ = ["POLYGONS", "QUICKLOOK", "TRUE_COLOUR", "slug", "write_item"]

QUICKLOOK, TRUE_COLOUR = "quicklook.png", "true_colour.png"
"""The map with scale and legend, and the images of its area. An older map may have no picture of the images."""

POLYGONS = "polygons.gpkg"
"""The fields, where they were asked for."""

CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
PERCENT = {"data_type": "uint8", "nodata": VOID, "unit": "%", "raster:scale": 1, "raster:offset": 0}


def write_item(record: MapRecord, out: Path) -> None:
    """Write item.json beside the files of a map."""
    transform = Affine(*record.transform)
    crs, code = record.rasterio_crs, record.rasterio_crs.to_epsg()
    corners = [
        transform @ place for place in ((0, 0), (0, record.height), (record.width, record.height), (record.width, 0))
    ]
    lon, lat = transform_places(crs, "EPSG:4326", *zip(*corners, strict=True))
    outline = unwrapped(shapely.Polygon(np.round(np.column_stack([lon, lat]), 7)))
    first = dt.datetime.combine(record.season_start, dt.time(), dt.UTC)
    projection: dict[str, Any] = {"proj:code": f"EPSG:{code}"} if code else {"proj:code": None, "proj:wkt2": record.crs}
    item = pystac.Item(
        id=f"crop-map-{record.name}-{record.season_start}{f'-until-{record.until}' if record.until else ''}",
        geometry=shapely.geometry.mapping(cut_at_180(outline)),
        bbox=box_of(outline),
        datetime=None,
        start_datetime=first,
        end_datetime=_end(record, first),
        properties={
            **projection,
            "proj:shape": [record.height, record.width],
            "proj:transform": list(transform)[:9],
        },
        stac_extensions=[PROJECTION, RASTER, CLASSIFICATION, FILE],
    )
    for name, title, bands in _assets(record):
        item.add_asset(
            name.removesuffix(".tif"),
            pystac.Asset(
                f"./{name}",
                title=title,
                media_type=pystac.MediaType.COG,
                roles=["data"],
                extra_fields={"bands": [{**_sampling(transform, metres=crs.is_projected), **each} for each in bands]},
            ),
        )
    for role, name, title in (
        ("thumbnail", QUICKLOOK, "Crop map with scale and legend"),
        ("overview", TRUE_COLOUR, "Sentinel-2, true colour"),
    ):
        if (out / name).is_file():
            item.add_asset(role, pystac.Asset(f"./{name}", title=title, media_type=pystac.MediaType.PNG, roles=[role]))
    if (out / POLYGONS).is_file():
        item.add_asset(
            "polygons",
            pystac.Asset(f"./{POLYGONS}", title="Fields", media_type=pystac.MediaType.GEOPACKAGE, roles=["data"]),
        )
    for asset in item.assets.values():
        facts = file_facts(out / asset.href)
        # A multihash: 0x12 is SHA-256, 0x20 its length (https://github.com/multiformats/multihash).
        asset.extra_fields |= {"file:size": facts["bytes"], "file:checksum": f"1220{facts['sha256']}"}
    content: dict[str, Any] = item.to_dict(include_self_link=False)
    publish_text(out / "item.json", to_json(content))


def _end(record: MapRecord, first: dt.datetime) -> dt.datetime:
    """The end of the season, or of the last day whose images were used."""
    whole = first + dt.timedelta(days=record.season_days)
    if record.until is None:
        return whole
    return min(whole, dt.datetime.combine(record.until, dt.time(), dt.UTC) + dt.timedelta(days=1))


def _assets(record: MapRecord) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """File, title and bands of each raster."""
    classes = [
        {"value": number, "name": slug(name), "title": name, "color_hint": colour.lstrip("#").upper()}
        for number, (name, colour) in enumerate(zip(record.names, record.colours, strict=True))
    ]
    label = {"name": "class", "data_type": "uint8", "nodata": VOID, "classification:classes": classes}
    temperature = record.calibration.temperature
    how = "not calibrated" if temperature is None else f"calibrated at temperature {temperature:.3f}"
    found = [
        (CLASS, "Crop class", [label]),
        (CONFIDENCE, f"Probability of the class, percent, {how}", [{"name": "confidence", **PERCENT}]),
    ]
    if record.probabilities:
        bands = [{"name": slug(name), "description": name, **PERCENT} for name in record.names]
        found.append((PROBABILITIES, f"Probability of each class, percent, {how}", bands))
    return found


def _sampling(transform: Any, *, metres: bool) -> dict[str, Any]:
    """What a value of a band stands for. The resolution where it has a unit of length."""
    return {"raster:sampling": "area", **({"raster:spatial_resolution": abs(transform.a)} if metres else {})}


def slug(name: str) -> str:
    """A name as the classification extension requires it, with letters, digits, _ and - only."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
