"""What a pipeline's first step decides and every other one is given, and the checks of a pipeline's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field, ValidationError

from exact_core.config import RunConfig, Settings, describe
from exact_core.errors import ConfigError
from exact_core.recipes import resolve
from exact_core.stages.ingest import parse_source
from exact_core.stages.plan_map import check_parts
from exact_core.stages.resolve_season import check_season, season_rule
from exact_core.stages.sizing import read_resources

__all__ = [
    "ALWAYS",
    "IF_NO_CHAMPION",
    "NEVER",
    "SUPERVISION",
    "Run",
    "check_parameters",
    "read_run",
]

ALWAYS, IF_NO_CHAMPION, NEVER = "always", "if_no_champion", "never"
"""Whether a segmenter is trained, as the parameter `training` has it; `never` is a pipeline's own word."""
SUPERVISION = ("tags", "dense")
MODEL_NAME = re.compile(r"[^/:\s][^/:]*")
"""What MLflow takes for the name of a registered model."""


class Run(Settings):
    """A run, or one of the parts of it that steps do side by side, as it passes from step to step."""

    recipe: str
    seed: int = 0
    overrides: tuple[str, ...] = ()
    source: str = ""
    season: str = Field("", description="resolved: a year or START/DAYS; empty: the source's own")
    training: str = ALWAYS
    supervision: str = SUPERVISION[0]
    model: str = Field("", description="registered model; empty: after the dataset's name")
    part: str = Field("", description="I/N of a map, or of seasons that are left out in turn; empty: all")
    pipeline_run: str = Field("", description="identity of the pipeline run, for MLflow")

    def config(self) -> RunConfig:
        """The resolved configuration."""
        return resolve(self.recipe, seed=self.seed, overrides=list(self.overrides))

    def given(self) -> dict[str, Any]:
        """What differs from the defaults, as KFP passes it on: each step carries it several times over."""
        return self.model_dump(mode="json", exclude_defaults=True)


def read_run(given: Mapping[str, Any]) -> Run:
    """The run that a step was given.

    Raises:
        ConfigError: it is none.
    """
    try:
        return Run.model_validate(given)
    except ValidationError as error:
        raise ConfigError(describe(error, where="run", model=Run)) from error


def check_parameters(given: Mapping[str, Any]) -> None:
    """Accept values of a pipeline's parameters: who submits a run asks this, and a pipeline's first step.

    Args:
        given: by name; with `map_parts` also `most_parts`, which fit into a run.

    Raises:
        ConfigError: the first that no step could use, with the choices.
    """
    for name, check in CHECKS.items():
        if name in given:
            check(given[name])
    if "recipe" in given:
        resolve(given["recipe"], overrides=[str(each) for each in given.get("overrides", [])])
    if "map_parts" in given:
        check_parts(given["map_parts"], int(given["most_parts"]))
    if "season_start" in given and "season_days" in given:
        season_rule(str(given["season_start"]), int(given["season_days"]))


def _seed(seed: float) -> None:
    if seed != seed or seed < 0 or seed != int(min(seed, 2**53)):
        raise ConfigError(f"seed = {seed!r}: expected a whole number of 0 or more")


def _quality(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"minimum_quality = {share!r}: expected a share from 0 (no gate of its own) to 1")


def _training(word: str) -> None:
    if word not in (ALWAYS, IF_NO_CHAMPION, NEVER):
        raise ConfigError(f"training = {word!r}: expected {ALWAYS} or {IF_NO_CHAMPION}")


def _supervision(word: str) -> None:
    if word not in SUPERVISION:
        raise ConfigError(f"supervision = {word!r}: expected {' or '.join(SUPERVISION)}")


def _model(name: str) -> None:
    if name and not MODEL_NAME.fullmatch(name):
        raise ConfigError(f"model = {name!r}: expected a name without / and :, such as exact-flanders, or nothing")


def _webhook(address: str) -> None:
    if address and not re.match(r"https?://[^/\s]", address):
        raise ConfigError(f"webhook = {address!r}: expected an http:// or https:// URL, or nothing")


CHECKS: Mapping[str, Callable[[Any], object]] = {
    "source": parse_source,
    "season": check_season,
    "seed": _seed,
    "minimum_quality": _quality,
    "training": _training,
    "supervision": _supervision,
    "model": _model,
    "webhook": _webhook,
    "resources": read_resources,
}
