"""How a run ended: into MLflow, and to a webhook that a real server answers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from mlflow import MlflowClient

from exact_core.errors import ConfigError
from exact_core.stages.record_status import record_status
from exact_core.tracking import tracking_uri


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
