"""`exact ingest SOURCE`: a command for each source of the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from exact_core.data.sources import Source, check_there
from exact_kubeflow.cli.options import Out, Recipe, Season, Seed, Set, Tracking, config_of

__all__ = ["ingest_app"]


def ingest_app(sources: Iterable[Source]) -> typer.Typer:
    """The commands."""
    app = typer.Typer(help="Read a source and cut it into a window dataset.", no_args_is_help=True)
    for source in sources:
        app.command(source.name, help=source.about)(_command(source))
    # Alone, a command would be the application itself.
    app.callback()(lambda: None)
    return app


def _command(source: Source) -> Callable[..., None]:
    """A function with the options that fit a source, as typer reads them from its signature."""

    def run(
        *,
        out: Path,
        place: str = "",
        season: str = "",
        recipe: str,
        seed: int | None,
        changes: list[str],
        tracking: bool,
    ) -> None:
        from exact_core.stages.ingest import ingest
        from exact_core.stages.lifecycle import open_stage

        text = f"{source.name}:{place}" if source.place else source.name
        check_there(text)
        config = config_of(recipe, seed, changes)
        with open_stage("ingest", config, source=text, season=season, tracking=tracking) as tracker:
            ingest(config, source=text, season=season, out=out, tracker=tracker)

    place: Any = Annotated[str, typer.Argument(metavar=source.place, help=source.place_help)]
    options: list[tuple[str, Any, Any]] = [
        *([("place", place, inspect.Parameter.empty)] if source.place else []),
        ("out", Out, inspect.Parameter.empty),
        *([("season", Season, "")] if source.opens else []),
        ("recipe", Recipe, source.recipe),
        ("seed", Seed, None),
        ("changes", Set, []),
        ("tracking", Tracking, True),
    ]
    command: Any = run
    command.__annotations__ = {name: kind for name, kind, _ in options}
    command.__signature__ = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, kind, default in options
        ]
    )
    return run
