"""What a pipeline's first step does, by the name of `preflight`: try everything, decide everything, size every step."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from exact_core.artifacts.folders import STATE_VARIABLE
from exact_core.config import RunConfig
from exact_core.recipes import resolve
from exact_core.stages.lifecycle import open_stage
from exact_core.stages.parameters import check_parameters
from exact_core.stages.plan import Plan
from exact_core.stages.plan_map import plan_map
from exact_core.stages.plan_seasons import plan_seasons
from exact_core.stages.preflight import STAGE, preflight, training_size
from exact_core.stages.resolve_season import resolve_season
from exact_core.stages.run import ALWAYS, SUPERVISION, Run
from exact_core.stages.sizing import read_resources, sized
from exact_core.tracking.runs import Tracker

__all__ = ["plan_run"]

log = logging.getLogger(__name__)


def plan_run(
    *,
    recipe: str,
    source: str,
    seed: int,
    overrides: Sequence[str],
    pipeline_run: str,
    season: str = "",
    season_start: str = "01-01",
    season_days: int = 365,
    schedule_time: str = "",
    seasons: Sequence[str | float] = (),
    minimum_quality: float = 0.0,
    training: str = ALWAYS,
    supervision: str = SUPERVISION[0],
    model: str = "",
    map_parts: int = 1,
    most_parts: int = 1,
    webhook: str = "",
    resources: Mapping[str, Any] | None = None,
) -> Plan:
    """Check the parameters of a pipeline, try what its steps need, and decide what they are given.

    Args:
        recipe: name of the recipe.
        source: what is read; of several seasons, by those that name no source of their own.
        seed: of the run.
        overrides: settings changed in the recipe, as key=value.
        pipeline_run: identity of the pipeline run, for MLflow.
        season: as `resolve_season` takes it.
        season_start: first day of every season, MM-DD; for `auto`.
        season_days: length of a season; for `auto`.
        schedule_time: time of the schedule's slot, RFC 3339; empty: now.
        seasons: of a pipeline of several seasons, as `plan_seasons` takes them; none: it is one season.
        minimum_quality: gate on the masks; 0: what the recipe says.
        training: always, if_no_champion or never.
        supervision: tags or dense.
        model: name of the registered model; empty: after the dataset's name.
        map_parts: parts that the map is made in.
        most_parts: as many as a run of this pipeline can hold.
        webhook: only checked here; the last step uses it.
        resources: as `exact_core.stages.sizing` has them.

    Raises:
        ConfigError: a value that no step could use, or a training that does not fit.
        ServiceError: something that a step needs is not there.
    """
    gate = [f"masks.minimum_quality={minimum_quality}"] if minimum_quality else []
    given = {
        "recipe": recipe,
        "source": source,
        "season": season,
        "seed": seed,
        "overrides": [*overrides, *gate],
        "season_start": season_start,
        "season_days": season_days,
        "minimum_quality": minimum_quality,
        "training": training,
        "supervision": supervision,
        "model": model,
        "map_parts": map_parts,
        "most_parts": most_parts,
        "webhook": webhook,
        "resources": resources or {},
    }
    check_parameters(given)
    asked = read_resources(resources or {})
    # On a GPU that a user has named, a training that does not see it is to stop at once, not to go on for days.
    chosen = [*overrides, *gate, *(["device=cuda"] if asked.gpus else [])]
    config = resolve(recipe, seed=int(seed), overrides=chosen)
    with open_stage(STAGE.name, config, pipeline_run=pipeline_run) as tracker:
        if seasons:
            each = plan_seasons(source=source, seasons=seasons, supervision=supervision)
        else:
            found = resolve_season(
                season,
                schedule_time=schedule_time,
                starts=season_start,
                days=int(season_days),
                source=source,
                tracker=tracker,
            )
            each = [{"source": source, "season": found}]
        size = max(_tried(config, tracker=tracker, **place) for place in each)
        sizes = sized(asked, training=size)
        log.info("preflight: a step that trains gets %s cores, %s of memory, %s", *sizes[:2], _accelerators(sizes.gpus))
        run = Run(
            recipe=recipe,
            seed=int(seed),
            overrides=tuple(chosen),
            training=training,
            supervision=supervision,
            model=model,
            pipeline_run=pipeline_run,
            **({} if seasons else each[0]),
        )
        several = [run.model_copy(update={"part": part}).given() for part in plan_map(int(map_parts))]
        return Plan(
            run=several[0],
            parts=several[1:],
            Output=[run.model_copy(update=place).given() for place in each] if seasons else [],
            **sizes._asdict(),
        )


def _tried(config: RunConfig, *, source: str, season: str, tracker: Tracker) -> int:
    """Try what a season needs; bytes that training on it takes."""
    # Where steps keep their state in a folder of this machine, they run here, with the memory that there is.
    preflight(config, source=source, season=season, tracker=tracker, here=STATE_VARIABLE in os.environ)
    return training_size(config, source=source, season=season)


def _accelerators(gpus: str) -> str:
    return f"{gpus} GPU" if gpus else "no GPU"
