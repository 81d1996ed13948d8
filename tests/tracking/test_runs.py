"""Against a real MLflow store (sqlite): structure, figures, repeat, failure."""

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from mlflow import MlflowClient

from exact_core.config import override
from exact_core.environment import process_name
from exact_core.errors import ConfigError, DataError, ServiceError
from exact_core.stages.lifecycle import open_stage
from exact_core.tracking.runs import EXPERIMENT, finish_pipeline_run, open_client, run_page, tracking_uri


@pytest.fixture
def runs(tracking_file):
    client = MlflowClient(tracking_uri=tracking_uri())

    def find(clause=""):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        return client.search_runs([experiment.experiment_id], clause, order_by=["attributes.start_time"])

    find.client = client
    return find


def test_a_pipeline_run_is_one_parent_with_nested_stages(config, runs, tmp_path):
    (tmp_path / "figure.png").write_bytes(b"png")
    for stage in ("ingest", "train_classifier"):
        with open_stage(stage, config, pipeline_run="run-1") as tracker:
            for epoch in (1, 2):
                tracker.log_metrics({"loss": 1 / epoch}, step=epoch)
            tracker.log_dataset(tmp_path, name="synthetic", digest="0" * 64, source="synthetic")
            tracker.log_file(tmp_path / "figure.png", folder="figures")
            tracker.log_summary({"final_loss": 0.5})
    finish_pipeline_run("run-1", succeeded=True)
    parent, first, second = runs()
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "demo seed 1"
    for child, name in ((first, "ingest"), (second, "train_classifier")):
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.run_name == name
        assert child.info.status == "FINISHED"
        assert ("classifier.encoder.dim" in child.data.params) == (name == "train_classifier")
        assert child.data.params["seed"] == "1"
        assert child.data.params["code_version"].startswith("0.")
        assert child.data.metrics["final_loss"] == 0.5
        assert child.data.metrics["seconds"] >= 0
        assert [m.value for m in runs.client.get_metric_history(child.info.run_id, "loss")] == [1, 0.5]
        dataset = child.inputs.dataset_inputs[0].dataset
        assert (dataset.name, dataset.digest, dataset.source) == ("synthetic", "0" * 36, "synthetic")
        assert "exact.dataset" not in child.data.tags
        assert [f.path for f in runs.client.list_artifacts(child.info.run_id, "figures")] == ["figures/figure.png"]


def test_a_metric_that_is_not_defined_is_left_out(config, runs):
    with open_stage("train_classifier", config, pipeline_run="run-1") as tracker:
        tracker.log_metrics({"loss": 0.5, "validation_tag_map": float("nan")}, step=1)
        tracker.log_summary({"final": 1.0, "worst": float("inf"), "best": -float("inf")})
    (run,) = runs("tags.`exact.stage` = 'train_classifier'")
    assert set(run.data.metrics) == {"loss", "final", "seconds"}


def test_runs_that_begin_together_share_a_new_database(tmp_path):
    """Each in a process of its own, as two terminals would."""
    script = "from exact_core.tracking.runs import open_client; print(open_client()[1])"
    command = [sys.executable, "-c", script]
    begun = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate()[0].split()[-1:] for process in begun]
    assert [process.returncode for process in begun] == [0, 0, 0]
    assert answers[0] == answers[1] == answers[2] != []


def test_runs_of_two_segmenters_can_be_told_apart(config, runs):
    for number, changes in enumerate(([], ["segmenter.model=utae"])):
        with open_stage("train_segmenter", override(config, changes), pipeline_run=f"run-{number}"):
            pass
    names = {run.info.run_name for run in runs()}
    assert {"demo seed 1", "demo seed 1, U-TAE"} < names
    stages = runs("tags.`exact.stage` = 'train_segmenter'")
    assert [run.data.params["segmenter.model"] for run in stages] == ["tsvit", "utae"]
    assert stages[1].data.params["segmenter.utae.heads"] == "4"


def test_a_repeated_stage_continues_its_run_and_another_run_has_its_own(config, runs):
    with pytest.raises(DataError), open_stage("ingest", config, pipeline_run="run-1"):
        raise DataError("broken")
    assert [run.info.status for run in runs("tags.`exact.stage` = 'ingest'")] == ["FAILED"]
    finish_pipeline_run("run-1", succeeded=False)
    with open_stage("ingest", config, pipeline_run="run-1"):
        pass
    with open_stage("ingest", config, pipeline_run="run-2"):
        pass
    assert [run.info.status for run in runs("tags.`exact.stage` = 'ingest'")] == ["FINISHED", "FINISHED"]
    assert len(runs()) == 4


def test_a_stage_alone_has_no_parent(config, runs):
    for _ in range(2):
        with open_stage("ingest", config):
            pass
    assert len(runs()) == 2
    assert all("mlflow.parentRunId" not in run.data.tags for run in runs())


