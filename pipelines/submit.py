"""Submitting pipelines to a cluster: uploaded once, described, and a run started."""

from __future__ import annotations

import getpass
import sys
import uuid
from typing import Any

from exact_kubeflow.pipelines.cluster import Cluster
from exact_kubeflow.pipelines.compile import PIPELINES
from exact_kubeflow.pipelines.follow import follow
from exact_kubeflow.pipelines.package import Package, load_package

from exact_core.artifacts.folders import code_version
from exact_core.errors import ConfigError
from exact_core.stages.resolve_season import AUTO

__all__ = ["start", "submit", "upload", "upload_all"]


def submit(
    pipeline: str,
    *,
    parameters: list[str],
    overrides: list[str],
    experiment: str,
    name: str = "",
    host: str | None = None,
    namespace: str | None = None,
    service_account: str | None = None,
    wait: bool = True,
    description: str = "",
) -> int:
    """Upload the pipeline as this code has it, start a run, and follow it.

    Args:
        pipeline: name of a pipeline, or path of a compiled one.
        parameters: its parameters, each NAME=VALUE.
        overrides: settings changed in the recipe, each key=value. They become the parameter `overrides`.
        experiment: the experiment that gets the run.
        name: name of the run. A few letters are added, so that no two are alike.
        host: address of the API. If None, KFP_HOST.
        namespace: on a server with several users. If None, KFP_NAMESPACE.
        service_account: Kubernetes account that the steps run as. None or empty: the server's default.
        wait: follow the run to its end.
        description: of the run. If empty, its source, recipe and code, and who submits it.

    Returns:
        Exit code: what became of the run. 0 if it is not followed.

    Raises:
        ConfigError: a parameter is wrong.
        ServiceError: the server cannot be reached, is too old or refuses.
    """
    package = load_package(pipeline)
    given = package.read(parameters)
    if overrides:
        if "overrides" in given:
            raise ConfigError("--set and --param overrides=... both name overrides. Use one of them")
        given["overrides"] = overrides
    arguments = package.arguments(given)
    cluster = Cluster(host, namespace=namespace)
    if package.season(arguments) == AUTO and (note := cluster.needs_schedule_time()):
        sys.stderr.write(f"{note}\n")
    version = upload(cluster, package)
    run = start(
        cluster,
        name or package.name,
        experiment_id=cluster.experiment(experiment),
        version=version,
        arguments=arguments,
        service_account=service_account,
        description=description or describe(package, arguments),
    )
    sys.stdout.write(f"run {run.display_name}: {cluster.link(run.run_id)}\n")
    if not wait:
        sys.stdout.write(f"follow it with: exact follow {run.run_id}\n")
        return 0
    return follow(run.run_id, cluster=cluster)


def upload(cluster: Cluster, package: Package) -> Any:
    """The package's version on the server, uploaded unless it is there."""
    version, new = cluster.version(package)
    sys.stdout.write(f"version {package.version}: {'uploaded' if new else 'already there'}\n")
    return version


def upload_all(*, host: str | None = None, namespace: str | None = None) -> None:
    """Put every pipeline of this project up, those again that have changed.

    Raises:
        ServiceError: the server cannot be reached or refuses.
    """
    cluster = Cluster(host, namespace=namespace)
    for name in PIPELINES:
        package = load_package(name.removesuffix(".yaml"))
        sys.stdout.write(f"{package.name}: ")
        upload(cluster, package)


def describe(package: Package, arguments: dict[str, Any]) -> str:
    """What the list of runs shows of a run, whose page shows only the parameters that were given."""
    defaults = {name: spec.get("defaultValue") for name, spec in package.inputs.items()}
    told = [f"{name} {value}" for name in ("source", "recipe") if (value := (defaults | arguments).get(name))]
    return ", ".join([*told, f"by {_user()}", f"exact {code_version()}"])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user without a name.
        return "an unnamed user"


def start(
    cluster: Cluster,
    name: str,
    *,
    experiment_id: str,
    version: Any,
    arguments: dict[str, Any],
    service_account: str | None = None,
    description: str = "",
) -> Any:
    """Start a run under a name of its own."""
    return cluster.start(
        f"{name} {uuid.uuid4().hex[:6]}",
        experiment_id=experiment_id,
        version=version,
        arguments=arguments,
        service_account=service_account or None,
        description=description,
    )
