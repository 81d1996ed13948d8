"""What commands share: options, and the configuration that they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exact_core.config import RunConfig
from exact_core.errors import ConfigError
from exact_core.recipes import RECIPES, resolve

if TYPE_CHECKING:
    from exact_core.artifacts.stage_files import StageFiles

__all__ = [
    "Force",
    "Out",
    "Recipe",
    "Season",
    "Seed",
    "Set",
    "Tracking",
    "config_of",
    "from_here",
    "goes_on",
    "model_folder",
    "need",
]

Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write. Refused if it contains a finished result.")]
Recipe = Annotated[
    str,
    typer.Option(
        metavar="RECIPE",
        help=f"Recipe, one of {', '.join(RECIPES)}, or a .yaml file of some or all keys. Default fits the data.",
    ),
]
Season = Annotated[
    str,
    typer.Option(
        metavar="YEAR|START/DAYS", help="Season, for example 2021 or 2021-09-01/300. Default is that of the source."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Seed of generation, initialisation, order and augmentation. Default is 0."),
]
Set = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting. Paths are relative to the current folder. Repeatable."
    ),
]
Tracking = Annotated[bool, typer.Option("--tracking/--no-tracking", help="Record the run in MLflow.")]

PATHS = ("data.season.labels", "data.season.outlines", "data.season.legend")
"""Settings that name a file."""


def config_of(recipe: str, seed: int | None, changes: list[str]) -> RunConfig:
    """A recipe by name, or a file with its own seed unless another is given."""
    return resolve(recipe, seed=seed, overrides=from_here(changes))


def from_here(changes: list[str]) -> list[str]:
    """Settings of the command line, paths of the current folder among them made absolute.

    A path that is not there stays as it is: it may be one in the season's folder.
    """
    found = []
    for change in changes:
        key, equals, value = change.partition("=")
        here = Path(value.partition("|")[0])
        named = equals and key.strip() in PATHS and value and "://" not in value and not here.is_absolute()
        found.append(f"{key}={here.absolute()}{value[len(str(here)) :]}" if named and here.is_file() else change)
    return found


@contextmanager
def goes_on(how: str) -> Iterator[None]:
    """On Ctrl-C, print how to continue, and exit with code 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nstopped: {how}", err=True)
        raise typer.Exit(130) from None


def model_folder(reference: str, files: StageFiles, scratch: Path) -> Path:
    """The local folder of a segmenter from a path, a store, or NAME@ALIAS of MLflow's registry."""
    from exact_core.stages.champions import fetch_registered, is_registered

    if is_registered(reference):
        return fetch_registered(reference, scratch / "segmenter")
    return files.read(reference)


def need(**places: str) -> None:
    """Refuse folders that are to be read and are not there, all at once. Places in a store are looked at later.

    Raises:
        ConfigError: which are missing.
    """
    missing = [
        f"{name.upper()} {place}"
        for name, place in places.items()
        if place and "://" not in place and "@" not in place and not Path(place).exists()
    ]
    if missing:
        raise ConfigError(f"not there: {', '.join(missing)}. Name what an earlier command wrote")
