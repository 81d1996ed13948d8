"""Steps of a pipeline as the local runner starts them, watched: which began, and one of them killed and repeated.

A cluster repeats a killed step by its retry policy, which the local runner does not have; here the test does it.
"""

from __future__ import annotations

import copy
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pytest
from exact_kubeflow.pipelines import local
from exact_kubeflow.pipelines.new_season import SCHEDULE_TIME
from kfp.local import subprocess_task_handler

TRIES = 3
KILLED = 128 + signal.SIGKILL


@dataclass
class Watched:
    """What the steps did; `kill` is the one whose first try is killed as soon as `when` holds."""

    kill: str = ""
    when: Callable[[], bool] = lambda: True
    killed: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    """Steps in the order in which they began, repeated ones again."""

    def run(self, start: Callable[..., int], log: Path, full_command: list[str], env_vars: Any = None) -> int:
        """KFP's `run_local_subprocess` around that of the local runner."""
        name, code = full_command[3], 0
        for _ in range(TRIES):
            self.started.append(name)
            ended = threading.Event()
            if name == self.kill and name not in self.killed:
                threading.Thread(target=self._kill, args=(name, log, ended), daemon=True).start()
            try:
                code = start(full_command, env_vars)
            finally:
                ended.set()
            if code != KILLED:
                break
        return code

    def _kill(self, name: str, log: Path, ended: threading.Event) -> None:
        while not ended.wait(0.005):
            process = re.findall(rf"{name}: stage process (\d+)", log.read_text(errors="replace"))
            if process and self.when():
                self.killed.append(name)
                os.kill(int(process[-1]), signal.SIGKILL)
                return


@contextmanager
def watched_steps() -> Iterator[Watched]:
    """Watch the steps of all local runs meanwhile."""
    watched, forked_steps = Watched(), local.forked_steps

    @contextmanager
    def watching(log: TextIO) -> Iterator[None]:
        with forked_steps(log), pytest.MonkeyPatch.context() as patch:
            start = subprocess_task_handler.run_local_subprocess
            patch.setattr(
                subprocess_task_handler,
                "run_local_subprocess",
                lambda command, env_vars=None: watched.run(start, Path(log.name), command, env_vars),
            )
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "forked_steps", watching)
        yield watched


def run_slot(pipeline: Any, arguments: dict[str, Any], workdir: Path, *, schedule_time: str) -> None:
    """Run a pipeline as for a slot of its schedule, whose time KFP's driver fills in."""
    pipeline = copy.deepcopy(pipeline)
    for component in pipeline.pipeline_spec.components.values():
        for task in component.dag.tasks.values():
            for given in task.inputs.parameters.values():
                if given.runtime_value.constant.string_value == SCHEDULE_TIME:
                    given.runtime_value.constant.string_value = schedule_time
    workdir.mkdir()
    local._run(workdir, pipeline, arguments, "tags")
