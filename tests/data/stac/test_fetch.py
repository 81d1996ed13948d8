"""`exact fetch` over real HTTP: a STAC API of the tests serves a season, with every fault that a server can have."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from exact_core.config import DataConfig, SeasonConfig
from exact_core.data.season.files import find_acquisitions
from exact_core.data.season.folder import ingest_season
from exact_core.data.stac import fetch as fetching
from exact_core.data.stac.fetch import Fetch, Summary, fetch_cells, fetch_season
from exact_core.data.stac.grid import area_of
from exact_core.data.stac.search import Wanted, open_source
from exact_core.data.stac.web import Token, Web, WebOptions
from exact_core.data.stac.window_copy import copy_window
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, DataError, ExactError, ServiceError
from exact_core.files import sha256_of
from tests.fakes import BANDS, write_raster, write_season
from tests.stac_server import Fault, StacServer

FAST = WebOptions(attempts=3, first_pause=0.01, connect_timeout=2, read_timeout=0.4)
# The fake season is a square of 320 m whose upper left corner is 500000, 5600000 in zone 31.
AREA = (2.99, 50.5, 3.01, 50.6)
Serve = Callable[..., StacServer]


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


def asked(
    server: StacServer,
    *,
    bands: tuple[str, ...] = BANDS,
    area: tuple[float, ...] = AREA,
    token: Token | None = None,
    options: WebOptions = FAST,
    **settings: Any,
) -> Fetch:
    web = Web(server.url, token=token or Token(), options=options)
    name = str(server.collection["id"])
    wanted = Wanted(area_of(bbox=area), dt.date(2017, 1, 1), dt.date(2019, 1, 1), settings.pop("max_cloud", None))
    # The server is in this process, and answers within the time that FAST gives it.
    return Fetch(open_source(web, server.url, name), wanted, bands, **{"workers": 4, **settings})


def refused(server: StacServer, out: Path, kind: type[ExactError] = DataError, **settings: Any) -> str:
    with pytest.raises(kind) as caught:
        fetch_season(asked(server, **settings), out)
    assert not (out / "collection.json").exists()
    assert not list(out.rglob("*.partial"))
    return str(caught.value)


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def digest(folder: Path, labels: Path, out: Path, **season_settings: Any) -> str:
    """Of the dataset, with the labels of another folder, which a fetch does not read."""
    if not (folder / "labels").exists():
        shutil.copytree(labels / "labels", folder / "labels")
    season = SeasonConfig(**season_settings)
    ingest_season(folder, DataConfig(window=12, season=season), out, seed=0)
    return WindowDataset(out).manifest.digest


# What comes out


@pytest.mark.parametrize("methods", [("GET", "POST"), ("GET",)])
def test_the_same_dataset_as_from_the_folder(season: Path, serve: Serve, tmp_path: Path, methods: Any) -> None:
    server = serve(season, page=3, methods=methods)
    summary = fetch_season(asked(server), tmp_path / "out")
    assert (summary.images, summary.files_read) == (4, 44)
    searches = [method for method, path, _ in server.asked if path.startswith("/search")]
    assert searches == ["POST" if "POST" in methods else "GET"] * 2
    assert digest(tmp_path / "out", season, tmp_path / "a") == digest(season, season, tmp_path / "b")


def test_the_real_scene_over_http_gives_the_same_digest(flanders: Path, serve: Serve, tmp_path: Path) -> None:
    # Two bands of a summer; all of it, 118 dates and 10 bands, gives one digest too (15 s).
    bands = ("B04", "B11")
    server = serve(flanders, page=50)
    # A search of 118 items may take longer than FAST waits on a busy machine.
    source = asked(server, bands=bands, area=(3.019, 50.813, 3.029, 50.819), options=WebOptions())
    source = replace(source, wanted=replace(source.wanted, start=dt.date(2018, 4, 1), end=dt.date(2018, 8, 31)))
    fetch_season(source, tmp_path / "out")
    clip = {"start": dt.date(2018, 4, 1), "days": 153, "bands": bands}
    fetched = digest(tmp_path / "out", flanders, tmp_path / "a", **clip)
    assert fetched == digest(flanders, flanders, tmp_path / "b", **clip)


def test_a_static_catalogue_on_a_web_server(season: Path, serve: Serve, tmp_path: Path) -> None:
    for path in season.glob("S2_*/*.json"):
        path.write_text(path.read_text().replace('"geometry": null', '"bbox": [2.99, 50.5, 3.01, 50.6]'))
    server = serve(season)
    url = f"{server.url}/static/collection.json"
    source = open_source(Web(url, token=Token(), options=FAST), url, "")
    fetch_season(replace(asked(server), source=source), tmp_path / "out")
    assert digest(tmp_path / "out", season, tmp_path / "a") == digest(season, season, tmp_path / "b")


def test_only_the_window_on_the_pixels_of_the_image(season: Path, serve: Serve, tmp_path: Path) -> None:
    # From 100 m to 200 m right of the corner and 60 m to 160 m below it, outwards to 20 m.
    west, east, south, north = 3.00142, 3.00281, 50.54977, 50.55064
    fetch_season(asked(serve(season), area=(west, south, east, north)), tmp_path / "out")
    for band, pixel in (("B02", 10), ("B05", 20), ("SCL", 20)):
        with (
            rasterio.open(tmp_path / f"out/S2_20180411/{band}.tif") as part,
            rasterio.open(season / f"S2_20180411/{band}.tif") as whole,
        ):
            assert part.transform.a == pixel
            assert part.bounds[0] % 20 == part.bounds[3] % 20 == 0
            assert part.profile["tiled"]
            assert part.crs == whole.crs
            window = whole.window(*part.bounds)
            assert (window.width, window.height) == (part.width, part.height)
            assert 100 <= part.width * pixel <= 140
            np.testing.assert_array_equal(part.read(1), whole.read(1, window=window))


def test_metadata_is_kept(season: Path, serve: Serve, tmp_path: Path) -> None:
    path = season / "S2_20180401/B02.tif"
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.0001,), (-0.1,)
        file.update_tags(PROCESSING_BASELINE="04.00")

    def edit(item: dict[str, Any]) -> None:
        item["properties"] |= {"s2:processing_baseline": "04.00", "eo:cloud_cover": 12.5, "proj:shape": [5, 5]}
        item["assets"]["B02"]["raster:bands"] = [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]
        item["assets"]["B02"]["href"] += "?sig=secret"

    fetch_season(asked(serve(season, edit=edit)), tmp_path / "out")
    item = json.loads((tmp_path / "out/S2_20180401/S2_20180401.json").read_text())
    assert item["properties"]["s2:processing_baseline"] == "04.00"
    assert item["properties"]["eo:cloud_cover"] == 12.5
    assert "proj:shape" not in item["properties"]
    assert item["assets"]["B02"]["raster:bands"] == [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]
    assert item["assets"]["B02"]["proj:shape"] == [32, 32]
    with rasterio.open(tmp_path / "out/S2_20180401/B02.tif") as file:
        assert (file.scales, file.offsets, file.nodata) == ((0.0001,), (-0.1,), 0)
        assert file.tags()["PROCESSING_BASELINE"] == "04.00"
    ledger = (tmp_path / "out/fetched.json").read_text()
    assert "secret" not in ledger
    first = json.loads(ledger)["files"][0]
    assert first["sha256"] == sha256_of(tmp_path / "out" / first["file"])
    assert first["source_bytes"] == path.stat().st_size
    assert first["etag"]


def test_bands_by_colour_and_clouds(season: Path, serve: Serve, tmp_path: Path) -> None:
    def edit(item: dict[str, Any]) -> None:
        assets = item["assets"]
        item["assets"] = {"red": assets["B04"], "nir": assets["B08"], "scl": assets["SCL"]}
        item["assets"]["red-jp2"] = {
            "href": "s3://elsewhere/B04.jp2",
            "eo:bands": [{"name": "red"}],
            "type": "image/jp2",
        }
        item["properties"]["eo:cloud_cover"] = 90 if "0411" in item["id"] else 10

    summary = fetch_season(asked(serve(season, edit=edit), bands=("B04", "B08"), max_cloud=80), tmp_path / "out")
    assert summary.images == 3
    assert summary.notes == ["1 images with more than 80 % clouds were left out"]
    _, found = find_acquisitions(tmp_path / "out", ("B04", "B08"))
    assert [set(each.files) for each in found] == [{"B04", "B08", "SCL"}] * 3


def test_parts_of_an_area_share_one_grid(season: Path, serve: Serve, tmp_path: Path) -> None:
    # The second date shows another 320 m, one half of it beside the first: both on the pixels of both.
    for band in ("B02", "B03", "B04", "B08"):
        write_raster(season / f"S2_20180411/{band}.tif", np.full((32, 32), 77, np.uint16), left=500_160)

    def edit(item: dict[str, Any]) -> Any:
        item["bbox"] = [2.9, 50.4, 3.1, 50.6]

    fetch_season(asked(serve(season, edit=edit), bands=("B02", "B03")), tmp_path / "out")
    with (
        rasterio.open(tmp_path / "out/S2_20180411/B02.tif") as moved,
        rasterio.open(tmp_path / "out/S2_20180401/B02.tif") as first,
    ):
        assert moved.bounds == first.bounds == (500_000, 5_599_680, 500_480, 5_600_000)
        assert (moved.read(1) == 77).sum(axis=1).tolist() == [32] * 32
        assert (moved.read(1)[:, :16] == 0).all()
        assert (first.read(1)[:, 32:] == 0).all()


# Again


def test_a_second_run_reads_only_what_is_new(season: Path, serve: Serve, tmp_path: Path) -> None:
    hidden: set[str] = {"S2_20180501"}

    def edit(item: dict[str, Any]) -> None:
        item["properties"] |= PLACE | {"updated": "2020-01-01T00:00:00Z"}
        if item["id"] in hidden:
            item["properties"]["datetime"] = "2030-01-01T00:00:00Z"

    server = serve(season, edit=edit)
    out = tmp_path / "out"
    assert fetch_season(asked(server), out).images == 3
    before = hashes(out)
    count = server.files_asked()
    assert fetch_season(asked(server), out).files_kept == 33
    assert server.files_asked() == count
    assert hashes(out) == before
    hidden.clear()
    assert fetch_season(asked(server), out).files_read == 11
    # A file that is lost or altered here is read again, and only that one.
    (out / "S2_20180401/B02.tif").unlink()
    (out / "S2_20180411/B03.tif").write_bytes(b"II*\0 altered")
    assert fetch_season(asked(server), out).files_read == 2
    assert {name: hashes(out)[name] for name in before if name.endswith(".tif")}.items() <= before.items()


def test_a_file_that_changed_on_the_server_is_read_again(season: Path, serve: Serve, tmp_path: Path) -> None:
    server = serve(season)
    out = tmp_path / "out"
    fetch_season(asked(server), out)
    write_raster(season / "S2_20180401/B02.tif", np.full((32, 32), 9, np.uint16))
    assert fetch_season(asked(server), out).files_read == 1
    with rasterio.open(out / "S2_20180401/B02.tif") as file:
        assert (file.read(1) == 9).all()


CHILD = """
import datetime as dt, sys
from pathlib import Path
from exact_core.data.stac import fetch
from exact_core.data.stac.grid import area_of
from exact_core.data.stac.search import Wanted, open_source
from exact_core.data.stac.web import Web
fetch.WRITTEN_EVERY = 0.0
url, name, out, bands = sys.argv[1:]
wanted = Wanted(area_of(bbox=(2.99, 50.0, 4.0, 50.6)), dt.date(2017, 1, 1), dt.date(2019, 1, 1))
asked = fetch.Fetch(open_source(Web(url), url, name), wanted, tuple(bands.split(",")), workers=2)
for part in out.split(","):
    fetch.fetch_season(asked, Path(part))
    # Not ru_maxrss, which begins with what the parent had.
    print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
