"""Layers as the field stores them: the same outlines and codes come out of each, and what cannot be read says why."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely

from exact_core.data.vectors import open_layer
from exact_core.errors import DataError

BOXES = np.array([shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10).difference(shapely.box(22, 2, 25, 5)), None])
CODES = [3301010600, None, 3302000000]


def write(path: Path, outlines: Any = BOXES, *, layer: str | None = None, append: bool = False, **options: Any) -> Path:
    """A layer by GDAL, with the column `code` of text."""
    options = {"crs": "EPSG:32631", "geometry_type": "Unknown", **options}
    wkb = np.array([None if each is None else shapely.to_wkb(each) for each in outlines], object)
    codes = np.array([f"c{number}" for number in range(len(outlines))], object)
    pyogrio.raw.write(path, wkb, [codes], ["code"], layer=layer, append=append, **options)
    return path


def write_parquet(path: Path, column: Any, *, encoding: str = "WKB", **stated: Any) -> Path:
    """GeoParquet by its specification (1.1.0), written by hand: without `crs` it is longitude and latitude."""
    geo = {
        "version": "1.1.0",
        "primary_column": "outline",
        "columns": {"outline": {"encoding": encoding, "geometry_types": [], **stated}},
    }
    table = pa.table({"code": pa.array(CODES, pa.int64()), "outline": column})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return path


def wkb() -> Any:
    return pa.array([None if each is None else shapely.to_wkb(each) for each in BOXES], pa.binary())


def nested(kind: str) -> Any:
    """The boxes in the native encoding of polygons, or of multipolygons of one part each."""
    axes = "xy"
    found: list[Any] = []
    for each in BOXES:
        rings = None if each is None else [each.exterior, *each.interiors]
        polygon = rings and [[dict(zip(axes, place, strict=True)) for place in ring.coords] for ring in rings]
        found.append(polygon if kind == "polygon" or polygon is None else [polygon])
    depth = pa.list_(pa.list_(pa.struct([(axis, pa.float64()) for axis in axes])))
    return pa.array(found, depth if kind == "polygon" else pa.list_(depth))


@pytest.mark.parametrize("encoding", ["WKB", "polygon", "multipolygon"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_geoparquet(tmp_path: Path, encoding: str, size: int) -> None:
    path = write_parquet(tmp_path / "a.parquet", wkb() if encoding == "WKB" else nested(encoding), encoding=encoding)
    layer = open_layer(path, what="parcel layer")
    assert layer.fields == ("code",)
    parts = list(layer.read(["code"], size=size))
    assert [len(part.outlines) for part in parts] == {1: [1, 1, 1], 2: [2, 1], 3: [3]}[size]
    outlines = shapely.from_wkb(np.concatenate([part.outlines for part in parts]))
    assert outlines[2] is None
    assert shapely.equals(outlines[:2], BOXES[:2]).all()
    assert [code for part in parts for code in part.columns["code"].to_pylist()] == CODES
    assert [number for part in parts for number in part.identities.to_pylist()] == [0, 1, 2]


def test_the_crs_of_geoparquet(tmp_path: Path) -> None:
    utm = rasterio.crs.CRS.from_epsg(32631)
    for stated, expected in (
        ({}, rasterio.crs.CRS.from_string("OGC:CRS84")),
        ({"crs": None}, None),
        ({"crs": utm.to_dict(projjson=True)}, utm),
    ):
        assert open_layer(write_parquet(tmp_path / "a.parquet", wkb(), **stated), what="layer").crs == expected


def test_only_what_is_near_is_read(tmp_path: Path) -> None:
    near = (15.0, -5.0, 40.0, 5.0)
    for path in (write_parquet(tmp_path / "a.parquet", wkb()), write(tmp_path / "a.gpkg")):
        (part,) = open_layer(path, what="layer").read(["code"], near=near)
        assert shapely.equals(shapely.from_wkb(part.outlines), BOXES[1:2]).all()


@pytest.mark.parametrize("suffix", ["parquet", "gpkg"])
def test_near_the_180th_meridian_both_sides_are_read(tmp_path: Path, suffix: str) -> None:
    """Of a box that a UTM grid has there: features at 179.9, at -179.9, at 180.1, once each, and none of elsewhere."""
    outlines = [shapely.box(west, -40, west + 0.05, -39.95) for west in (179.9, -179.9, 180.1, 0.0, 100.0)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "gpkg":
        write(path, outlines, crs="EPSG:4326")
    else:
        geo = {"version": "1.1.0", "primary_column": "outline", "columns": {"outline": {"encoding": "WKB"}}}
        table = pa.table({"code": ["a"] * 5, "outline": pa.array(map(shapely.to_wkb, outlines), pa.binary())})
        pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    parts = open_layer(path, what="layer").read(["code"], near=(179.8, -41, -179.8, -39))
    found = shapely.from_wkb(np.concatenate([part.outlines for part in parts]))
    assert sorted(shapely.bounds(found)[:, 0]) == [-179.9, 179.9, 180.1]


def test_parquet_that_is_none_of_geo(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"code": [1]}), path)
    for content, words in (
        (None, "a Parquet table, but no GeoParquet"),
        (b"junk", "not a readable parcel layer"),
    ):
        if content:
            path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            open_layer(path, what="parcel layer")
    write_parquet(path, wkb(), encoding="geoarrow.box")
    with pytest.raises(DataError, match="encoding 'geoarrow.box', expected WKB or one of"):
        open_layer(path, what="parcel layer")
    with pytest.raises(DataError, match="has no layers. Leave |layername=b out"):
        open_layer(f"{path}|layername=b", what="parcel layer")


def test_of_several_layers_one_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", BOXES[:1], layer="y2022")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.raw.write(path, None, [np.array(["x"], object)], ["style"], layer="layer_styles", append=True)
    # A table without outlines beside it is no second layer.
    assert open_layer(path, what="layer").name == "y2022"
    write(path, BOXES[1:2], layer="y2023", append=True)
    with pytest.raises(DataError, match=r"a.gpkg: 2 layers, 'y2022', 'y2023'. Name one, as 'a.gpkg\|layername=y2022'"):
        open_layer(path, what="layer")
    with pytest.raises(DataError, match="no layer 'y2024', it has 'y2022', 'y2023', 'layer_styles'. Name one of these"):
        open_layer(f"{path}|layername=y2024", what="layer")
    for name, expected in (("y2022", BOXES[0]), ("y2023", BOXES[1])):
        (part,) = open_layer(f"{path}|layername={name}", what="layer").read()
        assert shapely.equals(shapely.from_wkb(part.outlines[0]), expected)


def test_curves_are_read_as_lines(tmp_path: Path) -> None:
    """A circle of radius 10 by two arcs: its area to the 4 degrees that GDAL steps arcs by, 0.1 %."""
    arcs = [(0, 0), (10, 10), (20, 0), (10, -10), (0, 0)]
    ring = struct.pack("<BII", 1, 8, len(arcs)) + b"".join(struct.pack("<dd", *place) for place in arcs)
    circle = struct.pack("<BII", 1, 10, 1) + ring
    geometry = np.array([shapely.to_wkb(BOXES[0]), circle, None], object)
    names = np.array(["box", "circle", "none"], object)
    path = tmp_path / "a.gpkg"
    pyogrio.raw.write(path, geometry, [names], ["code"], crs="EPSG:32631", geometry_type="Unknown")
    (part,) = open_layer(path, what="layer").read(["code"])
    outlines = shapely.from_wkb(part.outlines)
    assert shapely.equals(outlines[0], BOXES[0])
    assert outlines[1].area == pytest.approx(np.pi * 100, rel=1e-3)
    assert outlines[2] is None


def test_text_that_is_not_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    geometry = np.array([shapely.to_wkb(BOXES[0])], object)
    text = np.array(["Ma\u00efs"], object)
    options = {"crs": "EPSG:32631", "geometry_type": "Polygon", "encoding": "ISO-8859-1"}
    pyogrio.raw.write(path, geometry, [text], ["code"], **options)
    (part,) = open_layer(path, what="layer").read(["code"])
    assert part.columns["code"].to_pylist() == ["Ma\u00efs"]
    path.with_suffix(".cpg").write_text("UTF-8")
    with pytest.raises(DataError, match=r"a.shp: attribute 'code' is not UTF-8, as .*a.cpg says. Write the encoding"):
        list(open_layer(path, what="layer").read(["code"]))
    path.with_suffix(".cpg").unlink()
    with pytest.raises(DataError, match=r"'code' is not UTF-8, and .*a.cpg is missing. Write the encoding"):
        list(open_layer(path, what="layer").read(["code"]))
    path.with_suffix(".cpg").write_text("ISO-8859-1")
    (part,) = open_layer(path, what="layer").read(["code"])
    assert part.columns["code"].to_pylist() == ["Ma\u00efs"]
