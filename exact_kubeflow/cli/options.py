"""What commands share: options, and the configuration that they make."""

from __future__ import annotations

from typing import Annotated

import typer

from exact_core.config import RunConfig
from exact_core.recipes import resolve

__all__ = ["Set", "Tracking", "config_of"]

Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")]
Tracking = Annotated[bool, typer.Option("--tracking/--no-tracking", help="Record the run in MLflow.")]


def config_of(recipe: str, seed: int | None, changes: list[str]) -> RunConfig:
    """A recipe by name, or a file with its own seed unless another is given."""
    return resolve(recipe, seed=seed, overrides=changes)
