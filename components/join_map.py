"""The parts of a map -> a georeferenced crop map."""

from typing import List  # noqa: UP035 - KFP knows no other name for a list of artifacts

from exact_kubeflow.components.images import DATA, image
from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Output


@dsl.component(base_image=image(DATA), install_kfp_package=False)
def join_map(
    parts: Input[List[Artifact]],  # noqa: UP006
    crop_map: Output[Artifact],
    metrics: Output[Metrics],
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
):
    """Make the files of the map; of sources without images of an area there is nothing to join.

    Args:
        parts: All parts of the map.
        crop_map: class.tif, confidence.tif (COG), item.json (STAC), quicklook.png, map.json.
        metrics: Megapixels, seconds of all parts, share that could not be mapped, how much window borders show.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.join_map import join_map as run_stage
    from exact_core.stages.lifecycle import open_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("join_map", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        found = [files.read(each) for each in parts if files.holds(each)]
        for name, value in run_stage(parts=found, out=files.write(crop_map, optional=True), tracker=tracker).items():
            metrics.log_metric(name, value)
