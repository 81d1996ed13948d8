"""From a source with crop tags to a segmenter, its report and its place; and from dense labels, to compare."""

from typing import Any

from exact_kubeflow.components.evaluate import evaluate
from exact_kubeflow.components.generate_masks import generate_masks
from exact_kubeflow.components.ingest import ingest
from exact_kubeflow.components.join_map import join_map
from exact_kubeflow.components.map_season import map_season
from exact_kubeflow.components.plan_map import plan_map
from exact_kubeflow.components.preflight import preflight
from exact_kubeflow.components.promote import promote
from exact_kubeflow.components.record_status import record_status
from exact_kubeflow.components.train_classifier import train_classifier
from exact_kubeflow.components.train_segmenter import train_segmenter
from exact_kubeflow.pipelines.steps import cluster_settings, configure
from kfp import dsl

__all__ = ["for_every_step", "from_tags", "in_parts", "recorded", "train_dense", "train_exact"]

SETTINGS = cluster_settings()


def for_every_step(recipe: Any, seed: Any, overrides: Any) -> dict[str, Any]:
    """Parameters that every step of a pipeline takes."""
    return {"recipe": recipe, "seed": seed, "overrides": overrides, "pipeline_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}


def recorded(webhook: Any) -> Any:
    """The step that records how a run ended; it is for a pipeline's exit handler."""
    end = record_status(pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, webhook=webhook)
    return configure(end, "record_status", SETTINGS)


def in_parts(segmenter: Any, *after: Any, source: Any, season: Any, parts: Any, common: dict[str, Any]) -> None:
    """The steps from a segmenter to a map: a step a part, side by side, and one that joins them.

    Args:
        segmenter: what maps.
        after: tasks that must have succeeded before there is anything to plan.
        source: the images to be mapped.
        season: its season.
        parts: how many.
        common: parameters that every step takes.
    """
    plan = configure(plan_map(source=source, parts=parts).after(*after), "plan_map", SETTINGS)
    with dsl.ParallelFor(plan.output, name="map-parts") as part:
        drawn = map_season(segmenter=segmenter, source=source, season=season, part=part, **common)
        configure(drawn, "map_season", SETTINGS)
    joined = join_map(parts=dsl.Collected(drawn.outputs["map_part"]), **common)
    configure(joined, "join_map", SETTINGS)


def from_tags(
    data: Any,
    *,
    source: Any,
    season: Any,
    minimum_quality: Any,
    model: Any,
    map_parts: Any,
    common: dict[str, Any],
) -> None:
    """The steps from a dataset with tags to a map and a promoted segmenter.

    Args:
        data: task of the ingestion.
        source: what was ingested.
        season: its season.
        minimum_quality: gate on the masks.
        model: name of the registered model.
        map_parts: parts that the map is made in.
        common: parameters that every step takes.
    """
    dataset = data.outputs["dataset"]
    tags = train_classifier(dataset=dataset, **common)
    classifier = tags.outputs["classifier"]
    made = generate_masks(dataset=dataset, classifier=classifier, minimum_quality=minimum_quality, **common)
    masks = made.outputs["masks"]
    taught = train_segmenter(dataset=dataset, masks=masks, **common)
    segmenter = taught.outputs["segmenter"]
    scored = evaluate(dataset=dataset, classifier=classifier, masks=masks, segmenter=segmenter, **common)
    placed = promote(dataset=dataset, segmenter=segmenter, model=model, **common).after(scored)
    in_parts(segmenter, taught, source=source, season=season, parts=map_parts, common=common)
    for name, task in {
        "train_classifier": tags,
        "generate_masks": made,
        "train_segmenter": taught,
        "evaluate": scored,
        "promote": placed,
    }.items():
        configure(task, name, SETTINGS)


@dsl.pipeline(name="train-exact", description="Crop map from image-level tags: Exact (Zhu et al., CVPR 2025)")
def train_exact(
    recipe: str = "demo",
    source: str = "synthetic",
    season: str = "",
    seed: int = 0,
    overrides: list = [],  # noqa: B006 - KFP takes the default from the signature
    minimum_quality: float = 0.0,
    model: str = "",
    map_parts: int = 1,
    webhook: str = "",
):
    """Train a segmenter from crop tags, map the season with it, and promote it if it is better than the one in use.

    Args:
        recipe: demo, season, pastis24 or germany.
        source: synthetic, pastis:PATH, germany:PATH or season:PATH.
        season: Year or START/DAYS of a season source; empty for the source's own.
        seed: Seed of generation, initialisation, order and augmentation.
        overrides: Settings changed in the recipe, each as key=value.
        minimum_quality: Gate: masks whose expected mIoU is below this fail the run; 0: what the recipe says.
        model: Name of the registered model in MLflow; empty for exact-NAME after the dataset's name.
        map_parts: Parts that the map is made in, each by a step of its own, side by side.
        webhook: http(s) URL that gets the run's final status as JSON; empty for none.
    """
    common = for_every_step(recipe, seed, overrides)
    with dsl.ExitHandler(recorded(webhook), name="train-exact"):
        ready = configure(preflight(source=source, season=season, **common), "preflight", SETTINGS)
        data = configure(ingest(source=source, season=season, **common).after(ready), "ingest", SETTINGS)
        from_tags(
            data,
            source=source,
            season=season,
            minimum_quality=minimum_quality,
            model=model,
            map_parts=map_parts,
            common=common,
        )


@dsl.pipeline(name="train-dense", description="The same segmenter trained on dense labels, for comparison")
def train_dense(
    recipe: str = "demo",
    source: str = "synthetic",
    season: str = "",
    seed: int = 0,
    overrides: list = [],  # noqa: B006 - KFP takes the default from the signature
    webhook: str = "",
):
    """Train a segmenter from dense labels. It is not registered: it is what a map from tags is measured against.

    Args:
        recipe: demo, season, pastis24 or germany.
        source: synthetic, pastis:PATH, germany:PATH or season:PATH.
        season: Year or START/DAYS of a season source; empty for the source's own.
        seed: Seed of generation, initialisation, order and augmentation.
        overrides: Settings changed in the recipe, each as key=value.
        webhook: http(s) URL that gets the run's final status as JSON; empty for none.
    """
    common = for_every_step(recipe, seed, overrides)
    with dsl.ExitHandler(recorded(webhook), name="train-dense"):
        ready = configure(preflight(source=source, season=season, **common), "preflight", SETTINGS)
        data = configure(ingest(source=source, season=season, **common).after(ready), "ingest", SETTINGS)
        dataset = data.outputs["dataset"]
        taught = configure(train_segmenter(dataset=dataset, **common), "train_segmenter", SETTINGS)
        scored = evaluate(dataset=dataset, segmenter=taught.outputs["segmenter"], **common)
        configure(scored, "evaluate", SETTINGS)
