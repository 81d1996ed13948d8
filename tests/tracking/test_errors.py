"""Addresses of MLflow that cannot be used: one line, the variable, the way out, at once."""

from __future__ import annotations

import os
import sqlite3
import time

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException

from exact_core.errors import ConfigError, ServiceError
from exact_core.stages.preflight import checks
from exact_core.tracking import errors
from exact_core.tracking.errors import AwayError, check_address, explained, patiently, refused, tracking_uri
from exact_core.tracking.runs import open_client


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost:5000", r"it has no scheme. Give http://localhost:5000"),
        ("mlflow.kubeflow.svc:5000/x", r"it has no scheme. Give http://mlflow\.kubeflow\.svc:5000/x"),
        ("./mlruns", r"plain folders any more. Give sqlite:///.*/mlruns/mlflow\.db"),
        ("file:///data/mlruns", r"plain folders any more. Give sqlite:////data/mlruns/mlflow\.db"),
        ("http://host:70000", r"no address of a server"),
        ("http://", r"no address of a server"),
        ("sqlite:////proc/x.db", r"folder /proc cannot be written"),
        ("sqlite:////proc/none/x.db", r"folder /proc/none cannot be written"),
        ("mysql://mlflow:geheim@127.0.0.1:9/x", r"needs the driver MySQLdb, which is not installed"),
    ],
)
def test_forms_that_cannot_be_used(monkeypatch, address, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    began = time.monotonic()
    with pytest.raises((ConfigError, ServiceError), match=f"(?s)MLFLOW_TRACKING_URI.*{said}|{said}.*") as error:
        check_address(address)
    assert "\n" not in str(error.value)
    assert "geheim" not in str(error.value)
    assert time.monotonic() - began < 60
    found = {check.name: check for check in checks()}["MLflow"]
    assert (found.state, found.detail) == ("failed", str(error.value))


@pytest.mark.parametrize(
    "address", ["http://host:5000", "https://u:p@host/mlflow", "databricks", "databricks://profile"]
)
def test_forms_that_may_be(address):
    check_address(address)


def test_a_folder_that_cannot_be_written_is_found_by_the_doctor_without_a_variable(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir("/proc/self")
    found = {check.name: check for check in checks()}["MLflow"]
    assert found.state == "failed"
    assert "MLFLOW_TRACKING_URI is not set" in found.detail
    assert "run in another folder" in found.detail


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A small database with MLflow's name for its version; the address of its file."""
    path = tmp_path / "runs.db"
    with sqlite3.connect(path) as made:
        made.execute("create table alembic_version (version_num)")
        made.execute("create table filler (content)")
        made.executemany("insert into filler values (?)", [("x" * 1000,)] * 50)
    made.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return path


def refusal():
    with pytest.raises(ServiceError) as error:
        check_address(tracking_uri())
    assert "\n" not in str(error.value)
    assert "set MLFLOW_TRACKING_URI to another place" in str(error.value)
    return str(error.value)


def test_databases_that_cannot_be_used(database, monkeypatch):
    check_address(tracking_uri())
    content = database.read_bytes()
    monkeypatch.setattr(errors, "LOCKED_SECONDS", 0.1)
    holder = sqlite3.connect(database)
    holder.execute("begin exclusive")
    assert "locked by another process" in refusal()
    holder.close()
    database.write_bytes(content[: len(content) // 2])
    assert "truncated" in refusal()
    database.write_bytes(b"these are not the runs that you are looking for, at any rate not by sqlite's rules")
    assert "not a database" in refusal()
    database.unlink()
    with sqlite3.connect(database) as other:
        other.execute("create table customers (name)")
    other.close()
    assert "of another program, with tables such as customers" in refusal()
    database.write_bytes(b"")
    check_address(tracking_uri())


def test_a_full_disk(database, monkeypatch):
    monkeypatch.setattr(errors, "NEEDED", 2**62)
    assert "is full" in refusal()
    assert isinstance(os.statvfs(database.parent).f_bavail, int)


def test_a_deleted_experiment_and_the_schema_of_another_mlflow():
    """In one test: a new database takes MLflow long."""
    client, experiment = open_client()
    client.delete_experiment(experiment)
    with pytest.raises(ServiceError, match=rf"experiment 'exact' is deleted. .*restore -x {experiment}`") as error:
        open_client()
    assert "\n" not in str(error.value)
    with explained("record"), pytest.raises(MlflowException) as kept:
        client.create_run(experiment)
    assert refused(kept.value)
    path = tracking_uri().removeprefix("sqlite:///")
    with sqlite3.connect(path) as other:
        other.execute("update alembic_version set version_num = 'ffffffffffff'")
    other.close()
    # By another name, as MLflow keeps what it knows of an address.
    with (
        pytest.raises(ServiceError, match=r"schema of another MLflow \(ffffffffffff; MLflow [\d.]+ here has \w+\)"),
        explained(),
    ):
        MlflowClient(tracking_uri=f"sqlite:///{path}?again=1").get_experiment_by_name("exact")


def test_what_may_pass_is_tried_again_and_what_was_refused_is_not():
    calls = []

    def away():
        calls.append("away")
        if len(calls) < 2:
            raise MlflowException("API request to http://x failed with exception Connection refused")
        return "there"

    assert patiently(away, seconds=5) == "there"
    with pytest.raises(AwayError, match="does not answer"):
        patiently(lambda: calls.clear() or away(), seconds=0)

    def no():
        calls.append("no")
        raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "too long"})

    calls.clear()
    with pytest.raises(ServiceError, match="too long"):
        patiently(no, seconds=60)
    assert calls == ["no"]
