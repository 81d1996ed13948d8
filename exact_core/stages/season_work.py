"""What is left to do for the map of a season, which the first step of a pipeline finds out: perhaps nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging

from exact_core.artifacts.folders import code_version
from exact_core.config import RunConfig
from exact_core.data.sources import parse_source, source_of, with_season
from exact_core.errors import ConfigError
from exact_core.stages.fetch import SourceState, source_state
from exact_core.stages.preflight import STAGE
from exact_core.stages.publish_map import (
    INPUTS,
    MADE_BY,
    PIPELINE_RUN,
    WEIGHTS,
    map_region,
    maps_store,
    planned_season,
    published_facts,
)
from exact_core.stages.run import ALWAYS, MAP, NEVER, NOTHING, REUSE, TRAIN, Run
from exact_core.stages.season_lease import give_back, hold
from exact_core.tracking.registry import Registry
from exact_core.tracking.runs import Tracker, run_identity

__all__ = ["season_work"]

log = logging.getLogger(__name__)


def season_work(config: RunConfig, run: Run, *, training: str, map_name: str, tracker: Tracker) -> tuple[str, Run]:
    """Choose between training and the champion, and hold the season until the run has ended.

    Nothing is left to do if the season's map is already published, from the same images, labels and settings, by the
    same version of this package, in the same way, and the promotion of a model that was trained for it is decided. The
    same holds if another run is making it, and, without labels, if a model that was trained on the season's labels has
    made the published map. A run that is repeated finds what it found at first. A map until a day within the season
    (`data.season.until`) has a place of its own, and the champion makes it: a segmenter that is trained on a part of
    the season would not be one for the next.

    Args:
        config: the resolved configuration.
        run: recipe, source, season and model apply.
        training: always, if_no_champion or never. Without labels nothing is trained.
        map_name: of the region. If empty, by the source.
        tracker: gets the decision and its reason.

    Returns:
        train, reuse, map or nothing, and the run with the model to register or use, and the address of the map.

    Raises:
        ConfigError: no labels, and no champion.
        DataError, ServiceError: the source cannot be read, or the store or MLflow does not answer.
    """
    kind, _ = parse_source(run.source)
    state = source_state(with_season(config, run.season, kind=kind), run.source)
    registry = Registry.of(tracker)
    champion = registry.champion_for(run.model, run.pipeline_run) if registry is not None else None
    todo, reason = _choose(run, state, training, champion, until=config.data.season.until)
    if todo != TRAIN:
        run = run.model_copy(update={"champion": champion})
    if source_of(kind).opens:
        season = planned_season(config, run.season)
        place = f"{map_region(map_name, run.source)}/{season}"
        run = run.model_copy(update={"map_place": place, "inputs": _inputs(config, run, state, todo)})
        if other := hold(run, STAGE):
            todo, reason = NOTHING, other
        elif done := _done(run, season, todo, registry):
            give_back(run.pipeline_run)
            todo, reason = NOTHING, f"the map {run.map_place} is published, {done}"
    tracker.set_tags({"exact.work": todo, "exact.work_reason": reason})
    log.info("preflight: %s: %s", "nothing to do" if todo == NOTHING else todo, reason)
    return todo, run


def _choose(
    run: Run, state: SourceState, training: str, champion: str | None, *, until: dt.date | None
) -> tuple[str, str]:
    """What a season is to be mapped by, and why."""
    known = f"model {run.model} version {champion} is the champion"
    if training == NEVER or until is not None or not state.labelled:
        labels = "labels are not asked for" if training == NEVER else "the season has no labels yet"
        if until is not None:
            labels = f"the season is mapped until {until}, by a model of whole seasons"
        if champion is None:
            raise ConfigError(
                f"{labels}, and model {run.model} has no champion: the season cannot be mapped. Train one first "
                f"(pipeline train_exact), name another model, or give the labels"
            )
        return MAP, f"{labels}; {known}"
    if training == ALWAYS or champion is None:
        return TRAIN, "a segmenter is trained every time" if training == ALWAYS else f"{run.model} has no champion"
    return REUSE, known


def _inputs(config: RunConfig, run: Run, state: SourceState, todo: str) -> str:
    """Digest of what the map follows from, but for the model."""
    settings = config.model_dump(mode="json", exclude={"device"})
    labels = "" if todo == MAP else state.labels
    content = [state.images, labels, run.season, settings, code_version()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _done(run: Run, season: str, todo: str, registry: Registry | None) -> str:
    """How the published map makes this run's superfluous, in words. Empty where it does not."""
    store = maps_store()
    if store is None or not season:
        return ""
    facts = published_facts(store, run.map_place.partition("/")[0], season)
    trained = facts.get(MADE_BY) == "training"
    if todo == MAP and trained:
        return (
            "by a model that was trained on the labels of the season. A map without labels does not replace it. To "
            "publish both, set map_name and model"
        )
    if facts.get(INPUTS) != run.inputs or facts.get(PIPELINE_RUN) == run_identity(run.pipeline_run):
        return ""
    if todo == TRAIN:
        done = trained and (registry is None or registry.is_decided(run.model, facts[WEIGHTS]))
    else:
        done = registry is not None and facts[WEIGHTS] == registry.weights(run.model, run.champion)
    return "of the same images, labels and settings" if done else ""
