"""Windows and pseudo masks (or, for comparison, true ones) -> a segmenter."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def train_segmenter(
    dataset: Input[Dataset],
    segmenter: Output[Model],
    metrics: Output[Metrics],
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
    masks: Input[Artifact] = None,
):
    """Train the segmenter on pseudo masks or, without any, on the dataset's dense labels.

    Args:
        dataset: The window dataset.
        segmenter: The trained segmenter.
        metrics: Final loss and validation mIoU.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
        masks: The pseudo masks; without them dense labels are used.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.train_segmenter import train_segmenter as run_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("train_segmenter", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        summary = run_stage(
            config,
            dataset=files.read(dataset),
            masks=files.read(masks) if masks else None,
            out=files.write(segmenter),
            tracker=tracker,
        )
    for name, value in summary.items():
        metrics.log_metric(name, value)
