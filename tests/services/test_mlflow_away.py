"""MLflow is restarted while a stage is at work, or does not come back."""

from __future__ import annotations

import time

import pytest
from mlflow import MlflowClient

from exact_core.errors import DataError, ServiceError
from exact_core.stages.lifecycle import open_stage
from tests.services.servers import Mlflow

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Mlflow(tmp_path_factory.mktemp("mlflow"))
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture(autouse=True)
def _address(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("EXACT_STATE_DIR", str(tmp_path / "state"))


def test_a_restart_costs_no_figure_and_no_time(server, config, tmp_path):
    (tmp_path / "map.png").write_bytes(b"drawn")
    with open_stage("train_classifier", config, pipeline_run="restarted") as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
        server.kill()
        began = time.monotonic()
        for epoch in range(2, 11):
            tracker.log_metrics({"loss": 1 / epoch}, step=epoch)
        tracker.log_file(tmp_path / "map.png", folder="figures")
        (tmp_path / "map.png").unlink()
        assert time.monotonic() - began < 15
        server.start()
    client = MlflowClient(tracking_uri=server.uri)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert sorted(metric.step for metric in client.get_metric_history(tracker.run_id, "loss")) == list(range(1, 11))
    assert [each.path for each in client.list_artifacts(tracker.run_id, "figures")] == ["figures/map.png"]
    assert not list((tmp_path / "state").iterdir())


def test_a_server_that_stays_away_fails_the_end_after_the_patience_and_a_retry_sends_all(
    server, config, monkeypatch, tmp_path
):
    monkeypatch.setenv("EXACT_PATIENCE_MINUTES", "0.05")
    with (
        pytest.raises(ServiceError, match=rf"{server.uri} does not answer.*records are not sent yet"),
        open_stage("train_classifier", config, pipeline_run="patient") as tracker,
    ):
        server.kill()
        tracker.log_metrics({"loss": 0.5}, step=7)
    with pytest.raises(DataError, match="the first cause"):
        server.start()
        with open_stage("train_classifier", config, pipeline_run="patient"):
            server.kill()
            raise DataError("the first cause")
    server.start()
    monkeypatch.setenv("EXACT_PATIENCE_MINUTES", "1")
    with open_stage("train_classifier", config, pipeline_run="patient") as again:
        pass
    assert again.run_id == tracker.run_id
    client = MlflowClient(tracking_uri=server.uri)
    run = client.get_run(again.run_id)
    assert run.info.status == "FINISHED"
    # What the failed try said last, and MLflow has never heard, is no news of this one.
    assert "exact.failure" not in run.data.tags
    assert [metric.step for metric in client.get_metric_history(again.run_id, "loss")] == [7]
    assert not list((tmp_path / "state").iterdir())


def test_a_stage_of_a_run_waits_for_mlflow_and_the_first_one_does_not(server, config, monkeypatch):
    server.kill()
    with pytest.raises(ServiceError, match="does not answer"), open_stage("preflight", config, pipeline_run="late"):
        pass
    with pytest.raises(ServiceError, match="does not answer"), open_stage("train_classifier", config):
        pass
    monkeypatch.setenv("EXACT_PATIENCE_MINUTES", "0.05")
    began = time.monotonic()
    with pytest.raises(ServiceError, match="does not answer"), open_stage("ingest", config, pipeline_run="late"):
        pass
    assert time.monotonic() - began > 2
    server.start()
