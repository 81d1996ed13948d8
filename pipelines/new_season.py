"""Map the latest season, or a named one, from its images and crop tags."""

from typing import Any

from exact_kubeflow.components.champion import champion
from exact_kubeflow.components.evaluate import evaluate
from exact_kubeflow.components.ingest import ingest
from exact_kubeflow.components.transfer_report import transfer_report
from exact_kubeflow.pipelines.steps import pipeline
from exact_kubeflow.pipelines.train_exact import IMAGE, Steps, from_tags, mapped, planned, recorded
from kfp import dsl

from exact_core.stages.run import NOTHING, REUSE, TRAIN

__all__ = ["SCHEDULE_TIME", "by_champion", "new_season"]

SCHEDULE_TIME = dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER
"""A cluster replaces this placeholder if it is the whole input of a task. KFP's local runner does not support it."""


def by_champion(steps: Steps, *, map_parts: Any) -> Any:
    """The steps to a transfer report and a map by the champion. Returns the champion."""
    segmenter = steps.add(champion(run=steps.run)).outputs["segmenter"]
    steps = steps.fetched()
    held = steps.add(transfer_report(run=steps.run, segmenter=segmenter))
    mapped(steps, segmenter, held, map_parts=map_parts)
    return segmenter


@pipeline(name="new-season", description="Map the latest season from its crop tags with Exact (Zhu et al., CVPR 2025)")
def new_season(
    recipe: str = "demo",
    source: str = "synthetic",
    season: str = "auto",
    season_start: str = "04-01",
    season_days: int = 214,
    until: str = "",
    until_from: str = "",
    seed: int = 0,
    overrides: list[str] = [],  # noqa: B006 - KFP takes the default from the signature
    minimum_quality: float = 0.0,
    training: str = "always",
    model: str = "",
    map_name: str = "",
    map_parts: int = 1,
    webhook: str = "",
    image: str = IMAGE,
    resources: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Train a segmenter on one season and map it, or map it with the champion, or end if its map is done.

    Args:
        recipe: One of demo, season, pastis24 and germany.
        source: Source of the data, in a form that exact ingest --help lists.
        season: Season, as a year, START/DAYS, or auto for the latest that ended by the schedule's time.
        season_start: First day of each season for auto, MM-DD.
        season_days: Length of each season for auto, days.
        until: Last day of images, YYYY-MM-DD, or auto for the latest that is over. If empty, the season's last.
        until_from: First day of a season, MM-DD, until which auto maps it. If empty, the season's first.
        seed: Seed of generation, initialisation, order and augmentation.
        overrides: Changed settings of the recipe, each as key=value.
        minimum_quality: Fail the run if the expected mIoU of its masks is below this. If 0, use the recipe's.
        training: Use always, or if_no_champion. With if_no_champion, an existing champion maps the season.
        model: Name of the registered model in MLflow. If empty, exact- and the region.
        map_name: Name of the region in the address of its maps. If empty, that of the source.
        map_parts: Number of parts of the map, each made by its own step in parallel.
        webhook: http(s) URL that receives the final status of the run as JSON. If empty, none.
        image: Image of every step.
        resources: Resources of the steps, as cpu, memory, data_memory, gpus, gpu_memory, node_selector and toleration.
    """
    with dsl.ExitHandler(recorded(webhook, image), name="new-season"):
        steps = planned(
            image,
            recipe=recipe,
            source=source,
            season=season,
            season_start=season_start,
            season_days=season_days,
            schedule_time=SCHEDULE_TIME,
            until=until,
            until_from=until_from,
            seed=seed,
            overrides=overrides,
            minimum_quality=minimum_quality,
            training=training,
            model=model,
            publish=True,
            map_name=map_name,
            map_parts=map_parts,
            most_parts=4,
            webhook=webhook,
            resources=resources,
        )
        todo = steps.plan.outputs["Output"]
        with dsl.If(todo == TRAIN, name="train"):
            from_tags(steps, steps.add(ingest(run=steps.run)).outputs["dataset"], map_parts=map_parts)
        with dsl.Elif(todo != NOTHING, name="map"):
            segmenter = by_champion(steps, map_parts=map_parts)
            with dsl.If(todo == REUSE, name="score"):
                dataset = steps.add(ingest(run=steps.run)).outputs["dataset"]
                steps.add(evaluate(run=steps.run, dataset=dataset, segmenter=segmenter))
