"""A classifier's CAMs, a threshold chosen without masks -> pseudo masks."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def generate_masks(
    dataset: Input[Dataset],
    classifier: Input[Model],
    masks: Output[Artifact],
    metrics: Output[Metrics],
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
    minimum_quality: float = 0.0,
):
    """Make clue-based CAMs and from them pseudo masks, and judge them without dense labels.

    Args:
        dataset: The window dataset.
        classifier: The trained classifier.
        masks: CAMs and pseudo masks of the training and validation windows.
        metrics: Threshold, share of background, and the masks' expected mIoU and stability.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
        minimum_quality: Gate: masks whose expected mIoU is below this fail the run; 0: what the recipe says.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.generate_masks import generate_masks as run_stage
    from exact_core.stages.lifecycle import open_stage

    gate = [f"masks.minimum_quality={minimum_quality}"] if minimum_quality else []
    config = resolve(recipe, seed=int(seed), overrides=[*gate, *overrides])
    with open_stage("generate_masks", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        summary = run_stage(
            config,
            dataset=files.read(dataset),
            classifier=files.read(classifier),
            out=files.write(masks),
            tracker=tracker,
        )
    for name, value in summary.items():
        metrics.log_metric(name, value)
