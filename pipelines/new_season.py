"""A season, the newest by itself or one named, from its images and crop tags to a map, a segmenter and its report."""

from typing import Any

from exact_kubeflow.components.champion import champion
from exact_kubeflow.components.evaluate import evaluate
from exact_kubeflow.components.ingest import ingest
from exact_kubeflow.components.transfer_report import transfer_report
from exact_kubeflow.pipelines.steps import pipeline
from exact_kubeflow.pipelines.train_exact import IMAGE, Steps, from_tags, mapped, planned, recorded
from kfp import dsl

__all__ = ["SCHEDULE_TIME", "by_champion", "new_season"]

SCHEDULE_TIME = dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER
"""A cluster fills it in, where it is the whole input of a task. KFP's local runner knows no such placeholder."""


def by_champion(steps: Steps, segmenter: Any, *, map_parts: Any) -> None:
    """The steps from the segmenter in use to a map, once it was told whether it will hold on the season."""
    held = steps.add(transfer_report(run=steps.run, segmenter=segmenter))
    mapped(steps, segmenter, held, map_parts=map_parts)


@pipeline(name="new-season", description="The latest season from its crop tags: Exact (Zhu et al., CVPR 2025)")
def new_season(
    recipe: str = "demo",
    source: str = "synthetic",
    season: str = "auto",
    season_start: str = "04-01",
    season_days: int = 214,
    seed: int = 0,
    overrides: list[str] = [],  # noqa: B006 - KFP takes the default from the signature
    minimum_quality: float = 0.0,
    training: str = "always",
    model: str = "",
    map_parts: int = 1,
    webhook: str = "",
    image: str = IMAGE,
    resources: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Train a segmenter on one season, or map it with the one in use.

    Args:
        recipe: demo, season, pastis24 or germany.
        source: A kind of source and where it is, as exact ingest --help lists them.
        season: auto for the latest season that has ended at the schedule's time; or a year, or START/DAYS.
        season_start: First day of every season, MM-DD; for auto.
        season_days: Length of a season, days; for auto.
        seed: Seed of generation, initialisation, order and augmentation.
        overrides: Settings changed in the recipe, each as key=value.
        minimum_quality: Gate: masks whose expected mIoU is below this fail the run; 0: what the recipe says.
        training: always; or if_no_champion, to map the season with the champion where there is one.
        model: Name of the registered model in MLflow; empty for exact-NAME after the dataset's name.
        map_parts: Parts that the map is made in, each by a step of its own, side by side.
        webhook: http(s) URL that gets the run's final status as JSON; empty for none.
        image: The image of every step.
        resources: What steps may ask for, as cpu, memory, data_memory, gpus, gpu_memory, node_selector, toleration.
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
            seed=seed,
            overrides=overrides,
            minimum_quality=minimum_quality,
            training=training,
            model=model,
            map_parts=map_parts,
            most_parts=4,
            webhook=webhook,
            resources=resources,
        )
        dataset = steps.add(ingest(run=steps.run)).outputs["dataset"]
        found = steps.add(champion(run=steps.run, dataset=dataset))
        with dsl.If(found.outputs["Output"] == "train", name="train"):
            from_tags(steps, dataset, map_parts=map_parts)
        with dsl.Else(name="reuse"):
            champions = found.outputs["segmenter"]
            steps.add(evaluate(run=steps.run, dataset=dataset, segmenter=champions))
            by_champion(steps, champions, map_parts=map_parts)
