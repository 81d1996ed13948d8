"""Copy the images of a catalogue to the object store, where all later steps read them."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Metrics, Output

from exact_core.stages.plan import Fetched


@step
def fetch(run: dict[str, Any], parts: list[dict[str, Any]], metrics: Output[Metrics]) -> Fetched:
    """Copy the images of a catalogue to the object store. Other sources stay where they are.

    Args:
        run: Settings from the first step, including source and season.
        parts: The same settings for each further part of the map.
        metrics: Numbers of images and files.
    """
    from exact_core.stages.fetch import STAGE, fetch_for_run
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        fetched, summary = fetch_for_run(step.config, step.run, parts, tracker=step.tracker)
    step.show(metrics, summary)
    return fetched
