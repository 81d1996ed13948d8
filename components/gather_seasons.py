"""Combine the datasets of several seasons, so that each season can be left out."""

from typing import Any, List  # noqa: UP035 - KFP knows no other name for a list of artifacts

from exact_kubeflow.components.step import step
from kfp.dsl import Artifact, Dataset, Input, Output


@step
def gather_seasons(
    run: dict[str, Any],
    datasets: Input[List[Dataset]],  # noqa: UP006
    seasons: Output[Artifact],
) -> list[dict[str, Any]]:
    """Combine the datasets of all seasons. The step fails before training if they are not compatible.

    Args:
        run: Settings from the first step.
        datasets: One dataset for each season.
        seasons: All datasets and seasons.json.

    Returns:
        The settings of one run for each season left out.
    """
    from exact_core.stages.gather_seasons import STAGE, gather_seasons as run_stage
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        folders = [step.files.read(each) for each in datasets]
        folds = run_stage(datasets=folders, out=step.files.write(seasons), tracker=step.tracker)
        return [{**run, "part": fold} for fold in folds]
