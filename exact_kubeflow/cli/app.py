"""The command line: `exact <stage>` runs one stage, `exact run` the whole pipeline on this machine."""

from __future__ import annotations

import os
import re
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from exact_core import __version__
from exact_core.cgroup import busy
from exact_core.config import Outside
from exact_core.data.sources import SOURCES, check_mapped, check_there, default_recipe, known_sources
from exact_core.environment import load_environment
from exact_core.errors import ConfigError, ExactError, ServiceError
from exact_core.files import check_output, full_disk
from exact_core.recipes import RECIPES, portable
from exact_core.scratch import scratch_folder
from exact_core.termination import TerminatedError, ending_in_order
from exact_kubeflow.cli import (
    areas as areas_cli,
    cluster as cluster_cli,
    fetch as fetch_cli,
    ingest as ingest_cli,
    preview as inspect_cli,
    transfer as transfer_cli,
)
from exact_kubeflow.cli.options import (
    Force,
    Out,
    Recipe,
    Season,
    Seed,
    Set,
    Tracking,
    config_of,
    from_here,
    goes_on,
    model_folder,
    need,
    need_together,
)
from exact_kubeflow.cli.store import store_app

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
START, STAGES, MAPS, MODELS, CLUSTER, HERE = (
    "From data to a map",
    "Single stages",
    "What a map says",
    "Models and seasons",
    "On a cluster",
    "This machine and its settings",
)
"""Groups of commands in the help."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


THREADS_VARIABLE = "OMP_NUM_THREADS"
COMPUTES = ("run", "map", "train-classifier", "generate-masks", "train-segmenter", "evaluate", "transfer")
"""Commands that compute on all cores."""


def _share_busy_machine() -> None:
    """Compute on one thread where others use the cores: threads that wait for a core make each other wait."""
    if (words := busy()) and not os.environ.get(THREADS_VARIABLE):
        os.environ[THREADS_VARIABLE] = "1"
        typer.echo(
            f"the machine is busy ({words}): computing on one thread; {THREADS_VARIABLE}=N sets another", err=True
        )


@app.callback()
def options(
    context: typer.Context,
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make a crop map from image-level crop tags and a Sentinel-2 season (Exact, CVPR 2025)."""
    if context.invoked_subcommand in COMPUTES:
        _share_busy_machine()


class Supervision(StrEnum):
    """What the segmenter learns from."""

    tags = "tags"
    dense = "dense"


Outlines = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Vector file of field outlines, a path or an address. Give each field one crop, and list mixed and "
        "uncertain fields.",
    ),
]
Cropland = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Raster or vector mask of cropland, a path or an address. Land outside of it is not mapped.",
    ),
]
CroplandValue = Annotated[
    list[int],
    typer.Option(
        metavar="N", help="Value of the --cropland raster that is cropland. Repeatable. Default is all but 0."
    ),
]
OutsideFields = Annotated[
    Outside,
    typer.Option(
        metavar="pixels|borders|background",
        help="Pixels outside all outlines: as mapped, background beside a field, or all background.",
    ),
]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Window dataset, as a folder or a URI in a store.")]


