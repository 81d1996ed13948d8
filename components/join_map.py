"""Join the parts of a map into one georeferenced crop map."""

from typing import Any, List  # noqa: UP035 - KFP knows no other name for a list of artifacts

from exact_kubeflow.components.step import step
from kfp.dsl import Artifact, Input, Metrics, Output


@step
def join_map(
    run: dict[str, Any],
    first: Input[Artifact],
    parts: Input[List[Artifact]],  # noqa: UP006
    crop_map: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    """Join the parts of a map. A source without images of an area has no map, and the output stays empty.

    Args:
        run: Settings from the first step.
        first: One part of the map.
        parts: All other parts.
        crop_map: class.tif and confidence.tif (COG), item.json (STAC), quicklook.png and map.json.
        metrics: Megapixels, seconds of all parts, share without a map, and visibility of window borders.
    """
    from exact_core.stages.join_map import STAGE, join_map as run_stage
    from exact_core.stages.lifecycle import open_step
    from exact_core.stages.publish_map import publish_map

    with open_step(STAGE, run) as step:
        found = [step.files.read(each) for each in (first, *parts) if step.files.holds(each)]
        out = step.files.write(crop_map, optional=True)
        summary = run_stage(parts=found, out=out, tracker=step.tracker)
        publish_map(step.run, out, step.tracker)
    step.show(metrics, summary)
