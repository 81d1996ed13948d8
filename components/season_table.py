"""Combine the scores of all seasons left out in one table and a report."""

from typing import Any, List  # noqa: UP035 - KFP knows no other name for a list of artifacts

from exact_kubeflow.components.step import step
from kfp.dsl import HTML, Artifact, Input, Metrics, Output


@step
def season_table(
    run: dict[str, Any],
    rows: Input[List[Artifact]],  # noqa: UP006
    comparison: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    """Write a table of all seasons with mean and worst, and a report.

    Args:
        run: Settings from the first step.
        rows: The scores of each season.
        comparison: leave_one_season_out.json and the report.
        report: The report as one HTML file.
        metrics: Mean and worst OA, mIoU and F1 over the seasons left out, and the mean on training seasons.
    """
    from exact_core.stages.lifecycle import open_step
    from exact_core.stages.season_table import STAGE, season_table as run_stage

    with open_step(STAGE, run) as step:
        folders, page = [step.files.read(each) for each in rows], step.files.file(report)
        summary = run_stage(rows=folders, out=step.files.write(comparison), report=page, tracker=step.tracker)
    step.show(metrics, summary)
