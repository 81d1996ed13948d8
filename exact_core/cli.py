"""The command line: `exact <stage>` runs one stage, `exact run` the whole pipeline on this machine."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml

from exact_core import __version__
from exact_core.config import RunConfig, load_config
from exact_core.errors import ExactError, ServiceError
from exact_core.recipes import RECIPES, resolve

__all__ = ["app", "main"]

app = typer.Typer(
    help="From image-level crop tags and a Sentinel-2 season to a crop map (Exact, CVPR 2025).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ingest_app = typer.Typer(help="Read a source and cut it into a window dataset.", no_args_is_help=True)
app.add_typer(ingest_app, name="ingest")


class Supervision(StrEnum):
    """What the segmenter learns from."""

    tags = "tags"
    dense = "dense"


Recipe = Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}, or a saved configuration (.yaml).")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of generation, initialisation, order and augmentation.")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")]
Tracking = Annotated[bool, typer.Option("--tracking/--no-tracking", help="Record the run in MLflow.")]
Dataset = Annotated[Path, typer.Argument(help="Folder of the window dataset.")]
Out = Annotated[Path, typer.Argument(help="Folder to write; refused if it holds a finished result.")]


def _config(recipe: str, seed: int, changes: list[str]) -> RunConfig:
    if recipe.endswith((".yaml", ".yml")):
        from exact_core.config import override

        return override(load_config(Path(recipe)), [f"seed={seed}", *changes])
    return resolve(recipe, seed=seed, overrides=changes)


def _ingest(source: str, out: Path, *, season: str, config: RunConfig, tracking: bool) -> None:
    from exact_core import stages

    with stages.open_stage("ingest", config, tracking=tracking) as tracker:
        stages.ingest(config, source=source, season=season, out=out, tracker=tracker)


@ingest_app.command()
def synthetic(
    out: Out,
    recipe: Recipe = "demo",
    seed: Seed = 0,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Generate a season whose answer is known."""
    _ingest("synthetic", out, season="", config=_config(recipe, seed, changes), tracking=tracking)


@ingest_app.command()
def pastis(
    root: Annotated[Path, typer.Argument(help="Folder with metadata.geojson, DATA_S2 and ANNOTATIONS.")],
    out: Out,
    recipe: Recipe = "pastis24",
    seed: Seed = 0,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Read PASTIS in its public layout."""
    _ingest(f"pastis:{root}", out, season="", config=_config(recipe, seed, changes), tracking=tracking)


@ingest_app.command()
def season(
    source: Annotated[Path, typer.Argument(help="Folder with a STAC collection or GeoTIFFs, and labels.")],
    out: Out,
    season: Annotated[str, typer.Option(help="A year, or START/DAYS; default: what the source says.")] = "",
    recipe: Recipe = "season",
    seed: Seed = 0,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Read a season of Sentinel-2 L2A from disk."""
    _ingest(f"season:{source}", out, season=season, config=_config(recipe, seed, changes), tracking=tracking)


@app.command()
def train_classifier(
    dataset: Dataset,
    out: Out,
    recipe: Recipe = "demo",
    seed: Seed = 0,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Train the tag classifier with both clues."""
    from exact_core import stages

    config = _config(recipe, seed, changes)
    with stages.open_stage("train_classifier", config, tracking=tracking) as tracker:
        stages.train_classifier(config, dataset=dataset, out=out, tracker=tracker)


@app.command()
def generate_masks(
    dataset: Dataset,
    classifier: Annotated[Path, typer.Argument(help="Folder of the classifier.")],
    out: Out,
    recipe: Recipe = "demo",
    seed: Seed = 0,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Make CAMs and pseudo masks."""
    from exact_core import stages

    config = _config(recipe, seed, changes)
    with stages.open_stage("generate_masks", config, tracking=tracking) as tracker:
        stages.generate_masks(config, dataset=dataset, classifier=classifier, out=out, tracker=tracker)


@app.command()
def train_segmenter(
    dataset: Dataset,
    out: Out,
    masks: Annotated[Path | None, typer.Option(help="Folder of the pseudo masks; without: dense labels.")] = None,
    recipe: Recipe = "demo",
    seed: Seed = 0,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Train the segmenter on pseudo masks."""
    from exact_core import stages

    config = _config(recipe, seed, changes)
    with stages.open_stage("train_segmenter", config, tracking=tracking) as tracker:
        stages.train_segmenter(config, dataset=dataset, masks=masks, out=out, tracker=tracker)


@app.command()
def evaluate(
    dataset: Dataset,
    segmenter: Annotated[Path, typer.Argument(help="Folder of the segmenter.")],
    out: Out,
    report: Annotated[Path, typer.Option(help="Report to write.")] = Path("report.html"),
    classifier: Annotated[Path | None, typer.Option(help="Folder of the classifier.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of the pseudo masks.")] = None,
    recipe: Recipe = "demo",
    seed: Seed = 0,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Score map and masks, and write the report."""
    from exact_core import stages

    config = _config(recipe, seed, changes)
    with stages.open_stage("evaluate", config, tracking=tracking) as tracker:
        stages.evaluate(
            config,
            dataset=dataset,
            segmenter=segmenter,
            classifier=classifier,
            masks=masks,
            out=out,
            report=report,
            tracker=tracker,
        )


@app.command()
def run(
    workdir: Annotated[Path, typer.Option(help="Folder for the results.")],
    source: Annotated[str, typer.Option(help="synthetic, pastis:PATH or season:PATH.")] = "synthetic",
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "",
    season: Annotated[str, typer.Option(help="For a season source: a year, or START/DAYS.")] = "",
    seed: Seed = 0,
    supervision: Annotated[
        Supervision, typer.Option(help="dense: learn from true masks, to compare.")
    ] = Supervision.tags,
    changes: Set = [],
) -> None:
    """Run the whole pipeline on this machine, through KFP's local runner."""
    # The recipe that fits a kind of source, so that the source alone is enough.
    recipe = recipe or {"pastis": "pastis24", "season": "season"}.get(source.partition(":")[0], "demo")
    # Checked before anything starts: a misspelt key should not cost an ingest.
    resolve(recipe, seed=seed, overrides=changes)
    try:
        from pipelines import local
    except ImportError as error:
        raise ServiceError(f"{error}: `exact run` needs kfp: pip install 'exact-kubeflow[local,pipelines]'") from error
    report = local.run(
        workdir,
        source=source,
        recipe=recipe,
        season=season,
        seed=seed,
        overrides=changes,
        supervision=supervision.value,
    )
    typer.echo(f"report: {report}")


@app.command("config")
def show_config(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join(RECIPES)}.")],
    seed: Seed = 0,
    changes: Set = [],
) -> None:
    """Print every setting of a recipe as YAML."""
    config = resolve(recipe, seed=seed, overrides=changes)
    typer.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Entry point: an ExactError becomes one line on stderr and exit code 1."""
    try:
        app()
    except ExactError as error:
        sys.stderr.write(f"exact: {error}\n")
        sys.exit(1)
