"""MLflow started with the arguments and variables of the manifest: only the database and the folder differ."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.deploy.conftest import deployment

pytestmark = pytest.mark.slow
START_SECONDS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def port(folder):
    manifest = next(
        item
        for item in deployment("overlays/kind").objects
        if (item["kind"], item["metadata"]["name"]) == ("Deployment", "mlflow")
    )
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["mlflow", "server"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    ours = {
        "--host": "127.0.0.1",
        "--port": str(number),
        "--workers": "1",
        "--backend-store-uri": f"sqlite:///{folder}/mlflow.db",
    }
    given = dict(argument.split("=", 1) for argument in container["args"])
    assert set(ours) <= set(given)
    arguments = [f"{name}={value}" for name, value in {**given, **ours}.items()]
    variables = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    assert variables["MLFLOW_ARTIFACTS_DESTINATION"].startswith("s3://")
    here = {"HOME": str(folder), "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts")}
    environment |= {**variables, **here}
    command = [sys.executable, "-m", "mlflow", "server", *arguments]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while status(number, "localhost", "/health") != 200:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.3)
        yield number
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def status(port: int, host: str, path: str) -> int:
    """HTTP status of a GET that says it wants `host`; 0 where nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        return connection.getresponse().status
    except (ConnectionError, TimeoutError):
        return 0
    finally:
        connection.close()


def test_names_of_the_cluster_are_served_and_others_refused(port):
    """One start, every name: it takes ten seconds. /health answers any name, so probes do not notice a wrong list."""
    api = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    served = ["localhost:8080", "mlflow:5000", "mlflow.exact", "mlflow.exact.svc:5000"]
    served += ["mlflow.exact.svc.cluster.local:5000", "mlflow.exact.svc.cluster.local"]
    for host in served:
        assert status(port, host, api) == 200, host
    for host in ("mlflow.example.org", "evil.example:5000"):
        assert status(port, host, api) == 403, host
        assert status(port, host, "/health") == 200, host


def test_artifacts_go_where_the_variable_says(port, folder):
    """The overlays set the store by MLFLOW_ARTIFACTS_DESTINATION, no argument does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("PUT", "/api/2.0/mlflow-artifacts/artifacts/deep/note.txt", b"here")
    assert connection.getresponse().status == 200
    connection.close()
    assert (folder / "artifacts" / "deep" / "note.txt").read_bytes() == b"here"
