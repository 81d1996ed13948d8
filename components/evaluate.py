"""Models and masks -> figures, confusion matrix and report."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def evaluate(
    dataset: Input[Dataset],
    segmenter: Input[Model],
    evaluation: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
    classifier: Input[Model] = None,
    masks: Input[Artifact] = None,
):
    """Score the segmenter's map and the pseudo masks, and write the report.

    Args:
        dataset: The window dataset.
        segmenter: The trained segmenter.
        evaluation: metrics.json and figures.
        report: The report, one HTML file.
        metrics: OA, mIoU and F1 of the map and of the masks.
        confusion: Confusion matrix of the map.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
        classifier: The classifier that made the masks.
        masks: The masks that the segmenter learned from.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.evaluate import evaluate as run_stage, read_confusion
    from exact_core.stages.lifecycle import open_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("evaluate", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        summary = run_stage(
            config,
            dataset=files.read(dataset),
            segmenter=files.read(segmenter),
            classifier=files.read(classifier) if classifier else None,
            masks=files.read(masks) if masks else None,
            out=files.write(evaluation),
            report=files.file(report),
            tracker=tracker,
        )
        confusion.log_confusion_matrix(*read_confusion(files.write(evaluation)))
    for name, value in summary.items():
        metrics.log_metric(name, value)