def _recipe_for(dataset: str) -> str:
    """The recipe that fits a dataset's source, where none is named."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.data.windows.dataset import WindowDataset
    from exact_core.tracking.runs import NoTracker

    with stage_files(NoTracker()) as files:
        return default_recipe(WindowDataset(files.read(dataset)).manifest.source)


def train_classifier(
    dataset: Dataset,
    out: Out,
    recipe: Recipe = "",
    seed: Seed = None,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Train the tag classifier with spatial and temporal clues."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.train_classifier import train_classifier as run_stage

    need(dataset=dataset)
    config = config_of(recipe or _recipe_for(dataset), seed, changes)
    with open_stage("train_classifier", config, tracking=tracking) as tracker, stage_files(tracker) as files:
        run_stage(config, dataset=files.read(dataset), out=out, tracker=tracker)


def generate_masks(
    dataset: Dataset,
    classifier: Annotated[
        str, typer.Argument(metavar="CLASSIFIER", help="Classifier, as a folder or a URI in a store.")
    ],
    out: Out,
    recipe: Recipe = "",
    seed: Seed = None,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Compute CAMs and pseudo masks."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.stages.generate_masks import generate_masks as run_stage
    from exact_core.stages.lifecycle import open_stage

    need(dataset=dataset, classifier=classifier)
    config = config_of(recipe or _recipe_for(dataset), seed, changes)
    with open_stage("generate_masks", config, tracking=tracking) as tracker, stage_files(tracker) as files:
        run_stage(config, dataset=files.read(dataset), classifier=files.read(classifier), out=out, tracker=tracker)


def train_segmenter(
    dataset: Dataset,
    out: Out,
    masks: Annotated[
        str,
        typer.Option(metavar="MASKS", help="Pseudo masks, as a folder or a URI in a store. Default is dense labels."),
    ] = "",
    recipe: Recipe = "",
    seed: Seed = None,
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Train the segmenter on pseudo masks or dense labels."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.train_segmenter import train_segmenter as run_stage

    need(dataset=dataset, masks=masks)
    config = config_of(recipe or _recipe_for(dataset), seed, changes)
    with open_stage("train_segmenter", config, tracking=tracking) as tracker, stage_files(tracker) as files:
        run_stage(
            config, dataset=files.read(dataset), masks=files.read(masks) if masks else None, out=out, tracker=tracker
        )


def evaluate(
    dataset: Dataset,
    segmenter: Annotated[str, typer.Argument(metavar="SEGMENTER", help="Segmenter, as a folder or a URI in a store.")],
    out: Out,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Copy of the report. Default is only report.html in OUT.")
    ] = None,
    classifier: Annotated[
        str, typer.Option(metavar="CLASSIFIER", help="Classifier, as a folder or a URI in a store.")
    ] = "",
    masks: Annotated[str, typer.Option(metavar="MASKS", help="Pseudo masks, as a folder or a URI in a store.")] = "",
    crop_map: Annotated[
        str, typer.Option("--map", metavar="MAP", help="Finished map of the segmenter, to show in the report.")
    ] = "",
    recipe: Recipe = "",
    seed: Seed = None,
    changes: Set = [],
    tracking: Tracking = True,
    force: Force = False,
) -> None:
    """Evaluate the map and the masks, and write the report."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.stages.evaluate import evaluate as run_stage
    from exact_core.stages.lifecycle import open_stage

    if report is not None:
        check_output(report, suffixes=(".html",), force=force)
    need(dataset=dataset, segmenter=segmenter, classifier=classifier, masks=masks, map=crop_map)
    config = config_of(recipe or _recipe_for(dataset), seed, changes)
    with open_stage("evaluate", config, tracking=tracking) as tracker, stage_files(tracker) as files:
        run_stage(
            config,
            dataset=files.read(dataset),
            segmenter=files.read(segmenter),
            classifier=files.read(classifier) if classifier else None,
            masks=files.read(masks) if masks else None,
            out=out,
            tracker=tracker,
            report=report,
            crop_map=files.read(crop_map) if crop_map else None,
        )
    typer.echo(f"report: {report or out / 'report.html'}")


