"""What commands share: options, and the configuration that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exact_core.config import RunConfig
from exact_core.recipes import RECIPES, resolve

__all__ = ["Force", "Out", "Recipe", "Season", "Seed", "Set", "Tracking", "config_of"]

Force = Annotated[bool, typer.Option("--force", help="Replace what is there under that name.")]
Out = Annotated[Path, typer.Argument(help="Folder to write; refused if it holds a finished result.")]
Recipe = Annotated[
    str,
    typer.Option(
        help=f"One of {', '.join(RECIPES)}, or a file (.yaml), saved or of some keys; default: what fits the data."
    ),
]
Season = Annotated[str, typer.Option(help="A year, or START/DAYS; default: what the source says.")]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Seed of generation, initialisation, order and augmentation; default 0.")
]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")]
Tracking = Annotated[bool, typer.Option("--tracking/--no-tracking", help="Record the run in MLflow.")]


def config_of(recipe: str, seed: int | None, changes: list[str]) -> RunConfig:
    """A recipe by name, or a file with its own seed unless another is given."""
    return resolve(recipe, seed=seed, overrides=changes)
