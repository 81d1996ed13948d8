"""A segmenter -> MLflow's registry, and the champion's place if it is the better one."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Metrics, Model, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def promote(
    dataset: Input[Dataset],
    segmenter: Input[Model],
    promotion: Output[Artifact],
    decision: Output[Markdown],
    metrics: Output[Metrics],
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
    model: str = "",
):
    """Register the segmenter as challenger, and promote it if it is better than the champion on the same windows.

    Args:
        dataset: The window dataset.
        segmenter: The trained segmenter.
        promotion: metrics.json, the decision and what it follows from.
        decision: The decision, to read.
        metrics: Whether it was promoted, both models' figures, their difference and its confidence interval.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
        model: Name of the registered model; empty for exact-NAME after the dataset's name.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.promote import promote as run_stage, read_decision

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("promote", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        folders = {"dataset": files.read(dataset), "segmenter": files.read(segmenter), "out": files.write(promotion)}
        for name, value in run_stage(config, model=model, tracker=tracker, **folders).items():
            metrics.log_metric(name, value)
        files.file(decision).write_text(read_decision(folders["out"]), encoding="utf-8")
