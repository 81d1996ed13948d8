"""Parcel layers as they are downloaded: long codes, no codes, other encodings, other sides of the 180th meridian.

The season of tests/fakes.py with parcels in the place of its raster: the left 160 m and the right 160 m of the scene.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio import warp
from rasterio.transform import from_origin

from exact_core.config import SeasonConfig
from exact_core.data.season.labels import LabelLayer, open_labels
from exact_core.data.season.rasters import Grid
from exact_core.errors import DataError
from tests.fakes import write_raster

LEFT, TOP = 500_000, 5_630_000
HALVES = [shapely.box(LEFT, TOP - 320, LEFT + 160, TOP), shapely.box(LEFT + 160, TOP - 320, LEFT + 320, TOP)]


def season(root: Path, legend: str, codes: Any, *, file: str = "parcels.gpkg", **options: Any) -> Path:
    """A folder with labels only: `codes` of the parcels, `options` for GDAL."""
    (root / "labels").mkdir(parents=True, exist_ok=True)
    (root / "labels/legend.csv").write_text(legend, encoding="utf-8")
    outlines = options.pop("outlines", HALVES[: len(codes)])
    geometry = np.array([shapely.to_wkb(each, output_dimension=3) for each in outlines], object)
    options = {"crs": "EPSG:32631", "geometry_type": "Unknown", **options}
    pyogrio.raw.write(root / "labels" / file, geometry, [codes], ["crop_code"], **options)
    return root


def labelled(root: Path, grid: Grid | None = None, **settings: Any) -> tuple[tuple[str, ...], list[int], list[str]]:
    """Names of the classes, the labels of the first row's columns 4 and 28, and the notes."""
    grid = grid or Grid(rasterio.crs.CRS.from_epsg(32631), from_origin(LEFT, TOP, 10, 10), 32, 32, root)
    layer = open_labels(root, SeasonConfig(**settings), [])
    assert isinstance(layer, LabelLayer)
    notes: list[str] = []
    classes = layer.classes(layer.present(grid), notes)
    labels = layer.labels(classes, grid, notes)
    return classes.classes, labels[0, [4, 28]].tolist(), notes


HCAT = "code,name\n3301010600,grain maize\n3302000000,grassland\n"


@pytest.mark.parametrize(
    "codes",
    [
        np.array(["3301010600", "3302000000"], object),
        np.array([3301010600, 3302000000]),
        np.array([3301010600.0, 3302000000.0]),
    ],
)
def test_codes_of_ten_digits_of_any_type(tmp_path: Path, codes: Any) -> None:
    assert labelled(season(tmp_path, HCAT, codes))[:2] == (("grain maize", "grassland"), [1, 2])


def test_long_codes_that_are_background_void_or_unknown(tmp_path: Path) -> None:
    root = season(tmp_path, HCAT, np.array([0, 3302000000]))
    assert labelled(root)[:2] == (("grassland",), [0, 1])
    (tmp_path / "labels/parcels.gpkg").unlink()
    season(tmp_path, HCAT, np.array([3399000000, 3302000000]))
    assert labelled(root, void_codes=(3399000000,))[:2] == (("grassland",), [255, 1])
    with pytest.raises(DataError, match="crop_code is 3399000000, which is in neither .*legend.csv nor"):
        labelled(root)


def test_long_codes_of_a_raster(tmp_path: Path) -> None:
    root = season(tmp_path, HCAT, np.array([0, 0]))
    codes = np.where(np.arange(32)[None] < 16, np.uint32(3301010600), np.uint32(3302000000)) + np.zeros((32, 1))
    write_raster(root / "labels/crop_type.tif", codes.astype(np.uint32), left=LEFT, top=TOP)
    assert labelled(root)[:2] == (("grain maize", "grassland"), [1, 2])


def test_a_long_code_beside_a_legend_of_short_ones_is_named_with_the_limit(tmp_path: Path) -> None:
    root = season(tmp_path, "code,name\n1,maize\n", np.array([3301010600, 1]))
    with pytest.raises(DataError, match="crop_code is 3301010600, expected a whole number, .*up to 2,147,483,645"):
        labelled(root)


@pytest.mark.parametrize(
    ("codes", "legend"),
    [
        (np.array(["maize", None], object), "code,name\nmaize,maize\n"),
        (np.array(["maize", " "], object), "code,name\nmaize,maize\n"),
        (np.array(["088", None], object), "code,name\n088,maize\n"),
        (np.array([88, np.nan]), "code,name\n88,maize\n"),
        (np.array([3301010600, np.nan]), "code,name\n3301010600,maize\n"),
    ],
)
def test_parcels_without_a_code(tmp_path: Path, codes: Any, legend: str) -> None:
    root = season(tmp_path, legend, codes)
    said = "1 parcels of parcels.gpkg have no crop_code: "
    for settings, label, words in (
        ({}, 255, said + "their truth is unknown (void) (data.season.missing_code)"),
        ({"void_codes": ("",)}, 255, said + "their truth is unknown (void) (data.season.missing_code)"),
        ({"missing_code": "background"}, 0, said + "they are background (data.season.missing_code)"),
    ):
        classes, labels, notes = labelled(root, **settings)
        assert classes == ("maize",)
        assert labels == [1, label]
        assert words in notes
    with pytest.raises(DataError, match="crop_code is empty. Give the parcel a code, or say by data.season.missing_co"):
        labelled(root, missing_code="refuse")


