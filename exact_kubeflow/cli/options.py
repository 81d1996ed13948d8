"""What commands share: options, and the configuration that they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exact_core.config import RunConfig
from exact_core.errors import ConfigError
from exact_core.recipes import RECIPES, resolve
from exact_core.stages.stage import manifests, stage_table

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
    "need_together",
    "out_option",
]

Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


def _check_folder(out: Path) -> Path:
    """Refuse a folder with results that the command would mix with its own, or replace.

    The stage itself refuses a result of its own kind. One that is not finished is continued.
    """
    # metrics.json is not among them: a training that was killed may have left one.
    whole = [*manifests()[:-1], *(f"{name}/{each}" for name, names in _outputs() for each in names)]
    there = next((name for name in whole if (out / name).is_file()), None) if out.is_dir() else None
    if there is not None:
        raise ConfigError(f"{out} already holds a finished result ({there}). Choose another folder")
    return out


def _outputs() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Folders of a run's results, with their manifests."""
    for stage in stage_table().values():
        yield from stage.writes.items()


Out = Annotated[
    Path,
    typer.Argument(
        metavar="OUT", callback=_check_folder, help="Folder to write. Refused if it contains a finished result."
    ),
]


def out_option(text: str) -> Any:
    """The option `--out FOLDER`, with the rule of `Out`."""
    return typer.Option(metavar="FOLDER", callback=_check_folder, help=text)


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

PATHS = (
    "data.season.labels",
    "data.season.outlines",
    "data.season.legend",
    "mapping.cropland",
    "mapping.outlines",
)
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


def need(**places: str | Path | None) -> None:
    """Refuse folders that are to be read and are not there, all at once. Places in a store are looked at later.

    Raises:
        ConfigError: which are missing.
    """
    if missing := _missing(places):
        raise ConfigError(f"not there: {', '.join(missing)}. Name what an earlier command wrote")


def need_together(**places: str | Path | None) -> None:
    """Refuse files and folders if several are not there. Who reads a single one says what it should be.

    Raises:
        ConfigError: which are missing.
    """
    if len(missing := _missing(places)) > 1:
        raise ConfigError(f"not there: {', '.join(missing)}. Check their paths")


def _missing(places: Mapping[str, str | Path | None]) -> list[str]:
    given = {name.replace("_", " ").upper(): str(place) for name, place in places.items() if place}
    return [
        f"{name} {place}"
        for name, place in given.items()
        if "://" not in place and "@" not in place and not Path(place.partition("|")[0]).exists()
    ]
