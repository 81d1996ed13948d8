"""Sources by address: a catalogue over HTTP, a folder in a store, labels by address; nothing is read twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exact_core.config import RunConfig, override
from exact_core.data.season.folder import check_one_crs
from exact_core.data.sources import parse_source, source_of, with_season
from exact_core.data.stac.address import parse_address
from exact_core.data.stac.plan import NothingFoundError
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, DataError, ServiceError
from exact_core.recipes import resolve
from exact_core.stages.fetch import _days, fetch_for_run, fetch_source, local_file, local_place, survey_source
from exact_core.stages.ingest import ingest
from exact_core.stages.preflight import survey
from exact_core.stages.run import Run, read_run
from exact_core.tracking.runs import NoTracker
from tests.fakes import write_raster, write_season
from tests.stac_server import Fault, StacServer

AREA = "collection=fake&bbox=2.99,50.5,3.01,50.6"
SMALL = "collection=fake&bbox=2.9995,50.5475,3.0047,50.5525"
"""The scene alone, which its cells lie in."""
FILES = 44
"""Of the fake season: four dates of ten bands and SCL."""
Serve = Callable[..., StacServer]


@pytest.fixture(autouse=True)
def _machine(tmp_path, monkeypatch):
    """A machine of its own, without a store."""
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EXACT_STORE", raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[StacServer] = []

    def start(folder: Path, **settings: Any) -> StacServer:
        servers.append(StacServer(folder, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def season(tmp_path: Path) -> Path:
    return write_season(tmp_path / "season", layout="stac", scl=lambda _date: np.full((16, 16), 4))


@pytest.fixture
def config() -> RunConfig:
    return of_season("2018")


def of_season(season: str) -> RunConfig:
    small = override(
        resolve("season"),
        ["data.window=12", "data.validation_share=0", "data.test_share=0", "data.season.longest_gap=366"],
    )
    return with_season(small, season, kind="season")


def told(item: dict[str, Any]) -> None:
    """An item that says when it was updated and where it lies: no file needs a look to know that it is the same."""
    item["properties"] |= {"updated": "2020-01-01T00:00:00Z", "proj:epsg": 32631, "proj:shape": [32, 32]}
    item["properties"]["proj:transform"] = [10, 0, 500_000, 0, -10, 5_600_000]


def fetched(config: RunConfig, source: str):
    return fetch_source(config, source=source, tracker=NoTracker())


def dataset(config: RunConfig, source: str, out: Path) -> WindowDataset:
    ingest(config, source=source, season="", out=out, tracker=NoTracker())
    return WindowDataset(out)


def test_a_catalogue_is_ingested_as_the_folder_it_serves(season, serve, config, tmp_path):
    server = serve(season)
    source = f"stac:{server.url}?{AREA}&labels={season}/labels/"
    found = dataset(config, source, tmp_path / "a")
    assert found.manifest.source == source
    assert found.manifest.digest == dataset(config, f"season:{season}", tmp_path / "b").manifest.digest
    asked = server.files_asked()
    # Again, as the next step of a run would.
    again = fetched(config, source)
    assert (again.files_read, again.files_kept, again.images, again.labelled) == (0, FILES, 4, True)
    # Heads alone, for items that say neither where they lie nor when they were updated.
    assert server.files_asked() - asked < asked / 2
    assert survey_source(config, source)[:2] == (4, 10)


def test_a_store_keeps_what_was_read_for_other_machines_and_seasons(season, serve, config, tmp_path, monkeypatch):
    server = serve(season, edit=told)
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    source = f"stac:{server.url}?{AREA}&labels={season}/labels/"
    first = fetched(config, source)
    assert (first.files_read, first.images) == (FILES, 4)
    assert first.source.startswith(f"season:{(tmp_path / 'store').as_uri()}/folders/")
    asked = server.files_asked()
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "other machine"))
    again = fetched(config, source)
    assert (again.files_read, again.files_kept, server.files_asked()) == (0, FILES, asked)
    assert again.source == first.source
    # A season that holds two of the dates, and one that begins later: nothing is read anew.
    later = of_season("2018-04-20/300")
    assert fetched(later, source).images == 2
    assert server.files_asked() == asked
    # What later steps read needs no catalogue any more.
    server.close()
    direct = dataset(config, f"season:{season}", tmp_path / "b").manifest
    found = dataset(config, first.source, tmp_path / "a").manifest
    assert (found.digest, found.source) == (direct.digest, first.source)


def test_a_fetch_that_ended_early_goes_on_on_another_machine(season, serve, config, tmp_path, monkeypatch):
    server = serve(season, edit=told)
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    source = f"stac:{server.url}?{AREA}"
    server.faults.append(Fault("S2_20180421/B03.tif", 404))
    with pytest.raises(DataError, match="S2_20180421, asset B03.*Repeat the command"):
        fetched(config, source)
    server.faults.clear()
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "other machine"))
    before = len(server.asked)
    assert fetched(config, source).files_read == 1
    assert {path for _, path, _ in server.asked[before:] if "/files/" in path} == {"/files/S2_20180421/B03.tif"}


def test_steps_read_what_a_fetch_of_their_run_put_into_the_store(season, serve, config, tmp_path, monkeypatch):
    """One state for all of them, whatever comes or goes meanwhile; and the run is known by its source as given."""
    server = serve(season)
    source = f"stac:{server.url}?{AREA}&missing=1&labels={season}/labels/"
    run = Run(recipe="season", source=source, season="2018", pipeline_run="p", part="1/2")
    parts = [run.model_copy(update={"part": "2/2"}).given()]
    assert fetch_for_run(config, run, parts, tracker=NoTracker()) == ((run.given(), parts), {})
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    folder = Run(recipe="season", source=f"season:{season}")
    assert fetch_for_run(config, folder, [], tracker=NoTracker()) == ((folder.given(), []), {})
    assert not server.asked
    server.faults.append(Fault("S2_20180421/B03.tif", 404))
    found, figures = fetch_for_run(config, run, parts, tracker=NoTracker())
    assert figures == {"images": 3, "files_fetched": 43, "files_unchanged": 0, "images_missing": 1}
    later = [read_run(each) for each in (found.run, *found.parts)]
    assert [each.part for each in later] == ["1/2", "2/2"]
    assert {each.named_source for each in later} == {source}
    assert len({each.source for each in later}) == 1
    # The image is back, and the catalogue then gone: neither is seen.
    server.faults.clear()
    server.close()
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "other machine"))
    assert survey_source(config, later[1].source).dates == 3
    assert set(dataset(config, later[0].source, tmp_path / "a").dates) == {3}


def test_images_may_be_missing_within_a_limit(season, serve, config):
    server = serve(season)
    server.faults.append(Fault("S2_20180421/B03.tif", 404))
    source = f"stac:{server.url}?{AREA}"
    with pytest.raises(DataError, match="S2_20180421"):
        fetched(config, source)
    found = fetched(config, f"{source}&missing=1")
    assert (found.images, found.missing) == (3, 1)
    assert any("image S2_20180421 is missing: " in note and "HTTP 404" in note for note in found.notes)
    server.faults.append(Fault("S2_20180411/B02.tif", 404))
    server.faults.append(Fault("S2_20180401/B02.tif", 404))
    with pytest.raises(DataError, match=r"B02\.tif: no such file \(HTTP 404\)"):
        fetched(config, f"{source}&missing=1")
    # The next run reads what failed.
    server.faults.clear()
    assert fetched(config, f"{source}&missing=1").images == 4


def test_a_broken_item_is_a_missing_image(season, serve, config):
    def edit(item):
        if "0411" in item["id"]:
            del item["assets"]["B04"]

    source = f"stac:{serve(season, edit=edit).url}?{AREA}"
    with pytest.raises(DataError, match="no asset for band B04"):
        fetched(config, source)
    found = fetched(config, f"{source}&missing=1")
    assert (found.images, found.missing) == (3, 1)


def test_cells_of_one_crs_are_mapped_as_one_scene(season, serve, config):
    server = serve(season)
    source = f"stac:{server.url}?{SMALL}&cell=160&crs=EPSG:32631"
    found = fetched(config, source)
    assert (Path(found.folder) / "cells.json").is_file()
    assert found.images == 16
    kind, whole = source_of("season"), config.data
    cut, asked = kind.open(found.folder, whole), kind.open(season, whole)
    assert (cut.name, cut.grid.transform, cut.grid.crs) == ("fake", asked.grid.transform, asked.grid.crs)
    pixels, clear = cut.read(0, 32)
    expected, expected_clear = asked.read(0, 32)
    # Bands of 10 m to the bit; those of 20 m but at the edges of cells, beyond which they are not known.
    fine = [place for place, band in enumerate(cut.bands) if band in ("B02", "B03", "B04", "B08")]
    np.testing.assert_array_equal(pixels[:, fine], expected[:, fine])
    inner = np.ones(32, bool)
    inner[[15, 16]] = False
    np.testing.assert_array_equal(pixels[:, :, inner][..., inner], expected[:, :, inner][..., inner])
    np.testing.assert_array_equal(clear, expected_clear)
    # A part of the rows is what it is in the whole.
    np.testing.assert_array_equal(cut.read(12, 20)[0], pixels[:, :, 12:20])
    assert cut.read_counted(0, 32)[2] == asked.read_counted(0, 32)[2]
    assert set(survey_source(config, source).cells) == {"EPSG:32631"}
    assert len(survey_source(config, f"season:{found.folder}").cells) == 4


def test_cells_of_two_crs_are_no_scene(season, serve, config):
    server = serve(season)
    found = fetched(config, f"stac:{server.url}?{SMALL}&cell=160&crs=EPSG:32631")
    index = Path(found.folder) / "cells.json"
    content = json.loads(index.read_text())
    next(each for each in content["cells"] if each["state"] == "complete")["crs"] = "EPSG:32632"
    index.write_text(json.dumps(content))
    said = r"its cells are in EPSG:32631, EPSG:32632, and a map has one CRS. Give crs=EPSG:32631"
    with pytest.raises(ConfigError, match=said):
        source_of("season").open(found.folder, config.data)
    with pytest.raises(ConfigError, match=said):
        check_one_crs("it", survey(config, f"season:{found.folder}", "2018").cells)


def test_labels_of_a_year_that_are_not_there_yet(season, serve, config, tmp_path):
    source = f"stac:{serve(season).url}?{AREA}&labels={tmp_path}/labels-{{year}}.gpkg"
    found = fetched(config, source)
    assert not found.labelled
    assert any("no labels of 2018 yet" in note and "labels-2018.gpkg" in note for note in found.notes)
    (tmp_path / "labels-2018.gpkg").write_bytes(b"parcels")
    again = fetched(config, source)
    assert again.labelled
    assert (Path(again.folder) / "labels/parcels.gpkg").read_bytes() == b"parcels"
    with pytest.raises(DataError, match=r"/none\.gpkg: No such file"):
        fetched(config, f"stac:{serve(season).url}?{AREA}&labels={tmp_path}/none.gpkg")
    with pytest.raises(ConfigError, match=r"labels.doc.*no kind of labels, expected \.geojson"):
        (tmp_path / "labels.doc").write_text("")
        fetched(config, f"stac:{serve(season).url}?{AREA}&labels={tmp_path}/labels.doc")


def test_labels_on_a_web_server_are_sent_once(season, serve, config, tmp_path):
    (season / "labels/fields.geojson").write_text("{}")
    server = serve(season)
    source = f"stac:{server.url}?{AREA}&labels={server.url}/files/labels/fields.geojson"
    first = fetched(config, source)
    assert (Path(first.folder) / "labels/parcels.geojson").read_text() == "{}"
    with pytest.raises(DataError, match=r"none\.gpkg: no such file \(HTTP 404\)"):
        fetched(config, f"stac:{server.url}?{AREA}&labels={server.url}/files/labels/none.gpkg")


def test_a_layer_of_a_map_by_address(season, serve, tmp_path):
    """As `mapping.cropland` names it: a path, a store or a web server, and one of its layers."""
    (season / "labels/mask.gpkg").write_text("a mask")
    server = serve(season)
    url = f"{server.url}/files/labels/mask.gpkg"
    for _ in range(2):
        assert local_file(url).read_text() == "a mask"
    named = local_file(f"file://{season}/labels/mask.gpkg|layername=a")
    assert named.name == "mask.gpkg|layername=a"
    assert named.with_name("mask.gpkg").read_text() == "a mask"
    assert local_file(f"{season}/none.tif") == season / "none.tif"
    with pytest.raises(DataError, match=r"none\.tif: no such file \(HTTP 404\)"):
        local_file(f"{server.url}/files/none.tif")


def test_an_area_by_address(season, serve, config, tmp_path):
    (tmp_path / "area.geojson").write_text(
        '{"type": "Polygon", "coordinates": [[[2.99, 50.5], [3.01, 50.5], [3.01, 50.6], [2.99, 50.6], [2.99, 50.5]]]}'
    )
    source = f"stac:{serve(season).url}?collection=fake&area={tmp_path}/area.geojson"
    assert fetched(config, source).images == 4


def test_files_behind_sas_tokens(season, serve, config):
    server = serve(season, sas_seconds=3600.0)
    with pytest.raises(
        ServiceError, match=r"not allowed \(HTTP 409\); no token was sent.*address was not signed.*sign="
    ):
        fetched(config, f"stac:{server.url}?{AREA}")
    found = fetched(config, f"stac:{server.url}?{AREA}&sign={server.url}/sas")
    assert (found.files_read, found.images) == (FILES, 4)
    # One token for the account and container of all files.
    assert [path for _, path, _ in server.asked if path.startswith("/sas/")] == ["/sas/127/files"]
    assert not any("sig=" in path.read_text() for path in Path(found.folder).rglob("*.json"))


def test_a_sas_token_is_renewed_before_it_ends(season, serve, config):
    # It ends within the time that a read may take, so each read asks for another.
    server = serve(season, sas_seconds=100.0)
    found = fetched(config, f"stac:{server.url}?{AREA}&bands=B02&sign={server.url}/sas")
    assert found.files_read == 8
    assert server.sas_given > 8


def test_a_folder_in_a_store_is_mirrored(season, config, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(season, store / "flanders")
    source = f"season:{(store / 'flanders').as_uri()}"
    first = fetched(config, source)
    count = sum(path.is_file() for path in season.rglob("*"))
    assert (first.files_read, first.source) == (count, source)
    direct = dataset(config, f"season:{season}", tmp_path / "b").manifest
    found = dataset(config, source, tmp_path / "a").manifest
    assert (found.digest, found.source) == (direct.digest, source)
    assert fetched(config, source).files_read == 0
    # A file here that was altered, one there that has changed, one that has gone.
    folder = Path(first.folder)
    (folder / "S2_20180401/B02.tif").write_bytes(b"broken")
    write_raster(store / "flanders/S2_20180411/B02.tif", np.full((32, 32), 7, np.uint16))
    (store / "flanders/labels/legend.csv").unlink()
    again = fetched(config, source)
    assert (again.files_read, again.files_kept) == (2, count - 3)
    assert not (folder / "labels/legend.csv").exists()
    assert (folder / "S2_20180401/B02.tif").read_bytes() == (season / "S2_20180401/B02.tif").read_bytes()
    with pytest.raises(DataError, match="there are no objects"):
        (tmp_path / "empty").mkdir()
        local_place(config, f"season:{(tmp_path / 'empty').as_uri()}")


def test_a_survey_of_a_folder_in_a_store_fetches_no_image(season, config, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(season, store / "flanders")
    source = f"season:{(store / 'flanders').as_uri()}"
    direct = survey_source(config, f"season:{season}")
    assert survey_source(config, source) == direct == (4, 10, None, ())

    def fetched_bytes() -> dict[str, int]:
        """What lies there of images and labels, by name; the survey's own records are of no interest."""
        found = [path for path in (tmp_path / "cache/sources").rglob("*") if path.is_file()]
        return {path.name: path.stat().st_size for path in found if path.suffix == ".tif" or "labels" in path.parts}

    assert set(fetched_bytes()) == {path.name for path in season.glob("S2*/*.tif")}
    assert set(fetched_bytes().values()) == {0}
    # What a name tells is told before anything is fetched.
    (store / "flanders/S2_20180411/B03.tif").unlink()
    (store / "flanders/season.yaml").write_text("bands: [B02, B03]\n")
    shutil.rmtree(store / "flanders/S2_20180421")
    for item in (store / "flanders").rglob("*.json"):
        item.unlink()
    with pytest.raises(DataError, match="band B03 is missing"):
        survey_source(config, source)
    shutil.rmtree(store / "flanders/S2_20180411")
    assert survey_source(config, source) == (2, 2, None, ())
    assert set(fetched_bytes().values()) == {0}


