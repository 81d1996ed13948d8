"""A season's images and a segmenter -> whether its map of that season can be published."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Model, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def transfer_report(
    segmenter: Input[Model],
    transfer: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    recipe: str,
    source: str,
    season: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
):
    """Hold a season against the one that a segmenter was trained on; fails where `transfer.refuse` says so.

    Args:
        segmenter: The segmenter, with the sample of its season.
        transfer: transfer.json and the report.
        report: The report, one HTML file.
        metrics: The verdict (0 fine, 1 look, 2 do not publish) and the figure of each finding.
        recipe: Name of the recipe.
        source: synthetic, pastis:PATH, germany:PATH or season:PATH.
        season: Year or START/DAYS of a season source; empty for the source's own.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.transfer_report import transfer_report as run_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("transfer_report", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        folders = {"segmenter": files.read(segmenter), "out": files.write(transfer, optional=True)}
        page = files.file(report)
        for name, value in run_stage(
            config, source=source, season=season, report=page, tracker=tracker, **folders
        ).items():
            metrics.log_metric(name, value)
