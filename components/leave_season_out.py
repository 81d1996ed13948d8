"""Evaluate on one season a model that was trained on the others."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import HTML, Artifact, Input, Metrics, Output


@step
def leave_season_out(
    run: dict[str, Any],
    seasons: Input[Artifact],
    season_row: Output[Artifact],
    evaluation_report: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    """Train on all seasons but one, and score the model on that season and on the training seasons.

    Args:
        run: Settings from the first step, including the season left out.
        seasons: The datasets of all seasons.
        season_row: season_row.json and both evaluations.
        evaluation_report: The report on the season left out, as one HTML file.
        metrics: OA, mIoU and F1 on the season left out, and with the prefix seen_ on the training seasons.
    """
    from exact_core.stages.gather_seasons import open_fold
    from exact_core.stages.leave_season_out import STAGE, leave_season_out as run_stage
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        summary = run_stage(
            step.config,
            open_fold(step.files.read(seasons), step.run.part),
            dense=step.run.supervision == "dense",
            out=step.files.write(season_row),
            report=step.files.file(evaluation_report),
            tracker=step.tracker,
        )
    step.show(metrics, summary)
