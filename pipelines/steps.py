"""How steps run on a cluster: resources, retries, timeouts, secrets, nodes.

`EXACT_CLUSTER` names a YAML file of what differs from the defaults below when pipelines are compiled or submitted
(docs/operations.md). KFP's local runner passes over all of it.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from kfp import kubernetes
from kfp.dsl import PipelineTask
from pydantic import Field, ValidationError

from exact_core.config import Settings, describe
from exact_core.errors import ConfigError

__all__ = ["THREADS_VARIABLE", "ClusterSettings", "Toleration", "cluster_settings", "configure"]

STORE_KEYS = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "EXACT_STORE")
TRACKING_KEYS = ("MLFLOW_TRACKING_URI",)
OPTIONAL_STORE_KEYS = ("AWS_SESSION_TOKEN", "AWS_CA_BUNDLE")
OPTIONAL_TRACKING_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""A step gets them where the secret has them, and starts without them where it has not."""
THREADS_VARIABLE = "OMP_NUM_THREADS"
SCRATCH = "/tmp"  # noqa: S108 - the images write nowhere else (docker/)


class Toleration(Settings):
    """A taint that steps on GPUs may be placed on, as Kubernetes writes it."""

    key: str
    operator: str = Field("Exists", pattern="^(Equal|Exists)$")
    value: str | None = None
    effect: str | None = Field("NoSchedule", pattern="^(NoExecute|NoSchedule|PreferNoSchedule)$")


class StepSettings(Settings):
    """What one step asks for."""

    cpu: str = Field("2", pattern=r"^(\d+m|\d*\.?\d+)$", description="request and limit, cores; threads, rounded up")
    memory: str = Field("8G", pattern=r"^\d+([EPTGMK]i?)?$", description="request and limit")
    gpus: int = Field(0, ge=0, description="GPUs")
    minutes: int = Field(60, ge=1, description="timeout of one try, the pull of its image included")
    retries: int = Field(2, ge=0, description="tries after the first; training goes on from its checkpoints")


class ClusterSettings(Settings):
    """Where and with what the steps run."""

    store_secret: str = Field("exact-s3", description=f"secret with {', '.join(STORE_KEYS)}")
    tracking_secret: str = Field("exact-mlflow", description=f"secret with {', '.join(TRACKING_KEYS)}")
    gpu_type: str = Field("nvidia.com/gpu", description="resource that a GPU is")
    node_selector: dict[str, str] = Field({}, description="labels of the nodes for steps on GPUs")
    tolerations: tuple[Toleration, ...] = Field(
        (Toleration(key="nvidia.com/gpu"),), description="taints of the nodes for steps on GPUs"
    )
    backoff: str = Field("30s", description="pause before the second try; each further one is twice as long")
    backoff_max: str = Field("600s", description="longest pause between tries")
    volume: str = Field("", description="volume claim with the sources, mounted at /data for the steps that read them")
    scratch: str = Field(
        "",
        pattern=r"^(\d+([EPTGMK]i?)?)?$",
        description=f"size of a volume of the node's disk at {SCRATCH}, such as 100Gi",
    )
    image_pull_secrets: tuple[str, ...] = Field((), description="secrets with a login to the images' registry")
    steps: dict[str, StepSettings] = Field(
        {
            "resolve_season": StepSettings(cpu="500m", memory="1G", minutes=30),
            # It tells whether the trainings will fit, so it gets what they get.
            "preflight": StepSettings(cpu="4", memory="32G", gpus=1, minutes=30, retries=0),
            "ingest": StepSettings(memory="16G", minutes=240),
            "train_classifier": StepSettings(cpu="4", memory="32G", gpus=1, minutes=1440),
            "generate_masks": StepSettings(cpu="4", memory="32G", gpus=1, minutes=480),
            "train_segmenter": StepSettings(cpu="4", memory="32G", gpus=1, minutes=1440),
            "evaluate": StepSettings(memory="16G", gpus=1, minutes=240),
            "plan_map": StepSettings(cpu="500m", memory="1G", minutes=30),
            "transfer_report": StepSettings(memory="16G", gpus=1, minutes=120),
            "map_season": StepSettings(cpu="4", memory="16G", gpus=1, minutes=1440),
            "join_map": StepSettings(memory="4G", minutes=240),
            "champion": StepSettings(memory="4G", minutes=30),
            "plan_seasons": StepSettings(cpu="500m", memory="1G", minutes=30),
            "gather_seasons": StepSettings(memory="4G", minutes=240),
            # Both trainings, the masks and two evaluations in one.
            "leave_season_out": StepSettings(cpu="4", memory="32G", gpus=1, minutes=2880),
            "season_table": StepSettings(cpu="500m", memory="2G", minutes=30),
            "promote": StepSettings(memory="16G", gpus=1, minutes=240),
            "record_status": StepSettings(cpu="500m", memory="1G", minutes=30),
        },
        description="by step",
    )