def test_a_given_run_is_used(config, runs, monkeypatch):
    experiment = runs.client.create_experiment("KFP-Default")
    run = runs.client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    with open_stage("ingest", config, pipeline_run="run-1") as tracker:
        tracker.log_summary({"windows": 3.0})
    assert runs.client.get_run(run).data.metrics["windows"] == 3
    assert runs() == []


def test_a_run_that_this_mlflow_does_not_hold_costs_a_line_of_the_log(config, runs, monkeypatch, caplog):
    """KFP's plugin with another MLflow than the secret's: every stage is tracked as it would be without the plugin."""
    deleted = runs.client.create_run(runs.client.create_experiment("KFP-Default")).info.run_id
    runs.client.delete_run(deleted)
    for stage, named in {"preflight": "0" * 32, "ingest": "not the form of a run", "train_classifier": deleted}.items():
        caplog.clear()
        monkeypatch.setenv("MLFLOW_RUN_ID", named)
        with open_stage(stage, config, pipeline_run="run-1") as tracker:
            tracker.log_summary({"windows": 3.0})
        for text in (f"MLFLOW_RUN_ID = {named}", f"MLFLOW_TRACKING_URI = {tracking_uri()}", "name the same"):
            assert text in caplog.text
    parent, *stages = runs()
    assert [run.info.run_name for run in stages] == ["preflight", "ingest", "train_classifier"]
    assert {run.data.tags["mlflow.parentRunId"] for run in stages} == {parent.info.run_id}
    assert {run.data.metrics["windows"] for run in stages} == {3}
    finish_pipeline_run("run-1", succeeded=False, reason="boom")
    parent = runs.client.get_run(parent.info.run_id)
    assert (parent.info.status, parent.data.tags["exact.failure"]) == ("FAILED", "boom")


def test_a_server_that_does_not_say_whether_it_has_a_run_is_named_with_both_variables(config, monkeypatch):
    """As one whose log-in is wrong, or for another workspace."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            known = "get-by-name" in self.path
            content = b'{"experiment": {"experiment_id": "1"}}' if known else b'{"error_code": "PERMISSION_DENIED"}'
            self.send_response(200 if known else 403)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        with (
            pytest.raises(ServiceError, match=rf"MLFLOW_RUN_ID = 0{{32}}: .*MLFLOW_TRACKING_URI = {address}.*unset"),
            open_stage("preflight", config, pipeline_run="run-1"),
        ):
            pass
        server.shutdown()


def test_without_tracking_nothing_is_written(config, tmp_path):
    with open_stage("ingest", config, tracking=False) as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_server_that_does_not_answer_is_named(config, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(ServiceError, match=r"http://127.0.0.1:9 does not answer.*MLFLOW_TRACKING_URI"),
        open_stage("ingest", config),
    ):
        pass


def test_a_failure_leaves_its_message_for_the_runner(config, monkeypatch, tmp_path):
    monkeypatch.setenv("EXACT_FAILURE_FILE", str(tmp_path / "failure.txt"))
    with pytest.raises(DataError), open_stage("ingest", config, tracking=False):
        raise DataError("S2_1.npy: broken")
    assert (tmp_path / "failure.txt").read_text() == "ingest: S2_1.npy: broken"


def test_a_run_that_kfp_has_made_is_found_by_its_stage(config, monkeypatch):
    """Where KFP's own plugin tracks a task, its run becomes the stage's, and `exact compare` still finds it."""
    client = MlflowClient(tracking_uri=tracking_uri())
    given = client.create_run(client.create_experiment("KFP-Default")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    with open_stage("evaluate", config, pipeline_run="run-1") as tracker:
        assert tracker.run_id == given
    tags = client.get_run(given).data.tags
    assert tags["exact.stage"] == "evaluate"
    assert tags["exact.pipeline_run"] == "run-1"


def test_the_whole_run_gets_the_settings_of_its_first_stage_and_the_headline(config, runs, tmp_path):
    """And is named after source and season; a stage's other figures stay its own."""
    about = {"pipeline_run": "run-9", "source": "season:/data/flanders 2018", "season": "2018"}
    with open_stage("preflight", config, more={"labels": "tags", "overrides": "device=cpu"}, **about):
        pass
    (tmp_path / "report.html").write_text("a report")
    with open_stage("evaluate", config, **about) as tracker:
        tracker.log_summary({"panels": 3.0})
        tracker.log_headline({"miou_macro": 0.5, "nothing": float("nan")})
        tracker.log_dataset(tmp_path, name="flanders 2018-01-01", digest="0" * 64, source="x", whole=True)
        tracker.log_file(tmp_path / "report.html", folder="report", whole=True)
    (parent,) = [run for run in runs() if "mlflow.parentRunId" not in run.data.tags]
    assert re.fullmatch(r"flanders-2018 2018 \d{4}-\d\d-\d\d \d\d:\d\d", parent.info.run_name)
    assert parent.data.metrics == {"miou_macro": 0.5}
    assert parent.data.params["source"] == "season:/data/flanders 2018"
    assert parent.data.params["recipe"] == "demo"
    assert (parent.data.params["labels"], parent.data.params["overrides"]) == ("tags", "device=cpu")
    assert [each.dataset.name for each in parent.inputs.dataset_inputs] == ["flanders 2018-01-01"]
    assert [file.path for file in runs.client.list_artifacts(parent.info.run_id, "report")] == ["report/report.html"]
    assert parent.info.status == "RUNNING"
    page = run_page("run-9")
    assert page.startswith(
        f"http://127.0.0.1:5000/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}"
        f"?workflowType=machine_learning (serve it with: mlflow ui --backend-store-uri sqlite:///"
    )
    assert run_page("none") == ""


