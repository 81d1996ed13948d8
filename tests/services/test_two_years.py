"""Two years of a region, unattended: slots of a schedule, images of a STAC API on one S3 server, the store on another.

Year one has labels: a segmenter is trained, becomes champion and maps the season; an image is missing and a step is
killed. Year two has none at first: the champion maps it, after the transfer verdict. When its labels are there, another
segmenter is trained, compared and promoted, and the season's map gives way to its own. All slots between do nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import kfp
import numpy as np
import pystac
import pytest
from exact_kubeflow.pipelines.new_season import new_season
from minio import Minio
from mlflow import MlflowClient

from exact_core.storage import open_store
from exact_core.storage.mirror import mirror
from exact_core.tracking.runs import EXPERIMENT
from tests.conftest import TINY
from tests.fakes import halves, write_raster, write_season
from tests.services.kfp_server import KfpServer
from tests.services.servers import ACCESS_KEY, SECRET_KEY, Mlflow
from tests.services.steps import run_slot, watched_steps
from tests.services.ui_schedule import schedule_in_the_ui
from tests.stac_server import StacServer
from tests.webhook import Webhook

pytestmark = pytest.mark.services

SIZE = (72, 72)
DAYS = ("0410", "0501", "0610", "0720", "0901")
SETTINGS = [
    *TINY,
    "data.window=12",
    "data.season.longest_gap=366",
    "segmenter.training.epochs=6",
    "classifier.training.epochs=2",
    # Whatever comes of so little training: the comparison is made, and its gate is open.
    "promotion.minimum_gain=-1",
    "promotion.largest_class_loss=1",
]
TRAINED = ["ingest", "train_classifier", "generate_masks", "train_segmenter", "evaluate", "map_season"]
BY_CHAMPION = ["champion", "fetch", "transfer_report", "map_season"]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    served = Webhook()
    yield served
    served.close()


def client_of(server) -> Minio:
    return Minio(f"127.0.0.1:{server.port}", ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")


def put(server, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            client_of(server).fput_object("exact", f"{prefix}/{path.relative_to(folder)}", str(path))


@pytest.fixture
def catalogue(tmp_path, juicefs) -> Iterator[StacServer]:
    """Two years of images in the first S3 server; the file of one is not there."""
    dates = [f"{year}{day}" for year in (2018, 2019) for day in DAYS]
    folder = write_season(
        tmp_path / "images",
        size=SIZE,
        dates=dates,
        layout="stac",
        labels=False,
        legend=None,
        scl=lambda _: np.full((SIZE[0] // 2, SIZE[1] // 2), 4),
        # The second year looks like the first.
        change=lambda number, band, values: values - 50 * len(DAYS) * (number >= len(DAYS)) * (band != "SCL"),
    )
    put(juicefs, folder, "images")
    client_of(juicefs).remove_object("exact", "images/S2_20180610/B04.tif")

    def edit(item: dict[str, Any]) -> None:
        for asset in item["assets"].values():
            asset["href"] = f"s3://exact/images/{asset['href'].partition('/files/')[2]}"
        item["properties"] |= {"updated": "2020-01-01T00:00:00Z"}

    server = StacServer(folder, edit=edit)
    yield server
    server.close()


@pytest.fixture
def machine(tmp_path, monkeypatch, juicefs, seaweedfs) -> Iterator[MlflowClient]:
    """Every step's environment: the second S3 server is the store, and MLflow keeps its artifacts on its disk."""
    for name, value in seaweedfs.variables.items():
        monkeypatch.setenv(name, value)
    for name, value in juicefs.variables.items():
        monkeypatch.setenv(name.replace("AWS_", "EXACT_STAC_S3_"), value)
    monkeypatch.setenv("EXACT_STORE", "s3://exact/two-years")
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))
    server = Mlflow(tmp_path / "mlflow")
    try:
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield MlflowClient(tracking_uri=server.uri)
    finally:
        server.kill()


@pytest.fixture
def schedule(tmp_path, monkeypatch) -> Iterator[tuple[KfpServer, Any]]:
    """The stand-in for KFP, and how a recurring run is made in its UI: catch-up on, ten at once, every hour."""
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    server = KfpServer()

    yield server, partial(schedule_in_the_ui, server.host)
    server.close()


def label(seaweedfs, tmp_path, year: int) -> None:
    """The labels of a year, in the store's bucket."""
    folder = tmp_path / f"labels-{year}"
    write_raster(folder / "crop_type.tif", halves(*SIZE))
    (folder / "legend.csv").write_text("code,name\n100,wheat\n200,maize\n")
    put(seaweedfs, folder, f"labels/{year}")


def read_catalogue(tmp_path) -> pystac.Catalog:
    """A copy of what is published, by pystac; every file is what its item says."""
    copy = tmp_path / "published"
    mirror(open_store("s3://exact/two-years/maps"), copy)
    catalog = pystac.Catalog.from_file(str(copy / "catalog.json"))
    for item in catalog.get_items(recursive=True):
        for asset in item.assets.values():
            content = Path(asset.get_absolute_href()).read_bytes()
            assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    return catalog