def map_area(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"Images to map, as {known_sources(images=True)}.")],
    segmenter: Annotated[
        str,
        typer.Argument(
            metavar="SEGMENTER", help="Segmenter, as a folder, a URI in a store, or NAME@champion in MLflow."
        ),
    ],
    out: Out,
    season: Season = "",
    part: Annotated[
        str, typer.Option(metavar="I/N", help="Map only part I of N. Join the parts with `exact join-map`.")
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="Use images up to this day only, for a map within the season.")
    ] = "",
    outlines: Outlines = "",
    outside: OutsideFields = "pixels",
    cropland: Cropland = "",
    cropland_value: CroplandValue = [],
    recipe: Recipe = "season",
    changes: Set = [],
    tracking: Tracking = True,
) -> None:
    """Map a whole area, and write GeoTIFFs (COG) of class and confidence, a STAC item and areas."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.map_season import map_season as run_stage

    check_mapped(source)
    check_there(source)
    need_together(segmenter=segmenter, outlines=outlines, cropland=cropland)
    need(segmenter=segmenter)
    given = _layers(outlines, outside, cropland, cropland_value)
    config = config_of(recipe, None, [*changes, *([f"data.season.until={until}"] if until else []), *given])
    with (
        goes_on("finished rows are kept. To continue, repeat the command"),
        scratch_folder() as scratch,
        open_stage("map_season", config, source=source, season=season, tracking=tracking) as tracker,
        stage_files(tracker) as files,
    ):
        found = model_folder(segmenter, files, scratch)
        run_stage(
            config,
            source=source,
            season=season,
            segmenter=found,
            out=out,
            tracker=tracker,
            part=part,
        )
    if not part:
        _show_map(out)


def join_map(
    parts: Annotated[
        list[str], typer.Argument(metavar="PART...", help="Folders that `exact map --part` wrote, or their URIs.")
    ],
    out: Out,
    outlines: Outlines = "",
    outside: OutsideFields = "pixels",
    cropland: Cropland = "",
    cropland_value: CroplandValue = [],
    tracking: Tracking = True,
) -> None:
    """Join the parts of a map. Its options replace those that the parts were mapped with."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.stages.join_map import join_map as run_stage
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.map_layers import Layers
    from exact_core.tracking.runs import NoTracker

    need_together(**{f"part {n}": each for n, each in enumerate(parts, 1)}, outlines=outlines, cropland=cropland)
    given = _layers(outlines, outside, cropland, cropland_value)
    config = config_of("season", None, given)
    layers = Layers.of(config.mapping) if given else None
    with open_stage("join_map", config, tracking=tracking) as tracker, stage_files(NoTracker()) as files:
        run_stage(parts=[files.read(each) for each in parts], out=out, tracker=tracker, layers=layers)
    _show_map(out)


def _layers(outlines: str, outside: Outside, cropland: str, values: list[int]) -> list[str]:
    """Options of a map as changes of settings. None for what is not given."""
    given = {
        "outlines": outlines,
        "outside": "" if outside == "pixels" else outside,
        "cropland": cropland,
        "cropland_values": values,
    }
    return [f"mapping.{name}={value}" for name, value in given.items() if value]


def _show_map(folder: Path) -> None:
    from exact_core.map_statistics.area_table import map_summary

    typer.echo(map_summary(folder))
    typer.echo(f"map: {folder / 'class.tif'} (QGIS opens it with names and colours)")


