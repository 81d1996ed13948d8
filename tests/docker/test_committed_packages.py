"""The committed packages as they are, parameters filled in and no more, in our images, on a real scene.

One `exact run` by processes on the scene's folder says what the maps must be. train_exact then reads the scene from a
STAC API, new_season from S3, map_area from a static catalogue, as steps of a cluster do: by address, each with an empty
disk, and folders by way of a store.

KFP's DockerRunner fills in neither an image that is a parameter nor the time of a schedule: both are written into the
package's text first, and nothing else is changed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from exact_kubeflow.components.images import image
from exact_kubeflow.pipelines.compile import COMPILED
from exact_kubeflow.pipelines.containers import NOBODY, docker_runner, honest_exit_codes
from kfp import components, local
from minio import Minio
from mlflow import MlflowClient

from exact_core.files import sha256_of
from exact_core.storage import content_key, read_pointer
from exact_core.tracking.runs import EXPERIMENT
from tests.docker.conftest import EXACT, run_in
from tests.services.servers import ACCESS_KEY, SECRET_KEY
from tests.stac_server import StacServer

pytestmark = pytest.mark.docker

SEASON = "2018-04-01/91"
"""A quarter of the scene's days: what is compared is the way, not the map."""
SHORT = [
    *("device=cpu", "data.max_dates=6", "data.stride=12", "data.season.longest_gap=366"),
    # Fewer leave every CAM at zero.
    "classifier.training.epochs=4",
    "segmenter.training.epochs=1",
    # Whatever comes of so little training: it is the champion.
    "promotion.first_floor=0",
    # Nor must the tags alone confirm what its CAMs show.
    "masks.relearn.few_windows=0",
    *(f"{model}.encoder.{key}" for model in ("classifier", "segmenter") for key in ("dim=16", "temporal_depth=1")),
]
MAP = ("class.tif", "confidence.tif")
IMAGE_PARAMETER = "'{{$.inputs.parameters[''pipelinechannel--image'']}}'"
SCHEDULE_TIME = "'{{$.pipeline_job_schedule_time_utc}}'"


@pytest.fixture(scope="module")
def by_folder(images, servers, flanders, tmp_path_factory):
    """What `exact run` makes of the folder, by processes of this machine; its segmenter is the first champion."""
    folder = tmp_path_factory.mktemp("folder")
    settings = [word for setting in SHORT for word in ("--set", setting)]
    command = [*EXACT, "run", "--source", f"season:{flanders}", "--season", SEASON, "--workdir", "work"]
    done = run_in([*command, "--recipe", "season", "--seed", "1", *settings], folder, servers)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "work"