def test_two_years_of_a_region(tmp_path, machine, catalogue, seaweedfs, webhook, schedule):
    server, make = schedule
    query = "collection=fake&bbox=2.99,50.5,3.02,50.6&missing=1&labels=s3://exact/labels/{year}/"
    recurring = make(
        {
            "recipe": "season",
            "source": f"stac:{catalogue.url}?{query}",
            "season": "auto",
            "season_start": "04-01",
            "season_days": 214,
            "overrides": SETTINGS,
            "map_name": "flanders",
            "webhook": webhook.url,
        }
    )

    def slots(day: str, hours: int) -> list[tuple[list[str], dict[str, Any]]]:
        """Let so many hours of a day pass; the steps of each run between its first and its last, and what it told."""
        since = dt.datetime.fromisoformat(f"{day}T00:30:00Z")
        done = []
        for run in server.start_slots(recurring, since=since, now=since + dt.timedelta(hours=hours)):
            first, time = len(killer.started), run["scheduled_at"]
            given = run["runtime_config"]["parameters"]
            run_slot(new_season, given, tmp_path / time.replace(":", ""), schedule_time=time)
            run["state"] = "SUCCEEDED"
            steps = killer.started[first:]
            assert (steps[0], steps[-1]) == ("preflight", "record_status")
            said = webhook.got[-1]
            assert (said["state"], said["error"]) == ("SUCCEEDED", "")
            done.append((steps[1:-1], said["facts"]))
        return done

    def has_an_epoch() -> bool:
        with suppress(FileNotFoundError):  # a file that goes while we look
            return any(tmp_path.glob("*/.state/*segmenter-*/0002.safetensors"))
        return False

    with watched_steps() as killer:
        # Year one, with labels; the segmenter's training is killed after an epoch, and goes on.
        label(seaweedfs, tmp_path, 2018)
        killer.kill, killer.when = "train_segmenter", has_an_epoch
        (steps, facts), *others = slots("2018-11-15", 3)
        assert killer.killed == ["train_segmenter"]
        assert sorted(steps) == sorted([*TRAINED, "train_segmenter"])
        assert (facts["work"], facts["promoted"], facts["version"]) == ("train", "True", "1")
        assert [(steps, facts["work"]) for steps, facts in others] == [([], "nothing")] * 2
        assert "is published, of the same images, labels and settings" in others[0][1]["work_reason"]
        # Year two, without.
        (steps, facts), (no_steps, _) = slots("2019-11-15", 2)
        assert (sorted(steps), no_steps) == (sorted(BY_CHAMPION), [])
        assert steps[-2:] == BY_CHAMPION[-2:]
        assert facts["work"] == "map"
        assert facts["work_reason"] == ("the season has no labels yet; model exact-flanders version 1 is the champion")
        assert facts["transfer"]
        by_champion = next(read_catalogue(tmp_path).get_items("flanders-2019-04-01_2019-10-31", recursive=True))
        assert by_champion.properties["exact:model"] == "exact-flanders/1"
        # Its labels come in December; by then a run for the catch-up of November would find them, too.
        label(seaweedfs, tmp_path, 2019)
        (steps, facts), (no_steps, _) = slots("2019-12-01", 2)
        assert (sorted(steps), no_steps) == (sorted(TRAINED), [])
        assert (facts["work"], facts["promoted"], facts["version"]) == ("train", "True", "2")
    # What is left at the end.
    catalog = read_catalogue(tmp_path)
    (region,) = catalog.get_children()
    assert isinstance(region, pystac.Collection)
    items = {item.id: item for item in region.get_items()}
    assert list(items) == ["flanders-2018-04-01_2018-10-31", "flanders-2019-04-01_2019-10-31"]
    assert {item.properties["exact:made_by"] for item in items.values()} == {"training"}
    days = [f"{day:%Y-%m-%d}" for day in region.extent.temporal.intervals[0]]
    assert days == ["2018-04-01", "2019-11-01"]
    dates = [json.loads(Path(item.assets["map"].get_absolute_href()).read_text())["dates"] for item in items.values()]
    assert "2018-06-10" not in dates[0]
    assert [len(each) for each in dates] == [4, 5]
    aliases = machine.get_registered_model("exact-flanders").aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {"champion": "2", "challenger": "2"}
    assert "points" in machine.get_model_version("exact-flanders", "2").tags["exact.champion_reason"]
    experiment = machine.get_experiment_by_name(EXPERIMENT).experiment_id
    runs = machine.search_runs([experiment], "tags.`exact.ended` = 'FINISHED'", order_by=["attributes.start_time"])
    told = [run.data.tags["exact.work"] for run in runs]
    assert told == ["train", "nothing", "nothing", "map", "nothing", "train", "nothing"]
    assert runs[5].data.tags["exact.map"] == "s3://exact/two-years/maps/flanders/2019-04-01_2019-10-31/item.json"
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not open_store("s3://exact/two-years/leases").list_keys()
    assert len(webhook.got) == len(runs)
