"""A map folder as `exact map` leaves it, from an array."""

import json

import numpy as np
import rasterio
from rasterio.transform import from_origin

VOID = 255
CLASSES = ("background", "wheat", "maize")
TRANSFORM = from_origin(500_000, 5_600_000, 10, 10)
"""Pixels of 10 m in UTM zone 31 north, 3 degrees east."""


def write_map(folder, label, *, classes=CLASSES, confidence=None, crs="EPSG:32631", transform=TRANSFORM, block=16):
    folder.mkdir(parents=True, exist_ok=True)
    label = np.asarray(label, np.uint8)
    if confidence is None:
        confidence = np.where(label == VOID, VOID, 80)
    profile = {
        "driver": "GTiff",
        "height": label.shape[0],
        "width": label.shape[1],
        "count": 1,
        "dtype": "uint8",
        "nodata": VOID,
        "crs": crs,
        "transform": transform,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "compress": "deflate",
    }
    for name, values in (("class.tif", label), ("confidence.tif", confidence)):
        with rasterio.open(folder / name, "w", **profile) as file:
            file.write(np.asarray(values, np.uint8), 1)
    (folder / "map.json").write_text(json.dumps({"classes": dict.fromkeys(classes, "#112233")}))
    return folder