def test_the_layer_is_in_the_notes(tmp_path: Path) -> None:
    """Two years of one file, whose codes are each other's."""
    legend = "code,name\n1,maize\n2,wheat\n"
    season(tmp_path, legend, np.array([1, 2]), layer="y2022")
    season(tmp_path, legend, np.array([2, 1]), layer="y2023", append=True)
    for layer, labels in (("y2022", [1, 2]), ("y2023", [2, 1])):
        found = labelled(tmp_path, labels=f"labels/parcels.gpkg|layername={layer}")
        assert found[1] == labels
        assert f"labels are the layer {layer!r} of parcels.gpkg" in found[2]
    with pytest.raises(DataError, match="2 layers, 'y2022', 'y2023'. Name one"):
        labelled(tmp_path)


def test_text_in_utf8_that_says_otherwise(tmp_path: Path) -> None:
    codes = np.array(["Ma\u00efs", "Ma\u00efs"], object)
    root = season(tmp_path, "code,name\nMa\u00efs,maize\n", codes, file="parcels.shp", encoding="UTF-8")
    assert labelled(root)[1] == [1, 1]
    (root / "labels/parcels.cpg").write_text("1252")
    with pytest.raises(DataError, match="the file is in UTF-8 and says otherwise. Write UTF-8"):
        labelled(root)


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
def test_heights_that_are_no_numbers(tmp_path: Path, crs: str) -> None:
    zone = "EPSG:32631"
    high = [
        shapely.Polygon(
            [(*place, float("nan")) for place in zip(*warp.transform(zone, crs, *each.exterior.xy), strict=True)]
        )
        for each in HALVES
    ]
    root = season(tmp_path, "code,name\n1,maize\n2,wheat\n", np.array([1, 2]), outlines=high, crs=crs)
    assert labelled(root)[:2] == (("maize", "wheat"), [1, 2])


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
def test_parcels_on_both_sides_of_the_180th_meridian(tmp_path: Path, suffix: str) -> None:
    """A grid of UTM zone 60 whose columns 16 and on lie beyond 180 degrees; parcels in degrees, one on each side."""
    zone, degrees = rasterio.crs.CRS.from_epsg(32760), "EPSG:4326"
    (x,), (y,) = warp.transform(degrees, zone, [180.0], [-40.0])
    left, top = round(x, -1) - 160, round(y, -1)
    grid = Grid(zone, from_origin(left, top, 10, 10), 32, 32, tmp_path)
    sides = [
        shapely.geometry.shape(
            rasterio.warp.transform_geom(
                zone, degrees, shapely.geometry.mapping(shapely.box(west, top - 320, east, top))
            )
        )
        for west, east in ((left, left + 140), (left + 180, left + 320))
    ]
    assert [side.bounds[0] > 0 for side in sides] == [True, False]
    legend = "code,name\n1,maize\n2,wheat\n"
    root = season(tmp_path, legend, np.array([1, 2]), outlines=sides, crs=degrees, file=f"parcels.{suffix}")
    assert labelled(root, grid)[:2] == (("maize", "wheat"), [1, 2])


@pytest.mark.parametrize(
    ("level", "classes"),
    [("name", ("winter wheat", "silage maize")), ("group", ("cereals", "maize"))],
)
def test_the_legend_of_eurocrops(tmp_path: Path, level: str, classes: tuple[str, ...]) -> None:
    root = season(tmp_path, "", np.array(["3301010101", "3301090400"], object))
    (root / "labels/legend.csv").unlink()
    assert labelled(root, legend="hcat", level=level)[:2] == (classes, [1, 2])


def test_codes_that_eurocrops_legend_does_not_list_are_what_is_above_them(tmp_path: Path) -> None:
    """3301010302 is spring rye: rye; 3306070000 poplar: woodland; and void where the code above is."""
    root = season(tmp_path, "", np.array([3301010302, 3306070000]))
    assert labelled(root, legend="hcat")[:2] == (("rye", "woodland"), [1, 2])
    assert labelled(root, legend="hcat", void_codes=(3306000000,))[:2] == (("rye",), [1, 255])
    root = season(tmp_path / "b", "", np.array([3301010302, 3399000000]))
    with pytest.raises(DataError, match="crop_code is 3399000000, which is in neither the legend hcat nor"):
        labelled(root, legend="hcat")


def test_a_grid_whose_labels_have_no_room_in_memory(tmp_path):
    """As where one file says pixels of a thousand kilometres: refused before anything is allocated."""
    root = season(tmp_path, "code,name\n1,wheat\n2,maize\n", np.array([1, 2]))
    wide = Grid(rasterio.crs.CRS.from_epsg(32631), from_origin(LEFT, TOP, 10, 10), 10**5, 10**6, root / "B02.tif")
    with pytest.raises(DataError, match=r"1,000,000 x 100,000 pixels like those of .*B02.tif.* take 1,200.0 GB where"):
        labelled(root, wide)
