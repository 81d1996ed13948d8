"""Store, MLflow, data, GPU and memory, tried before anything that costs."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import Metrics, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def preflight(
    metrics: Output[Metrics],
    recipe: str,
    source: str,
    season: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
):
    """Try what the run is going to need, and fail with everything that is missing.

    Args:
        metrics: Estimated and available memory, GB.
        recipe: Name of the recipe.
        source: synthetic, pastis:PATH, germany:PATH or season:PATH.
        season: Year or START/DAYS of a season source; empty for the source's own.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
    """
    from exact_core.recipes import resolve
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.preflight import preflight as run_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("preflight", config, pipeline_run=pipeline_run) as tracker:
        summary = run_stage(config, source=source, season=season, tracker=tracker)
    for name, value in summary.items():
        metrics.log_metric(name, value)
