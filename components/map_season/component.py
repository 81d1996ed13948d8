"""A season's images and a segmenter -> a georeferenced crop map."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Model, Output

from components.images import image


@dsl.component(base_image=image(), install_kfp_package=False)
def map_season(
    segmenter: Input[Model],
    crop_map: Output[Artifact],
    metrics: Output[Metrics],
    recipe: str,
    source: str,
    season: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
):
    """Map all of the season's area; sources without images of an area, synthetic and pastis, leave nothing to map.

    Args:
        segmenter: The segmenter.
        crop_map: class.tif, confidence.tif (COG), item.json (STAC), quicklook.png, map.json.
        metrics: Megapixels, seconds, share that could not be mapped, how much window borders show.
        recipe: Name of the recipe.
        source: synthetic, pastis:PATH or season:PATH.
        season: Year or START/DAYS of a season source; empty for the source's own.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
    """
    from exact_core.recipes import resolve
    from exact_core.stages.frame import open_stage
    from exact_core.stages.handover import handover
    from exact_core.stages.map_season import map_season as run_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("map_season", config, pipeline_run=pipeline_run) as tracker, handover(tracker) as files:
        folders = {"segmenter": files.read(segmenter), "out": files.write(crop_map, optional=True)}
        for name, value in run_stage(config, source=source, season=season, tracker=tracker, **folders).items():
            metrics.log_metric(name, value)
