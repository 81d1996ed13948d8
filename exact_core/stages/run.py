"""What a pipeline's first step decides and every other one is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from exact_core.config import RunConfig, Settings, describe
from exact_core.errors import ConfigError
from exact_core.recipes import resolve

__all__ = [
    "ALWAYS",
    "IF_NO_CHAMPION",
    "MAP",
    "NEVER",
    "NOTHING",
    "REUSE",
    "SUPERVISION",
    "TRAIN",
    "Run",
    "read_run",
]

ALWAYS, IF_NO_CHAMPION, NEVER = "always", "if_no_champion", "never"
"""Whether a segmenter is trained, as the parameter `training` has it. `never` is a pipeline's own word."""
SUPERVISION = ("tags", "dense")
TRAIN, REUSE, MAP, NOTHING = "train", "reuse", "map", "nothing"
"""What is left to do after the first step. `train` trains a segmenter. `reuse` maps with the champion and scores it on
the season's labels. `map` only maps. `nothing` ends the run."""


class Run(Settings):
    """A run, or one of the parts of it that steps do side by side, as it passes from step to step."""

    recipe: str
    seed: int = 0
    overrides: tuple[str, ...] = ()
    source: str = ""
    origin: str = Field("", description="the source as it was given, where `source` is what was fetched of it")
    season: str = Field("", description="resolved: a year or START/DAYS; empty: the source's own")
    supervision: str = SUPERVISION[0]
    model: str = Field("", description="registered model; empty: the run registers and uses none")
    champion: str = Field("", description="its version that maps; empty: the one that is trained")
    map_place: str = Field("", description="REGION/SEASON of the published map, or REGION/ alone; empty: none is")
    inputs: str = Field("", description="digest of what the map follows from")
    part: str = Field("", description="I/N of a map, or of seasons that are left out in turn; empty: all")
    pipeline_run: str = Field("", description="identity of the pipeline run, for MLflow")

    def config(self) -> RunConfig:
        """The resolved configuration."""
        return resolve(self.recipe, seed=self.seed, overrides=list(self.overrides))

    @property
    def named_source(self) -> str:
        """The source as it was given, by which people know it."""
        return self.origin or self.source

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