def run(
    workdir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for the results. Default is a folder here, named after source and time."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(metavar="SOURCE", help=f"Source of the data, as {known_sources()}.")
    ] = "synthetic",
    recipe: Recipe = "",
    season: Season = "",
    seed: Seed = None,
    supervision: Annotated[
        Supervision,
        typer.Option(metavar="tags|dense", help="Labels to train on. Use dense for a comparison with true masks."),
    ] = Supervision.tags,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Registered model of this region in MLflow. Default is exact- and the source's name without a year.",
        ),
    ] = "",
    containers: Annotated[
        bool, typer.Option("--containers", help="Run each stage in its container. Requires Docker and `make images`.")
    ] = False,
    changes: Set = [],
    force: Force = False,
) -> None:
    """Run the whole pipeline on this machine with KFP's local runner."""
    check_there(source)
    recipe = recipe or default_recipe(source)
    # Checked before anything starts: a misspelt key should not cost an ingest.
    config = config_of(recipe, seed, changes)
    try:
        from exact_kubeflow.pipelines.local import default_workdir, run as run_here
    except ImportError as error:
        raise ServiceError(f"{error}: `exact run` needs kfp: pip install 'exact-kubeflow[local,pipelines]'") from error
    arguments: dict[str, Any] = {
        "recipe": portable(recipe),
        "source": source,
        "season": season,
        "seed": config.seed,
        "overrides": from_here(changes),
        **({"model": model} if model else {}),
    }
    given = workdir is not None
    if workdir is None:
        workdir = default_workdir(arguments, supervision.value)
        typer.echo(f"results: {workdir}")
    with goes_on(
        f"finished epochs are kept in {workdir}. To continue, repeat the command"
        f"{'' if given else f' with --workdir {workdir}'}"
    ):
        report, page = run_here(
            workdir, **arguments, supervision=supervision.value, in_containers=containers, force=force
        )
    if page:
        typer.echo(f"MLflow: {page}")
    typer.echo(f"report: {report}")


def compare(
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="MAP...",
            help="Folder of `exact run`, name or ID of an MLflow run, or model as NAME@ALIAS or NAME/VERSION.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("comparison.html"),
    force: Force = False,
) -> None:
    """Compare evaluated maps side by side, each with the first."""
    from exact_core.stages.compare import compare_maps

    check_output(out, suffixes=(".html",), force=force)
    table, logged = compare_maps(references, out=out)
    typer.echo(table)
    typer.echo(f"comparison: {out}{f' (MLflow run {logged})' if logged else ''}")


def champion(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of the registered model, for example exact-flanders.")
    ],
    history: Annotated[
        bool, typer.Option("--history", help="Show all versions with data, metrics, time as champion and reason.")
    ] = False,
    to: Annotated[
        str, typer.Option(metavar="VERSION", help="Make this version the champion, for example after a bad one.")
    ] = "",
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason for the change, stored with the version.")
    ] = "moved by hand",
) -> None:
    """Show the champion of a model or its history, or return to another version."""
    from exact_core.stages import champions

    if to:
        before = champions.move_champion(name, to, reason=reason)
        typer.echo(f"champion of {name}: version {to} (before: {before or 'none'})")
        return
    lines = champions.history(name).splitlines()
    current = [line for line in lines if re.match(r"version \d+ \([^)]*champion", line)]
    typer.echo(
        "\n".join(lines if history else current or [f"{name} has no champion. List its versions with --history"])
    )


def export(
    segmenter: Annotated[
        str,
        typer.Argument(
            metavar="SEGMENTER", help="Segmenter, as a folder, a URI in a store, or NAME@champion in MLflow."
        ),
    ],
    out: Out,
) -> None:
    """Export a segmenter as a program that runs in PyTorch alone, with a STAC item (MLM)."""
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.stages.export import export_model
    from exact_core.tracking.runs import NoTracker

    need(segmenter=segmenter)
    with scratch_folder() as scratch, stage_files(NoTracker()) as files:
        path = export_model(model_folder(segmenter, files, scratch), out)
    typer.echo(f"program: {path} ({path.stat().st_size / 1e6:.1f} MB); run it with torch.export.load")


def import_public(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="State dict, .pth, .pt or .safetensors.")],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Windows of PASTIS, made with recipe pastis24.")],
    out: Out,
    heads: Annotated[int, typer.Option(metavar="N", help="Attention heads, as in the model's configuration.")] = 4,
) -> None:
    """Import a public TSViT model of PASTIS as a segmenter."""
    from exact_core.stages.import_weights import import_weights

    need(checkpoint=checkpoint, dataset=dataset)
    typer.echo(f"segmenter: {import_weights(checkpoint, dataset=dataset, out=out, heads=heads)}")


