"""Makes a KFP component of a function, with a short command that runs it in the image.

By default KFP puts a component's source and descriptions into every step of a compiled pipeline, and a cluster keeps
six copies of each step's command. Here the image has the source, and the command is
`python3 -m exact_kubeflow.components NAME INPUT`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exact_kubeflow.components.images import image
from kfp import dsl

__all__ = ["COMMAND", "step"]

COMMAND = ("python3", "-m", "exact_kubeflow.components")
EXECUTOR = "kfp.dsl.executor_main"
"""KFP's SubprocessRunner only runs commands that contain this name. Our command ignores it."""


def step(function: Callable[..., object]) -> Any:
    """A component of this function, which must be `exact_kubeflow.components.NAME.NAME`."""
    component = dsl.component(base_image=image(), install_kfp_package=False)(function)
    spec = component.component_spec
    for described in (*(spec.inputs or {}).values(), *(spec.outputs or {}).values()):
        described.description = None
    container = spec.implementation.container
    container.command = list(COMMAND)
    container.args = [function.__name__, "{{$}}", EXECUTOR]
    return component
