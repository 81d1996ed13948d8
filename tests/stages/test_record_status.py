"""How a run ended: into MLflow, and to a webhook that a real server answers."""

import socket
import threading

import pytest
from mlflow import MlflowClient

from exact_core.errors import ConfigError, DataError
from exact_core.stages.record_status import check_webhook, record_status
from exact_core.tracking.runs import tracking_uri
from tests.webhook import Webhook

pytestmark = pytest.mark.usefixtures("tracking_file")


@pytest.fixture
def hook():
    served = Webhook()
    yield served, served.url
    served.close()


def record(state="SUCCEEDED", error="", webhook=""):
    return record_status(pipeline_run="run-1", state=state, error=error, job="jobs/7", webhook=webhook)


def test_a_failure_and_its_reason_are_kept_on_the_run(tracked, hook):
    handler, url = hook
    with tracked("ingest") as tracker:
        run_id = tracker.run_id
        tracker.set_tags({"exact.work": "train", "exact.map": "s3://exact/maps/x/item.json", "exact.other": "x"})
    record("FAILED", "ingest: no such folder", url)
    client = MlflowClient(tracking_uri=tracking_uri())
    parent = client.get_run(client.get_run(run_id).data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FAILED"
    assert parent.data.tags["exact.failure"] == "ingest: no such folder"
    facts = {"work": "train", "map": "s3://exact/maps/x/item.json"}
    told = {"pipeline_run": "run-1", "state": "FAILED", "error": "ingest: no such folder", "job": "jobs/7"}
    assert handler.got == [{**told, "facts": facts}]
    # The whole run has them too.
    assert parent.data.tags["exact.map"] == facts["map"]
    assert "exact.other" not in parent.data.tags


def parent_of(run_id):
    client = MlflowClient(tracking_uri=tracking_uri())
    return client.get_run(client.get_run(run_id).data.tags["mlflow.parentRunId"])


@pytest.mark.parametrize(
    ("word", "ours", "status"),
    [
        # What KFP 2.17 gives an exit task (MLMD's words), and what its local runner and the API say.
        ("COMPLETE", "SUCCEEDED", "FINISHED"),
        ("CACHED", "SUCCEEDED", "FINISHED"),
        ("SUCCEEDED", "SUCCEEDED", "FINISHED"),
        ("FAILED", "FAILED", "FAILED"),
        ("RUNNING", "FAILED", "FAILED"),
        ("CANCELED", "CANCELED", "KILLED"),
    ],
)
def test_each_word_of_kfp_for_the_end(tracked, hook, word, ours, status):
    handler, url = hook
    with tracked("ingest") as tracker:
        pass
    assert record(word, webhook=url)["state"] == ours
    parent = parent_of(tracker.run_id)
    assert parent.info.status == status
    assert handler.got[0]["state"] == ours
    assert handler.got[0]["error"] == parent.data.tags.get("exact.failure", handler.got[0]["error"])
    assert bool(handler.got[0]["error"]) == (word in ("RUNNING", "CANCELED"))


def test_kfp_says_no_reason_and_the_failed_stage_does(tracked, hook):
    handler, url = hook
    with tracked("preflight"):
        pass
    with pytest.raises(DataError), tracked("ingest") as tracker:
        raise DataError("S2_1.npy: broken")
    record("FAILED", "", url)
    assert handler.got[0]["error"] == "ingest: S2_1.npy: broken"
    assert parent_of(tracker.run_id).data.tags["exact.failure"] == "ingest: S2_1.npy: broken"


@pytest.mark.parametrize(
    ("word", "words", "status"),
    [("RUNNING", "out of memory", "FAILED"), ("CANCELED", "the run was terminated", "KILLED")],
)
def test_a_stage_that_was_killed_is_not_at_work_for_ever(tracked, word, words, status):
    with tracked("train_segmenter") as tracker:
        client = MlflowClient(tracking_uri=tracking_uri())
        # Killed: the stage's own end is never reached.
        assert words in record(word)["error"]
        run = client.get_run(tracker.run_id)
        assert run.info.status == status
        assert run.data.tags["exact.failure"].startswith("train_segmenter was killed")


def test_a_run_that_kfp_repeats_in_part_is_mended_without_an_exit_task(tracked):
    """Retry on the run's page repeats the failed step and those after it, and never the exit task."""
    with tracked("preflight") as tracker:
        pass
    with pytest.raises(DataError), tracked("ingest"):
        raise DataError("no such folder")
    record("FAILED")
    with tracked("ingest"):
        assert parent_of(tracker.run_id).info.status == "RUNNING"
    with tracked("evaluate"):
        assert parent_of(tracker.run_id).info.status == "RUNNING"
    parent = parent_of(tracker.run_id)
    assert parent.info.status == "FINISHED"
    assert "exact.failure" not in parent.data.tags
    # And one that fails again says the newer reason.
    with pytest.raises(DataError), tracked("evaluate"):
        raise DataError("another reason")
    parent = parent_of(tracker.run_id)
    assert (parent.info.status, parent.data.tags["exact.failure"]) == ("FAILED", "evaluate: another reason")


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
    assert caplog.text.count("did not accept the status") == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"HTTP/1.1 200 " + b"x" * 70000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    ],
    ids=["no HTTP", "nothing", "a line without end", "half an answer"],
)
def test_whatever_a_webhook_answers_the_run_is_what_it_was(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        assert record(webhook=f"http://127.0.0.1:{server.getsockname()[1]}/")["state"] == "SUCCEEDED"


NO_URLS = ["file:///etc/passwd", "https://", "http://[::1", "hooks.example.org/x", "http://h:port/", "http://h/a b"]


@pytest.mark.parametrize("webhook", [*NO_URLS, "http://127.0.0.1:1/é"])
def test_what_is_no_webhook_is_refused_before_a_run_and_fails_none_at_its_end(caplog, webhook):
    with pytest.raises(ConfigError, match=r"^webhook = '.*: no URL that can be called"):
        check_webhook(webhook)
    assert record("COMPLETE", webhook=webhook)["state"] == "SUCCEEDED"
    assert "did not accept the status" in caplog.text


@pytest.mark.parametrize(
    "webhook", ["http://me:geheim@127.0.0.1:1/hooks/geheim?key=geheim", "ftp://127.0.0.1:1/geheim"]
)
def test_the_path_of_a_webhook_which_is_its_secret_is_not_logged(caplog, webhook):
    with caplog.at_level("INFO"):
        record(webhook=webhook)
    assert "127.0.0.1:1/…" in caplog.text
    assert "geheim" not in caplog.text