READS_SOURCES = ("preflight", "ingest", "transfer_report", "map_season")


def cluster_settings() -> ClusterSettings:
    """The settings of the file that EXACT_CLUSTER names; the defaults without it.

    Raises:
        ConfigError: there is no such file, or a key or value is wrong.
    """
    name = os.environ.get("EXACT_CLUSTER")
    if not name:
        return ClusterSettings()
    try:
        data: Any = yaml.safe_load(Path(name).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"EXACT_CLUSTER = {name}: not a readable YAML file: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("steps", {}), dict):
        raise ConfigError(f"EXACT_CLUSTER = {name}: expected a mapping of settings")
    defaults = ClusterSettings().model_dump(mode="json")
    if unknown := set(data.get("steps", {})) - set(defaults["steps"]):
        known = ", ".join(defaults["steps"])
        raise ConfigError(f"EXACT_CLUSTER = {name}: no step {', '.join(sorted(unknown))}; there are {known}")
    steps = {step: {**given, **(data.get("steps", {}).get(step) or {})} for step, given in defaults["steps"].items()}
    try:
        return ClusterSettings.model_validate({**defaults, **data, "steps": steps})
    except ValidationError as error:
        raise ConfigError(describe(error, where=f"EXACT_CLUSTER = {name}", model=ClusterSettings)) from error


def configure(task: PipelineTask, name: str, settings: ClusterSettings) -> PipelineTask:
    """Give a step what it needs there; its results are never taken from a cache.

    A source is named by its path and a model by its alias: what lies there may have changed, and a cache would not see
    it. What must not be done twice, training, goes on from its own checkpoints, which are named by digests.
    """
    # KFP looks through the whole call stack at each setting, which takes a third of a second where pipelines are
    # imported from deep below; a thread has hardly any.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_configure, task, settings.steps[name], name, settings).result()


def _configure(task: PipelineTask, step: StepSettings, name: str, settings: ClusterSettings) -> PipelineTask:
    task.set_caching_options(enable_caching=False)
    task.set_cpu_request(step.cpu).set_cpu_limit(step.cpu)
    task.set_memory_request(step.memory).set_memory_limit(step.memory)
    if step.retries:
        task.set_retry(
            num_retries=step.retries,
            backoff_duration=settings.backoff,
            backoff_factor=2.0,
            backoff_max_duration=settings.backoff_max,
        )
    # Libraries count the cores of the node, not those of the limit, and threads without a core wait for each other.
    task.set_env_variable(THREADS_VARIABLE, str(_threads(step.cpu)))
    kubernetes.set_timeout(task, step.minutes * 60)
    _give_secrets(task, settings)
    if step.gpus:
        task.set_accelerator_type(settings.gpu_type).set_accelerator_limit(step.gpus)
        for label, value in settings.node_selector.items():
            kubernetes.add_node_selector(task, label, value)
        for each in settings.tolerations:
            kubernetes.add_toleration(task, each.key, each.operator, each.value, each.effect)
    if settings.volume and name in READS_SOURCES:
        kubernetes.mount_pvc(task, settings.volume, "/data")
    if settings.scratch:
        kubernetes.empty_dir_mount(task, "scratch", SCRATCH, size_limit=settings.scratch)
    return task


def _give_secrets(task: PipelineTask, settings: ClusterSettings) -> None:
    for secret, needed, optional in (
        (settings.store_secret, STORE_KEYS, OPTIONAL_STORE_KEYS),
        (settings.tracking_secret, TRACKING_KEYS, OPTIONAL_TRACKING_KEYS),
    ):
        kubernetes.use_secret_as_env(task, secret, {key: key for key in needed})
        kubernetes.use_secret_as_env(task, secret, {key: key for key in optional}, optional=True)
    if settings.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.image_pull_secrets))


def _threads(cpu: str) -> int:
    """Cores as Kubernetes writes them, `500m` or `1.5`, rounded up; at least one."""
    return max(1, math.ceil(int(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)))
