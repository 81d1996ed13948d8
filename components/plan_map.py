"""How many parts a map is made in -> the parts."""

from typing import List  # noqa: UP035 - KFP knows no other name for a list of strings

from exact_kubeflow.components.images import DATA, image
from kfp import dsl


@dsl.component(base_image=image(DATA), install_kfp_package=False)
def plan_map(source: str, parts: int) -> List[str]:  # noqa: UP006
    """The parts of a map, for a step each.

    Args:
        source: synthetic, pastis:PATH, germany:PATH or season:PATH.
        parts: How many parts, each of which runs in a step of its own.
    """
    from exact_core.stages.plan_map import plan_map as run_stage

    return run_stage(source=source, parts=int(parts))
