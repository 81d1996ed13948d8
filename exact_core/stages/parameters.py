"""Values of a pipeline's parameters, checked by who submits a run and again by its first step. Without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from exact_core.data.sources import parse_source
from exact_core.errors import ConfigError
from exact_core.recipes import resolve
from exact_core.stages.champion import ALWAYS, IF_NO_CHAMPION, NEVER
from exact_core.stages.record_status import check_webhook
from exact_core.tracking.registry import check_model_name

__all__ = ["check_parameters"]

EXACT = 2**53
"""KFP keeps numbers as doubles: larger integers are not what was given."""


def check_parameters(given: Mapping[str, Any]) -> None:
    """Refuse values that a later step would fail on; names that are not known here are left alone.

    Args:
        given: parameter -> value: `recipe` with `seed` and `overrides`, `source`, `minimum_quality`, `model`,
            `training`, `webhook`; every number must be finite.

    Raises:
        ConfigError: the first value that is wrong, and what would be right.
    """
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} = {value}: expected a number that is finite")
        if isinstance(value, int) and abs(value) > EXACT:
            raise ConfigError(f"{name} = {value}: expected at most 2^53 = {EXACT}, since KFP keeps numbers as doubles")
    seed = given.get("seed", 0)
    if seed < 0:
        raise ConfigError(f"seed = {seed}: expected 0 or more")
    quality = given.get("minimum_quality", 0)
    if not 0 <= quality <= 1:
        raise ConfigError(f"minimum_quality = {quality}: expected a share from 0 to 1")
    if "recipe" in given:
        resolve(given["recipe"], seed=int(seed), overrides=list(given.get("overrides") or []))
    if given.get("source"):
        parse_source(given["source"])
    if given.get("training", ALWAYS) not in (ALWAYS, IF_NO_CHAMPION, NEVER):
        raise ConfigError(f"training = {given['training']!r}: expected {ALWAYS} or {IF_NO_CHAMPION}")
    if given.get("model"):
        check_model_name(given["model"])
    if given.get("webhook"):
        check_webhook(given["webhook"])
