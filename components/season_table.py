"""What became of each season that was left out -> one table of all, mean and worst, and a report."""

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
    """Make the table of all seasons.

    Args:
        run: What the first step decided.
        rows: What became of each season.
        comparison: leave_one_season_out.json and the report.
        report: The report, one HTML file.
        metrics: OA, mIoU and F1: mean and worst over the seasons, and the mean on seasons seen.
    """
    from exact_core.stages.lifecycle import open_step
    from exact_core.stages.season_table import STAGE, season_table as run_stage

    with open_step(STAGE, run) as step:
        folders, page = [step.files.read(each) for each in rows], step.files.file(report)
        summary = run_stage(rows=folders, out=step.files.write(comparison), report=page, tracker=step.tracker)
    step.show(metrics, summary)
