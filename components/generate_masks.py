"""Make pseudo masks from a classifier's CAMs."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output


@step
def generate_masks(
    run: dict[str, Any],
    dataset: Input[Dataset],
    classifier: Input[Model],
    masks: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    """Make pseudo masks from clue-based CAMs, and estimate their quality without dense labels.

    Args:
        run: Settings from the first step.
        dataset: The window dataset.
        classifier: The trained classifier.
        masks: CAMs and pseudo masks of the training and validation windows.
        metrics: Threshold, share of background, and expected OA and mIoU of the masks.
    """
    from exact_core.stages.generate_masks import STAGE, generate_masks as run_stage
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        summary = run_stage(
            step.config,
            dataset=step.files.read(dataset),
            classifier=step.files.read(classifier),
            out=step.files.write(masks),
            tracker=step.tracker,
        )
    step.show(metrics, summary)
