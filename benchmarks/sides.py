"""Sides of a comparison, each in a process of its own, asked in turn: medians of like with like.

A side is a command that prints a line when it is ready, and after each line on its standard input works once and prints
a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from exact_kubeflow.pipelines.local import ALLOCATOR

from benchmarks.seasons import peak_gib

__all__ = ["Side", "answer", "interleaved"]


@dataclass(frozen=True)
class Side:
    """What a side's runs came to: the answers to each."""

    runs: list[dict[str, Any]]

    @property
    def cpu(self) -> float:
        """Median seconds of the processor, of all threads."""
        return median(run["cpu"] for run in self.runs)

    @property
    def wall(self) -> float:
        """Median seconds of the clock."""
        return median(run["wall"] for run in self.runs)

    @property
    def peak(self) -> float:
        """Most resident memory of the whole process, MB."""
        return float(self.runs[-1]["peak"])

    @property
    def found(self) -> dict[str, Any]:
        """The last answer."""
        return self.runs[-1]

    def ratio(self, other: Side) -> float:
        """This side's processor seconds over another's: the median over pairs of runs."""
        return median(mine["cpu"] / theirs["cpu"] for mine, theirs in zip(self.runs, other.runs, strict=True))


def answer(work: Callable[[], dict[str, Any]]) -> None:
    """Be a side: for each line on standard input, work once and print what it gives, seconds and peak memory."""
    print("ready", flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        found = work()
        spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        # What a side says of its time goes before: it may have done a part and reckoned the whole.
        print(json.dumps({**spent, "peak": 1024 * peak_gib(), **found}), flush=True)


def interleaved(commands: dict[str, list[str]], *, runs: int, threads: int) -> dict[str, Side]:
    """Run every side so many times, in turn.

    Args:
        commands: arguments of `python -m`, by side.
        runs: of each side that count; one more before them warms up.
        threads: of every side's numerical libraries.
    """
    environment = os.environ | ALLOCATOR | {"OMP_NUM_THREADS": str(threads)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                subprocess.Popen(  # noqa: S603 - ourselves
                    [sys.executable, "-m", *command],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for name, command in commands.items()
        }
        # All are ready before the first one is asked: starting up is nobody's time.
        for name, side in sides.items():
            _said(name, side)
        for number in range(runs + 1):
            for name, side in sides.items():
                assert side.stdin is not None
                side.stdin.write("\n")
                side.stdin.flush()
                said = json.loads(_said(name, side))
                if number:
                    found[name].append(said)
    return {name: Side(each) for name, each in found.items()}


def _said(name: str, side: subprocess.Popen[str]) -> str:
    assert side.stdout is not None
    line = side.stdout.readline()
    if not line:
        raise SystemExit(f"the side '{name}' ended; what it said is above")
    return line
