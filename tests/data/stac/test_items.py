"""What a server says of an image: read, and any nonsense in its place refused by name."""

from __future__ import annotations

import copy
import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings, strategies as st

from exact_core.config import DataConfig, SeasonConfig
from exact_core.data.season.files import find_acquisitions
from exact_core.data.season.folder import open_season, survey_season
from exact_core.data.stac.catalogue import write_catalogue
from exact_core.data.stac.items import parse_item
from exact_core.data.stac.plan import make_plan
from exact_core.data.stac.search import Wanted
from exact_core.data.stac.web import Token, Web, WebOptions
from exact_core.errors import DataError, ExactError
from tests.fakes import write_raster

URL = "https://stac.example.org/v1/"
BANDS = ("B02", "B05")


def item() -> dict[str, Any]:
    """As Sentinel-2 catalogues write it."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "id": "S2A_31UES_20180401_0_L2A",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[2.9, 50.4], [3.1, 50.4], [3.1, 50.6], [2.9, 50.6], [2.9, 50.4]]],
        },
        "bbox": [2.9, 50.4, 3.1, 50.6],
        "properties": {
            "datetime": "2018-04-01T10:50:00Z",
            "updated": "2022-11-06T07:00:00Z",
            "platform": "sentinel-2a",
            "proj:epsg": 32631,
            "eo:cloud_cover": 11.5,
            "s2:processing_baseline": "04.00",
            "grid:code": "MGRS-31UES",
        },
        "collection": "fake",
        "links": [{"rel": "self", "href": "./items/S2A_31UES_20180401_0_L2A"}],
        "assets": {
            "blue": {
                "href": "B02.tif",
                "type": "image/tiff; application=geotiff",
                "eo:bands": [{"name": "blue", "common_name": "blue"}],
                "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}],
                "proj:shape": [32, 32],
                "proj:transform": [10, 0, 500000, 0, -10, 5600000],
                "file:size": 2048,
            },
            "B05_20m": {"href": "https://files.example.org/B05.tif?sig=secret", "roles": ["data"]},
            "SCL": {
                "href": "s3://bucket/SCL.tif",
                "alternate": {"https": {"href": "https://files.example.org/SCL.tif"}},
            },
            "visual": {"href": "TCI.tif", "eo:bands": [{"name": "red"}, {"name": "green"}, {"name": "blue"}]},
        },
    }


def parse(raw: Any) -> Any:
    return parse_item(raw, base=URL, bands=BANDS)


def test_a_usual_item() -> None:
    found = parse(item())
    assert {band: asset.href for band, asset in found.assets.items()} == {
        "B02": f"{URL}B02.tif",
        "B05": "https://files.example.org/B05.tif?sig=secret",
        "SCL": "https://files.example.org/SCL.tif",
    }
    assert (found.tile, found.baseline, found.cloud, found.crs) == ("MGRS-31UES", "04.00", 11.5, "EPSG:32631")
    assert found.moment == dt.datetime(2018, 4, 1, 10, 50, tzinfo=dt.UTC)
    assert found.extent == (500_000, 5_599_680, 500_320, 5_600_000)
    assert found.assets["B02"].fields["raster:bands"] == [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]
    assert found.assets["B02"].size == 2048


@pytest.mark.parametrize(("number", "baseline"), [("0400", "04.00"), ("9999", "99.99")])
def test_the_baseline_in_the_name_of_a_product(number: str, baseline: str) -> None:
    """Where no property states it; 99.99 marks a test of the processing."""
    raw = item()
    del raw["properties"]["s2:processing_baseline"]
    raw["id"] = f"S2A_MSIL2A_20180401T105031_N{number}_R051_T31UES_20180401T120000"
    assert parse(raw).baseline == baseline


def test_a_new_signature_is_no_change_but_a_new_baseline_is() -> None:
    other, newer = item(), item()
    other["assets"]["B05_20m"]["href"] = "https://files.example.org/B05.tif?sig=another"
    newer["properties"]["s2:processing_baseline"] = "05.00"
    assert parse(other).digest == parse(item()).digest
    assert parse(newer).digest != parse(item()).digest


@pytest.mark.parametrize("name", ["../../etc", "a/b", ".hidden", "labels", "a b", "ü", "x" * 300])
def test_a_name_that_is_no_folder(name: str) -> None:
    folder = parse(item() | {"id": name}).folder
    assert folder not in {name, "labels", ".", ".."}
    assert not set(folder) & set("/\\ ü")
    assert len(folder) <= 110
    assert folder != parse(item() | {"id": name + "."}).folder


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("id",), None, "an item without an id"),
        (("properties",), None, "item S2A_31UES_20180401_0_L2A: no properties"),
        (("properties", "datetime"), "yesterday", "datetime is 'yesterday', expected one as 2018-04-01T10:53:28Z"),
        (("properties", "datetime"), 20180401, "datetime is 20180401"),
        (("assets",), None, "no asset for band B02, B05. It has none. Name the bands to read by --bands"),
        (("assets", "blue", "href"), "ftp://b/B02.tif", "asset blue: ftp://b/B02.tif is not on a web server"),
        (("assets", "blue", "href"), "file:///etc/passwd", "asset blue: file:///etc/passwd is not on a web server"),
        (("assets", "blue", "href"), "https://x y/B02.tif", "is not on a web server"),
        (("assets", "B02"), {"href": "B02.tif"}, "its assets blue and B02 are both band B02"),
    ],
)
def test_what_is_wrong_is_said(path: tuple[str, ...], value: Any, expected: str) -> None:
    raw = item()
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError) as caught:
        parse(raw)
    assert expected in str(caught.value)


def test_no_place() -> None:
    with pytest.raises(DataError, match="neither a geometry nor a bbox"):
        parse(item() | {"geometry": None, "bbox": [1, 2]})
    assert parse(item() | {"geometry": None}).geometry.bounds == (2.9, 50.4, 3.1, 50.6)
    assert parse(item() | {"geometry": None, "bbox": [1, 2, 0, 3, 4, 9]}).geometry.bounds == (1, 2, 3, 4)


# Any nonsense

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([10**400, -1, "", "B02"])
)
nonsense = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, child in inner for found in places(child, (*path, key))]


@st.composite
def broken_items(draw: st.DrawFn) -> dict[str, Any]:
    """A valid item in which up to three values are lost or replaced."""
    raw = item()
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(raw)))
        place: Any = raw
        for key in path[:-1]:
            place = place[key]
        if isinstance(place, dict) and draw(st.booleans()):
            del place[path[-1]]
        else:
            place[path[-1]] = draw(nonsense)
        if not places(raw):
            break
    return raw


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("S2A_31UES_20180401_0_L2A", "S2_20180411"):
        for band, pixel in (("B02", 10.0), ("B05", 20.0), ("SCL", 20.0)):
            side = int(320 / pixel)
            write_raster(folder / name / f"{band}.tif", np.full((side, side), 4, np.uint16), pixel=pixel)
    return folder


FUZZ = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
WANTED = Wanted(shapely.box(2.99, 50.5, 3.01, 50.6), dt.date(2017, 1, 1), dt.date(2019, 1, 1))
# Nothing listens there: a head that is asked for fails at once.
NOWHERE = Web("http://127.0.0.1:9/", token=Token(), options=WebOptions(attempts=1, first_pause=0.0))


@FUZZ
@given(broken_items())
def test_a_broken_item_is_planned_or_refused(raw: dict[str, Any]) -> None:
    before = copy.deepcopy(raw)
    try:
        plan = make_plan(NOWHERE, [(raw, "http://127.0.0.1:9/")], WANTED, bands=BANDS)
    except ExactError:
        return
    finally:
        assert repr(raw) == repr(before)
    left, bottom, right, top = plan.bounds
    assert left < right
    assert bottom < top
    assert all(map(math.isfinite, plan.bounds))


@FUZZ
@given(broken_items())
def test_what_is_accepted_is_written_and_read_back(rasters: Path, raw: dict[str, Any]) -> None:
    try:
        found = parse(raw)
    except DataError:
        return
    if not (rasters / found.folder).is_dir():
        return
    write_catalogue(rasters, name="fake", collection={"id": "fake"}, items=[found])
    _, acquisitions = find_acquisitions(rasters, BANDS)
    assert [each.name for each in acquisitions] == [found.id]
    assert acquisitions[0].date == found.moment.date()
    assert {"B02", "B05"} <= set(acquisitions[0].files)


@FUZZ
@given(broken_items())
def test_a_broken_item_in_a_folder_is_read_or_refused(rasters: Path, raw: dict[str, Any]) -> None:
    for name, document in (("S2A_31UES_20180401_0_L2A", raw), ("S2_20180411", item() | {"id": "S2_20180411"})):
        if name == "S2_20180411":
            document["properties"]["datetime"] = "2018-04-11T10:50:00Z"
        text = json.dumps(document).replace("https://files.example.org/", "./").replace("?sig=secret", "")
        text = text.replace("s3://bucket/", "./").replace('"blue": {"href"', '"B02": {"href"')
        (rasters / name / f"{name}.json").write_text(text)
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "fake",
        "description": "",
        "license": "other",
        "extent": {"spatial": {"bbox": [[3, 50, 4, 51]]}, "temporal": {"interval": [[None, None]]}},
        "links": [{"rel": "item", "href": f"./{n}/{n}.json"} for n in ("S2A_31UES_20180401_0_L2A", "S2_20180411")],
    }
    (rasters / "collection.json").write_text(json.dumps(collection))
    config = DataConfig(season=SeasonConfig(bands=BANDS))
    try:
        survey_season(rasters, config)
        open_season(rasters, config)
    except ExactError:
        pass


def three_resolutions(named: bool, said: str) -> dict[str, Any]:
    """Keys of three resolutions, the coarsest first; of each, what says how large its pixels are."""
    assets = {}
    for metres in (60, 20, 10):
        own = {
            "key": {},
            "gsd": {"gsd": metres},
            "transform": {"proj:transform": [metres, 0, 5e5, 0, -metres, 5.6e6]},
            "resolution": {"raster:bands": [{"spatial_resolution": metres}]},
        }[said]
        key = "blue" if metres == 10 else f"blue_{metres}m" if said == "key" else f"blue{metres}"
        assets[key if named or said == "key" else f"a{metres}"] = {
            "href": f"./{metres}.tif",
            "eo:bands": [{"name": "B02"}],
            **own,
        }
    return assets


@pytest.mark.parametrize("said", ["key", "gsd", "transform", "resolution"])
@pytest.mark.parametrize("named", [True, False])
def test_of_three_resolutions_the_finest_is_read(said: str, named: bool) -> None:
    found = parse_item({**item(), "assets": three_resolutions(named, said)}, base=URL, bands=("B02",))
    assert found.assets["B02"].href == URL + "10.tif"


def test_a_local_catalogue_knows_common_names_and_resolutions(tmp_path: Path) -> None:
    names = {"blue": 10, "blue_20m": 20, "blue_60m": 60, "rededge1": 20, "rededge1_60m": 60, "scl": 20}
    assets = {key: {"href": f"./{key}.tif", "raster:bands": [{"spatial_resolution": m}]} for key, m in names.items()}
    folder = tmp_path / "a"
    folder.mkdir()
    collection = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "c",
        "description": "x",
        "links": [{"rel": "item", "href": "./a/a.json"}],
    }
    (tmp_path / "catalog.json").write_text(json.dumps(collection))
    (folder / "a.json").write_text(json.dumps({**item(), "assets": assets, "links": []}))
    _, (found,) = find_acquisitions(tmp_path, BANDS)
    assert {band: path.name for band, path in found.files.items()} == {
        "B02": "blue.tif",
        "B05": "rededge1.tif",
        "SCL": "scl.tif",
    }


WORLD = {"type": "Polygon", "coordinates": [[[-180, -90], [180, -90], [180, -38], [-180, -38], [-180, -90]]]}
CROSSING = {
    "type": "Polygon",
    "coordinates": [[[179.5, -40], [-179.5, -40], [-179.5, -39], [179.5, -39], [179.5, -40]]],
}
TWO_PARTS = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[179.5, -40], [180, -40], [180, -39], [179.5, -39], [179.5, -40]]],
        [[[-180, -40], [-179.5, -40], [-179.5, -39], [-180, -39], [-180, -40]]],
    ],
}


@pytest.mark.parametrize("geometry", [WORLD, CROSSING])
def test_a_footprint_round_the_world_is_that_of_the_pixels(geometry: dict[str, Any]) -> None:
    """A tile of EPSG:32701 that lies on the meridian: the place of New Zealand, 900 km to the west, is not in it."""
    raw = {**item(), "geometry": geometry}
    raw["properties"] = {
        **raw["properties"],
        "proj:epsg": 32701,
        "proj:shape": [10980, 10980],
        "proj:transform": [10, 0, 199980, 0, -10, 5600020],
    }
    found = parse_item(raw, base=URL, bands=BANDS).geometry
    assert found.area < 3
    assert not found.intersects(shapely.Point(170, -45))
    assert found.intersects(shapely.Point(-179.5, -40.2))


def test_a_footprint_across_the_meridian_is_cut_there() -> None:
    plain = {**item(), "assets": {"blue": {"href": "./b.tif"}}}
    for geometry in (CROSSING, TWO_PARTS):
        found = parse_item({**plain, "geometry": geometry}, base=URL, bands=("B02",)).geometry
        assert shapely.equals(found, shapely.from_geojson(json.dumps(TWO_PARTS)))
    # What claims the whole world, and not where its pixels are, is left as it is.
    found = parse_item({**plain, "geometry": WORLD}, base=URL, bands=("B02",)).geometry
    assert shapely.equals(found, shapely.from_geojson(json.dumps(WORLD)))
