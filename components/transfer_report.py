"""A season's images and a segmenter -> whether its map of that season can be published."""

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
    """Hold a season against the one that a segmenter was trained on; fails where `transfer.refuse` says so.

    Args:
        run: What the first step decided; source and season apply.
        segmenter: The segmenter, with the sample of its season.
        transfer: transfer.json and the report.
        report: The report, one HTML file.
        metrics: The verdict (0 fine, 1 look, 2 do not publish) and the figure of each finding.
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
