"""Steps of a run on this machine as forks of one process that has imported what they import.

A step that starts anew takes three to five seconds of a processor to import torch, MLflow, SciPy and rasterio. Here one
process imports them, and forks for each step: still a process of its own, with memory, signals and exit status of its
own. This process computes nothing, so no library has threads to lose. What the first step does not need, it imports
while that step runs.

The runner sends two descriptors a step over a socket: where the step writes what it prints, and a socket on which the
step is described, and on which its exit status comes back.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NoReturn, TextIO

from exact_kubeflow.components.__main__ import main as run_component, use_own_cores
from kfp.local import subprocess_task_handler

from exact_core.stages.stage import stage_table

__all__ = ["STORES", "forked_steps", "import_what_is_there"]

MODULE = "exact_kubeflow.components"
STORES = (
    "mlflow",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
)
"""What MLflow imports when it is first used."""
FIRST = ("exact_core.stages.preflight", *STORES)
"""What the first step needs."""
OPTIMISERS = "torch._dynamo"
"""What torch's optimisers import when they are first used."""


@contextmanager
def forked_steps(log: TextIO) -> Iterator[None]:
    """Let KFP's SubprocessRunner fork its steps. `log`, a file, receives what the process that forks has to say.

    The process gets the environment of this moment. It ends with the context or with this process. A step then goes on,
    unless it follows its runner (`exact_core.stages.lifecycle`).
    """
    runner_end, server_end = socket.socketpair()
    command = [sys.executable, "-m", __name__, str(server_end.fileno())]
    before = subprocess_task_handler.run_local_subprocess
    with (
        runner_end,
        subprocess.Popen(  # noqa: S603 - our own module
            command, pass_fds=[server_end.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        ),
    ):
        server_end.close()
        subprocess_task_handler.run_local_subprocess = partial(_run_step, runner_end)
        try:
            yield
        finally:
            subprocess_task_handler.run_local_subprocess = before
            # By this it ends.
            runner_end.shutdown(socket.SHUT_RDWR)


def _run_step(server: socket.socket, full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
    """KFP's `run_local_subprocess`: run a step, print what it prints, return its exit status."""
    if full_command[1:3] != ["-m", MODULE]:
        raise RuntimeError(f"a step that is not ours: {' '.join(full_command)[:200]}")
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    try:
        with theirs:
            socket.send_fds(server, [b"s"], [writing, theirs.fileno()])
    except OSError as error:
        raise RuntimeError(f"the process that forks steps has ended ({error}); run.log has what it said") from error
    finally:
        os.close(writing)
    with ours, os.fdopen(reading, encoding="utf-8", errors="replace") as printed:
        step = json.dumps({"arguments": full_command[3:], "environment": env_vars or {}})
        # A server that ends before it has forked leaves nobody to write to; then there is no status either.
        with suppress(BrokenPipeError):
            ours.sendall(step.encode())
            ours.shutdown(socket.SHUT_WR)
        for line in printed:
            print(line, end="")  # noqa: T201 - KFP's runners speak on stdout
        print("\n")  # noqa: T201
        status = ours.recv(16)
    return int(status) if status else 1


def import_what_is_there(modules: Iterable[str]) -> None:
    """Import modules. What cannot be imported, whoever needs it says."""
    for module in modules:
        with suppress(ImportError):
            importlib.import_module(module)


def _serve(runner: socket.socket, later: Iterable[str] = ()) -> tuple[int, int] | None:
    """Fork for each step. In the step, return its two descriptors. None once the runner has ended.

    Modules are imported `later` one by one, while no step is asked for.
    """
    later = list(later)
    signalled, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C in a terminal reaches all its processes: it is for the runner and the step, unless they ignore it, as what
    # a shell starts in the background does. A step that alone were stopped would be a run that failed.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    channels: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([runner.fileno(), signalled], [], [], 0 if later else None)
        if not ready:
            import_what_is_there([later.pop(0)])
            gc.freeze()
        if signalled in ready:
            os.read(signalled, 1024)
            _report(channels)
        if runner.fileno() in ready:
            message, passed, _, _ = socket.recv_fds(runner, 1, 2)
            if not message:
                return None
            printed, channel = passed
            if step := os.fork():
                os.close(printed)
                channels[step] = channel
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, interrupt)
            for other in (runner.detach(), signalled, wakeup, *channels.values()):
                os.close(other)
            return printed, channel


def _report(channels: dict[int, int]) -> None:
    """Send the exit status of steps that have ended. As the shell has it where a signal ended one."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(ended[1])
            with socket.socket(fileno=channels.pop(ended[0])) as channel, suppress(BrokenPipeError):
                channel.sendall(str(code if code >= 0 else 128 - code).encode())


def _become_step(printed: int, channel: int) -> None:
    """Run a step in this process, which has been forked for it, and end the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for stream in (1, 2):
        os.dup2(printed, stream)
    os.close(printed)
    with socket.socket(fileno=channel) as runner:
        step = json.loads(b"".join(iter(lambda: runner.recv(2**16), b"")))
    os.environ.update(step["environment"])
    # As `python3 -m` has it.
    sys.argv = [MODULE, *step["arguments"]]
    run_component()
    _end()


def _end() -> NoReturn:
    """End as Python does, but without taking apart all that was imported, which takes a second."""
    # As multiprocessing ends what it has forked.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main() -> None:
    """The process that forks."""
    use_own_cores()
    import_what_is_there(FIRST)
    # Objects that the collector does not look at stay shared between the steps.
    gc.collect()
    gc.freeze()
    later = [*(f"exact_core.stages.{name}" for name in stage_table()), OPTIMISERS]
    if (descriptors := _serve(socket.socket(fileno=int(sys.argv[1])), later)) is not None:
        _become_step(*descriptors)


if __name__ == "__main__":
    main()
