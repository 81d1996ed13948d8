"""Train a segmenter on windows and pseudo masks, or on dense labels for comparison."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output


@step
def train_segmenter(
    run: dict[str, Any],
    dataset: Input[Dataset],
    segmenter: Output[Model],
    metrics: Output[Metrics],
    masks: Input[Artifact] = None,
) -> None:
    """Train the segmenter on pseudo masks or, if there are none, on the dataset's dense labels.

    Args:
        run: Settings from the first step.
        dataset: The window dataset.
        segmenter: The trained segmenter.
        metrics: Final loss and validation mIoU.
        masks: The pseudo masks. Without them, dense labels are used.
    """
    from exact_core.stages.lifecycle import open_step
    from exact_core.stages.train_segmenter import STAGE, train_segmenter as run_stage

    with open_step(STAGE, run) as step:
        summary = run_stage(
            step.config,
            dataset=step.files.read(dataset),
            masks=step.files.read(masks) if masks else None,
            out=step.files.write(segmenter),
            tracker=step.tracker,
        )
    step.show(metrics, summary)
