"""The pipelines as they are: compiled YAML, and runs through KFP's own local runner."""

import ast
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml
from exact_kubeflow.pipelines import compile as compiler, local
from kfp import local as kfp_local
from kfp.components import load_component_from_text
from mlflow import MlflowClient

import components
from exact_core.data.windows.dataset import WindowDataset, sha256_of
from exact_core.errors import ConfigError, ServiceError
from exact_core.stages.stage import stage_table
from exact_core.tracking.runs import EXPERIMENT, tracking_uri
from tests.conftest import TINY
from tests.fakes import write_season

pytestmark = pytest.mark.usefixtures("tracking_file")


def start(workdir, **changes):
    settings = {
        "source": "synthetic",
        "recipe": "demo",
        "season": "",
        "seed": 1,
        "overrides": TINY,
        "supervision": "tags",
    }
    report, page = local.run(workdir, **{**settings, **changes})
    assert "workflowType=machine_learning" in page
    return report


def test_the_committed_yaml_is_what_the_code_compiles_to():
    assert compiler.stale() == []


def test_a_stale_file_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "COMPILED", tmp_path)
    assert compiler.stale() == list(compiler.PIPELINES)
    compiler.compile_to(tmp_path)
    assert compiler.stale() == []


@pytest.mark.parametrize("name", compiler.PIPELINES)
def test_a_compiled_pipeline_has_few_documented_parameters_with_defaults(name):
    spec = next(yaml.safe_load_all((compiler.COMPILED / name).read_text()))
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert len(parameters) <= 15
    for parameter in parameters.values():
        assert parameter["description"]
        assert parameter.get("isOptional") or "defaultValue" in parameter
    for executor in spec["deploymentSpec"]["executors"].values():
        command = " ".join(executor["container"]["command"])
        assert "pip install" not in command


