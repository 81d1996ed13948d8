"""What commands share: options, and the configuration that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exact_core.config import RunConfig, load_config, override
from exact_core.recipes import resolve

__all__ = ["Set", "Tracking", "config_of"]

Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")]
Tracking = Annotated[bool, typer.Option("--tracking/--no-tracking", help="Record the run in MLflow.")]


def config_of(recipe: str, seed: int | None, changes: list[str]) -> RunConfig:
    """A recipe by name, or a saved configuration with its own seed unless another is given."""
    if recipe.endswith((".yaml", ".yml")):
        given = [] if seed is None else [f"seed={seed}"]
        return override(load_config(Path(recipe)), [*given, *changes])
    return resolve(recipe, seed=seed or 0, overrides=changes)
