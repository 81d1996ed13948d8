"""Make a window dataset from a source of images and tags."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Dataset, Metrics, Output


@step
def ingest(run: dict[str, Any], dataset: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Read satellite images and crop tags, and cut them into windows.

    Args:
        run: Settings from the first step, including source and season.
        dataset: The window dataset.
        metrics: Numbers of windows and classes.
    """
    from exact_core.stages.ingest import STAGE, ingest as run_stage
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        summary = run_stage(
            step.config,
            source=step.run.source,
            season=step.run.season,
            out=step.files.write(dataset),
            tracker=step.tracker,
        )
    step.show(metrics, summary)
