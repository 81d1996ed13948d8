"""Train a segmenter from crop tags and map its season, or train it on dense labels for comparison."""

from typing import Any

from exact_kubeflow.components.evaluate import evaluate
from exact_kubeflow.components.fetch import fetch
from exact_kubeflow.components.generate_masks import generate_masks
from exact_kubeflow.components.images import image as image_of
from exact_kubeflow.components.ingest import ingest
from exact_kubeflow.components.join_map import join_map
from exact_kubeflow.components.map_season import map_season
from exact_kubeflow.components.preflight import preflight
from exact_kubeflow.components.record_status import record_status
from exact_kubeflow.components.train_classifier import train_classifier
from exact_kubeflow.components.train_segmenter import train_segmenter
from exact_kubeflow.pipelines.steps import SIDE_BY_SIDE, cluster_settings, configure, pipeline
from kfp import dsl

__all__ = ["IMAGE", "Steps", "from_tags", "mapped", "planned", "recorded", "train_dense", "train_exact"]

SETTINGS = cluster_settings()
IMAGE = image_of()
"""Default of the parameter `image`."""


class Steps:
    """Configures a pipeline's tasks, and passes the settings from its first step to them."""

    def __init__(self, plan: Any, image: Any, *, given: Any = None) -> None:
        """Take the outputs of the task `given` as settings. The default is the first step."""
        self.plan, self.image = plan, image
        self.given = plan if given is None else given

    @property
    def run(self) -> Any:
        """Settings of every step."""
        return self.given.outputs["run"]

    @property
    def parts(self) -> Any:
        """Settings of the steps of further parts of the map."""
        return self.given.outputs["parts"]

    def fetched(self) -> "Steps":
        """The steps after the run's images were copied to the object store. They read the copies."""
        return Steps(self.plan, self.image, given=self.add(fetch(run=self.run, parts=self.parts)))

    def add(self, task: Any) -> Any:
        """The task, with the resources and image that its stage needs on a cluster."""
        return configure(task, SETTINGS, image=self.image, plan=self.plan)


def recorded(webhook: Any, image: Any) -> Any:
    """The step that records the final status of a run, for a pipeline's exit handler."""
    end = record_status(pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, webhook=webhook)
    return configure(end, SETTINGS, image=image)


def planned(image: Any, **parameters: Any) -> Steps:
    """The first step, which checks all parameters and makes the settings of the others."""
    plan = preflight(pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **parameters)
    return Steps(configure(plan, SETTINGS, image=image), image)


def mapped(steps: Steps, segmenter: Any, *after: Any, map_parts: Any) -> Any:
    """The steps from a segmenter to a map. Each part has its own step in parallel, and one step joins them.

    Args:
        steps: Steps of the pipeline.
        segmenter: The segmenter.
        after: Tasks that must succeed first.
        map_parts: Number of parts of the map.

    Returns:
        The map. If it has several parts, the first part.
    """
    first = steps.add(map_season(run=steps.run, segmenter=segmenter).after(*after))
    # The condition is on the parameter, because KFP's local runner cannot resolve a task's output here and reads false.
    with dsl.If(map_parts > 1, name="parts"):
        with dsl.ParallelFor(steps.parts, name="map-parts", parallelism=SIDE_BY_SIDE) as run:
            further = steps.add(map_season(run=run, segmenter=segmenter))
        parts = dsl.Collected(further.outputs["crop_map"])
        steps.add(join_map(run=steps.run, first=first.outputs["crop_map"], parts=parts))
    return first.outputs["crop_map"]


def from_tags(steps: Steps, dataset: Any, *, map_parts: Any) -> None:
    """The steps from a dataset with tags to a map and a promoted segmenter."""
    tags = steps.add(train_classifier(run=steps.run, dataset=dataset))
    classifier = tags.outputs["classifier"]
    made = steps.add(generate_masks(run=steps.run, dataset=dataset, classifier=classifier))
    masks = made.outputs["masks"]
    taught = steps.add(train_segmenter(run=steps.run, dataset=dataset, masks=masks))
    segmenter = taught.outputs["segmenter"]
    before = {"classifier": classifier, "masks": masks, "crop_map": mapped(steps, segmenter, map_parts=map_parts)}
    steps.add(evaluate(run=steps.run, dataset=dataset, segmenter=segmenter, register=True, **before))


@pipeline(name="train-exact", description="Make a crop map from image-level tags with Exact (Zhu et al., CVPR 2025)")
def train_exact(
    recipe: str = "demo",
    source: str = "synthetic",
    season: str = "",
    seed: int = 0,
    overrides: list[str] = [],  # noqa: B006 - KFP takes the default from the signature
    minimum_quality: float = 0.0,
    model: str = "",
    map_parts: int = 1,
    webhook: str = "",
    image: str = IMAGE,
    resources: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Train a segmenter from crop tags, map its season, and promote it if it is better than the champion.

    Args:
        recipe: One of demo, season, pastis24 and germany.
        source: Source of the data, in a form that exact ingest --help lists.
        season: Season, as a year or START/DAYS. If empty, that of the source.
        seed: Seed of generation, initialisation, order and augmentation.
        overrides: Changed settings of the recipe, each as key=value.
        minimum_quality: Fail the run if the expected mIoU of its masks is below this. If 0, use the recipe's.
        model: Name of the registered model in MLflow. If empty, exact- and the region.
        map_parts: Number of parts of the map, each made by its own step in parallel.
        webhook: http(s) URL that receives the final status of the run as JSON. If empty, none.
        image: Image of every step.
        resources: Resources of the steps, as cpu, memory, data_memory, gpus, gpu_memory, node_selector and toleration.
    """
    with dsl.ExitHandler(recorded(webhook, image), name="train-exact"):
        steps = planned(
            image,
            recipe=recipe,
            source=source,
            season=season,
            seed=seed,
            overrides=overrides,
            minimum_quality=minimum_quality,
            model=model,
            map_parts=map_parts,
            most_parts=6,
            webhook=webhook,
            resources=resources,
        )
        data = steps.add(ingest(run=steps.run))
        from_tags(steps, data.outputs["dataset"], map_parts=map_parts)


@pipeline(name="train-dense", description="Train the same segmenter on dense labels, for comparison")
def train_dense(
    recipe: str = "demo",
    source: str = "synthetic",
    season: str = "",
    seed: int = 0,
    overrides: list[str] = [],  # noqa: B006 - KFP takes the default from the signature
    webhook: str = "",
    image: str = IMAGE,
    resources: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Train a segmenter from dense labels, as a reference for maps from tags. It is not registered.

    Args:
        recipe: One of demo, season, pastis24 and germany.
        source: Source of the data, in a form that exact ingest --help lists.
        season: Season, as a year or START/DAYS. If empty, that of the source.
        seed: Seed of generation, initialisation, order and augmentation.
        overrides: Changed settings of the recipe, each as key=value.
        webhook: http(s) URL that receives the final status of the run as JSON. If empty, none.
        image: Image of every step.
        resources: Resources of the steps, as cpu, memory, data_memory, gpus, gpu_memory, node_selector and toleration.
    """
    with dsl.ExitHandler(recorded(webhook, image), name="train-dense"):
        steps = planned(
            image,
            recipe=recipe,
            source=source,
            season=season,
            seed=seed,
            overrides=overrides,
            webhook=webhook,
            resources=resources,
        )
        dataset = steps.add(ingest(run=steps.run)).outputs["dataset"]
        taught = steps.add(train_segmenter(run=steps.run, dataset=dataset))
        steps.add(evaluate(run=steps.run, dataset=dataset, segmenter=taught.outputs["segmenter"]))