def test_a_survey_of_a_published_folder_fetches_no_image(season, serve, config, tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    found = fetched(config, f"stac:{serve(season).url}?{AREA}")
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "other machine"))
    assert survey_source(config, found.source) == (4, 10, None, ())
    there = [path for path in (tmp_path / "other machine").rglob("*.tif") if path.is_file()]
    assert len(there) == FILES
    assert not any(path.stat().st_size for path in there)


def test_archives_must_be_fetched_to_know_what_is_in_them(season, config, tmp_path):
    store = tmp_path / "store/flanders"
    store.mkdir(parents=True)
    for date in sorted(season.glob("S2*")):
        shutil.make_archive(str(store / date.name), "zip", season, date.name)
    assert survey_source(config, f"season:{store.as_uri()}") == (4, 10, None, ())


def test_what_was_used_longest_ago_goes_when_others_come(season, config, tmp_path, monkeypatch):
    def stored(name: str) -> str:
        shutil.copytree(season, tmp_path / "store" / name)
        return f"season:{(tmp_path / 'store' / name).as_uri()}"

    def elsewhere(source: str) -> Path:
        """By a process that then ends: it uses it no longer."""
        code = (
            "import sys; from exact_core.recipes import resolve; from exact_core.stages.fetch import local_place\n"
            "print(local_place(resolve('season'), sys.argv[1]))"
        )
        done = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, check=True)
        return Path(done.stdout.strip())

    size = sum(path.stat().st_size for path in season.rglob("*") if path.is_file())
    # Two and a half of them; beside each there is a record of some kilobytes.
    monkeypatch.setenv("EXACT_CACHE_GB", str(2.5 * size / 1e9))
    first, second = elsewhere(stored("a")), elsewhere(stored("b"))
    assert elsewhere(f"season:{(tmp_path / 'store/a').as_uri()}") == first  # the second is now the older one
    ours = local_place(config, stored("c"))
    assert [path.is_dir() for path in (first, second, ours)] == [True, False, True]
    assert not list(second.parent.glob(f"{second.name}*"))
    # This process uses its own until it ends, whatever the bound.
    monkeypatch.setenv("EXACT_CACHE_GB", "0")
    other = elsewhere(stored("d"))
    assert [path.is_dir() for path in (first, ours, other)] == [False, True, True]


