"""Past seasons as single runs, each once: a season that this code has mapped, or is mapping, is left alone."""

from __future__ import annotations

import datetime as dt
import re
import sys
from typing import Any

from exact_kubeflow.pipelines.cluster import Cluster
from exact_kubeflow.pipelines.package import Package
from exact_kubeflow.pipelines.schedule_file import RULE, ScheduleFile, until_of
from exact_kubeflow.pipelines.submit import start, upload

from exact_core.errors import ConfigError
from exact_core.stages.resolve_season import AUTO, SeasonRule

__all__ = ["seasons_of", "submit_seasons"]

OVER = {"FAILED", "CANCELED", "CANCELING", "SKIPPED"}
"""States of a run that will deliver nothing. Everything else counts, also a run that has no state yet."""


def seasons_of(years: str, package: Package, rule: SeasonRule | None, *, now: dt.datetime) -> list[str]:
    """The seasons that start in these years, as START/DAYS, the oldest first.

    Raises:
        ConfigError: no such years, a season that has not ended, or a pipeline without seasons.
    """
    match = re.fullmatch(r"([12]\d{3})(?:\.\.([12]\d{3}))?", years, re.ASCII)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if first > last:
        raise ConfigError(f"--backfill {years!r}: expected FIRST..LAST, for example 2022..2024, or one year")
    if rule is None:
        raise ConfigError(f"--backfill: pipeline {package.name} has no season rule. Use pipeline new_season")
    for year in range(first, last + 1):
        if rule.ends(year) > now.astimezone(dt.UTC).date():
            raise ConfigError(
                f"--backfill {years!r}: season {rule.of_year(year)} ends on {rule.ends(year)}, after today"
            )
    return [rule.of_year(year) for year in range(first, last + 1)]


def submit_seasons(
    cluster: Cluster,
    file: ScheduleFile,
    package: Package,
    arguments: dict[str, Any],
    rule: SeasonRule | None,
    seasons: list[str],
) -> None:
    """Start a run for each season that has none of this version with these parameters."""
    version = upload(cluster, package)
    experiment = cluster.experiment(file.experiment)
    done: dict[str, Any] = {}
    for run in cluster.runs(experiment):
        done.setdefault(_season_of(run, version.pipeline_version_id, package, arguments, rule), run)
    for season in seasons:
        if run := done.get(season):
            state = str(run.state or "pending").lower()
            sys.stdout.write(f"season {season}: not submitted, run {run.display_name!r} is {state}\n")
            continue
        single = {**_without_season(arguments), "season": season}
        run = start(
            cluster,
            f"{file.name} {season}",
            experiment_id=experiment,
            version=version,
            arguments=single,
            service_account=file.service_account,
        )
        sys.stdout.write(f"season {season}: submitted as run {run.display_name!r}: exact follow {run.run_id}\n")


def _season_of(run: Any, version_id: str, package: Package, arguments: dict[str, Any], rule: SeasonRule | None) -> str:
    """The season of a run that counts. Empty if it is of another version, has other parameters or has failed.

    A run within the season does not count.
    """
    reference, given = run.pipeline_version_reference, (run.runtime_config and run.runtime_config.parameters) or {}
    if reference is None or reference.pipeline_version_id != version_id or run.state in OVER:
        return ""
    if _without_season(given) != _without_season(arguments):
        return ""
    season = package.season(given)
    if season != AUTO:
        return season
    # A run of the schedule, or one submitted by hand: its rule is in its own arguments.
    same_rule = all(given.get(name) == arguments.get(name) for name in RULE)
    moment = run.scheduled_at or run.created_at
    if not (rule and same_rule and moment):
        return ""
    mapped = rule.mapped_at(moment, **until_of(arguments))
    return "" if mapped.until else mapped.season


def _without_season(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in {"season", *RULE}}
