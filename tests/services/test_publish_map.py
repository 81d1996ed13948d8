"""Maps under their stable addresses: a catalogue that pystac reads at every moment, whatever is killed or repeated."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pystac
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin

from exact_core.errors import ConfigError, ServiceError
from exact_core.manifest import publish_record
from exact_core.mapping.calibration import NOT_FITTED
from exact_core.mapping.cogs import MapRecord
from exact_core.mapping.item import write_item
from exact_core.stages.publish_map import map_region, publish_map, published_facts
from exact_core.stages.run import Run
from exact_core.storage import open_store
from exact_core.storage.mirror import mirror
from exact_core.tracking.runs import NoTracker
from tests.mapping.maps import CLASSES, TRANSFORM, write_map

RECORD = {
    "source": "season:/x",
    "name": "scene",
    "season_days": 214,
    "bands": ("B02",),
    "dates": (),
    "inputs": "0" * 64,
    "crs": CRS.from_epsg(32631).to_wkt(version="WKT2_2019"),
    "height": 16,
    "width": 16,
    "window": 8,
    "stride": 4,
    "classes": CLASSES[1:],
    "colours": ("#000000", "#112233", "#445566"),
    "probabilities": False,
    "calibration": NOT_FITTED,
    "model_weights_sha256": "1" * 64,
    "code_version": "0",
    "notes": (),
}


def a_map(folder: Path, label: int, *, start: str = "2026-04-01", transform=TRANSFORM, until: str = "") -> Path:
    """A finished map of one class everywhere."""
    write_map(folder, np.full((16, 16), label), transform=transform)
    (folder / "quicklook.png").write_bytes(bytes([label]))
    day = date.fromisoformat(until) if until else None
    record = MapRecord(**RECORD, season_start=date.fromisoformat(start), transform=tuple(transform)[:6], until=day)
    write_item(record, folder)
    facts = {"season_start": start, "season_days": 214, "model_weights_sha256": str(label) * 64}
    publish_record(
        folder / "map.json",
        facts | {"until": until or None, "calibration": {"oa": label / 4}, "quality": {"expected_oa": label / 5}},
    )
    return folder


@pytest.fixture(autouse=True)
def _store(place, monkeypatch):
    monkeypatch.setenv("EXACT_STORE", f"{place.uri}/base")


@pytest.fixture
def maps(place):
    place.folder.mkdir(exist_ok=True)
    return open_store(f"{place.uri}/base").below("maps")


def publish(folder: Path, place: str = "flanders/", **facts) -> str:
    return publish_map(Run(recipe="demo", map_place=place, **facts), folder, NoTracker())


def read(maps, tmp_path) -> pystac.Catalog:
    """The catalogue as pystac reads a copy of it; every link leads somewhere, every file is what its item says."""
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    mirror(maps, copy)
    catalog = pystac.Catalog.from_file(str(copy / "catalog.json"))
    for folder, _, found in catalog.walk():
        items = list(found)
        # Of what can be reached: the first item of a region is there a moment before its collection is.
        for document in (folder, *items):
            path = Path(document.get_self_href())
            for link in json.loads(path.read_text())["links"]:
                assert link["href"].startswith(("./", "../"))
                assert (path.parent / link["href"]).is_file()
        for item in items:
            assert item.get_collection() is folder
            assert item.get_root() is catalog
            for asset in item.assets.values():
                content = Path(asset.get_absolute_href()).read_bytes()
                assert asset.extra_fields["file:size"] == len(content)
                assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    return catalog


def seasons(catalog: pystac.Catalog, region: str) -> list[str]:
    child = catalog.get_child(region)
    assert isinstance(child, pystac.Collection)
    return [item.id for item in child.get_items()]


def test_two_seasons_and_two_regions_side_by_side(maps, tmp_path):
    east = from_origin(600_000, 5_500_000, 10, 10)
    assert publish(a_map(tmp_path / "a", 1)) == maps.uri_of("flanders/2026-04-01_2026-10-31/item.json")
    publish(a_map(tmp_path / "b", 2, start="2025-04-01"))
    publish(a_map(tmp_path / "c", 2, transform=east), "limburg/2026-04-01_2026-10-31", inputs="abc")
    catalog = read(maps, tmp_path)
    assert [child.id for child in catalog.get_children()] == ["flanders", "limburg"]
    names = ["flanders-2025-04-01_2025-10-31", "flanders-2026-04-01_2026-10-31"]
    assert seasons(catalog, "flanders") == names
    flanders, limburg = (catalog.get_child(name) for name in ("flanders", "limburg"))
    days = [[f"{day:%Y-%m-%d}" for day in interval] for interval in flanders.extent.temporal.intervals]
    assert days == [["2025-04-01", "2026-11-01"], ["2025-04-01", "2025-11-01"], ["2026-04-01", "2026-11-01"]]
    west, south, right, north = flanders.extent.spatial.bboxes[0]
    assert (round(west, 3), round(north, 3)) == (3.0, 50.552)
    assert west < right
    assert south < north
    assert limburg.extent.spatial.bboxes[0] != flanders.extent.spatial.bboxes[0]
    item = next(limburg.get_items())
    assert item.properties["exact:inputs"] == "abc"
    assert item.properties["exact:made_by"] == "training"
    assert item.assets["class"].media_type == pystac.MediaType.COG
    assert item.properties["proj:shape"] == [16, 16]
    assert published_facts(maps, "limburg", "2026-04-01_2026-10-31")["exact:model_weights_sha256"] == "2" * 64
    assert published_facts(maps, "limburg", "2027") == {}


def test_maps_within_a_season_lie_beside_each_other_and_its_own(maps, tmp_path):
    for label, until in enumerate(("2026-06-01", "2026-06-15", "")):
        publish(a_map(tmp_path / f"{label}", label, until=until))
    season = "flanders-2026-04-01_2026-10-31"
    catalog = read(maps, tmp_path)
    assert seasons(catalog, "flanders") == [season, f"{season}_until_2026-06-01", f"{season}_until_2026-06-15"]
    whole, first, second = (item.to_dict()["properties"] for item in catalog.get_child("flanders").get_items())
    assert (first["exact:until"], second["exact:until"]) == ("2026-06-01", "2026-06-15")
    # What the confidence of its date was fitted to agrees with the map so far.
    assert [each["exact:calibration_oa"] for each in (first, second, whole)] == [0, 0.25, 0.5]
    assert [each["exact:expected_oa"] for each in (first, second, whole)] == [0, 0.2, 0.4]
    assert "exact:until" not in whole
    assert second["title"] == "Crops of flanders, 2026-04-01 to 2026-10-31, images until 2026-06-15"
    assert second["end_datetime"] == "2026-06-16T00:00:00Z"
    assert whole["end_datetime"] == "2026-11-01T00:00:00Z"


def test_a_season_made_again_takes_the_place_of_its_item(maps, tmp_path):
    place = "flanders/2026-04-01_2026-10-31"
    publish(a_map(tmp_path / "a", 1), place)
    before = read(maps, tmp_path).get_child("flanders")
    files = {asset.href for item in before.get_items() for asset in item.assets.values()}
    publish(a_map(tmp_path / "b", 2), place)
    assert seasons(read(maps, tmp_path), "flanders") == ["flanders-2026-04-01_2026-10-31"]
    # Whoever reads the one before still finds its files; of the third, they go.
    keys = {key.rpartition("/")[2] for key in maps.list_keys("flanders/2026")}
    assert {href.removeprefix("./") for href in files} < keys
    publish(a_map(tmp_path / "c", 0), place)
    keys = {key.rpartition("/")[2] for key in maps.list_keys("flanders/2026")}
    # Item, and the files of two maps, whose confidence is the same.
    assert len(keys) == 1 + 2 * len(files) - 1
    assert not {href.removeprefix("./") for href in files if "class" in href} & keys
    read(maps, tmp_path)


def test_a_repeated_call_changes_nothing(maps, tmp_path):
    for _ in range(2):
        publish(a_map(tmp_path / "a", 1))
        listed = maps.listed()
        publish(tmp_path / "a")
        assert maps.listed() == listed


def test_killed_at_every_write_no_link_is_broken_and_the_same_call_mends_it(maps, tmp_path, monkeypatch):
    """The nth write fails, for every n, of a first season, of one made again, and of another region."""
    kind, left = type(maps), 10**9

    def counted(original):
        def write(self, *arguments, **named):
            nonlocal left
            left -= 1
            if left < 0:
                raise ServiceError("killed")
            return original(self, *arguments, **named)

        return write

    publish(a_map(tmp_path / "0", 1))
    for name in ("write", "upload", "delete"):
        monkeypatch.setattr(kind, name, counted(getattr(kind, name)))
    for number, place in enumerate(("flanders/2026-04-01_2026-10-31", "limburg/2026-04-01_2026-10-31"), start=1):
        folder = a_map(tmp_path / str(number), 2)
        for writes in range(20):
            left = writes
            try:
                publish(folder, place)
            except ServiceError:
                read(maps, tmp_path)
            else:
                break
        assert 1 < writes < 19
        left = 10**9
        catalog = read(maps, tmp_path)
        item = next(catalog.get_child(place.split("/")[0]).get_items())
        assert json.loads(Path(item.assets["map"].get_absolute_href()).read_text())["model_weights_sha256"] == "2" * 64


def test_what_is_no_map_or_has_no_place_is_not_published(maps, tmp_path, monkeypatch):
    assert publish(tmp_path) == ""
    assert publish(a_map(tmp_path / "a", 1), "") == ""
    monkeypatch.delenv("EXACT_STORE")
    assert publish(tmp_path / "a") == ""
    assert maps.list_keys() == []


@pytest.mark.parametrize(
    ("name", "source", "region"),
    [
        ("flanders", "season:/data/x", "flanders"),
        ("", "season:/data/flanders", "flanders"),
        ("", "season:s3://bucket/fields/flanders/", "flanders"),
        ("", "season:s3://bucket/flanders?labels=s3://b/x.gpkg", "flanders"),
        ("", "season:/data/flanders_2018", "flanders"),
        ("", "season:/data/2018-flanders/", "flanders"),
        ("", "season:/data/flanders/2018", "flanders"),
        ("", "season:s3://bucket/flanders/2018/", "flanders"),
        ("", "season:/data/T31UES_20180401", "T31UES_20180401"),
        ("", "pastis:/data/PASTIS-R", "pastis"),
        ("", "synthetic", "synthetic"),
        ("", "stac:https://a/b?area=s3://bucket/west-flanders-2018.geojson", "west-flanders"),
        ("", "stac:https://a/b?bbox=3,50.8,3.1,51", "bbox_3_50.8_3.1_51"),
        ("", "stac:https://a/b?area=s3://bucket/west-flanders.geojson", "west-flanders"),
    ],
)
def test_the_region_of_a_run(name, source, region):
    assert map_region(name, source) == region


@pytest.mark.parametrize("name", ["a/b", "..", "", "é", "x" * 64, "a b", ".hidden"])
def test_a_name_that_cannot_stand_in_an_address_is_refused(name):
    source = "season:s3://bucket/folders/0123.json"
    with pytest.raises(ConfigError, match="map_name"):
        map_region(name, source)
