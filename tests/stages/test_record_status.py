"""How a run ended: into MLflow, and to a webhook that a real server answers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from mlflow import MlflowClient

from exact_core.errors import ConfigError, DataError
from exact_core.stages.record_status import record_status
from exact_core.tracking.runs import tracking_uri


@pytest.fixture
def hook():
    class Handler(BaseHTTPRequestHandler):
        got: ClassVar[list] = []
        answer = 200

        def do_POST(self):
            Handler.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(Handler.answer)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.got.clear()
    yield Handler, f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    server.server_close()


def record(state="SUCCEEDED", error="", webhook=""):
    return record_status(pipeline_run="run-1", state=state, error=error, job="jobs/7", webhook=webhook)


def test_a_failure_and_its_reason_are_kept_on_the_run(tracked, hook):
    handler, url = hook
    with tracked("ingest") as tracker:
        run_id = tracker.run_id
    record("FAILED", "ingest: no such folder", url)
    client = MlflowClient(tracking_uri=tracking_uri())
    parent = client.get_run(client.get_run(run_id).data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FAILED"
    assert parent.data.tags["exact.failure"] == "ingest: no such folder"
    told = {"pipeline_run": "run-1", "state": "FAILED", "error": "ingest: no such folder", "job": "jobs/7"}
    assert handler.got == [told]


def test_success(tracked):
    with tracked("ingest") as tracker:
        run_id = tracker.run_id
    assert record()["state"] == "SUCCEEDED"
    client = MlflowClient(tracking_uri=tracking_uri())
    parent = client.get_run(client.get_run(run_id).data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED"


@pytest.fixture
def plugin(tracked, monkeypatch):
    """KFP's MLflow plugin up to the exit handler: its run of the pipeline, of the part inside the handler, of tasks."""
    client = MlflowClient(tracking_uri=tracking_uri())
    experiment = client.create_experiment("KFP-Default")

    def begin(name, parent=None):
        tags = {"mlflow.parentRunId": parent} if parent else {"kfp.pipeline_run_id": "run-1"}
        return client.create_run(experiment, run_name=name, tags=tags).info.run_id

    class Plugin:
        whole = begin("train-exact")
        inner = begin("exit-handler-1", whole)
        stage = begin("ingest", inner)
        end = begin("record-status", whole)

        @staticmethod
        def run(name):
            return client.get_run(getattr(Plugin, name))

    Plugin.client = client
    monkeypatch.setenv("MLFLOW_RUN_ID", Plugin.stage)
    with pytest.raises(DataError), tracked("ingest"):
        raise DataError("no such folder")
    monkeypatch.setenv("MLFLOW_RUN_ID", Plugin.end)
    return Plugin


def test_where_kfp_has_made_the_runs_its_run_of_the_pipeline_says_why(plugin, monkeypatch):
    """One after another on one file of MLflow's: making it takes long."""
    with monkeypatch.context() as patch:
        # On this machine there is no plugin: what is given, and what that is nested in, is a person's own.
        patch.setenv("EXACT_PIPELINE_RUN", "run-1")
        record("FAILED", "boom")
    assert plugin.run("whole").info.status == "RUNNING"
    assert "exact.failure" not in plugin.run("whole").data.tags
    record()
    assert plugin.run("whole").info.status == "FINISHED"
    assert "exact.failure" not in plugin.run("whole").data.tags
    # Tried again, as KFP does it.
    plugin.client.update_run(plugin.whole, status="RUNNING")
    record("FAILED", "ingest: no such folder")
    whole = plugin.run("whole")
    assert whole.info.status == "FAILED"
    assert whole.data.tags["exact.failure"] == "ingest: no such folder"
    assert whole.data.tags["exact.pipeline_run"] == "run-1"
    # A status that KFP has given stays.
    plugin.client.set_terminated(plugin.whole, "KILLED")
    record("FAILED", "boom")
    assert plugin.run("whole").info.status == "KILLED"
    assert plugin.run("whole").data.tags["exact.failure"] == "boom"
    # The stage ended its own; the others are the plugin's to end, and nothing was made beside them.
    assert plugin.run("stage").info.status == "FAILED"
    assert plugin.run("inner").info.status == plugin.run("end").info.status == "RUNNING"
    assert plugin.client.search_runs([plugin.client.get_experiment_by_name("exact").experiment_id]) == []


def test_a_webhook_that_is_away_or_refuses_fails_nothing(hook, caplog):
    handler, url = hook
    handler.answer = 500
    record(webhook=url)
    record(webhook="http://127.0.0.1:1/nobody")
    assert caplog.text.count("did not take the status") == 2


def test_a_webhook_must_be_http_and_hides_no_status(tracked):
    with tracked("ingest") as tracker:
        run_id = tracker.run_id
    with pytest.raises(ConfigError, match="file:///etc/passwd"):
        record("FAILED", webhook="file:///etc/passwd")
    client = MlflowClient(tracking_uri=tracking_uri())
    assert client.get_run(client.get_run(run_id).data.tags["mlflow.parentRunId"]).info.status == "FAILED"
