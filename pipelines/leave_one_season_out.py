"""Leave out each of several seasons once, to predict the accuracy on a new season."""

from typing import Any

from exact_kubeflow.components.gather_seasons import gather_seasons
from exact_kubeflow.components.ingest import ingest
from exact_kubeflow.components.leave_season_out import leave_season_out
from exact_kubeflow.components.season_table import season_table
from exact_kubeflow.pipelines.steps import SIDE_BY_SIDE, pipeline
from exact_kubeflow.pipelines.train_exact import IMAGE, planned, recorded
from kfp import dsl

from exact_core.stages.run import TRAIN


@pipeline(
    name="leave-one-season-out",
    description="Train on all seasons but one and evaluate on that one, for each season in turn",
)
def leave_one_season_out(
    recipe: str = "season",
    source: str = "season:/data/season",
    seasons: list[str] = [],  # noqa: B006 - KFP takes the default from the signature
    supervision: str = "tags",
    seed: int = 0,
    overrides: list[str] = [],  # noqa: B006
    webhook: str = "",
    image: str = IMAGE,
    resources: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Evaluate on each labelled season a model of the others, to predict quality on the next season.

    Args:
        recipe: One of demo, season, pastis24 and germany.
        source: Source as season:PATH, for all seasons that do not name their own.
        seasons: Two or more seasons, as ["2022", "2023-04-01/214"] or ["season:PATH", "season:PATH@2023"].
        supervision: Labels to train on, tags or dense.
        seed: Seed of initialisation, order and augmentation.
        overrides: Changed settings of the recipe, each as key=value.
        webhook: http(s) URL that receives the final status of the run as JSON. If empty, none.
        image: Image of every step.
        resources: Resources of the steps, as cpu, memory, data_memory, gpus, gpu_memory, node_selector and toleration.
    """
    with dsl.ExitHandler(recorded(webhook, image), name="leave-one-season-out"):
        steps = planned(
            image,
            recipe=recipe,
            source=source,
            seasons=seasons,
            supervision=supervision,
            seed=seed,
            overrides=overrides,
            webhook=webhook,
            resources=resources,
        )
        # The condition is always true. KFP's local runner resolves the items of a loop only within a group.
        with dsl.If(steps.plan.outputs["Output"] == TRAIN, name="train"):
            with dsl.ParallelFor(steps.plan.outputs["seasons"], name="seasons", parallelism=SIDE_BY_SIDE) as run:
                data = steps.add(ingest(run=run))
            # The compiler does not pass collected artifacts into another loop, only the output of a step.
            gathered = steps.add(gather_seasons(run=steps.run, datasets=dsl.Collected(data.outputs["dataset"])))
            with dsl.ParallelFor(gathered.outputs["Output"], name="folds", parallelism=SIDE_BY_SIDE) as run:
                scored = steps.add(leave_season_out(run=run, seasons=gathered.outputs["seasons"]))
            steps.add(season_table(run=steps.run, rows=dsl.Collected(scored.outputs["season_row"])))