def client_of(servers: dict[str, str]) -> Minio:
    """Another client than ours."""
    endpoint = servers["AWS_ENDPOINT_URL"].removeprefix("http://")
    return Minio(endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")


@pytest.fixture(scope="module")
def stored(servers, flanders):
    """The scene below a prefix of the S3 server."""
    s3 = client_of(servers)
    for path in flanders.rglob("*"):
        if path.is_file():
            s3.fput_object("exact", f"scenes/flanders/{path.relative_to(flanders)}", str(path))
    return "s3://exact/scenes/flanders"


@pytest.fixture(scope="module")
def catalogue(stored, flanders):
    """The scene as a STAC API and as a static catalogue, by the form of its address; its labels are in the store."""
    server = StacServer(flanders)
    area = f"bbox=3.0193065,50.8130873,3.0283885,50.8188408&labels={stored}/labels/"
    yield {
        "api": f"stac:{server.url}?collection=flanders_2018&{area}",
        "static": f"stac:{server.url}/static/collection.json?{area}",
    }
    server.close()


@pytest.fixture(scope="module")
def run_package(images, servers, tmp_path_factory):
    """Run a committed package with these parameters; the folder with a folder for each of its tasks."""

    def run(name: str, **parameters: object) -> Path:
        workdir = tmp_path_factory.mktemp(name)
        root = workdir / "run"
        root.mkdir()
        if os.getuid() == 0:
            for folder in (workdir, root):
                os.chown(folder, NOBODY, NOBODY)
        text = (COMPILED / f"{name}.yaml").read_text()
        assert IMAGE_PARAMETER in text
        text = text.replace(IMAGE_PARAMETER, f"'{image()}'").replace(SCHEDULE_TIME, "'2018-12-01T00:00:00Z'")
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in servers.items():
                patch.setenv(variable, value)
            settings = {"MLFLOW_TRACKING_URI": servers["MLFLOW_TRACKING_URI"]}
            runner = docker_runner(workdir, source=str(parameters["source"]), settings=settings)
            local.init(runner, pipeline_root=str(root), raise_on_error=True)
            with honest_exit_codes():
                components.load_component_from_text(text)(recipe="season", seed=1, overrides=SHORT, **parameters)
        return next(root.iterdir())

    return run


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of a folder's files by name."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def files_at(pointer: Path) -> dict[str, str]:
    """The same of a folder in the store."""
    found = read_pointer(pointer)
    return {file.name: file.sha256 for file in (*found.files, found.manifest)}


def same_map(run: Path, by_folder: Path) -> None:
    """Whichever branch made it: a part of a map has another manifest, and a step that was not run no folder."""
    found = [files_at(pointer) for pointer in run.glob("*/crop_map") if pointer.stat().st_size]
    (made,) = [files for files in found if "map.json" in files]
    expected = files_of(by_folder / "crop_map")
    assert {name: made[name] for name in MAP} == {name: expected[name] for name in MAP}


@pytest.fixture(scope="module")
def trained(by_folder, run_package, catalogue):
    """The run of train_exact."""
    return run_package("train_exact", source=catalogue["api"], season=SEASON, model="exact-by-package")


def test_train_exact_of_a_catalogue_is_exact_run_of_the_folder_to_the_bit(trained, by_folder):
    same_map(trained, by_folder)
    compared = 0
    for task, output in {
        "ingest": "dataset",
        "train-classifier": "classifier",
        "generate-masks": "masks",
        "train-segmenter": "segmenter",
    }.items():
        made, expected = files_at(trained / task / output), files_of(by_folder / output)
        names = [name for name in expected if name.endswith((".safetensors", ".parquet"))]
        assert {name: made[name] for name in names} == {name: expected[name] for name in names}, output
        compared += len(names)
    assert compared >= 6


def test_every_step_is_recorded_and_every_folder_is_in_the_store(trained, servers):
    """By the steps alone: nobody else here records how the run ended."""
    client = MlflowClient(tracking_uri=servers["MLFLOW_TRACKING_URI"])
    model = client.get_registered_model("exact-by-package")
    assert set(model.aliases) == {"champion", "challenger"}
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    tags = "tags.`exact.model` = 'exact-by-package' and tags.`exact.stage` = 'promote'"
    (promoted,) = client.search_runs([experiment], tags)
    parent = promoted.data.tags["mlflow.parentRunId"]
    assert client.get_run(parent).info.status == "FINISHED"
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    stages = {run.data.tags["exact.stage"]: run for run in runs}
    tasks = {path.name.replace("-", "_") for path in trained.iterdir()} - {"record_status"}
    assert set(stages) == tasks | {"promote"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["exact.image"] for run in runs} == {image()}
    s3 = client_of(servers)
    keys = {each.object_name for each in s3.list_objects("exact", recursive=True)}
    for stage, output in {"ingest": "dataset", "train_segmenter": "segmenter", "evaluate": "evaluation"}.items():
        pointer = trained / stage.replace("_", "-") / output
        assert stages[stage].data.tags[f"exact.stored.{output}"] == read_pointer(pointer).uri
        assert {f"artifacts/{content_key(digest)}" for digest in files_at(pointer).values()} <= keys
    assert any(key.startswith("mlflow/") and key.endswith("report.html") for key in keys)
    assert (trained / "evaluate" / "report").stat().st_size > 50_000


def test_new_season_of_a_store_maps_with_the_champion(by_folder, run_package, stored):
    run = run_package("new_season", source=f"season:{stored}", season=SEASON, training="if_no_champion")
    same_map(run, by_folder)


def test_map_area_in_parts_of_a_static_catalogue(trained, by_folder, run_package, catalogue):
    run = run_package("map_area", source=catalogue["static"], season=SEASON, map_parts=2, model="exact-by-package")
    same_map(run, by_folder)
