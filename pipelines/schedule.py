"""Recurring runs, declared in a file: `exact schedule apply schedule.yaml` makes the server agree with it.

A file describes a schedule completely, so applying it twice changes nothing. KFP cannot edit a recurring run. A changed
one is created first, and then the old one is deleted. A failure in between leaves two, which the next apply corrects,
and never none. Active runs continue.
"""

from __future__ import annotations

import datetime as dt
import difflib
import sys
from pathlib import Path
from typing import Any

import kfp_server_api as api
import yaml
from exact_kubeflow.pipelines.cluster import Cluster
from exact_kubeflow.pipelines.package import Package, load_package
from exact_kubeflow.pipelines.schedule_file import (
    FIXED,
    RULE,
    ScheduleFile,
    arguments_of,
    load_schedule,
    rule_of,
    until_of,
)
from exact_kubeflow.pipelines.submit import upload

from exact_core.errors import ConfigError
from exact_core.stages.resolve_season import AUTO, SeasonRule

__all__ = ["apply", "delete", "show", "table"]

DEFAULT_ACCOUNTS = {None, "pipeline-runner", "default-editor"}
"""What a server shows of a recurring run that was created without an account: KFP's defaults, alone and in Kubeflow."""
State = dict[str, Any]
"""A recurring run as flat fields, the same from a file and from the server."""


def apply(
    path: Path,
    *,
    backfill: str = "",
    host: str | None = None,
    namespace: str | None = None,
    now: dt.datetime | None = None,
) -> None:
    """Make the server's recurring run agree with the file, say what changed, and submit past seasons if asked to.

    Args:
        path: the schedule.
        backfill: years of past seasons to run once each, as 2022..2024 or 2022. If empty, none.
        host: address of the API. If None, KFP_HOST.
        namespace: on a server with several users. If None, KFP_NAMESPACE.
        now: the present, for a repeatable outcome.

    Raises:
        ConfigError: the file or the years are wrong. Nothing has been changed then.
        ServiceError: the server cannot be reached, is too old or refuses.
    """
    from exact_kubeflow.pipelines.backfill import seasons_of, submit_seasons

    now = now or dt.datetime.now(dt.UTC)
    file = load_schedule(path)
    package = load_package(file.pipeline)
    arguments = arguments_of(file, package)
    rule = rule_of(package, arguments)
    seasons = seasons_of(backfill, package, rule, now=now) if backfill else []
    cluster = Cluster(host, namespace=namespace)
    if package.season(arguments) == AUTO and (note := cluster.needs_schedule_time()):
        sys.stderr.write(f"{note}\n")
    _agree(cluster, file, package, arguments, now=now)
    _announce(file, rule if package.season(arguments) == AUTO else None, until_of(arguments), now=now)
    if seasons:
        submit_seasons(cluster, file, package, arguments, rule, seasons)


def _agree(cluster: Cluster, file: ScheduleFile, package: Package, arguments: State, *, now: dt.datetime) -> None:
    existing = cluster.recurring(file.name)
    wanted = _wanted(file, package, arguments, now=now)
    states = [_state(cluster, each) for each in existing]
    for state in states:
        if _same_start(file, state["start"], now=now):
            state["start"] = wanted["start"]
        if file.service_account is None and state["service_account"] in DEFAULT_ACCOUNTS:
            state["service_account"] = None
    kept = next((each for each, state in zip(existing, states, strict=True) if state == wanted), None)
    if kept is not None:
        sys.stdout.write(f"schedule {file.name}: unchanged ({kept.recurring_run_id})\n")
    else:
        version = upload(cluster, package)
        body = _body(file, wanted, arguments, version=version, experiment_id=cluster.experiment(file.experiment))
        kept = cluster.schedule(body, known={each.recurring_run_id for each in existing})
        done = "replaced" if existing else "created"
        sys.stdout.write(f"schedule {file.name}: {done} ({kept.recurring_run_id})\n")
        for name, before, after in _changes(states[0], wanted) if states else ():
            sys.stdout.write(f"  {name}: {_shown(before)} -> {_shown(after)}\n")
    for each in existing:
        if each is not kept:
            cluster.unschedule(each.recurring_run_id)
            sys.stdout.write(f"  removed {each.recurring_run_id}. Its active run continues\n")


def _announce(file: ScheduleFile, rule: SeasonRule | None, until: dict[str, str], *, now: dt.datetime) -> None:
    slot = file.next_slot(now)
    if not file.enabled:
        sys.stdout.write("  not enabled: it starts nothing\n")
    elif slot is None:
        sys.stdout.write("  no slot is left: it starts nothing any more\n")
    else:
        season = f", season {rule.mapped_at(slot, **until)}" if rule else ""
        sys.stdout.write(f"  next: {slot:%Y-%m-%d %H:%M:%S} UTC{season}\n")


