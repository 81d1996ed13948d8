"""Submitting a pipeline to a cluster, and following its run."""

from __future__ import annotations

import sys
import time
import uuid
from typing import Any

from exact_kubeflow.pipelines.cluster import Cluster
from exact_kubeflow.pipelines.connection import UnansweredError
from exact_kubeflow.pipelines.package import Package, load_package
from tqdm import tqdm

from exact_core.errors import ConfigError, ServiceError
from exact_core.stages.resolve_season import AUTO

__all__ = ["EXIT_CODES", "follow", "start", "submit", "upload"]

EXIT_CODES = {"SUCCEEDED": 0, "FAILED": 1, "CANCELED": 3, "SKIPPED": 3}
"""Exit code of a command that followed a run to its end; 2 is a wrong command line."""
INTERRUPTED = 130
POLL_SECONDS = 5.0
FOLLOW_ATTEMPTS = 12
"""A server that restarts is waited for about three minutes."""


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
) -> int:
    """Upload the pipeline as this code has it, start a run, and follow it.

    Args:
        pipeline: name of a pipeline, or path of a compiled one.
        parameters: its parameters, each NAME=VALUE.
        overrides: settings changed in the recipe, each key=value; they become the parameter `overrides`.
        experiment: the experiment that gets the run.
        name: name of the run; a few letters are added, so that no two are alike.
        host: address of the API; None: KFP_HOST.
        namespace: on a server with several users; None: KFP_NAMESPACE.
        service_account: Kubernetes account that the steps run as; None or empty: the server's default.
        wait: follow the run to its end.

    Returns:
        Exit code: what became of the run; 0 if it is not followed.

    Raises:
        ConfigError: a parameter is wrong.
        ServiceError: the server cannot be reached, is too old or refuses.
    """
    package = load_package(pipeline)
    given = package.read(parameters)
    if overrides:
        if "overrides" in given:
            raise ConfigError("--set and --param overrides=... both name overrides; use one of them")
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
    )
    sys.stdout.write(f"run {run.display_name}: {_link(cluster, run.run_id)}\n")
    if not wait:
        sys.stdout.write(f"follow it with: exact follow {run.run_id}\n")
        return 0
    return follow(run.run_id, cluster=cluster)


def upload(cluster: Cluster, package: Package) -> Any:
    """The package's version on the server, uploaded unless it is there."""
    version, new = cluster.version(package)
    sys.stdout.write(f"version {package.version}: {'uploaded' if new else 'already there'}\n")
    return version


def start(
    cluster: Cluster,
    name: str,
    *,
    experiment_id: str,
    version: Any,
    arguments: dict[str, Any],
    service_account: str | None = None,
) -> Any:
    """Start a run under a name of its own."""
    return cluster.start(
        f"{name} {uuid.uuid4().hex[:6]}",
        experiment_id=experiment_id,
        version=version,
        arguments=arguments,
        service_account=service_account or None,
    )


def follow(
    run_id: str, *, cluster: Cluster | None = None, host: str | None = None, namespace: str | None = None
) -> int:
    """Show how a run goes on until it has ended. Ctrl-C ends the showing, not the run.

    Returns:
        Exit code: see EXIT_CODES; 130 after Ctrl-C.

    Raises:
        ServiceError: there is no such run, or the server is gone for longer than a restart takes.
    """
    try:
        cluster = cluster or Cluster(host, namespace=namespace)
        return _follow(cluster, run_id)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\nno longer following; the run goes on. Go on following with: exact follow {run_id}\n"
            f"(to stop the run itself, use Terminate on its page)\n"
        )
        return INTERRUPTED
    except UnansweredError as error:
        raise ServiceError(f"{error}\nthe run may well go on: exact follow {run_id}") from error


def _follow(cluster: Cluster, run_id: str) -> int:
    run = cluster.run(run_id, attempts=FOLLOW_ATTEMPTS)
    steps = cluster.steps(run)
    shown: dict[str, str] = {}
    started = time.monotonic()
    # On a terminal only; elsewhere the lines say enough.
    with tqdm(total=len(steps) or None, disable=None, unit="step", leave=False, file=sys.stderr) as bar:
        while True:
            states = _states(run, steps)
            for step, state in states.items():
                if shown.get(step) != state:
                    tqdm.write(f"{time.strftime('%H:%M:%S')} {step}: {state.lower()}", file=sys.stdout)
            shown = states
            bar.n = sum(state in EXIT_CODES for state in states.values())
            running = [step for step, state in states.items() if state == "RUNNING"]
            bar.set_postfix_str(", ".join(running) or str(run.state or "pending").lower())
            if run.state in EXIT_CODES:
                break
            sys.stdout.flush()
            time.sleep(POLL_SECONDS)
            run = cluster.run(run_id, attempts=FOLLOW_ATTEMPTS)
    sys.stdout.write(f"run {run.display_name}: {run.state.lower()} (followed for {time.monotonic() - started:.0f} s)\n")
    if run.state != "SUCCEEDED":
        sys.stderr.write("".join(f"{line}\n" for line in _reasons(run, steps)))
        sys.stderr.write(f"see {_link(cluster, run_id)}\n")
    return EXIT_CODES[run.state]


def _states(run: Any, steps: list[str]) -> dict[str, str]:
    """Step -> state, in the order in which they started. The server also lists drivers, executors and the whole."""
    details = [each for each in _details(run) if each.state and each.display_name in steps]
    details.sort(key=lambda each: (each.start_time is None, each.start_time and each.start_time.isoformat()))
    return {each.display_name: each.state for each in details}


def _details(run: Any) -> list[Any]:
    return (run.run_details.task_details or []) if run.run_details else []


def _reasons(run: Any, steps: list[str]) -> list[str]:
    """What the server says went wrong: of the run, and of its steps or their parts."""
    found = [f"{run.display_name}: {run.error.message}"] if run.error and run.error.message else []
    failed = [each for each in _details(run) if each.state == "FAILED"]
    found += [f"{each.display_name}: {each.error.message}" for each in failed if each.error and each.error.message]
    names = [each.display_name for each in failed if each.display_name in steps]
    return [*found, f"failed: {', '.join(names)}"] if names else found


def _link(cluster: Cluster, run_id: str) -> str:
    return f"{cluster.host}/#/runs/details/{run_id}"
