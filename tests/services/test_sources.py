"""Sources by address on S3 servers: a season below a prefix, images that a catalogue names by s3://, fetched files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exact_core.config import override
from exact_core.data.sources import with_season
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import DataError, ServiceError
from exact_core.recipes import resolve
from exact_core.stages.fetch import fetch_source
from exact_core.stages.ingest import ingest
from exact_core.tracking.runs import NoTracker
from tests.fakes import write_season
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
