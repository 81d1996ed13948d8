"""A season, the newest by itself or one named, from its images and crop tags to a map, a segmenter and its report."""

from typing import Any

from exact_kubeflow.components.champion import champion
from exact_kubeflow.components.evaluate import evaluate
from exact_kubeflow.components.ingest import ingest
from exact_kubeflow.components.preflight import preflight
from exact_kubeflow.components.resolve_season import resolve_season
from exact_kubeflow.components.transfer_report import transfer_report
from exact_kubeflow.pipelines.steps import configure
from exact_kubeflow.pipelines.train_exact import SETTINGS, for_every_step, from_tags, in_parts, recorded
from kfp import dsl


def season_of(source: Any, rule: dict[str, Any], *, on_cluster: bool, common: dict[str, Any]) -> tuple[Any, Any]:
    """The steps that find the season and make sure of what it needs: named by the first one's output.

    A pipeline's two forms differ in one constant, the time of the schedule: a cluster fills in KFP's placeholder, but
    only where it is the whole input of a task; KFP's local runner knows no such placeholder and fails on it.

    Args:
        source: the images.
        rule: season, season_start and season_days as the pipeline takes them.
        on_cluster: with the placeholder; without it, `auto` means the latest season that has ended now.
        common: parameters that every step takes.
    """
    schedule_time = dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER if on_cluster else ""
    named = resolve_season(schedule_time=schedule_time, source=source, **rule, **common)
    configure(named, "resolve_season", SETTINGS)
    return named, configure(preflight(source=source, season=named.output, **common), "preflight", SETTINGS)


def by_champion(segmenter: Any, *, source: Any, season: Any, parts: Any, common: dict[str, Any]) -> None:
    """The steps from the segmenter in use to a map, once it was told whether it will hold on the season.

    Args:
        segmenter: the champion.
        source: the images to be mapped.
        season: its season.
        parts: how many the map is made in.
        common: parameters that every step takes.
    """
    held = transfer_report(segmenter=segmenter, source=source, season=season, **common)
    configure(held, "transfer_report", SETTINGS)
    in_parts(segmenter, held, source=source, season=season, parts=parts, common=common)


def make_new_season(*, on_cluster: bool) -> Any:
    """The pipeline in one of its two forms, as `season_of` has them."""

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
        training: str = "always",
        model: str = "",
        map_parts: int = 1,
        webhook: str = "",
    ):
        """Train a segmenter on one season, or map it with the one in use.

        Args:
            recipe: demo, season, pastis24 or germany.
            source: synthetic, pastis:PATH, germany:PATH or season:PATH.
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
        """
        common = for_every_step(recipe, seed, overrides)
        with dsl.ExitHandler(recorded(webhook), name="new-season"):
            rule = {"season": season, "season_start": season_start, "season_days": season_days}
            named, ready = season_of(source, rule, on_cluster=on_cluster, common=common)
            data = ingest(source=source, season=named.output, **common).after(ready)
            configure(data, "ingest", SETTINGS)
            dataset = data.outputs["dataset"]
            found = champion(dataset=dataset, training=training, model=model, **common)
            configure(found, "champion", SETTINGS)
            with dsl.If(found.outputs["Output"] == "train", name="train"):
                from_tags(
                    data,
                    source=source,
                    season=named.output,
                    minimum_quality=minimum_quality,
                    model=model,
                    map_parts=map_parts,
                    common=common,
                )
            with dsl.Else(name="reuse"):
                champions = found.outputs["segmenter"]
                scored = evaluate(dataset=dataset, segmenter=champions, **common)
                configure(scored, "evaluate", SETTINGS)
                by_champion(champions, source=source, season=named.output, parts=map_parts, common=common)

    return new_season


new_season = make_new_season(on_cluster=True)
