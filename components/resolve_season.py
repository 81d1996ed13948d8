"""A season by name, or `auto` and the time of the schedule -> the season that the run maps."""

from exact_kubeflow.components.images import DATA, image
from kfp import dsl


@dsl.component(base_image=image(DATA), install_kfp_package=False)
def resolve_season(
    season: str,
    schedule_time: str,
    season_start: str,
    season_days: int,
    source: str,
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
) -> str:
    """Decide which season this run maps: the one named, or the latest that has ended at the schedule's time.

    Args:
        season: auto, a year, or START/DAYS.
        schedule_time: Time of the schedule's slot, RFC 3339; empty for now.
        season_start: First day of every season, MM-DD.
        season_days: Length of a season, days.
        source: synthetic, pastis:PATH, germany:PATH or season:PATH.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.

    Returns:
        Year or START/DAYS; empty where the source has its own season.
    """
    from exact_core.recipes import resolve
    from exact_core.stages.lifecycle import open_stage
    from exact_core.stages.resolve_season import resolve_season as run_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("resolve_season", config, pipeline_run=pipeline_run) as tracker:
        return run_stage(
            season,
            schedule_time=schedule_time,
            starts=season_start,
            days=int(season_days),
            source=source,
            tracker=tracker,
        )
