"""The first step of every pipeline: checks everything, decides everything, and says what each later step gets."""

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
    """Try what the run is going to need, find its season, size its steps; fail with everything that is wrong.

    Args:
        recipe: Name of the recipe.
        source: What is read.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
        resources: What the steps may ask of the cluster.
        webhook: http(s) URL; checked here.
        season: auto, a year, or START/DAYS; empty for the source's own.
        season_start: First day of every season, MM-DD; for auto.
        season_days: Length of a season, days; for auto.
        schedule_time: Time of the schedule's slot, RFC 3339; empty for now.
        seasons: Of a pipeline of several seasons.
        minimum_quality: Gate on the masks; 0: what the recipe says.
        training: always, if_no_champion or never.
        supervision: tags or dense.
        model: Name of the registered model; empty for exact-NAME after the dataset's name.
        publish: Whether the map gets a stable address, and is made only if it is not there already.
        map_name: Name of the region in that address; empty for the source's own.
        map_parts: Parts that the map is made in.
        most_parts: As many as a run of this pipeline can hold.
    """
    given = dict(locals())
    from exact_core.stages.plan_run import Parameters, plan_run

    return plan_run(Parameters(**given))
