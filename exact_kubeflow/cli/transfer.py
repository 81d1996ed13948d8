"""`exact transfer` and `exact leave-one-season-out`: how a model holds on a season that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exact_core.data.sources import check_there, is_source, known_sources
from exact_core.scratch import scratch_folder
from exact_kubeflow.cli.options import Recipe, Season, Set, Tracking, config_of, model_folder, need, out_option

__all__ = ["leave_out", "transfer"]


def transfer(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help=f"New season, as {known_sources(images=True)} or as a window dataset."),
    ],
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATASET", help="Training dataset. Default is the sample in the segmenter."),
    ] = "",
    segmenter: Annotated[
        str,
        typer.Option(metavar="SEGMENTER", help="Segmenter, or NAME@champion. Default is to take classes from tags."),
    ] = "",
    out: Annotated[Path, out_option("Folder for report.html and transfer.json.")] = Path("transfer"),
    season: Season = "",
    recipe: Recipe = "season",
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Predict whether a model holds on a new season, without labels of that season."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.evaluation.transfer.findings import Level
    from exact_core.manifest import read_record
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.transfer_report import transfer_report

    if not (Path(source) / "dataset.json").is_file():
        check_there(source)
    need(segmenter=segmenter, dataset=dataset)
    config = config_of(recipe, None, changes)
    with (
        scratch_folder() as scratch,
        open_stage(
            "transfer_report", config, source=source if is_source(source) else "", season=season, tracking=tracking
        ) as tracker,
        stage_files(tracker) as files,
    ):
        transfer_report(
            config,
            source=source,
            season=season,
            segmenter=model_folder(segmenter, files, scratch) if segmenter else None,
            dataset=files.read(dataset) if dataset else None,
            out=out,
            tracker=tracker,
        )
    if (out / "transfer.json").is_file():
        record = read_record(out / "transfer.json")
        verdict = Level(record["verdict"])
        typer.echo(f"verdict: {verdict.words}. {verdict.way_out}")
        if without := record["without"]:
            better = Level(without["verdict"])
            setting = f"--set data.season.leave_out=[{','.join(without['leave_out'])}]"
            typer.echo(f"without {', '.join(without['dates'])} it would be: {better.words} ({setting})")
    typer.echo(f"report: {out / 'report.html'}")


def leave_out(
    datasets: Annotated[
        list[Path], typer.Argument(metavar="DATASET...", help="Two or more window datasets, one for each season.")
    ],
    out: Annotated[Path, out_option("Folder for the models, their evaluations and the table.")],
    dense: Annotated[bool, typer.Option("--dense", help="Train on dense labels instead of tags.")] = False,
    recipe: Recipe = "season",
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Train on all seasons but one and evaluate on that one, for each season in turn."""
    from exact_core.stages.leave_season_out import leave_each_season_out
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.season_table import table

    need(**{f"dataset {number}": str(folder) for number, folder in enumerate(datasets, 1)})
    config = config_of(recipe, None, changes)
    with open_stage("leave_season_out", config, tracking=tracking) as tracker:
        leave_each_season_out(config, datasets=datasets, dense=dense, out=out, tracker=tracker)
    typer.echo(table(out))
    typer.echo(f"report: {out / 'report.html'}")
