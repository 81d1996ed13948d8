"""Train a classifier with prototypes on windows and their tags."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Dataset, Input, Metrics, Model, Output


@step
def train_classifier(
    run: dict[str, Any], dataset: Input[Dataset], classifier: Output[Model], metrics: Output[Metrics]
) -> None:
    """Train the tag classifier with spatial and temporal clues. It reads no masks.

    Args:
        run: Settings from the first step.
        dataset: The window dataset.
        classifier: The trained classifier.
        metrics: Final loss and tag precision.
    """
    from exact_core.stages.lifecycle import open_step
    from exact_core.stages.train_classifier import STAGE, train_classifier as run_stage

    with open_step(STAGE, run) as step:
        folders = {"dataset": step.files.read(dataset), "out": step.files.write(classifier)}
        summary = run_stage(step.config, tracker=step.tracker, **folders)
    step.show(metrics, summary)
