"""A real MLflow server: the same code, another MLFLOW_TRACKING_URI."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from mlflow import MlflowClient

from exact_core.stages import open_stage
from exact_core.tracking import EXPERIMENT, finish_pipeline_run

pytestmark = pytest.mark.slow
START_SECONDS = 120


@pytest.fixture
def server(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "a"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=2)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.3)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


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
