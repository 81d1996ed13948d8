"""A season's images and a segmenter -> a part of a georeferenced crop map."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Model, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def map_season(
    segmenter: Input[Model],
    map_part: Output[Artifact],
    metrics: Output[Metrics],
    recipe: str,
    source: str,
    season: str,
    part: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
):
    """Map a part of the season's area; sources without images of an area leave nothing to map.

    Args:
        segmenter: The segmenter.
        map_part: Finished rows of the map, part.json.
        metrics: Megapixels, seconds.
        recipe: Name of the recipe.
        source: synthetic, pastis:PATH, germany:PATH or season:PATH.
        season: Year or START/DAYS of a season source; empty for the source's own.
        part: I/N, the I-th of N parts.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.map_season import map_season as run_stage

    config, stage = resolve(recipe, seed=int(seed), overrides=overrides), "map_season" + f" {part}" * (part != "1/1")
    with open_stage(stage, config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        folders = {"segmenter": files.read(segmenter), "out": files.write(map_part, optional=True)}
        values = run_stage(config, source=source, season=season, tracker=tracker, part=part, **folders)
        for name, value in values.items():
            metrics.log_metric(name, value)
