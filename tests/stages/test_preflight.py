"""What a run needs, tried before it starts: each check's three answers, and the memory estimate held to a training."""

import os
import re
import subprocess
import sys

import pytest
import torch

from exact_core.config import override
from exact_core.errors import ConfigError, ServiceError
from exact_core.recipes import resolve
from exact_core.stages.preflight import checks, preflight
from exact_core.tracking.runs import NoTracker
from exact_core.training import memory
from tests.fake_germany import write_germany
from tests.fakes import write_season


def states(found):
    return {check.name: check.state for check in found}


@pytest.fixture(autouse=True)
def _no_store(monkeypatch, tracking_file):
    monkeypatch.delenv("EXACT_STORE", raising=False)


def test_a_machine_without_services_is_no_failure(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    found = states(checks())
    assert found["code"] == "ok"
    assert found["folder for temporary files"] == "ok"
    assert found["object store"] == found["MLflow"] == "not set"


def test_a_store_is_written_to_and_left_clean(tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    assert states(checks())["object store"] == "ok"
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "file").as_uri())
    assert states(checks())["object store"] == "failed"


def test_the_source_is_looked_at(config, tmp_path):
    write_season(tmp_path / "source")
    found = {check.name: check for check in checks(config, source=f"season:{tmp_path}/source", season="auto")}
    assert re.search(r"\d+ dates, \d+ bands", found["data"].detail)
    assert found["memory"].state == "ok"
    assert "training windows are tagged with wheat" in found["tags"].detail
    missing = {check.name: check for check in checks(config, source=f"pastis:{tmp_path}/none")}
    assert missing["tags"].state == "not set"
    assert missing["data"].state == missing["memory"].state == "failed"
    assert "metadata.geojson" in missing["data"].detail
    write_germany(tmp_path / "germany")
    tiles = {check.name: check for check in checks(config, source=f"germany:{tmp_path}/germany")}
    assert tiles["data"].detail.endswith("4 dates, 13 bands")


def test_everything_that_is_missing_is_named_at_once(config, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ServiceError) as error:
        preflight(config, source=f"pastis:{tmp_path}/none", season="", tracker=NoTracker())
    assert "MLflow: " in str(error.value)
    assert "data: " in str(error.value)


def test_a_mask_that_is_not_there_is_named_before_a_run(config, tmp_path):
    settings = override(config, [f"mapping.cropland={tmp_path}/no.tif", "mapping.outlines=no.gpkg"])
    (check,) = [each for each in checks(settings) if each.name == "mask and outlines of the map"]
    assert (check.state, check.detail) == (
        "failed",
        f"{tmp_path}/no.tif: no such file. Give a raster or a vector layer of cropland",
    )
    of_a_year = override(config, ["mapping.cropland=mask-{year}.tif"])
    (check,) = [each for each in checks(of_a_year, season="auto") if each.name == "mask and outlines of the map"]
    assert check.state == "not set"
    (check,) = [each for each in checks(of_a_year, season="2021") if each.name == "mask and outlines of the map"]
    assert check.detail.startswith("mask-2021.tif: no such file")
    with pytest.raises(ConfigError, match=r"cropland_values \[40\]: of which raster"):
        override(config, ["mapping.cropland_values=[40]"])
    with pytest.raises(ConfigError, match=r"outside background: of which outlines\? Name them by outlines"):
        override(config, ["mapping.outside=background"])


def test_a_training_that_cannot_fit_is_refused_with_the_way_out(config, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda _: 10**8)
    with pytest.raises(ServiceError, match=r"memory: training takes about .*Lower classifier\.training\.batch"):
        preflight(config, source="synthetic", season="", tracker=NoTracker())


def test_whatever_a_driver_raises_is_an_answer(monkeypatch):
    def broken(_):
        raise RuntimeError("CUDA error: no kernel image")

    monkeypatch.setattr("exact_core.training.loop.choose_device", broken)
    found = {check.name: check for check in checks()}
    assert found["GPU"].state == "failed"
    assert "no kernel image" in found["GPU"].detail


def test_half_precision_takes_less(config):
    def estimate(precision):
        changed = override(config, [f"classifier.training.precision={precision}", "classifier.training.batch=64"])
        return memory.training_bytes(changed, bands=10, classes=3, dates=20, kind="classifier")

    assert estimate("bf16") < estimate("fp32")


def test_the_figures_are_returned(config):
    figures = preflight(config, source="synthetic", season="", tracker=NoTracker())
    assert 0.1 < figures["estimated_gb"] < figures["available_gb"]


STEP = """
import re, sys
from exact_core.environment import load_environment
load_environment()
from kfp.dsl.executor import Executor
from exact_core.data.synthetic import ingest_synthetic
from exact_core.recipes import resolve
from exact_core.stages.lifecycle import open_stage
from exact_core.stages.train_classifier import train_classifier
from exact_core.stages.train_segmenter import train_segmenter
from pathlib import Path

kind, root, settings = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
config = resolve("demo", overrides=settings)
ingest_synthetic(config.data, root / "data", seed=0)
with open_stage(f"train_{kind}", config, pipeline_run="run") as tracker:
    if kind == "classifier":
        train_classifier(config, dataset=root / "data", out=root / "out", tracker=tracker)
    else:
        train_segmenter(config, dataset=root / "data", masks=None, out=root / "out", tracker=tracker)
# Not by getrusage, which counts what the parent held when it started this process.
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_the_estimate_is_near_what_a_training_takes(kind, tmp_path):
    """One epoch of a middling model; the estimate is to warn, so a quarter off is near."""
    settings = [
        "device=cpu",
        "data.synthetic.scenes=4",
        "data.synthetic.dates=40",
        f"{kind}.encoder.dim=64",
        f"{kind}.encoder.heads=4",
        f"{kind}.training.epochs=1",
        f"{kind}.training.batch=24",
        f"{kind}.training.keep_dates=1",
    ]
    done = subprocess.run(
        [sys.executable, "-c", STEP, kind, str(tmp_path), *settings],
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
        capture_output=True,
        text=True,
        check=True,
    )
    config = resolve("demo", overrides=settings)
    estimate = memory.training_bytes(
        config, bands=10, classes=config.data.synthetic.crops, dates=config.data.synthetic.dates, kind=kind
    )
    measured = int(done.stdout.splitlines()[-1])
    assert 0.75 < estimate / measured < 1.34, (estimate / 1e6, measured / 1e6)


def test_the_estimate_counts_what_threads_save(config, of_threads):
    def estimate():
        return memory.training_bytes(config, bands=10, classes=3, dates=20, kind="classifier")

    found = []
    for threads in (1, 2):
        of_threads(threads)
        found.append(estimate())
        assert torch.get_num_threads() == threads
    assert found[0] > memory.PROCESS + 10**7
    assert found[1] == found[0] + memory.THREAD


def test_the_estimate_grows_with_the_batch(config):
    def estimate(batch):
        changed = override(config, [f"classifier.training.batch={batch}"])
        return memory.training_bytes(changed, bands=10, classes=3, dates=20, kind="classifier")

    assert estimate(8) - estimate(4) == pytest.approx(2 * (estimate(4) - estimate(2)), rel=0.01)
    assert estimate(4) > estimate(2)


def test_the_doctor(exact):
    code, out, _ = exact("doctor")
    assert code == 0
    assert re.search(r"^ok +code: exact ", out, re.MULTILINE)
    code, out, _ = exact("doctor", "--require", "object store")
    assert code == 1
    code, _, err = exact("doctor", "--require", "coffee")
    assert code == 1
    assert "coffee" in err
    assert "object store" in err
