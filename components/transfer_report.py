"""Predict whether a segmenter holds on a new season, before that season is mapped."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import HTML, Artifact, Input, Metrics, Model, Output


@step
def transfer_report(
    run: dict[str, Any],
    segmenter: Input[Model],
    transfer: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    """Compare a season with the segmenter's training season. `transfer.refuse` can make the step fail.

    Args:
        run: Settings from the first step, including source and season.
        segmenter: The segmenter, with the sample of its season.
        transfer: transfer.json and the report.
        report: The report as one HTML file.
        metrics: The verdict (0 fine, 1 look, 2 do not publish) and the value of each finding.
    """
    from exact_core.stages.lifecycle import open_step
    from exact_core.stages.transfer_report import STAGE, transfer_report as run_stage

    with open_step(STAGE, run) as step:
        summary = run_stage(
            step.config,
            source=step.run.source,
            season=step.run.season,
            segmenter=step.files.read(segmenter),
            out=step.files.write(transfer, optional=True),
            report=step.files.file(report),
            tracker=step.tracker,
        )
    step.show(metrics, summary)
