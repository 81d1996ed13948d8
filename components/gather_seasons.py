"""A dataset a season -> all of them as one, from which each can be left out."""

from typing import List  # noqa: UP035 - KFP knows no other name for a list of artifacts

from exact_kubeflow.components.images import DATA, image
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output


@dsl.component(base_image=image(DATA), install_kfp_package=False)
def gather_seasons(
    datasets: Input[List[Dataset]],  # noqa: UP006
    seasons: Output[Artifact],
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
) -> List[str]:  # noqa: UP006
    """Put the datasets side by side; fails, before anything is trained, where they do not go together.

    Args:
        datasets: All seasons' datasets.
        seasons: The datasets, seasons.json.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.

    Returns:
        Names I/N, each of a season to be left out.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.gather_seasons import gather_seasons as run_stage
    from exact_core.stages.lifecycle import open_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("gather_seasons", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        folders = [files.read(each) for each in datasets]
        return run_stage(datasets=folders, out=files.write(seasons), tracker=tracker)
