"""The segmenter in use, from MLflow's registry, where a new season is to be mapped with it."""

from exact_kubeflow.components.images import image
from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output


@dsl.component(base_image=image(), install_kfp_package=False)
def champion(
    segmenter: Output[Model],
    training: str,
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
    dataset: Input[Dataset] = None,
    model: str = "",
) -> str:
    """Decide whether to train: always, only without a champion, or never; a champion that does not fit fails the run.

    Args:
        segmenter: The champion, where it is to be used.
        training: always, if_no_champion or never.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
        dataset: The window dataset; none where an area is only mapped.
        model: Name of the registered model; empty for exact-NAME after the dataset's name.

    Returns:
        train or reuse.
    """
    from exact_core.artifacts.stage_files import stage_files
    from exact_core.recipes import resolve
    from exact_core.stages.champion import champion as run_stage
    from exact_core.stages.lifecycle import open_stage

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("champion", config, pipeline_run=pipeline_run) as tracker, stage_files(tracker) as files:
        folders = {
            "dataset": None if dataset is None else files.read(dataset),
            "out": files.write(segmenter, optional=True),
        }
        return run_stage(training=training, model=model, tracker=tracker, **folders)
