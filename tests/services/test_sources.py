"""Sources by address on S3 servers: a season below a prefix, images that a catalogue names by s3://, fetched files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from exact_core.config import override
from exact_core.data.sources import with_season
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import DataError, ServiceError
from exact_core.files import sha256_of
from exact_core.recipes import resolve
from exact_core.stages.fetch import fetch_for_run, fetch_source
from exact_core.stages.ingest import ingest
from exact_core.stages.map_season import map_season
from exact_core.stages.run import Run, read_run
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.runs import NoTracker
from tests.conftest import TINY
from tests.fakes import write_season
from tests.services.conftest import place_of
from tests.stac_server import StacServer

CONFIG = with_season(
    override(
        resolve("season"),
        ["data.window=12", "data.validation_share=0", "data.test_share=0", "data.season.longest_gap=366"],
    ),
    "2018",
    kind="season",
)


@pytest.fixture
def season(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EXACT_STORE", raising=False)
    return write_season(tmp_path / "season", layout="stac", scl=lambda _date: np.full((16, 16), 4))


def put(place, folder: Path, prefix: str) -> int:
    """Upload a folder by another client than ours."""
    bucket, _, base = place.uri.removeprefix("s3://").partition("/")
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        place.client.fput_object(bucket, f"{base}/{prefix}/{path.relative_to(folder)}", str(path))
    return len(files)


def fetched(source: str):
    return fetch_source(CONFIG, source=source, tracker=NoTracker())


def digest(source: str, out: Path) -> str:
    ingest(CONFIG, source=source, season="", out=out, tracker=NoTracker())
    return WindowDataset(out).manifest.digest


def test_a_season_below_a_prefix(s3, season, tmp_path):
    count = put(s3, season, "flanders")
    source = f"season:{s3.uri}/flanders"
    assert digest(source, tmp_path / "a") == digest(f"season:{season}", tmp_path / "b")
    assert (fetched(source).files_read, fetched(source).files_kept) == (0, count)
    s3.replace("flanders/labels/legend.csv", b"code,name\n100,wheat\n200,maize\n300,beet\n")
    assert fetched(source).files_read == 1
    with pytest.raises(DataError, match="there are no objects"):
        fetched(f"{source}-2")
    with pytest.raises(ServiceError, match="NoSuchBucket|there is no such bucket"):
        fetched("season:s3://no-such-bucket/flanders")


def test_images_named_by_s3(s3, season, tmp_path, monkeypatch):
    put(s3, season, "images")

    def edit(item):
        for asset in item["assets"].values():
            asset["href"] = f"{s3.uri}/images/{asset['href'].partition('/files/')[2]}"

    server = StacServer(season, edit=edit)
    try:
        source = f"stac:{server.url}?collection=fake&bbox=2.99,50.5,3.01,50.6&labels={s3.uri}/images/labels/"
        monkeypatch.setenv("EXACT_STORE", f"{s3.uri}/store")
        found = fetched(source)
        assert (found.images, found.files_read, found.labelled) == (4, 44, True)
        assert found.source.startswith(f"season:{s3.uri}/store/folders/")
        # Another machine reads none of it from the catalogue's own place.
        monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "other"))
        assert fetched(source).files_read == 0
        assert server.files_asked() == 0
        assert digest(found.source, tmp_path / "a") == digest(f"season:{season}", tmp_path / "b")
        monkeypatch.setenv("EXACT_STAC_S3_SECRET_ACCESS_KEY", "another-secret")
        monkeypatch.delenv("EXACT_STORE")
        monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "third"))
        with pytest.raises(ServiceError, match=r"not allowed \(HTTP 403\); check EXACT_STAC_S3_ENDPOINT_URL"):
            fetched(source)
    finally:
        server.close()


BANDS = ("B04", "B08", "B11")


def _some_of(scene: Path, out: Path, *, dates: str, bands: tuple[str, ...]) -> Path:
    """The scene with some of its dates and bands alone, as a catalogue of its own."""
    collection = json.loads((scene / "collection.json").read_text())
    links = [link for link in collection["links"] if link["rel"] != "item" or f"_{dates}" in link["href"]]
    out.mkdir()
    (out / "collection.json").write_text(json.dumps({**collection, "links": links}))
    shutil.copytree(scene / "labels", out / "labels")
    for path in scene.glob(f"*_{dates}*/*.json"):
        item = json.loads(path.read_text())
        kept = {key: each for key, each in item["assets"].items() if Path(each["href"]).stem in (*bands, "SCL")}
        folder = out / path.parent.name
        folder.mkdir()
        (folder / path.name).write_text(json.dumps({**item, "assets": kept}))
        for each in kept.values():
            shutil.copyfile(path.parent / each["href"], folder / each["href"])
    return out


@pytest.mark.services
def test_the_real_scene_is_one_dataset_and_one_map_by_every_address(request, tmp_path, monkeypatch, flanders):
    """Steps of a pipeline see the folder that an address was fetched to, and nothing else of it.

    tests/docker runs each committed package in containers by one of these; here is what makes the others the same.
    """
    s3 = place_of("seaweedfs minio", request, tmp_path, monkeypatch)
    scene = _some_of(flanders, tmp_path / "flanders", dates="2018041", bands=BANDS)
    put(s3, scene, "flanders")
    season = "2018-04-10/10"
    bands = f"data.season.bands=[{','.join(BANDS)}]"
    settings = [*TINY, bands, "data.stride=24", "data.season.longest_gap=366", "segmenter.training.epochs=1"]
    config = resolve("season", overrides=settings)
    server = StacServer(scene)
    area = f"bbox=3.0193065,50.8130873,3.0283885,50.8188408&labels={s3.uri}/flanders/labels/"
    sources = {
        "folder": f"season:{scene}",
        "s3": f"season:{s3.uri}/flanders",
        "api": f"stac:{server.url}?collection=flanders_2018&{area}",
    }
    found = {}
    try:
        for name, source in [*sources.items(), ("fetched", sources["api"])]:
            # Each an empty disk, as a step has.
            monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / name / "cache"))
            if name == "fetched":
                monkeypatch.setenv("EXACT_STORE", f"{s3.uri}/store")
                run = Run(recipe="season", source=source, season=season, overrides=tuple(settings))
                source = read_run(fetch_for_run(config, run, [], tracker=NoTracker())[0].run).source
                assert source.startswith(f"season:{s3.uri}/store/folders/")
            there = {"source": source, "season": season, "tracker": NoTracker()}
            ingest(config, **there, out=tmp_path / name / "dataset")
            if not found:
                given = {"dataset": tmp_path / name / "dataset", "masks": None, "tracker": NoTracker()}
                train_segmenter(config, **given, out=tmp_path / "segmenter")
            map_season(config, **there, segmenter=tmp_path / "segmenter", out=tmp_path / name / "map")
            files = [sha256_of(tmp_path / name / "map" / each) for each in ("class.tif", "confidence.tif")]
            found[name] = [WindowDataset(tmp_path / name / "dataset").manifest.digest, *files]
    finally:
        server.close()
    assert {name: each for name, each in found.items() if each != found["folder"]} == {}
