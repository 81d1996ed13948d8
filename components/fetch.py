"""A source by address -> images in the store, which every later step of the run then reads."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp.dsl import Metrics, Output

from exact_core.stages.plan import Fetched


@step
def fetch(run: dict[str, Any], parts: list[dict[str, Any]], metrics: Output[Metrics]) -> Fetched:
    """Fetch images of a catalogue into the store; any other source is read where it is.

    Args:
        run: What the first step decided; source and season apply.
        parts: The run for each further part of the map.
        metrics: Numbers of images and files.
    """
    from exact_core.stages.fetch import STAGE, fetch_for_run
    from exact_core.stages.lifecycle import open_step

    with open_step(STAGE, run) as step:
        fetched, summary = fetch_for_run(step.config, step.run, parts, tracker=step.tracker)
    step.show(metrics, summary)
    return fetched
