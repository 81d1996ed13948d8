"""What became of each season that was left out -> one table of all, mean and worst, and a report."""

from typing import List  # noqa: UP035 - KFP knows no other name for a list of artifacts

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def season_table(
    rows: Input[List[Artifact]],  # noqa: UP006
    comparison: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
):
    """Make the table of all seasons.

    Args:
        rows: What became of each season.
        comparison: leave_one_season_out.json and the report.
        report: The report, one HTML file.
        metrics: OA, mIoU and F1: mean and worst over the seasons, and the mean on seasons seen.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.season_table import season_table as run_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("season_table", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        folders, page = [files.read(each) for each in rows], files.file(report)
        for name, value in run_stage(rows=folders, out=files.write(comparison), report=page, tracker=tracker).items():
            metrics.log_metric(name, value)
