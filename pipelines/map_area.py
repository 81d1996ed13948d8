"""A season of images, without any label, to a crop map by the segmenter in use."""

from typing import Any

from kfp import dsl

from components.champion.component import champion
from components.preflight.component import preflight
from components.record_status.component import record_status
from components.resolve_season.component import resolve_season
from components.transfer_report.component import transfer_report
from pipelines.steps import configure
from pipelines.train_exact import SETTINGS, in_parts


def make_map_area(*, on_cluster: bool) -> Any:
    """The pipeline in one of its two forms, which differ as those of `new_season` do.

    Args:
        on_cluster: with the placeholder for the schedule's time; without it, `auto` means the latest season that has
            ended now.
    """
    schedule_time = dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER if on_cluster else ""

    @dsl.pipeline(name="map-area", description="A crop map of a season by the champion: images alone, no label")
    def map_area(
        recipe: str = "season",
        source: str = "season:/data/season",
        season: str = "auto",
        season_start: str = "04-01",
        season_days: int = 214,
        seed: int = 0,
        overrides: list = [],  # noqa: B006 - KFP takes the default from the signature
        model: str = "",
        map_parts: int = 1,
        webhook: str = "",
    ):
        """Map one season of an area with the segmenter in use, and say whether it will hold there.

        Args:
            recipe: demo, season or pastis24.
            source: season:PATH.
            season: auto for the latest season that has ended at the schedule's time; or a year, or START/DAYS.
            season_start: First day of every season, MM-DD; for auto.
            season_days: Length of a season, days; for auto.
            seed: Seed of what is sampled for the report.
            overrides: Settings changed in the recipe, each as key=value.
            model: Name of the registered model in MLflow; empty for exact-season.
            map_parts: Parts that the map is made in, each by a step of its own, side by side.
            webhook: http(s) URL that gets the run's final status as JSON; empty for none.
        """
        common = {
            "recipe": recipe,
            "seed": seed,
            "overrides": overrides,
            "pipeline_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        }
        end = record_status(pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, webhook=webhook)
        configure(end, "record_status", SETTINGS)
        with dsl.ExitHandler(end, name="map-area"):
            named = resolve_season(
                season=season,
                schedule_time=schedule_time,
                season_start=season_start,
                season_days=season_days,
                source=source,
                **common,
            )
            configure(named, "resolve_season", SETTINGS)
            ready = configure(preflight(source=source, season=named.output, **common), "preflight", SETTINGS)
            found = champion(training="never", model=model, **common).after(ready)
            configure(found, "champion", SETTINGS)
            # In a group of its own: KFP's local runner takes whatever another task gives a loop directly for the item.
            with dsl.If(found.outputs["Output"] == "reuse", name="reuse"):
                champions = found.outputs["segmenter"]
                held = transfer_report(segmenter=champions, source=source, season=named.output, **common)
                configure(held, "transfer_report", SETTINGS)
                in_parts(champions, held, source=source, season=named.output, parts=map_parts, common=common)

    return map_area


map_area = make_map_area(on_cluster=True)