def test_a_component_is_an_adapter():
    """At most ten statements beside its docstring; at module level, nothing but kfp, types and the standard library."""
    root = Path(components.__file__).parent
    found = [path for path in root.glob("*.py") if path.stem not in {"__init__", "__main__", "images", "step"}]
    assert {path.stem for path in found} == {stage.name for stage in stage_table().values() if not stage.within}
    for path in found:
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                allowed = {"kfp", "exact_kubeflow", "typing"}
                assert node.module.split(".")[0] in allowed or node.module == "exact_core.stages.plan", path
        (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert len([node for node in ast.walk(function) if isinstance(node, ast.stmt)]) - 2 <= 10, path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, empty_tracking_file):
    root = tmp_path_factory.mktemp("run")
    shutil.copy(empty_tracking_file, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        report = start(root / "work")
        yield root / "work", report


def test_results_lie_where_they_are_promised(finished):
    workdir, report = finished
    assert report == workdir / "report.html"
    assert sorted(path.name for path in workdir.iterdir()) == [
        "classifier",
        "dataset",
        "evaluation",
        "masks",
        "promotion",
        "report.html",
        "run.log",
        "segmenter",
    ]
    assert (workdir / "masks" / "masks.json").is_file()
    metrics = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    assert {"oa_micro", "miou_macro", "f1_macro", "per_class", "pseudo_masks", "split"} <= set(metrics)
    assert {"oa_micro", "miou_macro"} <= set(metrics["pseudo_masks"])
    assert WindowDataset(workdir / "dataset").manifest.digest


def test_one_parent_run_and_a_nested_run_a_stage(finished, monkeypatch):
    workdir, _ = finished
    client = MlflowClient(tracking_uri=f"sqlite:///{workdir.parent}/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert {run.data.tags.get("exact.stage") for run in runs} == {
        None,
        "preflight",
        "ingest",
        "train_classifier",
        "generate_masks",
        "train_segmenter",
        "evaluate",
        "map_season",
        "promote",
    }
    assert {run.info.status for run in runs} == {"FINISHED"}
    # Of the exit handler itself: the runner records the end too, without a reason.
    assert "record_status: SUCCEEDED" in (workdir / "run.log").read_text()
    (evaluation,) = [run for run in runs if run.data.tags.get("exact.stage") == "evaluate"]
    metrics = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    assert evaluation.data.metrics["miou_macro"] == metrics["miou_macro"]
    # The run that MLflow's page lists is named, and has what two of them are compared by.
    (parent,) = parents
    assert re.fullmatch(r"synthetic \d{4}-\d\d-\d\d \d\d:\d\d", parent.info.run_name)
    assert parent.data.metrics["miou_macro"] == metrics["miou_macro"]
    assert parent.data.params["source"] == "synthetic"
    assert parent.data.params["segmenter.training.epochs"] == "2"
    assert {"iou.background", "oa_micro", "tag_map"} <= set(parent.data.metrics)
    assert [each.dataset.name.split()[0] for each in parent.inputs.dataset_inputs] == ["synthetic"]
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["report"]
    assert not [key for key in parent.data.params if key.startswith(("data.pastis", "segmenter.utae"))]
    assert {item.path for item in client.list_artifacts(evaluation.info.run_id)} >= {"figures", "report"}


def test_another_run_replaces_the_results(finished, tmp_path):
    """A dense run where one from tags has been: nothing of that one is left to be mistaken for its own."""
    shutil.copytree(finished[0], tmp_path / "work")
    with pytest.raises(ConfigError, match=r"holds the results of a run \(.*\). Choose another folder, or replace"):
        start(tmp_path / "work", supervision="dense")
    assert (tmp_path / "work" / "masks" / "masks.json").is_file()
    report = start(tmp_path / "work", supervision="dense", force=True)
    names = sorted(path.name for path in report.parent.iterdir())
    assert names == ["dataset", "evaluation", "report.html", "run.log", "segmenter"]
    tags = json.loads((finished[0] / "evaluation" / "metrics.json").read_text())
    dense = json.loads((report.parent / "evaluation" / "metrics.json").read_text())
    assert dense["supervision"] == "dense"
    assert dense["pixels"] == tags["pixels"]
    manifests = [WindowDataset(folder / "dataset").manifest.digest for folder in (finished[0], report.parent)]
    assert manifests[0] == manifests[1]


@pytest.mark.slow
def test_the_compiled_pipeline_itself_runs_here(finished, tmp_path):
    """The file that is uploaded to a cluster, run by KFP's local runner: the same masks as `exact run` makes."""
    root = tmp_path / "root"
    kfp_local.init(kfp_local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    pipeline = load_component_from_text((compiler.COMPILED / "train_exact.yaml").read_text())
    pipeline(recipe="demo", source="synthetic", seed=1, overrides=TINY)
    (masks,) = root.glob("*/generate-masks/masks")
    expected = finished[0] / "masks"
    shards = sorted(path.name for path in masks.glob("*.safetensors"))
    assert shards
    assert shards == sorted(path.name for path in expected.glob("*.safetensors"))
    for name in shards:
        assert sha256_of(masks / name) == sha256_of(expected / name)
    assert len(list(root.glob("*/record-status/executor_output.json"))) == 1


@pytest.mark.slow
def test_a_failed_run_says_why_keeps_its_state_and_can_be_repeated(finished, tmp_path, capsys):
    """A segmenter that cannot start: the classifier is not trained twice, and the MLflow run goes on."""
    work = tmp_path / "work"
    broken = [*TINY, "segmenter.training.learning_rate=1e30", "segmenter.training.warmup_epochs=0"]
    with pytest.raises(ServiceError, match=r"(?s)train_segmenter: segmenter: the loss is .*run\.log") as error:
        start(work, overrides=broken)
    assert "Lower training.learning_rate" in str(error.value)
    assert not (work / "segmenter").exists()
    assert not list(work.glob(".run-*"))
    assert "Traceback" in (work / "run.log").read_text()
    capsys.readouterr()
    start(work)
    said = capsys.readouterr().out
    assert "classifier: continuing after epoch 3 of 3" in said
    weights = "segmenter/weights.safetensors"
    assert sha256_of(work / weights) == sha256_of(finished[0] / weights)
    assert not (work / ".state").exists()
    client = MlflowClient(tracking_uri=tracking_uri())
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    parents = {run.info.status: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert sorted(parents) == ["FAILED", "FINISHED"]
    assert parents["FAILED"].data.tags["exact.failure"].startswith("train_segmenter: segmenter: the loss is")


def test_the_screen_shows_stages_and_what_they_say(tmp_path, capsys):
    with pytest.raises(ServiceError):
        start(tmp_path / "work", source=f"pastis:{tmp_path}/nothing")
    said = capsys.readouterr().out
    assert re.match(r"== preflight \(\d\d:\d\d:\d\d\)\n", said)
    assert "executor_input" not in said
    assert "executor_input" in (tmp_path / "work" / "run.log").read_text()


def test_progress_within_an_epoch_takes_one_line_of_a_terminal_and_none_of_the_log():
    """Printed as the runner prints what a stage says."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    log, screen = io.StringIO(), Terminal()
    said = [
        "classifier 2/3: 1 of 9 batches, about 8 s of this epoch left",
        "classifier 2/3: 5 of 9 batches, about 4 s of this epoch left",
        "classifier: epoch 2/3, loss 0.5, 7 windows/s, about 9 s left",
    ]
    with redirect_stdout(local._Console(log, screen)):
        for second, line in enumerate(said):
            sys.stdout.write(f"    [exact 2026-11-29 03:00:0{second},123 INFO]: {line}\n")
    shown = [f"03:00:0{second} {line}" for second, line in enumerate(said)]
    assert screen.getvalue() == f"\r\x1b[K{shown[0]}\r\x1b[K{shown[1]}\r\x1b[K{shown[2]}\n"
    assert log.getvalue() == f"    [exact 2026-11-29 03:00:02,123 INFO]: {said[2]}\n"


@pytest.mark.parametrize("name", ["dataset", "report.html"])
def test_what_is_not_a_result_is_never_replaced(tmp_path, name):
    """A source that lies in the work folder, and a file of a person's own."""
    mine = tmp_path / name
    if name == "dataset":
        write_season(mine)
    else:
        mine.write_text("mine")
    with pytest.raises(ConfigError, match=f"{name} there is no result of a run"):
        start(tmp_path, source=f"season:{tmp_path}/dataset")
    assert mine.exists()


def test_the_default_folder_names_source_and_time_and_a_killed_run_is_continued_in_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = {"recipe": "season", "source": "season:data/flanders 2018/", "season": "", "seed": 0, "overrides": []}
    first = local.default_workdir(arguments, "tags")
    assert re.fullmatch(r"flanders-2018-\d{8}-\d{4}", first.name)
    # A killed run has left its state there.
    killed = {**arguments, "source": local.absolute_source(arguments["source"])}
    local._identity(Path("flanders-2018-20200101-0000"), killed, "tags")
    assert local.default_workdir(arguments, "tags") == Path("flanders-2018-20200101-0000")
    assert local.default_workdir({**arguments, "seed": 1}, "tags") != Path("flanders-2018-20200101-0000")
    assert local.default_workdir({**arguments, "source": "synthetic"}, "tags").name.startswith("synthetic-2")
    address = {**arguments, "source": "stac:https://example.com/v1?collection=s2&bbox=1,2,3,4"}
    assert local.default_workdir(address, "tags").name.startswith("bbox_1_2_3_4-2")


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with local._alone(tmp_path), pytest.raises(ConfigError, match="another run is at work there"):
        start(tmp_path)


@pytest.mark.slow
def test_a_killed_run_leaves_no_stage_behind_and_the_next_one_continues(tmp_path):
    """kill -9 in mid-training: its stage ends too, and the same command goes on after the last finished epoch."""
    long = [*TINY, "classifier.training.epochs=400"]
    settings = [part for setting in long for part in ("--set", setting)]
    command = [
        sys.executable,
        "-c",
        "from exact_kubeflow.cli.app import main; main()",
        "run",
        "--workdir",
        "w",
        *settings,
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = tmp_path / "w" / ".state"
    wait_for(lambda: list(state.glob("classifier-*/state.json")), process)
    stage = int(
        next(line for line in (tmp_path / "w" / "run.log").read_text().splitlines() if "stage process" in line).split()[
            -1
        ]
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while alive(stage):
        assert time.monotonic() < deadline, "the stage outlived its runner"
        time.sleep(0.2)
    assert list((tmp_path / "w").glob(".run-*"))
    epoch = json.loads(next(state.glob("classifier-*/state.json")).read_text())["epoch"]
    assert 1 <= epoch < 400
    identity = json.loads((state / "run.json").read_text())["identity"]
    # The same settings continue it: the identity of the run, and so its checkpoints' place, is the same.
    arguments = {"recipe": "demo", "source": "synthetic", "season": "", "seed": 0, "overrides": long}
    assert local._identity(tmp_path / "w", arguments, "tags") == identity
    # Other settings in that folder start anew, and clear what the killed run left.
    start(tmp_path / "w")
    assert not list((tmp_path / "w").glob(".*"))


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < deadline, "no checkpoint after two minutes"
        time.sleep(0.2)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_value_that_the_runner_would_garble_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="python3"):
        start(tmp_path / "python3.11" / "work")
    # A symbolic link is the way out that the message names.
    (tmp_path / "python3.11").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "python3.11")
    with pytest.raises(ServiceError, match="metadata.geojson"):
        start(tmp_path / "link" / "work", source=f"pastis:{tmp_path}/link/nothing")


@pytest.mark.slow
def test_with_a_store_the_results_are_there_and_here_and_can_be_evaluated_from_there(finished, tmp_path, monkeypatch):
    """The same bits by way of a store; and evaluation needs nothing of the work folder."""
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))
    start(tmp_path / "work")
    for name in ("dataset/index.parquet", "masks/masks.json", "segmenter/weights.safetensors"):
        assert sha256_of(tmp_path / "work" / name) == sha256_of(finished[0] / name)
    before = json.loads((tmp_path / "work" / "evaluation" / "metrics.json").read_text())
    shutil.rmtree(tmp_path / "work")
    client = MlflowClient(tracking_uri=tracking_uri())
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    tags = {key: value for run in runs for key, value in run.data.tags.items() if key.startswith("exact.stored.")}
    stored = {name: tags[f"exact.stored.{name}"] for name in ("dataset", "segmenter", "classifier", "masks")}
    arguments = [stored["dataset"], stored["segmenter"], str(tmp_path / "again"), "--report", str(tmp_path / "r.html")]
    arguments += ["--classifier", stored["classifier"], "--masks", stored["masks"], "--no-tracking"]
    settings = [part for setting in TINY for part in ("--set", setting)]
    command = [
        sys.executable,
        "-c",
        "from exact_kubeflow.cli.app import main; main()",
        "evaluate",
        *arguments,
        *settings,
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert json.loads((tmp_path / "again" / "metrics.json").read_text()) == before
