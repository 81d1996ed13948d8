"""Map a season of images without labels with the champion."""

from typing import Any

from exact_kubeflow.pipelines.new_season import SCHEDULE_TIME, by_champion
from exact_kubeflow.pipelines.steps import pipeline
from exact_kubeflow.pipelines.train_exact import IMAGE, planned, recorded
from kfp import dsl

from exact_core.stages.run import MAP, NEVER


@pipeline(name="map-area", description="Map a season with the champion, from images without labels")
def map_area(
    recipe: str = "season",
    source: str = "season:/data/season",
    season: str = "auto",
    season_start: str = "04-01",
    season_days: int = 214,
    until: str = "",
    until_from: str = "",
    seed: int = 0,
    overrides: list[str] = [],  # noqa: B006 - KFP takes the default from the signature
    model: str = "",
    map_name: str = "",
    map_parts: int = 1,
    webhook: str = "",
    image: str = IMAGE,
    resources: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Map one season of an area with the champion, and report whether the model holds there.

    Args:
        recipe: One of demo, season, pastis24 and germany.
        source: Images to map, as season:PATH.
        season: Season, as a year, START/DAYS, or auto for the latest that ended by the schedule's time.
        season_start: First day of each season for auto, MM-DD.
        season_days: Length of each season for auto, days.
        until: Last day of images, YYYY-MM-DD, or auto for the latest that is over. If empty, the season's last.
        until_from: First day of a season, MM-DD, until which auto maps it. If empty, the season's first.
        seed: Seed of the samples in the report.
        overrides: Changed settings of the recipe, each as key=value.
        model: Name of the registered model in MLflow. If empty, exact- and the region.
        map_name: Name of the region in the address of its maps. If empty, that of the source.
        map_parts: Number of parts of the map, each made by its own step in parallel.
        webhook: http(s) URL that receives the final status of the run as JSON. If empty, none.
        image: Image of every step.
        resources: Resources of the steps, as cpu, memory, data_memory, gpus, gpu_memory, node_selector and toleration.
    """
    with dsl.ExitHandler(recorded(webhook, image), name="map-area"):
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
            training=NEVER,
            model=model,
            publish=True,
            map_name=map_name,
            map_parts=map_parts,
            most_parts=8,
            webhook=webhook,
            resources=resources,
        )
        with dsl.If(steps.plan.outputs["Output"] == MAP, name="map"):
            by_champion(steps, map_parts=map_parts)
