"""How steps run on a cluster: image, resources, retries, timeouts, secrets, nodes.

What a run decides - the image, memory, cores, GPUs and nodes - are parameters of the pipeline and outputs of its first
step, so one compiled package serves every cluster. What KFP takes as constants only is compiled in: by default what
stands below and in the stages' own facts, else what the YAML file says that `EXACT_CLUSTER` names
(docs/how-to/cluster.md). KFP's local runner passes over all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl, kubernetes
from kfp.dsl import PipelineTask
from pydantic import Field, ValidationError

from exact_core.config import Settings, describe
from exact_core.errors import ConfigError
from exact_core.stages.stage import Stage, stage_table
from exact_core.yaml_values import read_yaml

__all__ = ["SIDE_BY_SIDE", "ClusterSettings", "cluster_settings", "configure", "pipeline", "stage_of"]

STORE_KEYS = (
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "EXACT_STORE",
    "EXACT_ENVIRONMENT",
)
TRACKING_KEYS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
"""A step gets them where there is such a secret and it has them. The first step says what is missing. Each name costs
every step some hundred bytes of its run's size, so the rarer ones (an endpoint for S3 alone, proxies, authorities, a
token of a catalogue) come in EXACT_ENVIRONMENT."""
SCRATCH = "/tmp"  # noqa: S108 - the images write nowhere else (docker/)
SIDE_BY_SIDE = 4
"""Steps of a loop that run at a time: KFP takes no parameter here, and a loop must leave room for others' runs."""
LEAST_CPU = "500m"
"""What is asked for, of every step. The limit is what it may take where the node has it."""
SMALL_MEMORY = "2G"
"""Memory of steps that only decide. The first one builds both models once, for two windows."""
DATA_CPU = "2"


class StepSettings(Settings):
    """What one step asks for otherwise than by itself."""

    cpu: str = Field("", pattern=r"^(\d+m|\d*\.?\d+)?$", description="request and limit, cores; threads, rounded up")
    memory: str = Field("", pattern=r"^(\d+([EPTGMK]i?)?)?$", description="request and limit")
    gpus: int | None = Field(None, ge=0, description="GPUs")
    minutes: int | None = Field(None, ge=1, description="timeout of one try, the pull of its image included")
    retries: int | None = Field(None, ge=0, description="tries after the first; training goes on from its checkpoints")


class ClusterSettings(Settings):
    """What differs on one cluster and cannot be a parameter."""

    store_secret: str = Field("exact-s3", description=f"secret with {', '.join(STORE_KEYS)}")
    tracking_secret: str = Field("exact-mlflow", description=f"secret with {', '.join(TRACKING_KEYS)}")
    gpu_type: str = Field("nvidia.com/gpu", description="resource that a GPU is")
    backoff: str = Field(
        "30s", pattern=r"^\d+s$", description="pause before the second try; each further is twice as long"
    )
    volume: str = Field("", description="volume claim with the sources, mounted at /data for the steps that read them")
    scratch: str = Field(
        "",
        pattern=r"^(\d+([EPTGMK]i?)?)?$",
        description=f"size of a volume of the node's disk at {SCRATCH}, such as 100Gi",
    )
    image_pull_secrets: tuple[str, ...] = Field((), description="secrets with a login to the images' registry")
    steps: dict[str, StepSettings] = Field({}, description="by step")


