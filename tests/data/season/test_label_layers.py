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
from exact_core.data.season.legends import SHIPPED, read_class_map
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
    root = season(tmp_path / "b", "", np.array([3301010302, 4404000000]))
    with pytest.raises(DataError, match="crop_code is 4404000000, which is in neither the legend hcat nor"):
        labelled(root, legend="hcat")


def test_an_attribute_of_dates_is_no_code(tmp_path: Path) -> None:
    days = np.array(["2020-04-01", "2020-05-01"], "datetime64[D]")
    with pytest.raises(DataError, match="crop_code is 2020-04-01, expected a whole number"):
        labelled(season(tmp_path, "code,name\n1,rye\n", days))


def test_land_that_a_legend_calls_unknown_is_void(tmp_path: Path) -> None:
    """3399000000 of EuroCrops is "not known and other", and in every country."""
    root = season(tmp_path, "", np.array([3301010302, 3399000000]))
    classes, labels, notes = labelled(root, legend="hcat")
    assert (classes, labels) == (("rye",), [1, 255])
    assert "1 parcels of parcels.gpkg have a code that the legend hcat calls void" in notes
    root = season(tmp_path / "own", "code,name,group\n1,rye,cereals\n2,void,cereals\n", np.array([1, 2]))
    assert labelled(root, level="group")[:2] == (("cereals",), [1, 255])


@pytest.mark.parametrize(
    ("level", "classes"), [("name", ("winter wheat", "sugar beet")), ("group", ("cereals", "beet"))]
)
def test_the_legend_of_worldcereal(tmp_path: Path, level: str, classes: tuple[str, ...]) -> None:
    """11-01-01-001-1 is winter common wheat, 11-07-00-003-1 sugar beet."""
    root = season(tmp_path, "", np.array([1101010011, 1107000031]))
    assert labelled(root, legend="worldcereal", level=level)[:2] == (classes, [1, 2])
    root = season(tmp_path / "dashes", "", np.array(["11-01-01-001-1", "11-07-00-003-1"], object))
    assert labelled(root, legend="worldcereal", level=level)[:2] == (classes, [1, 2])


def test_codes_that_worldcereals_legend_does_not_list_are_what_is_above_them(tmp_path: Path) -> None:
    """Their levels have 2 + 2 + 2 + 3 + 1 digits: 11-03-08-001-0 is chard, 20-01-02-000-0 managed grassland."""
    root = season(tmp_path, "", np.array(["1103080010", "2001020000"], object))
    assert labelled(root, legend="worldcereal")[:2] == (("vegetables", "grassland"), [1, 2])
    root = season(tmp_path / "b", "", np.array([1101010013, 1000000000]))
    assert labelled(root, legend="worldcereal")[:2] == (("wheat",), [1, 255])


@pytest.mark.parametrize(
    ("table", "codes", "names", "groups"),
    [
        ("nl_2020", np.array([259, 265]), ("silage maize", "permanent grassland"), ("maize", "grassland")),
        ("NL_2020", np.array(["0259", "265"], object), ("silage maize", "permanent grassland"), ("maize", "grassland")),
        ("fr_2018", np.array(["BTH", "CZH"], object), ("winter wheat", "winter rapeseed"), ("cereals", "rapeseed")),
        ("dk_2019", np.array([1.0, 252.0]), ("spring barley", "permanent grassland"), ("cereals", "grassland")),
        ("be_vlg_2021", np.array(["201", "311"], object), ("silage maize", "winter wheat"), ("maize", "cereals")),
        ("se_2021", np.array([1, 50]), ("winter barley", "permanent grassland"), ("cereals", "grassland")),
    ],
)
def test_codes_of_a_country(tmp_path: Path, table: str, codes: Any, names: Any, groups: Any) -> None:
    """As each country's parcels have them: 259 "Mais, snij-" of the Netherlands, BTH winter soft wheat of France."""
    root = season(tmp_path, "", codes)
    assert set(labelled(root, legend=f"eurocrops:{table}")[0]) == set(names)
    assert set(labelled(root, legend=f"eurocrops:{table}", level="group")[0]) == set(groups)


