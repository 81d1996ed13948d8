"""Seasons as a person lists them -> the source and the season of each."""

from typing import Dict, List  # noqa: UP035 - KFP knows no other name for a list of structures

from exact_kubeflow.components.images import DATA, image
from kfp import dsl


@dsl.component(base_image=image(DATA), install_kfp_package=False)
def plan_seasons(
    source: str,
    seasons: list,
    supervision: str,
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
) -> List[Dict[str, str]]:  # noqa: UP006
    """The seasons that are left out in turn, for a step each.

    Args:
        source: season:PATH, of the seasons that name no source of their own.
        seasons: Each a year, START/DAYS, season:PATH or season:PATH@SEASON.
        supervision: What is learned from: tags or dense.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.

    Returns:
        Source and season of each.
    """
    from exact_core.recipes import resolve
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.plan_seasons import plan_seasons as run_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    # Recorded before steps run side by side: then no two of them make MLflow's run, or its file, at once.
    with open_stage("plan_seasons", config, pipeline_run=pipeline_run):
        return run_stage(source=source, seasons=seasons, supervision=supervision)