def test_settings_that_do_not_apply_are_not_recorded(config, runs):
    """Neither those of other sources and segmenters, nor those of other stages; of the whole run, all that apply."""
    about = {"pipeline_run": "run-1", "source": "season:/data/x"}
    for stage in ("preflight", "ingest", "train_segmenter", "map_season 1/2"):
        with open_stage(stage, config, **about):
            pass
    parent, first, ingest, segmenter, part = runs()
    sections = {run.info.run_name: {key.partition(".")[0] for key in run.data.params} for run in runs()}
    common = {"recipe", "seed", "device", "precision", "code_version"}
    assert sections["ingest"] == {*common, "data"}
    assert sections["train_segmenter"] == {*common, "segmenter", "transfer"}
    assert sections["map_season 1/2"] == {*common, "data", "mapping"}
    for run in (parent, first, ingest, part):
        assert not [key for key in run.data.params if key.startswith(("data.pastis", "data.synthetic", "data.germany"))]
        assert "data.season.offset" in run.data.params
    assert {"classifier.encoder.dim", "masks.cam", "promotion.minimum_gain"} <= set(parent.data.params)
    assert not [key for run in (parent, segmenter) for key in run.data.params if key.startswith("segmenter.utae")]


def test_what_is_refused_leaves_no_run(config, runs):
    """A command, and a run on this machine that its first stage refuses; what has done something stays."""
    with pytest.raises(ConfigError), open_stage("map_season", config):
        raise ConfigError("no such model")
    with pytest.raises(DataError), open_stage("preflight", config, pipeline_run="run-1"):
        raise DataError("tags: broken")
    assert finish_pipeline_run("run-1", succeeded=False, keep_refused=False) == "preflight: tags: broken"
    assert runs() == []
    with pytest.raises(DataError), open_stage("transfer_report", config) as tracker:
        tracker.log_summary({"verdict": 2.0})
        raise DataError("do not publish")
    with pytest.raises(DataError), open_stage("ingest", config, pipeline_run="run-2"):
        raise DataError("broken")
    finish_pipeline_run("run-2", succeeded=False, keep_refused=False)
    assert [run.info.status for run in runs()] == ["FAILED"] * 3


def test_the_runs_of_a_killed_process_are_closed_by_the_next_stage(config, runs, monkeypatch):
    """Those of a living one are left alone, and so are those of other machines."""
    experiment = open_client()[1]
    killed, living = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    try:
        names = [process_name(killed.pid), process_name(living.pid), "elsewhere/1/0"]
        for name in names:
            runs.client.create_run(experiment, tags={"exact.process": name}, run_name=name)
        killed.kill()
        killed.wait()
        with open_stage("map_season", config):
            pass
    finally:
        living.kill()
        living.wait()
    found = {run.info.run_name: run for run in runs()}
    assert [found[name].info.status for name in names] == ["KILLED", "RUNNING", "RUNNING"]
    assert "killed" in found[names[0]].data.tags["exact.failure"]
    # A runner that was killed, and the next one that goes on with its run.
    monkeypatch.setenv("EXACT_RUNNER_PID", str(os.getpid()))
    runs.client.create_run(experiment, tags={"exact.process": names[0], "exact.pipeline_run": "r"}, run_name="whole")
    with open_stage("ingest", config, pipeline_run="r"):
        pass
    whole = next(run for run in runs() if run.info.run_name == "whole")
    assert whole.info.status == "RUNNING"
    assert whole.data.tags["exact.process"] == process_name(os.getpid())


def test_what_a_person_stops_has_not_failed(config, runs):
    with pytest.raises(KeyboardInterrupt), open_stage("ingest", config):
        raise KeyboardInterrupt
    (run,) = runs()
    assert run.info.status == "KILLED"
