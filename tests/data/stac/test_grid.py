"""Areas, zones and cells: worked out by hand, or counted."""

from __future__ import annotations

import datetime as dt
import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine
from rasterio.warp import transform

from exact_core.data.stac.grid import Cell, area_of, bounds_in, cells, choose_crs, crop
from exact_core.data.stac.items import RemoteItem
from exact_core.data.stac.window_copy import window_of
from exact_core.errors import ConfigError, DataError, ExactError


def remote(name: str, west: float, east: float) -> RemoteItem:
    return RemoteItem(
        id=name,
        folder=name,
        moment=dt.datetime(2018, 4, 1, tzinfo=dt.UTC),
        geometry=shapely.box(west, 50, east, 51),
        crs=None,
        extent=None,
        tile="",
        updated="",
        baseline="",
        cloud=None,
        assets={},
        raw={},
    )


def test_bounds_go_outwards_to_20_m() -> None:
    # 3 degrees east is the middle of zone 31: 500000 m; a degree there is 111.3 km long at the equator.
    left, bottom, right, top = bounds_in(area_of(bbox=(3.0, 50.0, 3.01, 50.01)), "EPSG:32631")
    assert left == 500_000
    assert [edge % 20 for edge in (left, bottom, right, top)] == [0, 0, 0, 0]
    xs, ys = transform("EPSG:4326", "EPSG:32631", [3.01, 3.0], [50.0, 50.01])
    assert 0 <= right - xs[0] < 20
    assert 0 <= top - ys[1] < 45  # the upper edge is a curve that rises to the right


def test_a_large_area_bulges_beyond_its_corners() -> None:
    _, bottom, _, _ = bounds_in(area_of(bbox=(0.0, 50.0, 6.0, 51.0)), "EPSG:32631")
    _, ys = transform("EPSG:4326", "EPSG:32631", [0.0, 3.0], [50.0, 50.0])
    assert bottom <= ys[1] < ys[0] - 4_000


def test_what_images_reach() -> None:
    window = (0.0, 0.0, 100.0, 100.0)
    assert crop(window, [(-50, 20, 60, 300), (10, 40, 80, 90)]) == (0, 20, 80, 100)


def test_the_zone_that_covers_most() -> None:
    area = shapely.box(5, 50, 7, 51)
    items = [
        (remote("a", 4, 6.2), "EPSG:32631"),
        (remote("b", 5.9, 8), "EPSG:32632"),
        (remote("c", 5.9, 8), "EPSG:32632"),
    ]
    chosen, note = choose_crs(items, area)
    assert chosen == "EPSG:32631"
    assert "1 images in EPSG:32631 cover 60% of the area. Others were left out: 2 in EPSG:32632 (55%)" in note
    # Covered alike: the one with more images.
    both = [
        (remote("a", 4, 8), "EPSG:32631"),
        *((item, crs) for item, crs in [(remote(n, 4, 8), "EPSG:32632") for n in "bc"]),
    ]
    assert choose_crs(both, area)[0] == "EPSG:32632"
    assert choose_crs(items[:1], area) == ("EPSG:32631", "")


