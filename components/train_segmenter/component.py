"""Windows and pseudo masks (or, for comparison, true ones) -> a segmenter."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components.images import image


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
    from pathlib import Path

    from exact_core import stages
    from exact_core.recipes import resolve

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with stages.open_stage("train_segmenter", config, pipeline_run=pipeline_run) as tracker:
        summary = stages.train_segmenter(
            config,
            dataset=Path(dataset.path),
            masks=Path(masks.path) if masks else None,
            out=Path(segmenter.path),
            tracker=tracker,
        )
    for name, value in summary.items():
        metrics.log_metric(name, value)
