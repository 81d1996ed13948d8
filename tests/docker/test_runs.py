"""The pipeline in containers: the same results as in processes, everything in the store, failures told."""

import json
import os
import shutil

import pytest
from exact_kubeflow.components.images import DATA, TRAIN, image
from exact_kubeflow.pipelines import local
from minio import Minio
from mlflow import MlflowClient

from exact_core.errors import ServiceError
from exact_core.files import sha256_of
from exact_core.storage import content_key, read_pointer
from exact_core.tracking.runs import EXPERIMENT
from tests.conftest import TINY
from tests.docker.conftest import EXACT, USER, run_in
from tests.services.servers import ACCESS_KEY, SECRET_KEY

pytestmark = pytest.mark.docker

SETTINGS = [part for setting in TINY for part in ("--set", setting)]
HOW = ("processes", "containers")


@pytest.fixture(scope="module")
def demo(images, servers, tmp_path_factory):
    """The demo recipe, whole, in containers."""
    folder = tmp_path_factory.mktemp("demo")
    done = run_in([*EXACT, "run", "--containers", "--recipe", "demo", "--workdir", "work"], folder, servers)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "work"


def test_the_demo_is_a_good_run_with_everything_in_the_store_and_in_mlflow(demo, servers):
    metrics = json.loads((demo / "evaluation" / "metrics.json").read_text())
    assert metrics["miou_macro"] > 0.6
    assert (demo / "report.html").stat().st_size > 50_000
    client = MlflowClient(tracking_uri=servers["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    stages = {run.data.tags.get("exact.stage"): run for run in runs}
    assert {run.info.status for run in runs} == {"FINISHED"}
    # Of the exit handler itself: whoever starts a run here records its end too.
    assert "record_status: SUCCEEDED" in (demo / "run.log").read_text()
    assert len(stages) == 9
    images = {stage: run.data.tags.get("exact.image") for stage, run in stages.items() if stage}
    assert images == {stage: image(DATA if stage == "ingest" else TRAIN) for stage in images}
    endpoint = servers["AWS_ENDPOINT_URL"].removeprefix("http://")
    s3 = Minio(endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")
    keys = {each.object_name for each in s3.list_objects("exact", recursive=True)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in servers.items():
            patch.setenv(name, value)
        for stage, output in {"ingest": "dataset", "train_segmenter": "segmenter", "evaluate": "evaluation"}.items():
            pointer = read_pointer(stages[stage].data.tags[f"exact.stored.{output}"])
            for file in (*pointer.files, pointer.manifest):
                assert f"artifacts/{content_key(file.sha256)}" in keys
                assert sha256_of(demo / output / file.name) == file.sha256
    assert any(key.startswith("mlflow/") and key.endswith("report.html") for key in keys)
    model = client.get_registered_model("exact-synthetic")
    assert set(model.aliases) == {"champion", "challenger"}


@pytest.fixture(scope="module")
def both(images, servers, tmp_path_factory):
    """One tiny run in processes and one in containers, of the same code on the same data."""
    folder = tmp_path_factory.mktemp("both")
    for how in HOW:
        flag = ["--containers"] if how == "containers" else []
        done = run_in([*EXACT, "run", *flag, "--seed", "1", "--workdir", how, *SETTINGS], folder, servers)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_containers_and_processes_agree_to_the_last_bit(both):
    names = {
        path.relative_to(both / "processes").as_posix()
        for output in ("dataset", "classifier", "masks", "segmenter")
        for path in (both / "processes" / output).rglob("*")
        if path.suffix in (".safetensors", ".parquet")
    }
    assert len(names) >= 6
    for name in names:
        assert sha256_of(both / "processes" / name) == sha256_of(both / "containers" / name), name
    scores = [
        json.loads((both / how / "evaluation" / "metrics.json").read_text()) for how in ("processes", "containers")
    ]
    assert scores[0] == scores[1]


def test_steps_were_not_root(both):
    said = (both / "containers" / "run.log").read_text()
    assert "preflight: object store: ok" in said
    owners = {path.stat().st_uid for path in (both / "containers" / "evaluation").rglob("*") if path.is_file()}
    if os.getuid() == 0:
        # Fetched from the store by this process; the report came straight from its step.
        assert (both / "containers" / "report.html").stat().st_uid == USER
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


def test_evaluation_works_from_the_store_alone(both, servers, in_image, tmp_path):
    """The work folder is gone; a container with nothing but URIs scores the map again."""
    client = MlflowClient(tracking_uri=servers["MLFLOW_TRACKING_URI"])
    before = json.loads((both / "containers" / "evaluation" / "metrics.json").read_text())
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    evaluated = client.search_runs([experiment], "tags.`exact.stage` = 'evaluate' and params.seed = '1'")[0]
    parent = evaluated.data.tags["mlflow.parentRunId"]
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    tags = {key: value for run in runs for key, value in run.data.tags.items() if key.startswith("exact.stored.")}
    kept = tmp_path / "kept"
    shutil.move(both / "containers", kept)
    try:
        command = ["exact", "evaluate", tags["exact.stored.dataset"], tags["exact.stored.segmenter"], "/tmp/out"]
        command += ["--report", "/tmp/report.html", "--no-tracking", *SETTINGS]
        code, said = in_image(TRAIN, "sh", "-c", f"{' '.join(command)} >/dev/null && cat /tmp/out/metrics.json")
    finally:
        shutil.move(kept, both / "containers")
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
