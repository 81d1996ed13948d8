"""How stages end: in order when they are asked to, with the cause that their user needs, and a word when killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from exact_core.errors import DataError, ServiceError
from exact_core.stages.lifecycle import open_stage
from exact_core.termination import at_failure
from exact_core.tracking.runs import EXPERIMENT, finish_pipeline_run, tracking_uri

STAGE = """
import os, signal, sys
from exact_core.recipes import resolve
from exact_core.stages.lifecycle import open_stage
with open_stage("train_classifier", resolve("demo"), pipeline_run="run-1", tracking=sys.argv[2] == "tracked"):
    os.kill(os.getpid(), int(sys.argv[1]))
    import time
    time.sleep(30)
"""


def ended(tmp_path, how, tracked="untracked"):
    """Exit status, output and message for the runner of a stage process that got a signal."""
    failure = tmp_path / "failure.txt"
    done = subprocess.run(
        [sys.executable, "-c", STAGE, str(int(how)), tracked],
        env={**os.environ, "EXACT_FAILURE_FILE": str(failure)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, failure.read_text()


def test_a_stage_that_is_asked_to_end_says_so(tmp_path):
    code, output, failure = ended(tmp_path, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert failure.startswith("train_classifier: ")
    assert "signal 15 (SIGTERM)" in failure
    assert "Traceback" not in output


def test_a_killed_stage_has_left_its_message(tmp_path):
    code, _, failure = ended(tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert failure.startswith("train_classifier: was killed (signal 9): most likely out of memory")


def test_mlflow_hears_of_both(tmp_path, monkeypatch):
    """In one test: a new database takes MLflow long."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    ended(tmp_path, signal.SIGTERM, "tracked")
    client = MlflowClient(tracking_uri=tracking_uri())
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id

    def stage():
        (run,) = client.search_runs([experiment], "tags.`exact.stage` = 'train_classifier'")
        return run.info.status, run.data.tags.get("exact.failure", "")

    status, failure = stage()
    assert status == "FAILED"
    assert "signal 15 (SIGTERM)" in failure
    ended(tmp_path, signal.SIGKILL, "tracked")
    assert stage()[0] == "RUNNING"
    finish_pipeline_run("run-1", succeeded=False, reason="the run failed")
    status, failure = stage()
    assert status == "FAILED"
    assert failure.startswith("train_classifier was killed before it could report the reason")


def test_a_good_stage_leaves_no_message_and_the_signal_as_it_was(config, tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_FAILURE_FILE", str(tmp_path / "failure.txt"))
    before = signal.getsignal(signal.SIGTERM)
    with open_stage("ingest", config, tracking=False):
        assert (tmp_path / "failure.txt").is_file()
        assert signal.getsignal(signal.SIGTERM) != before
    assert not (tmp_path / "failure.txt").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_first_cause_is_what_is_read(config, caplog):
    def broken():
        raise ServiceError("the store is away")

    done = []
    with pytest.raises(DataError, match=r"S2_1\.npy: broken"), open_stage("ingest", config, tracking=False):
        at_failure(lambda: done.append("first"))
        at_failure(broken)
        raise DataError("S2_1.npy: broken")
    assert done == ["first"]
    assert "the store is away" in caplog.text
    with open_stage("ingest", config, tracking=False):
        at_failure(lambda: done.append("never"))
    at_failure(lambda: done.append("no stage is open"))
    assert done == ["first"]
    assert Path.cwd().is_dir()
