"""From a source with crop tags to a segmenter and its report; and the same under dense supervision, to compare."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Model

from components.evaluate.component import evaluate
from components.generate_masks.component import generate_masks
from components.ingest.component import ingest
from components.train_classifier.component import train_classifier
from components.train_segmenter.component import train_segmenter


class TagsOutputs(NamedTuple):
    """What a run from tags delivers."""

    dataset: Dataset
    classifier: Model
    masks: Artifact
    segmenter: Model
    evaluation: Artifact
    report: HTML


class DenseOutputs(NamedTuple):
    """What a run under dense supervision delivers."""

    dataset: Dataset
    segmenter: Model
    evaluation: Artifact
    report: HTML


@dsl.pipeline(name="train-exact", description="Crop map from image-level tags: Exact (Zhu et al., CVPR 2025)")
def train_exact(
    recipe: str = "demo",
    source: str = "synthetic",
    season: str = "",
    seed: int = 0,
    overrides: list = [],  # noqa: B006 - KFP takes the default from the signature
    minimum_quality: float = 0.0,
) -> TagsOutputs:
    """Train a segmenter from crop tags.

    Args:
        recipe: demo, season or pastis24.
        source: synthetic, pastis:PATH or season:PATH.
        season: Year or START/DAYS of a season source; empty for the source's own.
        seed: Seed of generation, initialisation, order and augmentation.
        overrides: Settings changed in the recipe, each as key=value.
        minimum_quality: Gate: masks whose expected mIoU is below this fail the run; 0: what the recipe says.
    """
    common = {"recipe": recipe, "seed": seed, "overrides": overrides, "pipeline_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    data = ingest(source=source, season=season, **common)
    tags = train_classifier(dataset=data.outputs["dataset"], **common)
    made = generate_masks(
        dataset=data.outputs["dataset"],
        classifier=tags.outputs["classifier"],
        minimum_quality=minimum_quality,
        **common,
    )
    taught = train_segmenter(dataset=data.outputs["dataset"], masks=made.outputs["masks"], **common)
    scored = evaluate(
        dataset=data.outputs["dataset"],
        classifier=tags.outputs["classifier"],
        masks=made.outputs["masks"],
        segmenter=taught.outputs["segmenter"],
        **common,
    )
    for task in (data, tags, made, taught, scored):
        # A source is named by its path, not by its content: what lies there may have changed.
        task.set_caching_options(False)
    return TagsOutputs(
        dataset=data.outputs["dataset"],
        classifier=tags.outputs["classifier"],
        masks=made.outputs["masks"],
        segmenter=taught.outputs["segmenter"],
        evaluation=scored.outputs["evaluation"],
        report=scored.outputs["report"],
    )


@dsl.pipeline(name="train-dense", description="The same segmenter trained on dense labels, for comparison")
def train_dense(
    recipe: str = "demo",
    source: str = "synthetic",
    season: str = "",
    seed: int = 0,
    overrides: list = [],  # noqa: B006 - KFP takes the default from the signature
) -> DenseOutputs:
    """Train a segmenter from dense labels.

    Args:
        recipe: demo, season or pastis24.
        source: synthetic, pastis:PATH or season:PATH.
        season: Year or START/DAYS of a season source; empty for the source's own.
        seed: Seed of generation, initialisation, order and augmentation.
        overrides: Settings changed in the recipe, each as key=value.
    """
    common = {"recipe": recipe, "seed": seed, "overrides": overrides, "pipeline_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    data = ingest(source=source, season=season, **common)
    taught = train_segmenter(dataset=data.outputs["dataset"], **common)
    scored = evaluate(dataset=data.outputs["dataset"], segmenter=taught.outputs["segmenter"], **common)
    for task in (data, taught, scored):
        task.set_caching_options(False)
    return DenseOutputs(
        dataset=data.outputs["dataset"],
        segmenter=taught.outputs["segmenter"],
        evaluation=scored.outputs["evaluation"],
        report=scored.outputs["report"],
    )
