"""The static STAC catalogue of fetched images: items of local files, and last the collection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio
import shapely
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from exact_core.data.stac.items import RemoteItem
from exact_core.errors import DataError
from exact_core.files import publish_text

__all__ = ["write_catalogue"]

PLACED = ("proj:shape", "proj:transform", "proj:bbox", "proj:geometry", "proj:centroid")
"""Properties of the extent of the whole image, not of the part that was read."""
KEPT = ("title", "license", "providers", "keywords")
"""Fields of the collection that stay true of a part of it."""


def write_catalogue(out: Path, *, name: str, collection: dict[str, Any], items: Sequence[RemoteItem]) -> None:
    """Write an item beside each image's files, and the collection unless it says the same.

    Properties of the items stay: processing baseline, cloud cover, scale and offset of the bands among them.
    """
    boxes = [_write_item(out, item, name) for item in items]
    wests, souths, easts, norths = zip(*boxes, strict=True)
    document = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": f"Images of {collection['id']} over one area, read by exact fetch",
        "license": "proprietary",
        **{key: collection[key] for key in KEPT if key in collection},
        "extent": {
            "spatial": {"bbox": [[min(wests), min(souths), max(easts), max(norths)]]},
            "temporal": {"interval": [[_stamp(items[0]), _stamp(items[-1])]]},
        },
        "links": [
            {"rel": "root", "href": "./collection.json"},
            *({"rel": "item", "href": f"./{item.folder}/{item.folder}.json"} for item in items),
        ],
    }
    path = out / "collection.json"
    text = json.dumps(document, indent=1)
    if not (path.exists() and path.read_text(encoding="utf-8") == text):
        publish_text(path, text)


def _write_item(out: Path, item: RemoteItem, collection: str) -> tuple[float, float, float, float]:
    """Write an item. Returns its bounds in degrees."""
    assets: dict[str, Any] = {}
    box = (0.0, 0.0, 0.0, 0.0)
    for band, asset in item.assets.items():
        path = out / item.folder / f"{band}.tif"
        try:
            with rasterio.open(path) as file:
                box = tuple(round(edge, 7) for edge in transform_bounds(file.crs, "EPSG:4326", *file.bounds))
                assets[band] = {
                    **asset.fields,
                    "href": f"./{band}.tif",
                    "type": "image/tiff; application=geotiff",
                    "eo:bands": [{**_first(asset.fields.get("eo:bands")), "name": band}],
                    "proj:shape": [file.height, file.width],
                    "proj:transform": list(file.transform)[:6],
                }
        except RasterioError as error:
            raise DataError(f"{path}: written, but not readable: {error}. Delete it and fetch again") from error
        if "bands" in asset.fields:
            assets[band]["bands"] = [{**_first(asset.fields["bands"]), "name": band}]
    extensions = item.raw.get("stac_extensions")
    document = {
        "type": "Feature",
        "stac_version": item.raw.get("stac_version") if item.raw.get("stac_version") in ("1.0.0", "1.1.0") else "1.0.0",
        "stac_extensions": [text for text in extensions if isinstance(text, str)]
        if isinstance(extensions, list)
        else [],
        "id": item.id,
        "geometry": shapely.box(*box).__geo_interface__,
        "bbox": list(box),
        "properties": {key: value for key, value in item.raw["properties"].items() if key not in PLACED},
        "collection": collection,
        "links": [{"rel": rel, "href": "../collection.json"} for rel in ("root", "parent", "collection")],
        "assets": assets,
    }
    publish_text(out / item.folder / f"{item.folder}.json", json.dumps(document, indent=1))
    return box


def _first(listed: Any) -> dict[str, Any]:
    return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}


def _stamp(item: RemoteItem) -> str:
    return item.moment.isoformat()
