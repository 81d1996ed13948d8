"""The command `exact inspect`: a page that shows data before it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exact_core.data.sources import check_there, default_recipe, is_source, known_sources
from exact_core.errors import ConfigError
from exact_core.files import check_output
from exact_core.recipes import RECIPES, resolve
from exact_kubeflow.cli.options import Force, Season, Set, from_here

__all__ = ["inspect"]


def inspect(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DATASET|SOURCE", help=f"Dataset, as a folder or a URI in a store, or source, as {known_sources()}."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("preview.html"),
    model: Annotated[
        str,
        typer.Option(
            metavar="SEGMENTER", help="Compare bands with the training of this segmenter, a folder or a URI in a store."
        ),
    ] = "",
    season: Season = "",
    recipe: Annotated[
        str,
        typer.Option(
            metavar="RECIPE",
            help=f"Recipe for a source, one of {', '.join(RECIPES)}, or a .yaml file. Default fits the source.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the windows shown and of generated data.")] = 0,
    changes: Set = [],
    force: Force = False,
) -> None:
    """Show location, dates, bands against training, tags and windows over time on one page, before training."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.evaluation.preview.page import summary
    from exact_core.stages.preview import inspect as write_page
    from exact_core.tracking.runs import NoTracker

    check_output(out, suffixes=(".html",), force=force)
    source = is_source(what)
    if source:
        check_there(what)
    if not source and (recipe or changes):
        raise ConfigError(f"{what}: a dataset is shown as ingested. Use --recipe and --set for sources only")
    config = resolve(recipe or (default_recipe(what) if source else "season"), seed=seed, overrides=from_here(changes))
    with stage_files(NoTracker()) as files:
        preview = write_page(
            config,
            what if source else files.read(what),
            season=season,
            model=files.read(model) if model else None,
            out=out,
        )
    typer.echo(summary(preview))
    typer.echo(f"preview: {out}")
