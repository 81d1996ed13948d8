"""Map a season's images with a segmenter, as a whole or in parts."""

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
    """Map the season's area. A source without images of an area has no map, and the output stays empty.

    Args:
        run: Settings from the first step, including source, season and part.
        segmenter: The segmenter.
        crop_map: class.tif and confidence.tif (COG), item.json (STAC), quicklook.png and map.json. A part has its rows.
        metrics: Megapixels and seconds. A whole map adds the share without a map and the visibility of window borders.
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
