"""Download the champion from the MLflow model registry."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Model, Output


@step
def champion(run: dict[str, Any], segmenter: Output[Model]) -> None:
    """Download the champion from the MLflow model registry.

    Args:
        run: Settings from the first step, including the model's name and version.
        segmenter: The champion.
    """
    from exact_core.stages.champion import STAGE, champion as run_stage
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        out = step.files.write(segmenter)
        run_stage(model=step.run.model, version=step.run.champion, out=out, tracker=step.tracker)
