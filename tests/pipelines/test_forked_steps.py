"""Steps as forks of one process: what they print, their exit status, and nothing of one in another."""

import atexit
import errno
import io
import os
import re
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from exact_kubeflow.pipelines import forked_steps, local
from exact_kubeflow.pipelines.train_exact import train_exact

from exact_core.errors import ServiceError
from exact_core.termination import TerminatedError
from tests.conftest import TINY

LATER = "what_a_later_step_needs"
"""A module that the process that forks imports later."""
STATE = []
"""What a step changes in its own process."""


def component():
    """What a step of these tests does: its arguments are the words of its command."""
    name = sys.argv[1]
    STATE.append(name)
    # Past pytest, which holds what this process prints.
    os.write(1, f"{name} {os.getpid()} {os.environ.get('EXACT_TEST_STEP', 'unset')} {len(STATE)}\n".encode())
    if name == "leaves work":
        threading.Thread(target=lambda: (time.sleep(0.3), os.write(1, b"of a thread\n"))).start()
        atexit.register(os.write, 1, b"at exit\n")
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stdout.write("in a buffer\n")
    if name == "imports":
        sys.exit(LATER not in sys.modules)
    if name == "fails":
        sys.exit(3)
    if name == "raises":
        raise ValueError("a step's own error")
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a step by its name, in a fork of a process that was forked from this one."""
    monkeypatch.setattr(forked_steps, "run_component", component)
    (tmp_path / f"{LATER}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    ours, theirs = socket.socketpair()
    server = os.fork()
    if server == 0:
        ours.close()
        code = 1
        try:
            descriptors = forked_steps._serve(theirs, ["no.module.of.this.name", LATER])
            if descriptors is not None:
                forked_steps._become_step(*descriptors)
            code = 0
        except SystemExit as end:
            code = end.code
        except ValueError as error:
            os.write(2, f"{error}\n".encode())
        finally:
            os._exit(code)
    theirs.close()

    def step(name, environment=None):
        return forked_steps._run_step(ours, [sys.executable, "-m", forked_steps.MODULE, name], environment)

    yield step
    ours.shutdown(socket.SHUT_RDWR)
    assert os.waitpid(server, 0)[1] == 0
    ours.close()


@pytest.mark.parametrize(("name", "status"), [("ends", 0), ("fails", 3), ("raises", 1), ("killed", 128 + 9)])
def test_a_step_has_its_own_exit_status_and_its_output_comes_through(run, capsys, name, status):
    assert run(name) == status
    assert name in capsys.readouterr().out
    assert run("ends") == 0


def test_nothing_of_a_step_is_in_the_next_one(run, capsys):
    assert run("ends", {"EXACT_TEST_STEP": "first"}) == 0
    assert run("ends") == 0
    first, second = re.findall(r"ends (\d+) (\w+) (\d+)", capsys.readouterr().out)
    assert (first[1], second[1]) == ("first", "unset")
    assert first[2] == second[2] == "1"
    assert len({first[0], second[0], str(os.getpid())}) == 3


def test_a_step_ends_what_it_began(run, capsys):
    assert run("leaves work") == 0
    assert capsys.readouterr().out.splitlines()[1:4] == ["of a thread", "at exit", "in a buffer"]


def test_modules_are_imported_while_no_step_is_asked_for(run):
    deadline = time.monotonic() + 60
    while status := run("imports"):
        assert status == 1
        assert time.monotonic() < deadline


def test_steps_side_by_side(run):
    statuses = {}
    threads = [
        threading.Thread(target=lambda name=name: statuses.update({name: run(name)}))
        for name in ("ends", "fails", "killed")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {"ends": 0, "fails": 3, "killed": 137}


def test_a_server_that_has_ended_is_an_error():
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(RuntimeError, match=r"the process that forks steps has ended.*run\.log"):
        partial(forked_steps._run_step, ours)([sys.executable, "-m", forked_steps.MODULE, "ends"])


def test_a_command_that_is_no_step_of_ours_is_refused():
    with pytest.raises(RuntimeError, match="not ours"):
        forked_steps._run_step(None, ["sh", "-c", "ls"])


def test_a_full_disk_costs_the_log_and_not_the_run():
    screen = io.StringIO()
    with local._log(Path("/dev/full")) as log:
        console = local._Console(log, screen)
        console.write("Executing task 'ingest'\n" + "x" * 100_000)
        console.write("\n    [exact 2026-11-29 08:00:00,000 INFO]: windows: 4\n")
    assert "== ingest" in screen.getvalue()
    assert "08:00:00 windows: 4" in screen.getvalue()


@pytest.mark.parametrize(
    ("error", "expected", "said", "status"),
    [
        (
            OSError(errno.ENOSPC, "No space"),
            ServiceError,
            r"work: the disk is full: [\d.,]+ MB are free. Make room",
            "",
        ),
        (TerminatedError("ended by signal 15"), TerminatedError, "ended by signal 15", "KILLED"),
    ],
)
def test_what_ends_a_run_from_outside_its_steps_is_one_sentence(tmp_path, monkeypatch, error, expected, said, status):
    def ended(*_: object, **__: object) -> None:
        raise error

    finished = {}
    monkeypatch.setattr(local.local, "init", ended)
    monkeypatch.setattr(local, "finish_pipeline_run", lambda _, **facts: finished.update(facts))
    (tmp_path / "work").mkdir()
    given = {"recipe": "demo", "source": "synthetic", "season": "", "seed": 1, "overrides": TINY}
    with pytest.raises(expected, match=said):
        local._run(tmp_path / "work", train_exact, given, "tags")
    assert not list((tmp_path / "work").glob(".run-*"))
    assert finished["status"] == status
    assert re.search(said, finished["reason"])
