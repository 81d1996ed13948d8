"""The commands that talk to a KFP server: `exact upload`, `exact submit`, `exact follow` and `exact schedule`."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from exact_core.errors import ServiceError

__all__ = ["follow", "schedule_app", "submit", "upload"]

schedule_app = typer.Typer(help="Recurring runs, declared in a file.", no_args_is_help=True)

Host = Annotated[str | None, typer.Option(envvar="KFP_HOST", help="Address of the KFP API.")]
Namespace = Annotated[
    str | None, typer.Option(envvar="KFP_NAMESPACE", help="Your namespace, on a server with several users.")
]
ServiceAccount = Annotated[
    str | None,
    typer.Option(envvar="KFP_SERVICE_ACCOUNT", help="Kubernetes account of the steps; default: the server's."),
]
Name = Annotated[str, typer.Argument(help="Name of the recurring run.")]


def submit(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="train_exact, train_dense, new_season, map_area, leave_one_season_out, or the path of a compiled one."
        ),
    ],
    parameters: Annotated[
        list[str], typer.Option("--param", "-p", metavar="NAME=VALUE", help="A pipeline parameter; may be repeated.")
    ] = [],
    changes: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe; may be repeated.")
    ] = [],
    experiment: Annotated[str, typer.Option(help="Experiment that gets the run.")] = "exact",
    name: Annotated[str, typer.Option(help="Name of the run; default: the pipeline's.")] = "",
    description: Annotated[
        str, typer.Option(help="Description of the run; default: its source, recipe and code, and who submits it.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
    host: Host = None,
    namespace: Namespace = None,
    service_account: ServiceAccount = None,
) -> None:
    """Run a pipeline on a KFP cluster.

    Exit code: 0 succeeded, 1 failed, 3 terminated, 4 the token has ended, 130 no longer followed.
    """
    code = _pipelines("submit").submit(
        pipeline,
        parameters=parameters,
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
    """Put all pipelines up for the KFP UI, described by their parameters; again only where they have changed."""
    _pipelines("submit").upload_all(host=host, namespace=namespace)


def follow(
    run_id: Annotated[str, typer.Argument(help="Identity of the run.")], host: Host = None, namespace: Namespace = None
) -> None:
    """Follow a run on a KFP cluster to its end. Exit codes as for `submit`."""
    raise typer.Exit(_pipelines("follow").follow(run_id, host=host, namespace=namespace))


@schedule_app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(help="The schedule (.yaml).")],
    backfill: Annotated[
        str, typer.Option(metavar="FIRST..LAST", help="Also run the seasons that started in these years, once each.")
    ] = "",
    host: Host = None,
    namespace: Namespace = None,
) -> None:
    """Make the recurring run agree with the file; applying it twice changes nothing."""
    _pipelines("schedule").apply(file, backfill=backfill, host=host, namespace=namespace)


@schedule_app.command("list")
def list_schedules(host: Host = None, namespace: Namespace = None) -> None:
    """List the recurring runs."""
    typer.echo(_pipelines("schedule").table(host=host, namespace=namespace))


@schedule_app.command("show")
def show(name: Name, host: Host = None, namespace: Namespace = None) -> None:
    """Print a recurring run as the file that would declare it."""
    typer.echo(_pipelines("schedule").show(name, host=host, namespace=namespace))


@schedule_app.command("delete")
def delete(name: Name, host: Host = None, namespace: Namespace = None) -> None:
    """Delete a recurring run; a run of it that is at work goes on."""
    _pipelines("schedule").delete(name, host=host, namespace=namespace)


def _pipelines(module: str) -> ModuleType:
    """`exact_kubeflow.pipelines.submit` or `exact_kubeflow.pipelines.schedule`, which need kfp."""
    try:
        from exact_kubeflow.pipelines import follow as following, schedule, submit as submitting
    except ImportError as error:
        raise ServiceError(f"{error}: this command needs kfp: pip install 'exact-kubeflow[pipelines]'") from error
    modules: dict[str, ModuleType] = {"follow": following, "submit": submitting, "schedule": schedule}
    return modules[module]
