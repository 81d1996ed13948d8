"""The commands that talk to a KFP server: `exact upload`, `exact submit`, `exact follow` and `exact schedule`."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from exact_core.errors import ServiceError
from exact_core.recipes import portable, resolve

__all__ = ["follow", "schedule_app", "submit", "upload"]

schedule_app = typer.Typer(help="Manage recurring runs declared in a file.", no_args_is_help=True)

Host = Annotated[str | None, typer.Option(envvar="KFP_HOST", metavar="URL", help="Address of the KFP API.")]
Namespace = Annotated[
    str | None, typer.Option(envvar="KFP_NAMESPACE", metavar="NAME", help="Your namespace on a multi-user server.")
]
ServiceAccount = Annotated[
    str | None,
    typer.Option(
        envvar="KFP_SERVICE_ACCOUNT",
        metavar="NAME",
        help="Kubernetes service account of the steps. Default is that of the server.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the recurring run.")]


def submit(
    pipeline: Annotated[
        str,
        typer.Argument(
            metavar="PIPELINE",
            help="train_exact, train_dense, new_season, map_area, leave_one_season_out, or a path to a compiled one.",
        ),
    ],
    parameters: Annotated[
        list[str], typer.Option("--param", "-p", metavar="NAME=VALUE", help="Set a pipeline parameter. Repeatable.")
    ] = [],
    changes: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe. Repeatable.")
    ] = [],
    experiment: Annotated[str, typer.Option(metavar="NAME", help="Experiment of the run.")] = "exact",
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the run. Default is the name of the pipeline.")
    ] = "",
    description: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Description of the run. Default is its source, recipe, code and submitter."),
    ] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
    host: Host = None,
    namespace: Namespace = None,
    service_account: ServiceAccount = None,
) -> None:
    """Run a pipeline on a KFP cluster.

    Exit codes are 0 succeeded, 1 failed, 3 terminated, 4 token expired, 130 no longer followed.
    """
    code = _pipelines("submit").submit(
        pipeline,
        parameters=_portable(parameters),
        overrides=changes,
        experiment=experiment,
        name=name,
        host=host,
        namespace=namespace,
        service_account=service_account,
        wait=wait,
        description=description,
    )
    raise typer.Exit(code)


def upload(host: Host = None, namespace: Namespace = None) -> None:
    """Upload all new or changed pipelines to the KFP UI, with descriptions of their parameters."""
    _pipelines("submit").upload_all(host=host, namespace=namespace)


def follow(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="ID of the run.")],
    host: Host = None,
    namespace: Namespace = None,
) -> None:
    """Follow a run on a KFP cluster to its end, with the exit codes of `submit`."""
    raise typer.Exit(_pipelines("follow").follow(run_id, host=host, namespace=namespace))


def _portable(parameters: list[str]) -> list[str]:
    """Parameters in which no recipe is a file of this machine, and its seed is the file's unless another is given."""
    named = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
    recipe = named.get("recipe", "")
    text = portable(recipe)
    if text == recipe:
        return parameters
    changed = {**named, "recipe": text, "seed": named.get("seed", str(resolve(recipe).seed))}
    return [*(f"{key}={value}" for key, value in changed.items()), *(each for each in parameters if "=" not in each)]


@schedule_app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Schedule file (.yaml).")],
    backfill: Annotated[
        str, typer.Option(metavar="FIRST..LAST", help="Run the seasons that started in these years too, each once.")
    ] = "",
    host: Host = None,
    namespace: Namespace = None,
) -> None:
    """Create or update the recurring run as the file declares it. A second time changes nothing."""
    _pipelines("schedule").apply(file, backfill=backfill, host=host, namespace=namespace)


@schedule_app.command("list")
def list_schedules(host: Host = None, namespace: Namespace = None) -> None:
    """List the recurring runs."""
    typer.echo(_pipelines("schedule").table(host=host, namespace=namespace))


@schedule_app.command("show")
def show(name: Name, host: Host = None, namespace: Namespace = None) -> None:
    """Print a recurring run as a schedule file."""
    typer.echo(_pipelines("schedule").show(name, host=host, namespace=namespace))


@schedule_app.command("delete")
def delete(name: Name, host: Host = None, namespace: Namespace = None) -> None:
    """Delete a recurring run, and let its active runs continue."""
    _pipelines("schedule").delete(name, host=host, namespace=namespace)


def _pipelines(module: str) -> ModuleType:
    """`exact_kubeflow.pipelines.submit` or `exact_kubeflow.pipelines.schedule`, which need kfp."""
    try:
        from exact_kubeflow.pipelines import follow as following, schedule, submit as submitting
    except ImportError as error:
        raise ServiceError(f"{error}: this command needs kfp: pip install 'exact-kubeflow[pipelines]'") from error
    modules: dict[str, ModuleType] = {"follow": following, "submit": submitting, "schedule": schedule}
    return modules[module]
