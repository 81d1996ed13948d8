"""Several seasons -> how well a model of all but one maps that one."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def leave_season_out(
    seasons: Input[Artifact],
    season_row: Output[Artifact],
    evaluation_report: Output[HTML],
    metrics: Output[Metrics],
    fold: str,
    supervision: str,
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
):
    """Train on all seasons but one, and score on that one and on those the model has seen.

    Args:
        seasons: The datasets of all seasons.
        season_row: season_row.json and both evaluations.
        evaluation_report: The report on the season left out, one HTML file.
        metrics: OA, mIoU and F1 on the season left out; seen_ on the others.
        fold: I/N, the I-th of N seasons is left out.
        supervision: What is learned from: tags or dense.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.gather_seasons import open_fold
    from exact_core.stages.leave_season_out import leave_season_out as run_stage
    from exact_core.stages.lifecycle import open_stage

    config, stage = resolve(recipe, seed=int(seed), overrides=overrides), f"leave_season_out {fold}"
    with open_stage(stage, config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        for name, value in run_stage(
            config,
            open_fold(files.read(seasons), fold),
            dense=supervision == "dense",
            out=files.write(season_row),
            report=files.file(evaluation_report),
            tracker=tracker,
        ).items():
            metrics.log_metric(name, value)
