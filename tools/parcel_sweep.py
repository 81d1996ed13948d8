"""Labels as they are made of parcels, against an independent rasterisation: for any folder of parcel files.

    python tools/parcel_sweep.py FOLDER ATTRIBUTE [--pixels 200] [--squares 5]

Of each file, squares of so many pixels of 10 m are taken in which parcels lie, in the UTM zone of the place. The codes
of their pixels by `exact_core.data.season.labels` are compared with those that follow from whether the pixel's centre
lies in a parcel (shapely, parcel by parcel, no raster library): pixels that differ must be 0. A centre on an outline,
to a millimetre, may go either way and is not counted. Files that cannot be read are named with the reason.

Not part of the tests: it needs files of somebody. A code that no legend names is a class of its own here.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.warp import transform

from exact_core.config import SeasonConfig
from exact_core.data.season.class_map import is_missing
from exact_core.data.season.labels import OVERLAP, UNCODED, LabelLayer, open_labels
from exact_core.data.season.rasters import Grid
from exact_core.data.vectors import VectorLayer, areas_of, open_layer
from exact_core.errors import ExactError

SUFFIXES = (".gpkg", ".geojson", ".fgb", ".shp", ".parquet", ".gml")
ON_OUTLINE = 1e-3
"""Metres."""


def squares(file: VectorLayer, count: int, pixels: int) -> Iterator[Grid]:
    """Grids around parcels that are drawn at random."""
    chosen = []
    for part in file.read():
        chosen += [outline for outline in part.outlines if outline is not None]
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(chosen))[:count]:
        middle = shapely.from_wkb(chosen[place]).envelope.centroid
        if middle.is_empty or not np.isfinite([middle.x, middle.y]).all():
            continue
        (lon,), (lat,) = transform(file.crs, "EPSG:4326", [middle.x], [middle.y])
        zone = min(60, int((lon + 180) // 6) + 1)
        crs = rasterio.crs.CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)
        (x,), (y,) = transform(file.crs, crs, [middle.x], [middle.y])
        left, top = (round(value / 20) * 20.0 + sign * 5 * pixels for value, sign in ((x, -1), (y, 1)))
        yield Grid(crs, from_origin(left, top, 10, 10), pixels, pixels, file.path)


def independent(
    layer: LabelLayer, file: VectorLayer, grid: Grid, attribute: str
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Codes (H, W) by centres in polygons, and where a centre is on an outline."""
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    xs, ys = grid.transform.c + 10 * cols, grid.transform.f - 10 * rows
    centres = shapely.points(xs.ravel(), ys.ravel())
    tree = shapely.STRtree(centres)
    codes = np.zeros(xs.size, np.int64)
    seen, edge = np.zeros(xs.size, bool), np.zeros(xs.size, bool)
    for part in file.read([attribute]):
        values = part.columns.column(attribute).to_pylist()
        for outline, value in zip(part.outlines, values, strict=True):
            if outline is None:
                continue
            area = areas_of(shapely.from_wkb(outline))
            if area.is_empty or not np.isfinite(shapely.get_coordinates(area)).all():
                continue
            moved = shapely.transform(area, lambda at: np.stack(transform(file.crs, grid.crs, at[:, 0], at[:, 1]), 1))
            if not np.isfinite(shapely.get_coordinates(moved)).all():
                continue
            code = int(UNCODED) if is_missing(value) else layer.class_map.number(value, where=str(file.path))
            inside = np.unique(tree.query(moved if moved.is_valid else areas_of(moved), predicate="intersects"))
            edge[tree.query(moved.boundary, predicate="dwithin", distance=ON_OUTLINE)] = True
            codes[inside] = np.where(seen[inside] & (codes[inside] != code), int(OVERLAP), code)
            seen[inside] = True
    return codes.reshape(xs.shape), edge.reshape(xs.shape)


def legend(file: VectorLayer, attribute: str, path: Path) -> None:
    """A class for every code."""
    found: dict[str, None] = {}
    for part in file.read([attribute]):
        for value in part.columns.column(attribute).to_pylist():
            if not is_missing(value):
                found[str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()] = None
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("code", "name"), *((code, f"crop {code}") for code in found if code != "0")])


def sweep(path: Path, attribute: str, count: int, pixels: int) -> tuple[int, int]:
    """Pixels compared, and how many differ."""
    file = open_layer(path, what="parcel layer")
    compared = different = 0
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "labels").mkdir()
        legend(file, attribute, Path(scratch) / "labels/legend.csv")
        layer = open_labels(Path(scratch), SeasonConfig(labels=str(path.resolve()), attribute=attribute), [])
        assert isinstance(layer, LabelLayer)
        for grid in squares(file, count, pixels):
            theirs, edge = independent(layer, file, grid, attribute)
            ours = layer.codes(grid, [])
            wrong = (ours != theirs) & ~edge
            compared += wrong.size
            different += int(wrong.sum())
    return compared, different


def main() -> int:
    """Sweep; 1 if a pixel differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("attribute")
    parser.add_argument("--pixels", type=int, default=200)
    parser.add_argument("--squares", type=int, default=5)
    asked = parser.parse_args()
    total = 0
    for path in sorted(each for each in asked.folder.rglob("*") if each.suffix.lower() in SUFFIXES):
        try:
            compared, different = sweep(path, asked.attribute, asked.squares, asked.pixels)
        except ExactError as error:
            print(f"{path.name}: refused: {error}")
            continue
        total += different
        print(f"{path.name}: {compared} pixels, {different} differ")
    print(f"pixels that differ: {total}")
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
