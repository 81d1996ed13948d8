"""A source of images and tags -> a window dataset."""

from exact_kubeflow.components.images import DATA, image
from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output


@dsl.component(base_image=image(DATA), install_kfp_package=False)
def ingest(
    dataset: Output[Dataset],
    metrics: Output[Metrics],
    recipe: str,
    source: str,
    season: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
):
    """Read satellite images and crop tags, and cut them into windows.

    Args:
        dataset: The window dataset.
        metrics: Numbers of windows and classes.
        recipe: Name of the recipe: demo, season, pastis24 or germany.
        source: synthetic, pastis:PATH, germany:PATH or season:PATH.
        season: Year or START/DAYS of a season source; empty for the source's own.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.ingest import ingest as run_stage
    from exact_core.stages.lifecycle import open_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("ingest", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        summary = run_stage(config, source=source, season=season, out=files.write(dataset), tracker=tracker)
    for name, value in summary.items():
        metrics.log_metric(name, value)
