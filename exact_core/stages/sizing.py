"""How much of a cluster the steps of a run ask for: from the recipe's own estimate, and what the user says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from exact_core.config import Settings, describe
from exact_core.errors import ConfigError

__all__ = ["Resources", "Sizes", "read_resources", "sized"]

BASE = 2.0e9
"""Bytes of a step that trains, beside what training takes: Python, torch, kfp, MLflow and logging a model."""
MARGIN = 1.5
"""Factor on the estimate of the training: its peak was up to a third above it. With BASE, the rule was 1.2 to 2.1 times
the largest peak of six runs (docs/how-to/cluster.md)."""
ON_GPU = 16e9
"""Bytes of main memory of a step that computes on a GPU: CUDA's libraries, windows on their way, masks."""
BYTES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
QUANTITY = r"^\d+(\.\d+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"


class Resources(Settings):
    """The pipeline parameter `resources`; {} starts on any node with some GB free."""

    cpu: str = Field(
        "4", pattern=r"^(\d+m|\d*\.?\d+)$", description="limit of a step that trains, cores; the request is half a core"
    )
    memory: str = Field("", pattern=rf"{QUANTITY}|^$", description="of a step that trains; empty: by the recipe")
    data_memory: str = Field("2G", pattern=QUANTITY, description="of a step that reads, joins or gathers data")
    gpus: int = Field(0, ge=0, description="GPUs of a step that trains or maps")
    gpu_memory: str = Field("", pattern=rf"{QUANTITY}|^$", description="of one GPU; if set, checked against the recipe")
    node_selector: dict[str, str] = Field({}, description="labels of the nodes for steps that train or map")
    toleration: dict[str, str] = Field({}, description="taint of those nodes, as Kubernetes writes a toleration")


class Sizes(NamedTuple):
    """What the steps of a run ask for, in the words of Kubernetes."""

    cpu: str
    memory: str
    data_memory: str
    gpus: str
    """Empty: none."""
    node_selector: dict[str, str]
    toleration: dict[str, str]


def read_resources(given: Mapping[str, Any]) -> Resources:
    """The parameter `resources`.

    Raises:
        ConfigError: an unknown key, or a value that Kubernetes would not take.
    """
    # A number of cores or GPUs comes from a form as a number.
    words = {
        key: f"{value:g}" if key == "cpu" and isinstance(value, int | float) else value for key, value in given.items()
    }
    try:
        return Resources.model_validate(words)
    except ValidationError as error:
        keys = ", ".join(Resources.model_fields)
        raise ConfigError(f"{describe(error, where='resources', model=Resources)} (keys: {keys})") from error


def sized(resources: Resources, *, training: int) -> Sizes:
    """What each step gets.

    Args:
        resources: as the user set them.
        training: estimated bytes of the larger training, on the device that it uses.

    Raises:
        ConfigError: the training does not fit into them.
    """
    smaller = "lower classifier.training.batch and segmenter.training.batch, or set classifier.encoder.checkpointing"
    if resources.gpus and resources.gpu_memory and training > in_bytes(resources.gpu_memory):
        raise ConfigError(
            f"resources: gpu_memory = {resources.gpu_memory}, and training takes about {training / 1e9:.1f} GB; "
            f"{smaller}, or name a larger GPU"
        )
    needed = ON_GPU if resources.gpus else BASE + MARGIN * training
    # What the training itself takes is sure; the rest of what a step gets is a margin that a user may choose otherwise.
    if resources.memory and not resources.gpus and training > in_bytes(resources.memory):
        raise ConfigError(
            f"resources: memory = {resources.memory}, and training takes about {training / 1e9:.1f} GB; "
            f"{smaller}, or give more (the default for this run is {_whole(needed)})"
        )
    return Sizes(
        cpu=resources.cpu,
        memory=resources.memory or _whole(needed),
        data_memory=resources.data_memory,
        gpus=str(resources.gpus or ""),
        node_selector=dict(resources.node_selector),
        toleration=dict(resources.toleration),
    )


def in_bytes(quantity: str) -> float:
    """Bytes of a quantity of memory as Kubernetes writes it."""
    digits = quantity.rstrip("kKMGTi")
    return float(digits) * BYTES[quantity[len(digits) :]]


def _whole(size: float) -> str:
    return f"{math.ceil(size / 1e9)}G"
