"""`exact run --containers`: steps without rights, everything in the store, failures told."""

import json
import os
import shutil

import pytest
from exact_kubeflow.components.images import TRAIN
from exact_kubeflow.pipelines import local
from mlflow import MlflowClient

from exact_core.errors import ServiceError
from exact_core.tracking.runs import EXPERIMENT
from tests.conftest import TINY
from tests.docker.conftest import EXACT, USER, run_in

pytestmark = pytest.mark.docker

SETTINGS = [part for setting in TINY for part in ("--set", setting)]


@pytest.fixture(scope="module")
def tiny(images, servers, tmp_path_factory):
    """A tiny run in containers; that it is to the bit one in processes: test_committed_packages.py."""
    folder = tmp_path_factory.mktemp("tiny")
    done = run_in([*EXACT, "run", "--containers", "--seed", "1", "--workdir", "work", *SETTINGS], folder, servers)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "work"


def test_steps_were_not_root(tiny):
    said = (tiny / "run.log").read_text()
    assert "preflight: object store: ok" in said
    owners = {path.stat().st_uid for path in (tiny / "evaluation").rglob("*") if path.is_file()}
    if os.getuid() == 0:
        # Fetched from the store by this process; the report came straight from its step.
        assert (tiny / "report.html").stat().st_uid == USER
    else:
        assert owners == {os.getuid()}


def test_a_step_that_fails_fails_the_run_and_says_why(images, servers, tmp_path):
    broken = ["--set", "segmenter.training.learning_rate=1e30", "--set", "segmenter.training.warmup_epochs=0"]
    command = [*EXACT, "run", "--containers", "--seed", "1", "--workdir", "w", *SETTINGS, *broken]
    done = run_in(command, tmp_path, servers)
    assert done.returncode == 1
    assert "train_segmenter: " in done.stderr
    # Only the exit handler writes the reason to MLflow.
    client = MlflowClient(tracking_uri=servers["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    failed = client.search_runs([experiment], "attributes.status = 'FAILED'", order_by=["attributes.start_time DESC"])
    parents = [run for run in failed if "exact.stage" not in run.data.tags]
    assert parents[0].data.tags["exact.failure"]
    assert not (tmp_path / "w" / "segmenter").exists()


def test_evaluation_works_from_the_store_alone(tiny, servers, in_image, tmp_path):
    """The work folder is gone; a container with nothing but URIs scores the map again."""
    client = MlflowClient(tracking_uri=servers["MLFLOW_TRACKING_URI"])
    before = json.loads((tiny / "evaluation" / "metrics.json").read_text())
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    evaluated = client.search_runs([experiment], "tags.`exact.stage` = 'evaluate' and params.seed = '1'")[0]
    parent = evaluated.data.tags["mlflow.parentRunId"]
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    tags = {key: value for run in runs for key, value in run.data.tags.items() if key.startswith("exact.stored.")}
    kept = tmp_path / "kept"
    shutil.move(tiny, kept)
    try:
        command = ["exact", "evaluate", tags["exact.stored.dataset"], tags["exact.stored.segmenter"], "/tmp/out"]
        command += ["--report", "/tmp/report.html", "--no-tracking", *SETTINGS]
        script = f"{' '.join(command)} >/dev/null && cat /tmp/out/metrics.json"
        # As many threads as its step had, also where the machine is busy.
        threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
        code, said = in_image(TRAIN, "sh", "-c", script, environment=threads)
    finally:
        shutil.move(kept, tiny)
    assert code == 0, said
    assert json.loads(said)["confusion"] == before["confusion"]


def test_without_images_or_a_tracking_server_the_way_out_is_named(engine, servers, tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_IMAGE", "exact-python-none:1")
    settings = {"source": "synthetic", "recipe": "demo", "season": "", "seed": 1, "overrides": TINY}
    with pytest.raises(ServiceError, match="MLFLOW_TRACKING_URI"):
        local.run(tmp_path / "a", supervision="tags", in_containers=True, **settings)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers["MLFLOW_TRACKING_URI"])
    with pytest.raises(ServiceError, match="make images"):
        local.run(tmp_path / "b", supervision="tags", in_containers=True, **settings)
