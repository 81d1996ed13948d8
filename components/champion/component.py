"""The segmenter in use, from MLflow's registry, where a new season is to be mapped with it."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import image


@dsl.component(base_image=image(), install_kfp_package=False)
def champion(
    dataset: Input[Dataset],
    segmenter: Output[Model],
    training: str,
    recipe: str,
    seed: int,
    overrides: list,
    pipeline_run: str,
    model: str = "",
) -> str:
    """Decide whether to train: always, or only without a champion; one that cannot map this dataset fails the run.

    Args:
        dataset: The window dataset.
        segmenter: The champion, where it is to be used.
        training: always or if_no_champion.
        recipe: Name of the recipe.
        seed: Seed of the run.
        overrides: Settings changed in the recipe, as key=value.
        pipeline_run: Identity of the pipeline run, for MLflow.
        model: Name of the registered model; empty for exact-NAME after the dataset's name.

    Returns:
        train or reuse.
    """
    from exact_core.recipes import resolve
    from exact_core.stages.champion import champion as run_stage
    from exact_core.stages.frame import open_stage
    from exact_core.stages.handover import handover

    config = resolve(recipe, seed=int(seed), overrides=overrides)
    with open_stage("champion", config, pipeline_run=pipeline_run) as tracker, handover(tracker) as files:
        folders = {"dataset": files.read(dataset), "out": files.write(segmenter, optional=True)}
        return run_stage(training=training, model=model, tracker=tracker, **folders)
