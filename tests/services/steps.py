"""Steps of a pipeline as KFP's local runner starts them, each a process, but forked from one that has imported all.

Importing torch, mlflow and kfp takes longer than what a step of a test does. A step may be killed (`Killer`), and is
then repeated, as a cluster does by the step's retry policy, which the local runner does not have.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from exact_kubeflow.pipelines import local
from exact_kubeflow.pipelines.new_season import SCHEDULE_TIME
from kfp.local import subprocess_task_handler

IMPORTED = [
    *("mlflow", "minio", "pystac_client", "rasterio", "kfp.dsl.executor", "exact_kubeflow.components.__main__"),
    *(f"exact_core.stages.{name}" for name in ("plan_run", "ingest", "train_classifier", "generate_masks")),
    *(f"exact_core.stages.{name}" for name in ("train_segmenter", "evaluate", "promote", "champion")),
    *(f"exact_core.stages.{name}" for name in ("transfer_report", "map_season", "publish_map", "record_status")),
]
TRIES = 3


@dataclass
class Killer:
    """Kills a step's first try as soon as `when` holds."""

    step: str = ""
    when: Callable[[], bool] = lambda: True
    killed: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    """Steps in the order in which they began, repeated ones again."""


@contextmanager
def forked_steps(folder: Path) -> Iterator[Killer]:
    """Let KFP's local runner start steps this way meanwhile."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    killer = Killer()

    def run_local_subprocess(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        name, given = full_command[3:5]
        code = 0
        for number in range(TRIES):
            log = folder / f"{len(killer.started):02d}-{name}.log"
            log.touch()
            killer.started.append(name)
            process = context.Process(target=_step, args=(name, given, {**os.environ, **(env_vars or {})}, str(log)))
            process.start()
            while name == killer.step and process.is_alive() and not number:
                if killer.when():
                    os.kill(process.pid or 0, signal.SIGKILL)
                    killer.killed.append(name)
                    break
                time.sleep(0.002)
            process.join()
            sys.stdout.write(log.read_text(errors="replace"))
            code = process.exitcode or 0
            if code != -signal.SIGKILL:
                break
        return code

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess_task_handler, "run_local_subprocess", run_local_subprocess)
        yield killer


def run_slot(pipeline: Any, arguments: dict[str, Any], workdir: Path, *, schedule_time: str) -> str:
    """Run a pipeline as for a slot of its schedule, whose time KFP's driver fills in; what its steps printed."""
    pipeline = copy.deepcopy(pipeline)
    for component in pipeline.pipeline_spec.components.values():
        for task in component.dag.tasks.values():
            for given in task.inputs.parameters.values():
                if given.runtime_value.constant.string_value == SCHEDULE_TIME:
                    given.runtime_value.constant.string_value = schedule_time
    workdir.mkdir()
    local._run(workdir, pipeline, arguments, "tags")
    return (workdir / "run.log").read_text()


def _step(name: str, given: str, environment: dict[str, str], log: str) -> None:
    """In the step's process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(environment)
    from exact_kubeflow.components.__main__ import main

    sys.argv = ["exact", name, given]
    main()