"""


def test_a_killed_run_goes_on(season: Path, serve: Serve, tmp_path: Path) -> None:
    server = serve(season)
    fetch_season(asked(server), tmp_path / "clean")
    whole, server.delay = server.files_asked(), 0.02
    out = tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-c", CHILD, server.url, "fake", str(out), ",".join(BANDS)])
    end = time.monotonic() + 60
    while len(list(out.glob("*/*.tif"))) < 10 and child.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (out / "collection.json").exists()
    with pytest.raises(DataError, match="has not come to its end. Repeat `exact fetch`"):
        find_acquisitions(out, BANDS)
    (out / "S2_20180401/.B02.tif.partial").write_bytes(b"left over")
    server.delay, count = 0.0, server.files_asked()
    summary = fetch_season(asked(server), out)
    assert summary.files_kept >= 8
    assert server.files_asked() - count < whole
    assert hashes(out) == hashes(tmp_path / "clean")


def test_memory_does_not_grow_with_the_window(season: Path, serve: Serve, tmp_path: Path) -> None:
    # 3,600 x 3,600 pixels and 26 MB a file, eight of them: 207 MB of values in all.
    big = tmp_path / "big.tif"
    ramp = np.arange(3600, dtype=np.uint16)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 1, "height": 3600, "width": 3600, "tiled": True}
    with rasterio.open(
        big,
        "w",
        **profile,
        crs="EPSG:32631",
        transform=Affine(10, 0, 500_000, 0, -10, 5_600_000),
        compress="deflate",
        zlevel=1,
    ) as file:
        file.write(ramp[:, None] ^ ramp[None, :], 1)
    for item in ("S2_20180401", "S2_20180411", "S2_20180421", "S2_20180501"):
        for band in ("B02", "B03"):
            (season / item / f"{band}.tif").unlink()
            (season / item / f"{band}.tif").hardlink_to(big)
    server = serve(season)
    parts = f"{tmp_path}/small,{tmp_path}/large"
    command = [sys.executable, "-c", CHILD.replace("for part", 'names = ("B04", "B02,B03")\nfor part')]
    command[-1] = command[-1].replace(
        "    fetch.fetch_season",
        "    asked = type(asked)(asked.source, asked.wanted, "
        "tuple(names['large' in part].split(',')), workers=2)\n    fetch.fetch_season",
    )
    done = subprocess.run([*command, server.url, "fake", parts, "B02"], check=True, capture_output=True, text=True)
    small, large = (int(line) for line in done.stdout.split())
    # Two workers: GDAL's cache of 64 MB, a piece and its compressed bytes for each, and the range cache of 16 MB.
    with rasterio.open(tmp_path / "large/S2_20180501/B03.tif") as file:
        assert file.shape == (3600, 3600)
    assert large - small < 100 * 1024, f"{small} kB, then {large} kB"


# Faults


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/search", 500, 2),
        Fault("/search", 429, 1),
        Fault("/search", "reset", 1),
        Fault("/search", "short", 1),
        Fault("/search", "slow", 1),
        Fault("/collections", 503, 1),
        Fault("B02.tif", 500, 2),
        Fault("B02.tif", 503, 2, method="HEAD"),
        Fault("B02.tif", "reset", 1),
        Fault("B02.tif", "slow", 1),
        Fault("S2_20180411/B02.tif", "short", 1),
        Fault("S2_20180411/B02.tif", "breaking", 2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.path.strip('/')}",
)
def test_what_passes_is_borne(season: Path, serve: Serve, tmp_path: Path, fault: Fault) -> None:
    server = serve(season)
    fetch_season(asked(server, bands=("B02",)), tmp_path / "clean")
    server.faults.append(replace(fault))
    fetch_season(asked(server, bands=("B02",)), tmp_path / "out")
    assert not server.faults[0].times
    assert hashes(tmp_path / "out") == hashes(tmp_path / "clean")


@pytest.mark.parametrize(
    ("kind", "error", "expected"),
    [
        (500, ServiceError, "HTTP 500; try again later. The other images are kept. Repeat the command"),
        (404, DataError, "no such file \\(HTTP 404\\), .*. Leave the image out by --skip, or search again later"),
        # Asking again would not help.
        (400, ServiceError, "HTTP 400; report it to the files' operator, or leave the image out by --skip"),
        (403, ServiceError, "not allowed \\(HTTP 403\\); no token was sent: set EXACT_STAC_TOKEN"),
        ("html", DataError, "expected a TIFF or JPEG 2000, got an HTML page"),
        ("cut", DataError, "cannot be read: .*. The file is damaged or truncated on the server"),
        (
            "breaking",
            DataError,
            "cannot be read: .*. The file is damaged or truncated on the server, or the connection",
        ),
        ("short", ServiceError, "no answer after 3 tries"),
        ("norange", DataError, "knows no range requests"),
        ("reset", ServiceError, "no answer after 3 tries"),
    ],
)
def test_a_broken_file(
    season: Path, serve: Serve, tmp_path: Path, kind: int | str, error: type[ExactError], expected: str
) -> None:
    server = serve(season, faults=[Fault("S2_20180411/B03.tif", kind)])
    out = tmp_path / "out"
    said = refused(server, out, error, bands=("B02", "B03"))
    where = f"item S2_20180411, asset B03: {server.url}/files/S2_20180411/B03.tif: "
    assert re.match(re.escape(where) + f".*{expected}", said), said
    assert not (out / "S2_20180411/B03.tif").exists()
    # The others are there, and the same command goes on from them.
    assert len(list(out.glob("*/*.tif"))) == 11
    server.faults.clear()
    assert fetch_season(asked(server, bands=("B02", "B03")), out).files_read == 1
    assert find_acquisitions(out, ("B02", "B03"))[0] == "fake"


def test_a_broken_image_is_left_out_by_skip(season: Path, serve: Serve, tmp_path: Path) -> None:
    server = serve(season, faults=[Fault("S2_20180411/B03.tif", 404)])
    assert fetch_season(asked(server, skip=frozenset({"S2_20180411"})), tmp_path / "out").images == 3


def test_the_rest_is_given_up_when_everything_fails(season: Path, serve: Serve, tmp_path: Path) -> None:
    server = serve(season, faults=[Fault("/files/", 404)], edit=lambda item: item["properties"].update(PLACE))
    said = refused(server, tmp_path / "out", bands=("B02",))
    assert "4 of 4 images could not be read (S2_2018" in said


PLACE = {"proj:epsg": 32631, "proj:shape": [32, 32], "proj:transform": [10, 0, 500_000, 0, -10, 5_600_000]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"proj:shape": [64, 64]}, r"\(32, 32\) pixels where the item says \(64, 64\)"),
        ({"proj:transform": [10, 0, 500_000, 0, -10, 5_600_100]}, "its position differs from the item's"),
        ({"proj:epsg": 32632}, "its CRS is EPSG:32631, not EPSG:32632"),
        ({"file:size": 123}, r"\d+ bytes where the item says 123: truncated or replaced"),
    ],
)
def test_a_file_that_is_not_what_the_item_says(
    season: Path, serve: Serve, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    def edit(item: dict[str, Any]) -> None:
        item["assets"]["B02"] |= PLACE | (change if item["id"] == "S2_20180411" else {})
        if "proj:epsg" in change:
            item["properties"]["proj:epsg"] = 32632
            item["bbox"] = [8.9, 50.5, 9.1, 50.6]

    area = AREA if "proj:epsg" not in change else (8.99, 50.5, 9.01, 50.6)
    said = refused(serve(season, edit=edit), tmp_path / "out", bands=("B02",), area=area)
    assert re.search(expected, said), said


def test_a_file_of_another_zone(season: Path, serve: Serve, tmp_path: Path) -> None:
    write_raster(season / "S2_20180411/B03.tif", np.full((32, 32), 7, np.uint16), crs="EPSG:32632")
    said = refused(serve(season), tmp_path / "out", bands=("B02", "B03"))
    assert "asset B03" in said
    assert "its CRS is EPSG:32632, not EPSG:32631 as the item says or as the others have" in said


# Tokens


def test_a_token_is_renewed_on_401_and_goes_to_the_api_alone(
    season: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = serve(season)
    api = serve(
        season,
        token="second",  # noqa: S106
        edit=lambda item: json.loads(json.dumps(item).replace(f":{api.url[-5:]}/files", f":{files.url[-5:]}/files")),
    )
    counter = tmp_path / "count"
    script = tmp_path / "token.py"
    script.write_text(
        f"import pathlib\np = pathlib.Path({str(counter)!r})\nn = len(p.read_text()) if p.exists() else 0\n"
        "p.write_text('x' * (n + 1))\nprint(['first', 'second'][min(n, 1)])\n"
    )
    token = Token(command=f"{sys.executable} {script}")
    fetch_season(asked(api, bands=("B02",), token=token), tmp_path / "out")
    assert counter.read_text() == "xx"
    assert [header for _, _, header in api.asked[:2]] == ["Bearer first", "Bearer second"]
    assert {header for _, _, header in api.asked[1:]} == {"Bearer second"}
    assert files.asked
    assert {header for _, _, header in files.asked} == {""}


def test_a_named_host_gets_the_token(season: Path, serve: Serve, tmp_path: Path) -> None:
    server = serve(season, files_token="secret")  # noqa: S106
    with pytest.raises(ServiceError, match=r"not allowed \(HTTP 401\); no token was sent"):
        fetch_season(asked(server, bands=("B02",)), tmp_path / "out")
    assert fetch_season(asked(server, bands=("B02",), token=Token("secret")), tmp_path / "out").files_read == 8
    with pytest.raises(ServiceError, match="the token that was sent is not accepted"):
        fetch_season(asked(server, bands=("B02",), token=Token("wrong")), tmp_path / "other")


# Searches


def test_nothing_found(season: Path, serve: Serve, tmp_path: Path) -> None:
    said = refused(serve(season), tmp_path / "out", area=(10, 10, 11, 11))
    assert said == "no image over the area from 2017-01-01 to 2019-01-01. Check area, dates and collection"


def test_pages_that_do_not_end(season: Path, serve: Serve, tmp_path: Path) -> None:
    server = serve(season, page=2, faults=[Fault("/search", "again")])
    assert "its paging does not end" in refused(server, tmp_path / "out", ServiceError)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("/search", "lying"), "a page of the search is not valid"),
        (Fault("/search", "html"), "a page of the search is not valid"),
        (Fault("/search", 500), "HTTP 500: trouble; try again later"),
        (Fault("/search", 400), "HTTP 400: trouble; check the address, the collection and the area"),
        (Fault("/search", "reset"), "no answer: ConnectionError. Check the address, the network"),
    ],
)
def test_a_search_that_fails(season: Path, serve: Serve, tmp_path: Path, fault: Fault, expected: str) -> None:
    server = serve(season, faults=[replace(fault)])
    assert expected in refused(server, tmp_path / "out", ServiceError)


def test_what_is_no_api(season: Path, serve: Serve) -> None:
    server = serve(season)

    def opened(url: str, collection: str = "") -> str:
        with pytest.raises(ExactError) as caught:
            open_source(Web(url, token=Token(), options=FAST), url, collection)
        return str(caught.value)

    assert "name a collection by --collection. It has fake" in opened(server.url)
    assert "no collection 'other'. It has fake" in opened(server.url, "other")
    assert "not JSON" in opened(f"{server.url}/files/S2_20180401/B02.tif")
    assert "neither a STAC API nor a static catalogue (type 'Feature')" in opened(
        f"{server.url}/static/S2_20180401/S2_20180401.json"
    )
    assert "HTTP 404" in opened(f"{server.url}/nowhere")
    assert "expected http(s)://HOST/..." in opened("season")


def test_a_list_of_files_that_is_damaged_is_deleted_and_all_is_read(season: Path, serve: Serve, tmp_path: Path) -> None:
    """As its message says."""
    server, out = serve(season), tmp_path / "out"
    fetch_season(asked(server, bands=("B02",)), out)
    before = hashes(out)
    (out / "fetched.json").write_text("{")
    with pytest.raises(DataError, match=r"fetched.json: not readable: .*. Delete it and collection.json to read"):
        fetch_season(asked(server, bands=("B02",)), out)
    for name in ("fetched.json", "collection.json"):
        (out / name).unlink()
    assert fetch_season(asked(server, bands=("B02",)), out).files_read == 8
    assert hashes(out) == before


def test_a_folder_of_something_else(season: Path, serve: Serve, tmp_path: Path) -> None:
    server, other = serve(season), serve(season)
    with pytest.raises(DataError, match="holds a catalogue that was not fetched. Choose another folder"):
        fetch_season(asked(server), season)
    fetch_season(asked(server, bands=("B02",)), tmp_path / "out")
    with pytest.raises(DataError, match="holds images of fake from http.*. Choose another folder"):
        fetch_season(asked(other, bands=("B02",)), tmp_path / "out")


def test_broken_items_are_named_before_anything_is_read(season: Path, serve: Serve, tmp_path: Path) -> None:
    def edit(item: dict[str, Any]) -> None:
        if item["id"] == "S2_20180411":
            del item["assets"]["B03"]
        if item["id"] == "S2_20180421":
            item["assets"]["B03"]["href"] = "s3://bucket/B03.tif"

    server = serve(season, edit=edit)
    said = refused(server, tmp_path / "out")
    assert "item S2_20180411: no asset for band B03. It has B02, B04" in said
    assert "item S2_20180421, asset B03: s3://bucket/B03.tif is not on a web server (http, https)" in said
    assert not server.files_asked()


# Tiles and cells


def test_of_two_tiles_the_one_that_shows_everything(season: Path, serve: Serve, tmp_path: Path) -> None:
    def edit(item: dict[str, Any]) -> None:
        item["properties"] |= {"platform": "a", "grid:code": "MGRS-31UES"}
        if item["id"] == "S2_20180411":
            # As if cut from the same pass, one tile further: its images miss the left of the area.
            item["properties"] |= {"datetime": "2018-04-01T10:50:03Z", "grid:code": "MGRS-31UFS"}
        if item["id"] == "S2_20180421":
            item["properties"] |= {"datetime": "2018-05-01T10:50:00Z", "s2:processing_baseline": "02.00"}
        if item["id"] == "S2_20180501":
            item["properties"] |= {"s2:processing_baseline": "05.00"}

    for band in ("B02", "B03"):
        write_raster(season / f"S2_20180411/{band}.tif", np.full((32, 32), 77, np.uint16), left=500_160)
    area = (3.0001, 50.549, 3.0040, 50.5503)
    summary = fetch_season(asked(serve(season, edit=edit), bands=("B02",), area=area), tmp_path / "out")
    assert summary.notes == [
        "1 images were left out for others of their tile and time, processed later",
        "1 images were left out for others of that day that show all of the area",
    ]
    assert [each.name for each in find_acquisitions(tmp_path / "out", ("B02",))[1]] == ["S2_20180401", "S2_20180501"]


def test_cells(season: Path, serve: Serve, tmp_path: Path) -> None:
    server = serve(season)
    out = tmp_path / "out"
    area = (2.9975, 50.5475, 3.0075, 50.553)
    total = fetch_cells(asked(server, bands=("B02",), area=area, crs="EPSG:32631"), out, 240)
    index = json.loads((out / "cells.json").read_text())
    states = {cell["name"]: cell["state"] for cell in index["cells"]}
    # Cells begin at multiples of 240 m: the scene, from 500000 to 500320 and 5599680 to 5600000, lies in four.
    full = [f"32631_E{x:07d}_N{y:07d}" for y in (5599680, 5599920) for x in (499920, 500160)]
    assert [name for name, state in states.items() if state == "complete"] == full
    assert total.cells == len(states)
    assert total.empty == len(states) - 4
    whole = {}
    for name in full:
        scene, found = find_acquisitions(out / name, ("B02",))
        assert scene == f"fake-{name}"
        with rasterio.open(found[1].files["B02"]) as file:
            whole[file.bounds[0], file.bounds[3]] = file.read(1)
    rows = [[whole[left, top] for left in (500_000, 500_160)] for top in (5_600_000, 5_599_920)]
    merged = np.block(rows)
    with rasterio.open(season / "S2_20180411/B02.tif") as file:
        np.testing.assert_array_equal(merged, file.read(1))
    with pytest.raises(DataError, match="a folder of cells. Name one of them"):
        find_acquisitions(out, ("B02",))
    again = fetch_cells(asked(server, bands=("B02",), area=area, crs="EPSG:32631"), out, 240)
    assert (again.files_read, again.files_kept) == (0, total.files_read)


def test_a_cell_that_fails_leaves_the_others(season: Path, serve: Serve, tmp_path: Path) -> None:
    server = serve(season, faults=[Fault("S2_20180411/B02.tif", 404, 1, method="HEAD")])
    server.faults = [Fault("S2_20180411/SCL.tif", 404, 1)]
    area = (2.9975, 50.5475, 3.0075, 50.553)
    fetch = asked(server, bands=("B02",), area=area, crs="EPSG:32631")
    with pytest.raises(DataError, match=r"1 of \d+ cells failed \(.*cells.json names them\)"):
        fetch_cells(fetch, tmp_path / "out", 240)
    states = [cell["state"] for cell in json.loads((tmp_path / "out/cells.json").read_text())["cells"]]
    assert (states.count("failed"), states.count("complete")) == (1, 3)
    assert isinstance(fetch_cells(fetch, tmp_path / "out", 240), Summary)


def test_cells_that_are_stopped_begin_nothing_more_and_go_on(
    season: Path, serve: Serve, tmp_path: Path, monkeypatch
) -> None:
    out, told, begun = tmp_path / "out", [], []

    def slow(*given: Any, **named: Any) -> Any:
        if len(told) >= 12:
            begun.append(1)
            # A second and more for the main thread, which ends the cells.
            time.sleep(1.5)
        return copy_window(*given, **named)

    def stop(count: int) -> None:
        told.append(count)
        if len(told) == 12:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    area = (2.9975, 50.5475, 3.0075, 50.553)
    fetch = asked(serve(season, delay=0.05), bands=("B02",), area=area, crs="EPSG:32631", workers=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetching, "copy_window", slow)
        fetch_cells(fetch, out, 240, progress=stop)
    # Four cells have two files each at work or waiting for their turn, of which two at a time are read.
    assert len(begun) <= 2
    read = len(list(out.rglob("*.tif")))
    assert 12 <= read < 24
    again = fetch_cells(fetch, out, 240)
    # What was at work when it was stopped may be read again.
    assert again.files_read + again.files_kept == 32
    assert 12 <= again.files_kept <= read


def test_cells_side_by_side_read_no_more_files_at_once(season: Path, serve: Serve, tmp_path: Path, monkeypatch) -> None:
    reading, most = [], []

    def counted(*given: Any, **named: Any) -> Any:
        reading.append(1)
        most.append(len(reading))
        try:
            return copy_window(*given, **named)
        finally:
            reading.pop()

    monkeypatch.setattr(fetching, "copy_window", counted)
    area = (2.9975, 50.5475, 3.0075, 50.553)
    fetch = asked(serve(season, delay=0.02), bands=("B02",), area=area, crs="EPSG:32631", workers=3)
    assert fetch_cells(fetch, tmp_path / "out", 240).files_read == len(most) == 32
    assert max(most) <= 3


def test_a_size_that_pixels_do_not_fit(season: Path, serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--cell 250: expected metres, a multiple of 20"):
        fetch_cells(asked(serve(season)), tmp_path / "out", 250)


# Two images of one tile and time

NORTH, SOUTH = (2.9999, 50.55, 3.01, 50.56), (2.9999, 50.54, 3.01, 50.55)
BOTH = (2.9999, 50.54, 3.01, 50.56)


def twins(**second: Any) -> Callable[[dict[str, Any]], None]:
    """The first two dates as two images of one tile and time, each with `bbox` and properties; the rest as it is."""

    def edit(item: dict[str, Any]) -> None:
        item["properties"] |= {"platform": "a", "grid:code": "MGRS-31UES", "s2:processing_baseline": "04.00"}
        if item["id"] == "S2_20180411":
            item["properties"] |= {"datetime": "2018-04-01T10:50:00Z", "updated": "2024-01-01T00:00:00Z"}
            item["bbox"] = list(second.get("bbox", BOTH))
            item["properties"] |= {key: value for key, value in second.items() if ":" in key}
        elif item["id"] == "S2_20180401":
            item["bbox"] = list(second.get("other", BOTH))
            item["properties"] |= {f"s2:{key}": value for key, value in second.items() if key in ("datastrip_id",)}
            if "empty" in second:
                item["properties"]["s2:nodata_pixel_percentage"] = second["empty"]

    return edit


STRIPS = [f"S2A_OPER_MSI_L2A_DS_VGS2_20180401T145200_S20180401T{time}_N04.00" for time in ("104631", "105012")]


@pytest.mark.parametrize(
    ("second", "names"),
    [
        # Of one footprint: the later processing.
        ({}, ["S2_20180411"]),
        # Parts of a tile, beside each other.
        ({"bbox": SOUTH, "other": NORTH}, ["S2_20180401", "S2_20180411"]),
        # A part that was processed later does not stand for the whole, but the whole for a part.
        ({"bbox": SOUTH}, ["S2_20180401", "S2_20180411"]),
        ({"other": SOUTH}, ["S2_20180411"]),
        # Footprints of the whole tile, but parts by datastrip or by what holds no data.
        ({"s2:datastrip_id": STRIPS[1], "datastrip_id": STRIPS[0]}, ["S2_20180401", "S2_20180411"]),
        ({"s2:datastrip_id": STRIPS[0], "datastrip_id": STRIPS[0]}, ["S2_20180411"]),
        ({"s2:nodata_pixel_percentage": 38.2, "empty": 62.1}, ["S2_20180401", "S2_20180411"]),
        ({"s2:nodata_pixel_percentage": 38.2, "empty": 38.3}, ["S2_20180411"]),
        # A test of the processing comes last, and numbers are no text.
        ({"s2:processing_baseline": "99.99"}, ["S2_20180401"]),
        ({"s2:processing_baseline": "05.00"}, ["S2_20180411"]),
        ({"s2:processing_baseline": "02.14"}, ["S2_20180401"]),
    ],
)
def test_of_two_images_of_one_tile_and_time(
    season: Path, serve: Serve, tmp_path: Path, second: dict[str, Any], names: list[str]
) -> None:
    area = (3.0001, 50.5475, 3.0040, 50.5503)
    summary = fetch_season(asked(serve(season, edit=twins(**second)), bands=("B02",), area=area), tmp_path / "out")
    found = [each.name for each in find_acquisitions(tmp_path / "out", ("B02",))[1]]
    assert [name for name in found if name in ("S2_20180401", "S2_20180411")] == names
    left_out = "1 images were left out for others of their tile and time, processed later"
    assert (left_out in summary.notes) == (len(names) == 1)


def test_the_other_of_two_images_where_files_of_one_are_missing(season: Path, serve: Serve, tmp_path: Path) -> None:
    server = serve(season, edit=twins(), faults=[Fault("S2_20180411/B02.tif", 404)])
    summary = fetch_season(asked(server, bands=("B02",)), tmp_path / "out")
    found = [each.name for each in find_acquisitions(tmp_path / "out", ("B02",))[1]]
    assert found == ["S2_20180401", "S2_20180421", "S2_20180501"]
    assert any("S2_20180411: its file of B02 is not available" in note for note in summary.notes)


def test_overpasses_of_one_day_are_looks_of_their_own(season: Path, serve: Serve, tmp_path: Path) -> None:
    """In the north a satellite passes twice a day: the second, of another tile, is no copy of the first."""

    def edit(item: dict[str, Any]) -> None:
        item["properties"] |= {"platform": "a", "grid:code": "MGRS-34VEN"}
        if item["id"] == "S2_20180411":
            item["properties"] |= {"datetime": "2018-04-01T12:30:00Z", "grid:code": "MGRS-34VFN"}

    summary = fetch_season(asked(serve(season, edit=edit), bands=("B02",)), tmp_path / "out")
    assert (summary.images, summary.notes) == (4, [])
