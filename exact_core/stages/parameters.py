"""Values of a pipeline's parameters, checked by who submits a run and again by its first step. Without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from exact_core.data.sources import parse_source, source_of
from exact_core.errors import ConfigError
from exact_core.recipes import resolve
from exact_core.stages.plan_map import check_parts
from exact_core.stages.publish_map import map_region
from exact_core.stages.record_status import check_webhook
from exact_core.stages.resolve_season import check_season, check_until, season_rule
from exact_core.stages.run import ALWAYS, IF_NO_CHAMPION, NEVER, SUPERVISION
from exact_core.stages.sizing import read_resources
from exact_core.tracking.registry import check_model_name

__all__ = ["check_parameters"]

EXACT = 2**53
"""KFP keeps numbers as doubles: larger integers are not what was given."""


def check_parameters(given: Mapping[str, Any]) -> None:
    """Refuse values that a later step would fail on. Unknown names are ignored.

    Args:
        given: by name. Every number must be finite. With `map_parts` also `most_parts`, which fit into a run.

    Raises:
        ConfigError: the first wrong value, and what is allowed.
    """
    for name, value in given.items():
        _number(name, value)
    for name, check in CHECKS.items():
        if name in given:
            check(given[name])
    if "recipe" in given:
        overrides = [str(each) for each in given.get("overrides") or []]
        resolve(given["recipe"], seed=int(given.get("seed", 0)), overrides=overrides)
    if "map_parts" in given:
        check_parts(given["map_parts"], int(given["most_parts"]))
    if "map_name" in given and (given["map_name"] or source_of(given["source"]).opens):
        map_region(given["map_name"], given["source"])
    if "season_start" in given and "season_days" in given:
        rule = season_rule(str(given["season_start"]), int(given["season_days"]))
        check_until(given.get("until", ""), given.get("until_from", ""), rule=rule)


def _number(name: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} = {value}: expected a number that is finite")
    if isinstance(value, int) and abs(value) > EXACT:
        raise ConfigError(f"{name} = {value}: expected at most 2^53 = {EXACT}, since KFP keeps numbers as doubles")


def _seed(seed: float) -> None:
    if seed < 0 or seed != int(seed):
        raise ConfigError(f"seed = {seed}: expected 0 or more, a whole number")


def _quality(share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"minimum_quality = {share}: expected a share from 0 to 1")


def _source(text: str) -> None:
    if text:
        parse_source(text)


def _training(word: str) -> None:
    if word not in (ALWAYS, IF_NO_CHAMPION, NEVER):
        raise ConfigError(f"training = {word!r}: expected {ALWAYS} or {IF_NO_CHAMPION}")


def _supervision(word: str) -> None:
    if word not in SUPERVISION:
        raise ConfigError(f"supervision = {word!r}: expected {' or '.join(SUPERVISION)}")


def _model(name: str) -> None:
    if name:
        check_model_name(name)


def _webhook(address: str) -> None:
    if address:
        check_webhook(address)


CHECKS: Mapping[str, Callable[[Any], object]] = {
    "source": _source,
    "season": check_season,
    "seed": _seed,
    "minimum_quality": _quality,
    "training": _training,
    "supervision": _supervision,
    "model": _model,
    "webhook": _webhook,
    "resources": read_resources,
}
