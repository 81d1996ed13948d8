"""How a component becomes a step: KFP's interface of its function, and a short command that runs it in the image.

KFP would put a component's source into every step of a compiled pipeline, its descriptions too, and a cluster keeps six
copies of each step's command. The image has them: `python3 -m exact_kubeflow.components NAME INPUT` runs the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exact_kubeflow.components.images import image
from kfp import dsl

__all__ = ["COMMAND", "step"]

COMMAND = ("python3", "-m", "exact_kubeflow.components")
EXECUTOR = "kfp.dsl.executor_main"
"""KFP's SubprocessRunner runs only commands in which the name of this module stands; ours passes it over."""


def step(function: Callable[..., object]) -> Any:
    """A component of this function, which must stand in `exact_kubeflow.components.NAME` under that NAME."""
    component = dsl.component(base_image=image(), install_kfp_package=False)(function)
    spec = component.component_spec
    for described in (*(spec.inputs or {}).values(), *(spec.outputs or {}).values()):
        described.description = None
    container = spec.implementation.container
    container.command = list(COMMAND)
    container.args = [function.__name__, "{{$}}", EXECUTOR]
    return component
