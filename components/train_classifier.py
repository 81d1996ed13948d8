"""Windows and their tags -> a classifier with prototypes."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def train_classifier(
    dataset: Input[Dataset],
    classifier: Output[Model],
    metrics: Output[Metrics],
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
):
    """Train the tag classifier with spatial and temporal clues; no mask is read.

    Args:
        dataset: The window dataset.
        classifier: The trained classifier.
        metrics: Final loss and tag precision.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.train_classifier import train_classifier as run_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("train_classifier", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        summary = run_stage(config, dataset=files.read(dataset), out=files.write(classifier), tracker=tracker)
    for name, value in summary.items():
        metrics.log_metric(name, value)
