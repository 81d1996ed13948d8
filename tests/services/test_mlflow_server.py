"""A real MLflow server: the same code, another MLFLOW_TRACKING_URI."""

from __future__ import annotations

import signal

import pytest
from mlflow import MlflowClient

from exact_core.stages.frame import open_stage
from exact_core.tracking import EXPERIMENT, finish_pipeline_run
from tests.services.servers import Mlflow

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path):
    running = Mlflow(tmp_path)
    try:
        running.start()
        yield running.uri
    finally:
        running.kill(signal.SIGTERM)


def test_runs_and_artifacts_go_to_the_server(server, config, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    (tmp_path / "report.html").write_text("<html></html>")
    with open_stage("evaluate", config, pipeline_run="run-1") as tracker:
        tracker.log_metrics({"miou_macro": 0.7}, step=1)
        tracker.log_file(tmp_path / "report.html", folder="report")
        tracker.log_dataset(name="synthetic", digest="1" * 64, source="synthetic")
    finish_pipeline_run("run-1", succeeded=True)
    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], "tags.`exact.stage` = 'evaluate'")
    assert len(runs) == 1
    assert runs[0].data.metrics["miou_macro"] == 0.7
    assert [item.path for item in client.list_artifacts(runs[0].info.run_id, "report")] == ["report/report.html"]
    parent = client.get_run(runs[0].data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED"
