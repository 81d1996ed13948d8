"""The segmenter in use, from MLflow's registry."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Model, Output


@step
def champion(run: dict[str, Any], segmenter: Output[Model]) -> None:
    """Fetch the champion.

    Args:
        run: What the first step decided; the model's name and version apply.
        segmenter: The champion.
    """
    from exact_core.stages.champion import STAGE, champion as run_stage
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        out = step.files.write(segmenter)
        run_stage(model=step.run.model, version=step.run.champion, out=out, tracker=step.tracker)