def table(*, host: str | None = None, namespace: str | None = None) -> str:
    """Every recurring run of the server, one a line."""
    cluster = Cluster(host, namespace=namespace)
    rows = [("NAME", "PIPELINE VERSION", "SLOTS (UTC)", "ENABLED")]
    for each in cluster.recurring():
        state = _state(cluster, each)
        slots = state["cron"] or f"every {state['interval']} s"
        rows.append((each.display_name, state["version"] or "", slots, "yes" if state["enabled"] else "no"))
    if len(rows) == 1:
        return "no schedules"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def show(name: str, *, host: str | None = None, namespace: str | None = None) -> str:
    """A recurring run as the file that would declare it, under a few comments.

    Raises:
        ConfigError: there is none of that name.
    """
    cluster = Cluster(host, namespace=namespace)
    lines = []
    for each in _existing(cluster, name):
        state = _state(cluster, each)
        parameters = {key.removeprefix("parameters."): value for key, value in state.items() if "." in key}
        own = cluster.package_name(each.pipeline_version_reference) or state["pipeline"]
        declared: State = {"name": name, "pipeline": own, "experiment": state["experiment"]}
        if state["service_account"] not in DEFAULT_ACCOUNTS:
            declared["service_account"] = state["service_account"]
        declared |= {key: state[key] for key in ("cron", "interval", "start", "end") if state[key] is not None}
        declared["enabled"] = state["enabled"]
        if set(RULE) <= set(parameters) and parameters.get("season") == AUTO:
            declared["season"] = {field: parameters.pop(parameter) for parameter, field in RULE.items()}
            del parameters["season"]
        declared["parameters"] = parameters
        lines += [
            f"# {each.recurring_run_id}, created {each.created_at:%Y-%m-%d %H:%M} UTC",
            f"# version {state['version']}",
            *(
                [f"# uploaded as {state['pipeline']}: an apply of this uses {own} instead"]
                if own != state["pipeline"]
                else []
            ),
            *(f"# {key} {state[key]}, not {value}" for key, value in FIXED.items() if state[key] != value),
            yaml.safe_dump(declared, sort_keys=False).rstrip(),
        ]
    return "\n".join(lines)


def delete(name: str, *, host: str | None = None, namespace: str | None = None) -> None:
    """Delete the recurring run of that name. Its active run continues.

    Raises:
        ConfigError: there is none of that name.
    """
    cluster = Cluster(host, namespace=namespace)
    for each in _existing(cluster, name):
        cluster.unschedule(each.recurring_run_id)
        sys.stdout.write(f"schedule {name}: deleted ({each.recurring_run_id})\n")


def _existing(cluster: Cluster, name: str) -> list[Any]:
    found = cluster.recurring(name)
    if not found:
        names = [each.display_name for each in cluster.recurring()]
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`exact schedule list` shows those there are"
        raise ConfigError(f"no schedule {name!r} on {cluster.host}; {hint}")
    return found


def _wanted(file: ScheduleFile, package: Package, arguments: State, *, now: dt.datetime) -> State:
    """What the file declares.

    A start that has passed is not sent as it stands: KFP would run the last slot before now at once, again at every
    replacement. A cron needs none then. An interval counts on from its latest slot.
    """
    start = file.start
    if start is not None and start <= now:
        every = dt.timedelta(seconds=file.interval or 1)
        start = start + (now - start) // every * every if file.interval else None
    return {
        "experiment": file.experiment,
        "pipeline": package.name,
        "version": package.version,
        "cron": file.cron,
        "interval": file.interval,
        "start": start,
        "end": file.end,
        "service_account": file.service_account,
        "enabled": file.enabled,
        **FIXED,
        **{f"parameters.{name}": value for name, value in arguments.items()},
    }


def _same_start(file: ScheduleFile, actual: dt.datetime | None, *, now: dt.datetime) -> bool:
    """Whether the server's start gives the slots that the file's gives from now on."""
    if actual == file.start:
        return True
    if file.interval and file.start and actual:
        return max(actual, file.start) <= now and not (actual - file.start) % dt.timedelta(seconds=file.interval)
    return not file.interval and all(start is None or start <= now for start in (actual, file.start))


def _state(cluster: Cluster, recurring: Any) -> State:
    """What the server has."""
    trigger = recurring.trigger or api.V2beta1Trigger()
    cron, periodic = trigger.cron_schedule, trigger.periodic_schedule
    times = cron or periodic
    reference, runtime = recurring.pipeline_version_reference, recurring.runtime_config
    pipeline, version = (
        cluster.version_names(reference.pipeline_id, reference.pipeline_version_id) if reference else (None, None)
    )
    return {
        "experiment": cluster.experiment_name(recurring.experiment_id) if recurring.experiment_id else None,
        "pipeline": pipeline,
        "version": version,
        "cron": cron.cron if cron else None,
        "interval": int(periodic.interval_second) if periodic else None,
        "start": times.start_time if times else None,
        "end": times.end_time if times else None,
        "service_account": recurring.service_account or None,
        "enabled": recurring.mode == "ENABLE",
        "max_concurrency": int(recurring.max_concurrency or 0),
        "no_catchup": bool(recurring.no_catchup),
        **{f"parameters.{name}": value for name, value in ((runtime and runtime.parameters) or {}).items()},
    }


def _changes(before: State, after: State) -> list[tuple[str, Any, Any]]:
    names = [*after, *(name for name in before if name not in after)]
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _shown(value: Any) -> str:
    return "none" if value is None else str(value) if isinstance(value, dt.datetime) else repr(value)


def _body(
    file: ScheduleFile, wanted: State, arguments: State, *, version: Any, experiment_id: str
) -> api.V2beta1RecurringRun:
    times = {"start_time": wanted["start"], "end_time": wanted["end"]}
    trigger = (
        api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=file.cron, **times))
        if file.cron
        else api.V2beta1Trigger(
            periodic_schedule=api.V2beta1PeriodicSchedule(interval_second=str(file.interval), **times)
        )
    )
    return api.V2beta1RecurringRun(
        display_name=file.name,
        description="declared in a file. Change it there and use `exact schedule apply`",
        experiment_id=experiment_id,
        # The version is pinned: another one comes with the next apply, not with the next upload.
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=arguments),
        service_account=file.service_account,
        trigger=trigger,
        mode="ENABLE" if file.enabled else "DISABLE",
        max_concurrency=str(wanted["max_concurrency"]),
        no_catchup=wanted["no_catchup"],
    )
