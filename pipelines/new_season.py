"""A season, the newest by itself or one named, from its images and crop tags to a segmenter and its report."""

from typing import Any

from kfp import dsl

from components.evaluate.component import evaluate
from components.generate_masks.component import generate_masks
from components.ingest.component import ingest
from components.resolve_season.component import resolve_season
from components.train_classifier.component import train_classifier
from components.train_segmenter.component import train_segmenter
from pipelines.train_exact import TagsOutputs


def make_new_season(*, on_cluster: bool) -> Any:
    """The pipeline in one of its two forms.

    They differ in one constant, the time of the schedule: a cluster fills in KFP's placeholder, but only where it is
    the whole input of a task; KFP's local runner knows no such placeholder and fails on it.

    Args:
        on_cluster: with the placeholder; without it, `auto` means the latest season that has ended now.
    """
    schedule_time = dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER if on_cluster else ""

    @dsl.pipeline(name="new-season", description="The latest season from its crop tags: Exact (Zhu et al., CVPR 2025)")
    def new_season(
        recipe: str = "demo",
        source: str = "synthetic",
        season: str = "auto",
        season_start: str = "04-01",
        season_days: int = 214,
        seed: int = 0,
        overrides: list = [],  # noqa: B006 - KFP takes the default from the signature
        minimum_quality: float = 0.0,
    ) -> TagsOutputs:
        """Train a segmenter on one season.

        Args:
            recipe: demo, season or pastis24.
            source: synthetic, pastis:PATH or season:PATH.
            season: auto for the latest season that has ended at the schedule's time; or a year, or START/DAYS.
            season_start: First day of every season, MM-DD; for auto.
            season_days: Length of a season, days; for auto.
            seed: Seed of generation, initialisation, order and augmentation.
            overrides: Settings changed in the recipe, each as key=value.
            minimum_quality: Gate: masks whose expected mIoU is below this fail the run; 0: what the recipe says.
        """
        common = {
            "recipe": recipe,
            "seed": seed,
            "overrides": overrides,
            "pipeline_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        }
        named = resolve_season(
            season=season,
            schedule_time=schedule_time,
            season_start=season_start,
            season_days=season_days,
            source=source,
            **common,
        )
        data = ingest(source=source, season=named.output, **common)
        tags = train_classifier(dataset=data.outputs["dataset"], **common)
        made = generate_masks(
            dataset=data.outputs["dataset"],
            classifier=tags.outputs["classifier"],
            minimum_quality=minimum_quality,
            **common,
        )
        taught = train_segmenter(dataset=data.outputs["dataset"], masks=made.outputs["masks"], **common)
        scored = evaluate(
            dataset=data.outputs["dataset"],
            classifier=tags.outputs["classifier"],
            masks=made.outputs["masks"],
            segmenter=taught.outputs["segmenter"],
            **common,
        )
        for task in (named, data, tags, made, taught, scored):
            # The time of the schedule and what lies at a source are inputs that a cache does not see.
            task.set_caching_options(False)
        return TagsOutputs(
            dataset=data.outputs["dataset"],
            classifier=tags.outputs["classifier"],
            masks=made.outputs["masks"],
            segmenter=taught.outputs["segmenter"],
            evaluation=scored.outputs["evaluation"],
            report=scored.outputs["report"],
        )

    return new_season


new_season = make_new_season(on_cluster=True)
