"""Score a segmenter and its pseudo masks, write the report, and decide on promotion."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output


@step
def evaluate(
    run: dict[str, Any],
    dataset: Input[Dataset],
    segmenter: Input[Model],
    evaluation: Output[Artifact],
    report: Output[HTML],
    promotion: Output[Artifact],
    decision: Output[Markdown],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    classifier: Input[Model] = None,
    masks: Input[Artifact] = None,
    crop_map: Input[Artifact] = None,
    register: bool = False,
) -> None:
    """Score the segmenter's map and the pseudo masks, write the report, and promote the segmenter if it is better.

    Args:
        run: Settings from the first step, including the model's name.
        dataset: The window dataset.
        segmenter: The trained segmenter.
        evaluation: metrics.json and images.
        report: The report as one HTML file.
        promotion: metrics.json with the decision and its inputs.
        decision: The decision as text.
        metrics: OA, mIoU and F1 of the map and the masks, whether the segmenter was promoted, and both models' scores.
        confusion: Confusion matrix of the map.
        classifier: The classifier that made the masks.
        masks: The masks that the segmenter was trained on.
        crop_map: The segmenter's finished map, shown in the report.
        register: Whether to register the segmenter as challenger and compare it with the champion.
    """
    from exact_core.stages.evaluate import STAGE, evaluate as run_stage, read_confusion
    from exact_core.stages.lifecycle import open_step
    from exact_core.stages.promote import promote_after

    with open_step(STAGE, run) as step:
        summary = run_stage(
            step.config,
            dataset=step.files.read(dataset),
            segmenter=step.files.read(segmenter),
            classifier=step.files.read(classifier) if classifier else None,
            masks=step.files.read(masks) if masks else None,
            out=step.files.write(evaluation),
            report=step.files.file(report),
            tracker=step.tracker,
            crop_map=step.files.read(crop_map) if crop_map and step.files.holds(crop_map) else None,
        )
        confusion.log_confusion_matrix(*read_confusion(step.files.write(evaluation)))
    places = {"dataset": dataset, "segmenter": segmenter, "promotion": promotion, "decision": decision}
    summary |= promote_after(run, register=register, figures=summary, **places)
    step.show(metrics, summary)