def doctor(
    require: Annotated[
        list[str],
        typer.Option(metavar="CHECK", help="Fail if this check is not set, for example GPU or MLflow. Repeatable."),
    ] = [],
) -> None:
    """Check code, folders, store, MLflow and GPU on this machine. Exit with code 1 if a check fails."""
    from exact_core.stages.preflight import checks

    found = checks()
    if unknown := set(require) - {check.name for check in found}:
        known = ", ".join(check.name for check in found)
        raise ConfigError(f"--require {', '.join(sorted(unknown))}: no such check. The checks are {known}")
    for check in found:
        typer.echo(f"{check.state:8} {check.name}: {check.detail}")
    failed, unset = ([check.name for check in found if check.state == state] for state in ("failed", "not set"))
    typer.echo(
        (f"failed: {', '.join(failed)}" if failed else "nothing fails")
        + (f". Not set, though some runs need it: {', '.join(unset)}" if unset else ". Nothing is missing")
    )
    if any(check.state == "failed" or (check.state == "not set" and check.name in require) for check in found):
        raise typer.Exit(1)


def show_config(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help=f"Recipe, one of {', '.join(RECIPES)}, or a .yaml file.")
    ],
    explain: Annotated[bool, typer.Option("--explain", help="Add the meaning of each setting.")] = False,
    seed: Seed = None,
    changes: Set = [],
) -> None:
    """Print every setting of a recipe as YAML."""
    config = config_of(recipe, seed, changes)
    if explain:
        from exact_core.settings_page import explained

        typer.echo(explained(config), nl=False)
    else:
        typer.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _grouped() -> None:
    """The commands in the order of a first use."""
    for command, group, name in (
        (run, START, "run"),
        (fetch_cli.fetch, START, "fetch"),
        (inspect_cli.inspect, START, "inspect"),
        (map_area, START, "map"),
        (join_map, START, "join-map"),
        (areas_cli.areas, MAPS, "areas"),
        (areas_cli.sample, MAPS, "sample"),
        (areas_cli.compare_maps, MAPS, "compare-maps"),
        (areas_cli.parcels, MAPS, "parcels"),
        (areas_cli.polygons, MAPS, "polygons"),
        (areas_cli.view, MAPS, "view"),
        (compare, MODELS, "compare"),
        (champion, MODELS, "champion"),
        (export, MODELS, "export"),
        (import_public, MODELS, "import-weights"),
        (transfer_cli.transfer, MODELS, "transfer"),
        (transfer_cli.leave_out, MODELS, "leave-one-season-out"),
        (train_classifier, STAGES, "train-classifier"),
        (generate_masks, STAGES, "generate-masks"),
        (train_segmenter, STAGES, "train-segmenter"),
        (evaluate, STAGES, "evaluate"),
        (cluster_cli.upload, CLUSTER, "upload"),
        (cluster_cli.submit, CLUSTER, "submit"),
        (cluster_cli.follow, CLUSTER, "follow"),
        (doctor, HERE, "doctor"),
        (show_config, HERE, "config"),
        (version, HERE, "version"),
    ):
        app.command(name, rich_help_panel=group)(command)
    app.add_typer(ingest_cli.ingest_app(SOURCES), name="ingest", rich_help_panel=STAGES)
    app.add_typer(cluster_cli.schedule_app, name="schedule", rich_help_panel=CLUSTER)
    app.add_typer(store_app, name="store", rich_help_panel=CLUSTER)


_grouped()


def main() -> None:
    """Entry point: an ExactError or a file that cannot be used becomes a line on stderr, exit code 1.

    SIGTERM does, too, with the exit code of a process that it ends, and what is open is closed before.
    """
    try:
        with ending_in_order():
            load_environment()
            app()
    except (ExactError, OSError) as error:
        sys.stderr.write(f"exact: {full_disk(error) or error}\n")
        sys.exit(1)
    except TerminatedError as error:
        sys.stderr.write(f"exact: {error}\n")
        sys.exit(128 + signal.SIGTERM)
