"""Running steps in containers on this machine: KFP's DockerRunner, set up as a cluster would run them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException
from exact_kubeflow.components.images import DATA, TRAIN, image
from kfp import local
from kfp.local import docker_task_handler
from requests.exceptions import RequestException

from exact_core.data.sources import local_path
from exact_core.errors import ServiceError

__all__ = ["NOBODY", "docker_runner", "honest_exit_codes"]

NOBODY = 1000
"""User and group of the steps where a run is started by root: the images' own."""
WORKDIR_LABEL = "exact.workdir"
"""Label of the containers of a run."""
PASSED = (
    *("AWS_", "EXACT_STORE", "EXACT_CACHE_GB", "EXACT_STAC_", "EXACT_ENVIRONMENT", "EXACT_CA_CERTIFICATES"),
    *("MLFLOW_", "OMP_NUM_THREADS", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
"""Beginnings of variables of this process that steps get."""


def docker_runner(workdir: Path, *, source: str, settings: dict[str, str]) -> local.DockerRunner:
    """A runner whose steps are not root, have a read-only root file system, and reach servers on this machine.

    Args:
        workdir: the folder of the run. Steps see it, and write nothing else.
        source: the run's source. Its folder is shown to the steps, read-only.
        settings: variables of the steps, beside those of this process that PASSED names.

    Raises:
        ServiceError: no Docker engine answers, or it has no such image, or runs go to a file, which is not in there.
    """
    _check(settings, workdir)
    place = local_path(source)
    mounts = [docker.types.Mount(str(workdir), str(workdir), type="bind")]
    if place is not None:
        # A catalogue's file leads to others beside it.
        shown = place if place.is_dir() else place.parent
        mounts.append(docker.types.Mount(str(shown), str(shown.resolve()), type="bind", read_only=True))
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED)}
    user = os.getuid() or NOBODY
    options: dict[str, Any] = {
        "user": f"{user}:{os.getgid() or NOBODY}",
        "environment": {**passed, **settings, "HOME": "/tmp"},  # noqa: S108 - a file system of the container's own
        "network_mode": "host",
        "mounts": mounts,
        "read_only": True,
        "tmpfs": {"/tmp": "rw,mode=1777"},  # noqa: S108
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "labels": {WORKDIR_LABEL: str(workdir)},
    }
    with _engine() as client:
        if "nvidia" in client.info().get("Runtimes", {}):
            options["device_requests"] = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return local.DockerRunner(**options)


@contextmanager
def honest_exit_codes() -> Iterator[None]:
    """Let a step fail if its container does.

    KFP 2.17 removes containers when they end, takes one that is gone for one that succeeded, and so loses some
    failures. This keeps a container until its exit code is known.
    """
    before = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = _run_container
    try:
        yield
    finally:
        docker_task_handler.run_docker_container = before


def _run_container(client: Any, image: str, command: list[str], volumes: dict[str, Any], **options: Any) -> int:
    container = client.containers.run(image, command, detach=True, volumes=volumes, **options)
    try:
        for line in container.logs(stream=True, follow=True):
            print(line.decode(errors="replace"), end="")  # noqa: T201 - KFP's runners speak on stdout
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def _check(settings: dict[str, str], workdir: Path) -> None:
    store = os.environ.get("EXACT_STORE", "")
    if store and not store.startswith("s3://"):
        raise ServiceError(f"EXACT_STORE = {store}: containers do not see this folder. Give an s3:// URI, or unset it")
    if not settings.get("MLFLOW_TRACKING_URI", "").startswith(("http://", "https://")):
        raise ServiceError(
            "runs in containers are tracked on an MLflow server: set MLFLOW_TRACKING_URI to its http:// address "
            "(deploy/compose.yaml starts one)"
        )
    with _engine() as client:
        # A killed run cannot end its step, which would go on writing checkpoints beside the next one.
        for left in client.containers.list(all=True, filters={"label": f"{WORKDIR_LABEL}={workdir}"}):
            left.remove(force=True)
        known = {tag for each in client.images.list() for tag in each.tags}
    missing = {image(DATA), image(TRAIN)} - known
    if missing:
        raise ServiceError(
            f"the Docker engine has no image {', '.join(sorted(missing))}. Build them with `make images`"
        )


@contextmanager
def _engine() -> Iterator[Any]:
    try:
        client = docker.from_env()
        try:
            client.ping()
            yield client
        finally:
            client.close()
    except (DockerException, RequestException) as error:
        raise ServiceError(f"no Docker engine answers: {error}. Start it, or set DOCKER_HOST") from error
