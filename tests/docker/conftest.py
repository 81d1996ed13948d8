"""A Docker engine with the images of this code, an S3 server and an MLflow server over it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from exact_kubeflow.components.images import DATA, TRAIN, image
from minio import Minio

from exact_core.artifacts.folders import code_version
from tests.services.servers import ACCESS_KEY, SECRET_KEY, JuiceFS, Mlflow, SeaweedFS
from tests.skipping import skip

USER = 1000
EXACT = [sys.executable, "-c", "from exact_kubeflow.cli.app import main; main()"]


@pytest.fixture(scope="session")
def engine():
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        skip(f"no Docker engine answers: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def images(engine):
    """The images, which must be of this very code."""
    wanted = code_version().partition("+")[2]
    found = {}
    for name in (DATA, TRAIN):
        try:
            found[name] = engine.images.get(image(name))
        except ImageNotFound:
            skip(f"no image {image(name)}: make images")
        revision = found[name].labels["org.opencontainers.image.revision"]
        assert revision == wanted, f"{image(name)} is of code {revision}, not {wanted}: make images"
    return found


@pytest.fixture(scope="session", params=["seaweedfs"])
def servers(request, tmp_path_factory):
    """Variables of a client of an S3 server and of an MLflow server whose artifacts lie in it."""
    store = {"seaweedfs": SeaweedFS, "juicefs": JuiceFS}[request.param](tmp_path_factory.mktemp("store"))
    tracking = Mlflow(tmp_path_factory.mktemp("mlflow"), artifacts="s3://exact/mlflow")
    tracking.variables = {**store.variables, "MLFLOW_S3_ENDPOINT_URL": store.variables["AWS_ENDPOINT_URL"]}
    try:
        store.start()
        Minio(f"127.0.0.1:{store.port}", ACCESS_KEY, SECRET_KEY, secure=False).make_bucket("exact")
        tracking.start()
        yield {**store.variables, "EXACT_STORE": "s3://exact/artifacts", "MLFLOW_TRACKING_URI": tracking.uri}
    finally:
        tracking.kill()
        store.kill()


@pytest.fixture
def in_image(engine, images, servers):
    """Run a command in a fresh container, as a cluster would; its exit code and what it said."""

    def run(name: str, *command: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
        container = engine.containers.run(
            image(name),
            list(command),
            detach=True,
            network_mode="host",
            environment={**servers, **(environment or {})},
            read_only=True,
            tmpfs={"/tmp": "rw,mode=1777"},
            cap_drop=["ALL"],
        )
        try:
            return container.wait()["StatusCode"], container.logs().decode()
        finally:
            container.remove(force=True)

    return run


def run_in(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder of its own, with the rights of this process, be they root's."""
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