@pytest.mark.parametrize(
    ("place", "zones"),
    [
        ((2.0, 50.0, 2.05, 50.05), {"EPSG:32631"}),
        ((5.97, 50.0, 6.03, 50.03), {"EPSG:32631", "EPSG:32632"}),
        ((4.0, 60.0, 4.05, 60.02), {"EPSG:32632"}),  # Norway: 32V reaches to 3 degrees
        ((20.0, 78.0, 20.05, 78.01), {"EPSG:32633"}),  # Svalbard: 33X reaches to 21 degrees
        ((-58.02, -0.01, -57.98, 0.01), {"EPSG:32621", "EPSG:32721"}),
        ((179.95, 1.0, 180.0, 1.02), {"EPSG:32660"}),
    ],
)
def test_cells_cover_the_area_and_follow_the_zones(place: tuple[float, ...], zones: set[str]) -> None:
    area = area_of(bbox=place)
    found = list(cells(area, 1000))
    assert {cell.crs for cell in found} == zones
    assert len({cell.name for cell in found}) == len(found)
    left_over = shapely.difference(area, shapely.union_all([cell.geometry for cell in found]))
    assert left_over.area < 1e-6 * area.area
    for cell in found:
        assert all(edge % 1000 == 0 for edge in cell.bounds)
        assert (cell.bounds[2] - cell.bounds[0], cell.bounds[3] - cell.bounds[1]) == (1000, 1000)
    if len(zones) == 1:
        # No more than the area and its border need.
        _, bottom, right, top = bounds_in(area, found[0].crs)
        left = bounds_in(area, found[0].crs)[0]
        assert len(found) <= (math.ceil((right - left) / 1000) + 1) * (math.ceil((top - bottom) / 1000) + 1)


def test_cells_come_one_at_a_time() -> None:
    first = next(iter(cells(area_of(bbox=(-10, 40, 30, 60)), 10240)))
    assert isinstance(first, Cell)
    assert first.crs == "EPSG:32629"


def test_an_outline_has_only_the_cells_it_touches() -> None:
    triangle = shapely.Polygon([(3.0, 50.0), (3.1, 50.0), (3.0, 50.1)])
    assert 0.45 < len(list(cells(triangle, 500))) / len(list(cells(shapely.box(*triangle.bounds), 500))) < 0.65


@pytest.mark.parametrize("bounds", [(500_005, 5_599_990, 500_015, 5_599_995), (500_000, 5_599_980, 500_020, 5_600_000)])
def test_pixels_that_bounds_touch(tmp_path: Path, bounds: tuple[float, float, float, float]) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 4, "width": 4, "crs": "EPSG:32631"}
    with rasterio.open(path, "w", **profile, transform=Affine(10, 0, 500_000, 0, -10, 5_600_000)) as file:
        file.write(np.zeros((4, 4), np.uint8), 1)
    with rasterio.open(path) as file:
        window = window_of(file, bounds)
    expected = (0, 0, 2, 1) if bounds[0] % 10 else (0, 0, 2, 2)
    assert (window.col_off, window.row_off, window.width, window.height) == expected


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ((10, 0, 5, 1), "west < east"),
        ((170, 0, 190, 1), "Cut an area across the 180th meridian in two"),
        ((0, 1, 1, 1), "south < north"),
        ((0, 0, math.nan, 1), "expected WEST SOUTH EAST NORTH"),
    ],
)
def test_a_box_that_is_none(bbox: tuple[float, ...], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        area_of(bbox=bbox)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '"x"',
        '{"type": "Point", "coordinates": [1, 2]}',
        '{"type": "Polygon", "coordinates": [[]]}',
        '{"type": "FeatureCollection", "features": [1]}',
        '{"type": "Polygon", "coordinates": [[[500000, 1], [500100, 1], [500000, 9], [500000, 1]]]}',
    ],
)
def test_a_file_without_an_area(tmp_path: Path, text: str) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(text)
    with pytest.raises(DataError, match=r"area\.geojson: "):
        area_of(file=path)


def test_an_area_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    shape = shapely.box(3, 50, 4, 51).__geo_interface__
    other = shapely.box(4, 50, 5, 51).__geo_interface__
    for document in (shape, {"type": "Feature", "geometry": shape, "properties": {}}):
        path.write_text(json.dumps(document))
        assert area_of(file=path).bounds == (3, 50, 4, 51)
    features = [{"type": "Feature", "geometry": each, "properties": None} for each in (shape, other)]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert area_of(file=path).bounds == (3, 50, 5, 51)
    with pytest.raises(DataError, match="No such file"):
        area_of(file=tmp_path / "none")
    with pytest.raises(ExactError, match="give one of --bbox"):
        area_of(bbox=(0, 0, 1, 1), file=path)