def test_labels_beside_a_folder_in_a_store(season, config, tmp_path):
    shutil.copytree(season, tmp_path / "store/flanders")
    (tmp_path / "tags-2018.csv").write_text("lon,lat,crops\n3.0,50.5,maize\n")
    source = f"season:{(tmp_path / 'store/flanders').as_uri()}?labels={tmp_path}/tags-{{year}}.csv"
    for _ in range(2):
        found = fetched(config, source)
        assert [path.name for path in (Path(found.folder) / "labels").iterdir()] == ["tags.csv"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("ftp://a/b", "not the address of a STAC API"),
        ("https://user:pw@a/b?bbox=1,2,3,4", "without a login"),
        ("https://a/b", "give the area"),
        ("https://a/b?bbox=1,2,3", "bbox = '1,2,3': expected WEST,SOUTH,EAST,NORTH"),
        ("https://a/b?bbox=3,2,1,4", "west < east"),
        ("https://a/b?bbox=1,2,3,x", "bbox: 'x' is no number"),
        ("https://a/b?bbox=1,2,3,4&colection=x", "unknown 'colection' in the query. Did you mean collection"),
        ("https://a/b?bbox=1,2,3,4&cloud=101", "cloud = '101': expected percent"),
        ("https://a/b?bbox=1,2,3,4&missing=-1", "missing = '-1': expected a whole number"),
        ("https://a/b?bbox=1,2,3,4&start=2020-01-01", "both start and end"),
        ("https://a/b?bbox=1,2,3,4&start=2020-13-01&end=2021-01-01", "start = '2020-13-01': expected a day"),
        ("https://a/b?bbox=1,2,3,4&bands=B02,B02", "bands = 'B02,B02': expected names"),
        ("https://a/b?bbox=1,2,3,4&bbox=1,2,3,4", "bbox is there twice"),
        ("https://a/b?bbox=", "bbox is empty"),
    ],
)
def test_an_address_that_is_none_names_the_part(place, said):
    with pytest.raises(ConfigError) as error:
        parse_source(f"stac:{place}")
    assert said in str(error.value)


