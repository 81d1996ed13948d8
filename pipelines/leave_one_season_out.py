"""Several seasons, each left out once: what a model of the others is worth on a season that it has not seen."""

from exact_kubeflow.components.gather_seasons import gather_seasons
from exact_kubeflow.components.ingest import ingest
from exact_kubeflow.components.leave_season_out import leave_season_out
from exact_kubeflow.components.plan_seasons import plan_seasons
from exact_kubeflow.components.preflight import preflight
from exact_kubeflow.components.season_table import season_table
from exact_kubeflow.pipelines.steps import configure
from exact_kubeflow.pipelines.train_exact import SETTINGS, for_every_step, recorded
from kfp import dsl


@dsl.pipeline(
    name="leave-one-season-out", description="Train on all seasons but one, score on that one, for each in turn"
)
def leave_one_season_out(
    recipe: str = "season",
    source: str = "season:/data/season",
    seasons: list = [],  # noqa: B006 - KFP takes the default from the signature
    supervision: str = "tags",
    seed: int = 0,
    overrides: list = [],  # noqa: B006
    webhook: str = "",
):
    """Tell, of seasons with labels, what to expect of the next one.

    Args:
        recipe: demo, season, pastis24 or germany.
        source: season:PATH, the source of all seasons that name none of their own.
        seasons: Two or more, as ["2022", "2023"], ["2022-04-01/214", ...] or ["season:PATH", "season:PATH@2023"].
        supervision: What is learned from: tags or dense.
        seed: Seed of initialisation, order and augmentation.
        overrides: Settings changed in the recipe, each as key=value.
        webhook: http(s) URL that gets the run's final status as JSON; empty for none.
    """
    common = for_every_step(recipe, seed, overrides)
    with dsl.ExitHandler(recorded(webhook), name="leave-one-season-out"):
        plan = plan_seasons(source=source, seasons=seasons, supervision=supervision, **common)
        configure(plan, "plan_seasons", SETTINGS)
        with dsl.ParallelFor(plan.output, name="seasons") as each:
            named = {"source": each.source, "season": each.season}
            ready = configure(preflight(**named, **common), "preflight", SETTINGS)
            data = configure(ingest(**named, **common).after(ready), "ingest", SETTINGS)
        # The compiler takes no collected artifacts into another loop, but what a step has made of them.
        gathered = gather_seasons(datasets=dsl.Collected(data.outputs["dataset"]), **common)
        configure(gathered, "gather_seasons", SETTINGS)
        with dsl.ParallelFor(gathered.outputs["Output"], name="folds") as fold:
            scored = leave_season_out(seasons=gathered.outputs["seasons"], fold=fold, supervision=supervision, **common)
            configure(scored, "leave_season_out", SETTINGS)
        table = season_table(rows=dsl.Collected(scored.outputs["season_row"]), **common)
        configure(table, "season_table", SETTINGS)
