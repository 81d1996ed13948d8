"""A season of images, without any label, to a crop map by the segmenter in use."""

from typing import Any

from exact_kubeflow.components.champion import champion
from exact_kubeflow.pipelines.new_season import by_champion, season_of
from exact_kubeflow.pipelines.steps import configure
from exact_kubeflow.pipelines.train_exact import SETTINGS, for_every_step, recorded
from kfp import dsl


def make_map_area(*, on_cluster: bool) -> Any:
    """The pipeline in one of its two forms, as `season_of` has them."""

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
            recipe: demo, season, pastis24 or germany.
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
        common = for_every_step(recipe, seed, overrides)
        with dsl.ExitHandler(recorded(webhook), name="map-area"):
            rule = {"season": season, "season_start": season_start, "season_days": season_days}
            named, ready = season_of(source, rule, on_cluster=on_cluster, common=common)
            found = champion(training="never", model=model, **common).after(ready)
            configure(found, "champion", SETTINGS)
            # In a group of its own: KFP's local runner takes whatever another task gives a loop directly for the item.
            with dsl.If(found.outputs["Output"] == "reuse", name="reuse"):
                champions = found.outputs["segmenter"]
                by_champion(champions, source=source, season=named.output, parts=map_parts, common=common)

    return map_area


map_area = make_map_area(on_cluster=True)
