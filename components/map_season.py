"""A season's images and a segmenter -> a georeferenced crop map, or a part of it."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Artifact, Input, Metrics, Model, Output


@step
def map_season(
    run: dict[str, Any],
    segmenter: Input[Model],
    crop_map: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    """Map the season's area; sources without images of an area leave nothing to map.

    Args:
        run: What the first step decided; source, season and part apply.
        segmenter: The segmenter.
        crop_map: class.tif, confidence.tif (COG), item.json (STAC), quicklook.png, map.json; of a part, its rows.
        metrics: Megapixels, seconds; of a whole map, the share not mapped and how much window borders show.
    """
    from exact_core.stages.lifecycle import open_step
    from exact_core.stages.map_season import STAGE, map_season as run_stage
    from exact_core.stages.publish_map import publish_map

    with open_step(STAGE, run) as step:
        out = step.files.write(crop_map, optional=True)
        summary = run_stage(
            step.config,
            source=step.run.source,
            origin=step.run.origin,
            season=step.run.season,
            segmenter=step.files.read(segmenter),
            out=out,
            tracker=step.tracker,
            part=step.run.part,
        )
        publish_map(step.run, out, step.tracker)
    step.show(metrics, summary)
