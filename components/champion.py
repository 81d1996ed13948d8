"""The segmenter in use, from MLflow's registry, where a new season is to be mapped with it."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Dataset, Input, Model, Output


@step
def champion(run: dict[str, Any], segmenter: Output[Model], dataset: Input[Dataset] = None) -> str:
    """Decide whether to train: always, only without a champion, or never; a champion that does not fit fails the run.

    Args:
        run: What the first step decided; how to decide and the model's name apply.
        segmenter: The champion, where it is to be used.
        dataset: The window dataset; none where an area is only mapped.

    Returns:
        train or reuse.
    """
    from exact_core.stages.champion import STAGE, champion as run_stage
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        return run_stage(
            training=step.run.training,
            model=step.run.model,
            dataset=None if dataset is None else step.files.read(dataset),
            out=step.files.write(segmenter, optional=True),
            tracker=step.tracker,
        )