@pytest.mark.parametrize("source", ["season:ftp://a/b", "season:s3://", "season:s3://b/p?bbox=1", "pastis:s3://b/p"])
def test_other_addresses_are_refused(source):
    with pytest.raises(ConfigError):
        parse_source(source)


def test_no_day_after_the_last_that_may_be_used_is_fetched():
    """By the season, with and without its days, and by an address that names both days."""

    def days(address, *settings):
        asked = parse_address(f"https://example.org?collection=c&bbox=1,2,3,4{address}")
        found = _days(asked, resolve("season", overrides=[f"data.season.{each}" for each in settings]))
        return tuple(map(str, found))

    start, until = "start=2021-04-01", "until=2021-06-15"
    assert days("", start, "days=30") == ("2021-04-01", "2021-04-30")
    assert days("", start, "days=30", until) == ("2021-04-01", "2021-04-30")
    assert days("", start, "days=200", until) == ("2021-04-01", "2021-06-15")
    assert days("", start, until) == ("2021-04-01", "2021-06-15")
    assert days("&start=2021-05-01&end=2021-09-30", until) == ("2021-05-01", "2021-06-15")
    with pytest.raises(ConfigError, match="until 2021-06-15 is before the first day of the season, 2021-07-01"):
        days("", "start=2021-07-01", "days=200", until)


def test_days_must_be_known(season, serve):
    # A schedule names them later; until then the last year is looked at.
    with pytest.raises(NothingFoundError, match="no image over the area from 20"):
        survey_source(resolve("season"), f"stac:{serve(season).url}?{AREA}")
    with pytest.raises(ConfigError, match="which days are to be fetched is not known: give the season"):
        fetched(resolve("season"), f"stac:{serve(season).url}?{AREA}")
