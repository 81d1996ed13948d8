"""What a pipeline's first step does, by the name of `preflight`: try everything, decide everything, size every step."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from exact_core.artifacts.folders import STATE_VARIABLE
from exact_core.config import RunConfig
from exact_core.data.season.folder import check_one_crs
from exact_core.data.sources import Survey, parse_source, region_name
from exact_core.recipes import resolve
from exact_core.stages.lifecycle import open_stage
from exact_core.stages.parameters import check_parameters
from exact_core.stages.plan import Plan
from exact_core.stages.plan_map import plan_map
from exact_core.stages.plan_seasons import plan_seasons
from exact_core.stages.preflight import STAGE, preflight, survey, training_size
from exact_core.stages.resolve_season import resolve_season
from exact_core.stages.run import ALWAYS, SUPERVISION, TRAIN, Run
from exact_core.stages.season_work import season_work
from exact_core.stages.sizing import read_resources, sized
from exact_core.tracking.registry import default_name
from exact_core.tracking.runs import Tracker

__all__ = ["Parameters", "plan_run"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parameters:
    """A pipeline's parameters, as its first step gets them. Those that the pipeline does not have keep the default."""

    recipe: str
    """Name of the recipe."""
    source: str
    """What is read. Of several seasons, by those that name no source of their own."""
    seed: int
    """Of the run."""
    overrides: Sequence[str]
    """Settings changed in the recipe, as key=value."""
    pipeline_run: str
    """Identity of the pipeline run, for MLflow."""
    season: str = ""
    """As `resolve_season` takes it."""
    season_start: str = "01-01"
    """First day of every season, MM-DD. For `auto`."""
    season_days: int = 365
    """Length of a season. For `auto`."""
    schedule_time: str = ""
    """Time of the schedule's slot, RFC 3339. If empty, now."""
    until: str = ""
    """Last day whose images are used, as `resolve_season` takes it."""
    until_from: str = ""
    """First day of a season, MM-DD, until which `until=auto` maps it."""
    seasons: Sequence[str | float] = ()
    """Of a pipeline of several seasons, as `plan_seasons` takes them. If None, it is one season."""
    minimum_quality: float = 0.0
    """Gate on the masks. 0: what the recipe says."""
    training: str = ALWAYS
    """always, if_no_champion or never."""
    supervision: str = SUPERVISION[0]
    """tags or dense."""
    model: str = ""
    """Name of the registered model. If empty, exact- and the region."""
    publish: bool = False
    """Whether the pipeline's map gets a stable address, and is made only if it is not there already."""
    map_name: str = ""
    """Of the region, in that address. If empty, by the source."""
    map_parts: int = 1
    """Parts that the map is made in."""
    most_parts: int = 1
    """As many as a run of this pipeline can hold."""
    webhook: str = ""
    """Only checked here. The last step uses it."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """As `exact_core.stages.sizing` has them."""

    def maps(self) -> bool:
        """Whether the pipeline ends in a map, which may then have parts."""
        return int(self.most_parts) > 1

    def registered(self) -> str:
        """Name of the registered model: as given, or after the region; empty: the pipeline makes no map."""
        if self.model or not (self.maps() or self.publish):
            return self.model
        kind, _ = parse_source(self.source)
        return default_name(self.map_name or region_name(self.source) or kind)

    def changes(self) -> list[str]:
        """Settings that the run changes: those it was given, and what other parameters mean for the recipe."""
        gate = [f"masks.minimum_quality={self.minimum_quality}"] if self.minimum_quality else []
        return [*self.overrides, *gate]


def plan_run(given: Parameters) -> Plan:
    """Check the parameters of a pipeline, try what its steps need, and decide what they are given.

    Raises:
        ConfigError: a value that no step could use, or a training that does not fit.
        ServiceError: something that a step needs is not there.
    """
    wanted = {key: value for key, value in vars(given).items() if key != "map_name" or given.publish}
    check_parameters({**wanted, "overrides": given.changes()})
    asked = read_resources(given.resources)
    # On a GPU that a user has named, a training that does not see it is to stop at once, not to go on for days.
    chosen = [*given.changes(), *(["device=cuda"] if asked.gpus else [])]
    config = resolve(given.recipe, seed=int(given.seed), overrides=chosen)
    with open_stage(
        STAGE.name,
        config,
        pipeline_run=given.pipeline_run,
        source=given.source,
        season=given.season,
        more={"labels": given.supervision, "overrides": " ".join(given.overrides), "model": given.registered()},
    ) as tracker:
        each, until = _places(given, tracker)
        if until:
            chosen.append(f"data.season.until={until}")
            config = resolve(given.recipe, seed=int(given.seed), overrides=chosen)
        found = [_tried(config, tracker=tracker, **place) for place in each]
        size = max(training_size(config, promised) for promised in found)
        if given.maps():
            # What the map at the end could not be made of is refused before anything is trained.
            for place, promised in zip(each, found, strict=True):
                check_one_crs(place["source"], promised.cells)
        sizes = sized(asked, training=size)
        log.info("preflight: a step that trains gets %s cores, %s of memory, %s", *sizes[:2], _accelerators(sizes.gpus))
        run = Run(
            recipe=given.recipe,
            seed=int(given.seed),
            overrides=tuple(chosen),
            supervision=given.supervision,
            model=given.registered(),
            pipeline_run=given.pipeline_run,
            **({} if given.seasons else each[0]),
        )
        todo = TRAIN
        if given.publish:
            settings = {"training": given.training, "map_name": given.map_name}
            todo, run = season_work(config, run, **settings, tracker=tracker)
        several = [run.model_copy(update={"part": part}).given() for part in plan_map(int(given.map_parts))]
        return Plan(
            run=several[0],
            parts=several[1:],
            seasons=[run.model_copy(update=place).given() for place in each] if given.seasons else [],
            Output=todo,
            **sizes._asdict(),
        )


def _places(given: Parameters, tracker: Tracker) -> tuple[list[dict[str, str]], str]:
    """Source and season of each season that the run reads, and the last day of its images, if that is not its last."""
    if given.seasons:
        return plan_seasons(source=given.source, seasons=given.seasons, supervision=given.supervision), ""
    found = resolve_season(
        given.season,
        schedule_time=given.schedule_time,
        starts=given.season_start,
        days=int(given.season_days),
        source=given.source,
        tracker=tracker,
        until=given.until,
        until_from=given.until_from,
    )
    return [{"source": given.source, "season": found.season}], found.until


def _tried(config: RunConfig, *, source: str, season: str, tracker: Tracker) -> Survey:
    """Try what a season needs. What its source promises."""
    # Where steps keep their state in a folder of this machine, they run here, with the memory that there is.
    look = cache(lambda: survey(config, source, season))
    here = STATE_VARIABLE in os.environ
    preflight(config, source=source, season=season, tracker=tracker, here=here, look=look)
    return look()


def _accelerators(gpus: str) -> str:
    return f"{gpus} GPU" if gpus else "no GPU"