def cluster_settings() -> ClusterSettings:
    """The settings of the file that EXACT_CLUSTER names. The defaults without it.

    Raises:
        ConfigError: there is no such file, or a key or value is wrong.
    """
    name = os.environ.get("EXACT_CLUSTER")
    if not name:
        return ClusterSettings()
    try:
        data: Any = read_yaml(Path(name).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"EXACT_CLUSTER = {name}: not a readable YAML file: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("steps", {}), dict):
        raise ConfigError(f"EXACT_CLUSTER = {name}: expected a mapping of settings")
    known = [stage.name for stage in stage_table().values() if not stage.within]
    if unknown := set(data.get("steps", {})) - set(known):
        raise ConfigError(f"EXACT_CLUSTER = {name}: no step {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    try:
        return ClusterSettings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(describe(error, where=f"EXACT_CLUSTER = {name}", model=ClusterSettings)) from error


def pipeline(*, name: str, description: str) -> Callable[[Callable[..., None]], Any]:
    """A KFP pipeline of this function."""
    made: Callable[[Callable[..., None]], Any] = dsl.pipeline(name=name, description=description)
    return made


def stage_of(task: PipelineTask) -> Stage:
    """The facts of the stage that a task runs."""
    return stage_table()[str(task.component_spec.name).replace("-", "_")]


def configure(task: PipelineTask, settings: ClusterSettings, *, image: Any, plan: PipelineTask | None = None) -> Any:
    """Give a step what it needs there. Its results are never taken from a cache.

    A source is named by its path and a model by its alias: their content may have changed, and a cache would not see
    it. What must not be done twice, training, goes on from its own checkpoints, which are named by digests.

    Args:
        task: the step.
        settings: what is compiled in.
        image: the pipeline's parameter of that name.
        plan: the pipeline's first step, which says what the others get. None for a step that it does not size.
    """
    # KFP looks through the whole call stack at each setting, which takes a third of a second where pipelines are
    # imported from deep below; a thread has hardly any.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_configure, task, settings, image, plan).result()


def _configure(task: PipelineTask, settings: ClusterSettings, image: Any, plan: PipelineTask | None) -> PipelineTask:
    stage = stage_of(task)
    own = settings.steps.get(stage.name, StepSettings())
    task.set_caching_options(enable_caching=False)
    task.set_container_image(image)
    _size(task, stage, own, settings, plan)
    minutes = own.minutes or stage.minutes
    retries = stage.retries if own.retries is None else own.retries
    if retries:
        _retry(task, settings.backoff, retries=retries, minutes=minutes)
    kubernetes.set_timeout(task, minutes * 60)
    for secret, keys in ((settings.store_secret, STORE_KEYS), (settings.tracking_secret, TRACKING_KEYS)):
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
    if settings.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.image_pull_secrets))
    if settings.volume and stage.reads_source:
        kubernetes.mount_pvc(task, settings.volume, "/data")
    if settings.scratch:
        kubernetes.empty_dir_mount(task, "scratch", SCRATCH, size_limit=settings.scratch)
    return task


def _retry(task: PipelineTask, backoff: str, *, retries: int, minutes: int) -> None:
    """Let every try take its whole time.

    What KFP calls the longest pause becomes Argo's `maxDuration`: the time since the first try began, after which no
    further one starts and one at work is killed.
    """
    pauses = int(backoff.removesuffix("s")) * (2**retries - 1)
    longest = (retries + 1) * minutes * 60 + pauses
    task.set_retry(
        num_retries=retries, backoff_duration=backoff, backoff_factor=2.0, backoff_max_duration=f"{longest}s"
    )


def _size(
    task: PipelineTask, stage: Stage, own: StepSettings, settings: ClusterSettings, plan: PipelineTask | None
) -> None:
    """Cores, memory, GPUs and nodes: constants where they are compiled in, else what the first step says."""
    trains = stage.size == "train" and plan is not None
    said = plan.outputs if plan is not None else {}
    if stage.size == "small" or plan is None:
        cpu, memory, gpus = "1", SMALL_MEMORY, ""
    elif stage.size == "data":
        cpu, memory, gpus = DATA_CPU, said["data_memory"], ""
    else:
        cpu, memory, gpus = said["cpu"], said["memory"], said["gpus"]
    cpu, memory = own.cpu or cpu, own.memory or memory
    gpus = gpus if own.gpus is None else str(own.gpus or "")
    task.set_cpu_request(own.cpu or LEAST_CPU).set_cpu_limit(cpu).set_memory_limit(memory)
    if gpus != "":
        task.set_accelerator_type(settings.gpu_type).set_accelerator_limit(gpus)
    if trains and own.gpus != 0:
        kubernetes.add_node_selector_json(task, said["node_selector"])
        kubernetes.add_toleration_json(task, said["toleration"])
    # Inside a group KFP hands an output on only to tasks that are known to take it.
    task.register_pipeline_channels([each for each in (cpu, memory, gpus) if not isinstance(each, str)])