def test_a_code_that_a_country_added_later_is_void(tmp_path: Path) -> None:
    """6794 is in the Dutch layer of 2023 and not in the table; where no code fits, it is the wrong attribute."""
    root = season(tmp_path, "", np.array([259, 6794]))
    classes, labels, notes = labelled(root, legend="eurocrops:nl_2020")
    assert (classes, labels) == (("silage maize",), [1, 255])
    said = "1 parcels of parcels.gpkg have a code that the legend eurocrops:nl_2020 does not list (6794): their truth"
    assert any(note.startswith(said) for note in notes)
    root = season(tmp_path / "b", "", np.array([6794, 6795]))
    with pytest.raises(DataError, match="crop_code is '6794', which is in neither the legend eurocrops:nl_2020 nor"):
        labelled(root, legend="eurocrops:nl_2020")


def test_a_country_whose_code_0_is_unknown(tmp_path: Path) -> None:
    """000 of Slovenia, "ni v uporabi": void, and no background, whose label is 0."""
    root = season(tmp_path, "", np.array(["000", "001"], object))
    assert labelled(root, legend="eurocrops:si_2021")[1] == [255, 1]


def test_every_code_of_every_country_has_a_name(tmp_path: Path) -> None:
    lines = (SHIPPED / "eurocrops.csv").read_text(encoding="utf-8").splitlines()[1:]
    tables = {line.partition(",")[0] for line in lines}
    assert len(tables) == 27
    count = 0
    for table in tables:
        codes = read_class_map(tmp_path, SeasonConfig(legend=f"eurocrops:{table}"))
        count += len(codes.names) + len(codes.void)
        assert len(codes.names) > max(5, len(codes.void)), table
    assert count == len(lines)


def test_a_legend_of_ones_own(tmp_path: Path) -> None:
    """In the layout of legend.csv or of EuroCrops' country mappings, from wherever."""
    root = season(tmp_path / "season", "", np.array([7, 8]))
    own = tmp_path / "own.csv"
    own.write_text("code,name\n7,maize\n8,wheat\n")
    assert labelled(root, legend=str(own))[0] == ("maize", "wheat")
    own.write_text(
        "original_code,original_name,translated_name,HCAT3_name,HCAT3_code\n"
        "7,Mais,maize,green_silo_maize,3301090400\n8,Weizen,wheat,winter_common_soft_wheat,3301010101\n"
    )
    assert labelled(root, legend=str(own))[0] == ("silage maize", "winter wheat")


@pytest.mark.parametrize(
    ("legend", "text", "message"),
    [
        ("eurocrops:xx_1999", "", "expected eurocrops:TABLE, one of at_2021, be_vlg_2021"),
        ("eurocrops", "", "expected eurocrops:TABLE, one of at_2021, be_vlg_2021"),
        ("hcat2", "", "hcat2 is not there. Name a file, hcat, worldcereal, or eurocrops:TABLE"),
        ("own.csv", "original_code,HCAT3_code\n7,\n", "line 2: code 7 has no HCAT3_code"),
        ("own.csv", "original_code,HCAT3_code\n7,3301010101\n7,3301010102\n", "line 3: code 7 is 3301010102 here and"),
        ("own.csv", "original_code,HCAT3_code\n7,wheat\n", "line 2: HCAT3_code is wheat, expected a whole number"),
        ("own.csv", "original_code,HCAT3_code\n7,4404000000\n", "line 2: HCAT3_code is 4404000000, which is in nei"),
        ("own.csv", "id,crop\n7,4404000000\n", "line 1: columns .* expected the header code,name, or that of Euro"),
    ],
)
def test_a_wrong_legend_is_named(tmp_path: Path, legend: str, text: str, message: str) -> None:
    root = season(tmp_path, "", np.array([7, 8]))
    (root / "own.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        labelled(root, legend=legend)


def test_a_grid_whose_labels_have_no_room_in_memory(tmp_path):
    """As where one file says pixels of a thousand kilometres: refused before anything is allocated."""
    root = season(tmp_path, "code,name\n1,wheat\n2,maize\n", np.array([1, 2]))
    wide = Grid(rasterio.crs.CRS.from_epsg(32631), from_origin(LEFT, TOP, 10, 10), 10**5, 10**6, root / "B02.tif")
    with pytest.raises(DataError, match=r"1,000,000 x 100,000 pixels like those of .*B02.tif.* take 1,200.0 GB where"):
        labelled(root, wide)
