"""Generated seasons of any size, and the memory of a process, for the benchmarks that need them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

__all__ = ["BANDS", "generate", "label", "peak_gib"]

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
DISTINCT = 2
"""Dates that are generated."""


def generate(folder: Path, *, width: int, rows: int, dates: int, block: int) -> None:
    """Rasters of fields of 32 pixels, each with a course of its own over the year."""
    rng = np.random.default_rng(0)
    days = [folder / f"S2_2021{4 + number // 4:02d}{1 + 7 * (number % 4):02d}" for number in range(dates)]
    for number, day in enumerate(days):
        day.mkdir(parents=True)
        for band in BANDS:
            if number < DISTINCT:
                pixel = 2 if band in COARSE else 1
                _write_band(rng, day / f"{band}.tif", rows // pixel, width // pixel, block=block, pixel=pixel)
            else:
                os.link(days[number % DISTINCT] / f"{band}.tif", day / f"{band}.tif")


def _write_band(rng: np.random.Generator, path: Path, height: int, width: int, *, block: int, pixel: int) -> None:
    """A band, a row of blocks in memory at a time; `pixel` is its size in pixels of the finest band."""
    side = 32 // pixel
    fields = rng.integers(200, 5000, (height // side + 1, width // side + 1), np.uint16)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint16", "nodata": 0}
    tiles = {"tiled": True, "compress": "deflate", "zlevel": 1, "blockxsize": block, "blockysize": block}
    transform = Affine(10 * pixel, 0, 500_000, 0, -10 * pixel, 5_600_000)
    with rasterio.open(path, "w", **profile, **tiles, crs="EPSG:32631", transform=transform) as file:
        for first in range(0, height, block):
            row = np.arange(first, min(first + block, height)) // side
            values = fields[row].repeat(side, 1)[:, :width]
            values += rng.integers(0, 50, values.shape, np.uint16)
            file.write(values, 1, window=Window(0, first, width, len(row)))


def label(folder: Path, *, width: int, rows: int) -> None:
    """Crop codes of the same fields, and their legend."""
    (folder / "labels").mkdir()
    crops = range(1, 7)
    legend = "".join(f"{code},crop {code}\n" for code in crops)
    (folder / "labels/legend.csv").write_text(f"code,name\n{legend}", encoding="utf-8")
    fields = np.random.default_rng(1).integers(0, len(crops) + 1, (rows // 32 + 1, width // 32 + 1), np.uint8)
    codes = fields.repeat(32, 0)[:rows].repeat(32, 1)[:, :width]
    profile = {"driver": "GTiff", "height": rows, "width": width, "count": 1, "dtype": "uint8", "compress": "deflate"}
    place = Affine(10, 0, 500_000, 0, -10, 5_600_000)
    with rasterio.open(folder / "labels/crop_type.tif", "w", **profile, crs="EPSG:32631", transform=place) as file:
        file.write(codes, 1)


def peak_gib() -> float:
    """Most resident memory of this process so far; `getrusage` would count that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20
