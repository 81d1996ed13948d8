"""A season of images, without any label, to a crop map by the segmenter in use."""

from typing import Any

from exact_kubeflow.pipelines.new_season import SCHEDULE_TIME, by_champion
from exact_kubeflow.pipelines.steps import pipeline
from exact_kubeflow.pipelines.train_exact import IMAGE, planned, recorded
from kfp import dsl

from exact_core.stages.run import MAP, NEVER


@pipeline(name="map-area", description="A crop map of a season by the champion: images alone, no label")
def map_area(
    recipe: str = "season",
    source: str = "season:/data/season",
    season: str = "auto",
    season_start: str = "04-01",
    season_days: int = 214,
    seed: int = 0,
    overrides: list[str] = [],  # noqa: B006 - KFP takes the default from the signature
    model: str = "",
    map_name: str = "",
    map_parts: int = 1,
    webhook: str = "",
    image: str = IMAGE,
    resources: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Map one season of an area with the segmenter in use, and say whether it will hold there.

    Args:
        recipe: demo, season, pastis24 or germany.
        source: season:PATH.
        season: auto for the latest season that has ended at the schedule's time; or a year, or START/DAYS.
        season_start: First day of every season, MM-DD; for auto.
        season_days: Length of a season, days; for auto.
        seed: Seed of what is sampled for the report.
        overrides: Settings changed in the recipe, each as key=value.
        model: Name of the registered model in MLflow; empty for exact-season.
        map_name: Name of the region in the address of its maps; empty for what the source says of the place.
        map_parts: Parts that the map is made in, each by a step of its own, side by side.
        webhook: http(s) URL that gets the run's final status as JSON; empty for none.
        image: The image of every step.
        resources: What steps may ask for, as cpu, memory, data_memory, gpus, gpu_memory, node_selector, toleration.
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
            seed=seed,
            overrides=overrides,
            training=NEVER,
            model=model,
            publish=True,
            map_name=map_name,
            map_parts=map_parts,
            most_parts=9,
            webhook=webhook,
            resources=resources,
        )
        with dsl.If(steps.plan.outputs["Output"] == MAP, name="map"):
            by_champion(steps, map_parts=map_parts)
