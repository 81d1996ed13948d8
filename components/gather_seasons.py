"""A dataset a season -> all of them as one, from which each can be left out."""

from typing import Any, List  # noqa: UP035 - KFP knows no other name for a list of artifacts

from exact_kubeflow.components.step import step
from kfp.dsl import Artifact, Dataset, Input, Output


@step
def gather_seasons(
    run: dict[str, Any],
    datasets: Input[List[Dataset]],  # noqa: UP006
    seasons: Output[Artifact],
) -> list[dict[str, Any]]:
    """Put the datasets side by side; fails, before anything is trained, where they do not go together.

    Args:
        run: What the first step decided.
        datasets: All seasons' datasets.
        seasons: The datasets, seasons.json.

    Returns:
        The run for each season that is left out in turn.
    """
    from exact_core.stages.gather_seasons import STAGE, gather_seasons as run_stage
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        folders = [step.files.read(each) for each in datasets]
        folds = run_stage(datasets=folders, out=step.files.write(seasons), tracker=step.tracker)
        return [{**run, "part": fold} for fold in folds]
