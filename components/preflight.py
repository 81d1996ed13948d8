"""The first step of every pipeline. It checks all parameters and makes the settings of each later step."""

from typing import Any

from exact_kubeflow.components.step import step

from exact_core.stages.plan import Plan


@step
def preflight(
    recipe: str,
    source: str,
    seed: int,
    overrides: list[str],
    pipeline_run: str,
    resources: dict[str, Any],
    webhook: str,
    season: str = "",
    season_start: str = "01-01",
    season_days: int = 365,
    schedule_time: str = "",
    until: str = "",
    until_from: str = "",
    seasons: list[str] = [],  # noqa: B006 - KFP takes the default from the signature
    minimum_quality: float = 0.0,
    training: str = "always",
    supervision: str = "tags",
    model: str = "",
    publish: bool = False,
    map_name: str = "",
    map_parts: int = 1,
    most_parts: int = 1,
) -> Plan:
    """Check parameters, data and services, determine the season, and size the steps. List all errors at once.

    Args:
        recipe: Name of the recipe.
        source: Source of the data.
        seed: Seed of the run.
        overrides: Changed settings of the recipe, each as key=value.
        pipeline_run: ID of the pipeline run, for MLflow.
        resources: Resources that the steps may request.
        webhook: http(s) URL, checked here.
        season: Season, as auto, a year, or START/DAYS. If empty, that of the source.
        season_start: First day of each season for auto, MM-DD.
        season_days: Length of each season for auto, days.
        schedule_time: Time of the schedule's slot, RFC 3339. If empty, the present time.
        until: Last day of images, YYYY-MM-DD, or auto for the latest that is over. If empty, the season's last.
        until_from: First day of a season, MM-DD, until which auto maps it. If empty, the season's first.
        seasons: Seasons of a pipeline of several seasons.
        minimum_quality: Fail if the expected mIoU of the masks is below this. If 0, use the recipe's.
        training: One of always, if_no_champion and never.
        supervision: Labels to train on, tags or dense.
        model: Name of the registered model. If empty, exact-NAME of the dataset.
        publish: Whether to publish the map under a stable address. A map that is already published is not made again.
        map_name: Name of the region in that address. If empty, that of the source.
        map_parts: Number of parts of the map.
        most_parts: Largest number of parts that a run of this pipeline can hold.
    """
    given = dict(locals())
    from exact_core.stages.plan_run import Parameters, plan_run

    return plan_run(Parameters(**given))
