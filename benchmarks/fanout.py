"""How long a country takes on a cluster, and what it costs: its map simulated event by event.

    python -m benchmarks.fanout [--workers 4 16 64] [--speedup 3] [--gpu 20] [--hours-to-failure 100] ...
    python -m benchmarks.fanout --sensitivity

A run of the pipeline maps a tile or a cell of an area, in parts that are steps of a loop (`map_parts`). Some runs go on
at once; each begins and ends with small steps that want no worker. KFP creates the pods of a part one after the other,
by one controller for all runs; the part then waits for a worker, which on its first part has to start and to pull the
image. A part that fails is tried again, from its beginning, as `pipelines/steps.py` says (a test holds the numbers here
to those there).

What a part takes follows from seconds a megapixel that were measured (`benchmarks.mapping`, docs/results.md). What was
not measured, because no cluster and no GPU was at hand, is an option: give your own.
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Cluster",
    "Costs",
    "Layout",
    "Outcome",
    "Work",
    "draw",
    "main",
    "part_seconds",
    "sensitivity",
    "simulate",
    "tables",
]

RETRIES, BACKOFF, BACKOFF_MAX, MINUTES = 2, 30.0, 600.0, 1440
"""Of stage `map_season` and `pipelines/steps.py`; no pause is longer than BACKOFF_MAX seconds."""

Kind = Literal["begin", "ready", "again", "done", "end"]


@dataclass(frozen=True)
class Layout:
    """How an area is cut. side: of a square, pixels of 10 m. step: from one to the next, metres. parts: of each."""

    name: str
    side: int
    step: float
    parts: int

    def count(self, area: float) -> int:
        """Squares that a hexagon of an area (km2) touches, on average over all places and turns of it.

        By the area swept when one is moved along the other's edge (Steiner): A + 2 P a / pi + a^2 over a^2.
        """
        a = self.step / 1000
        edge = 6 * math.sqrt(2 * area / (3 * math.sqrt(3)))
        return round((area + 2 * edge * a / math.pi) / a**2 + 1)


LAYOUTS = (
    Layout("tiles, 1 part", 10_980, 100_000, 1),
    Layout("tiles, 4 parts", 10_980, 100_000, 4),
    Layout("cells, 1 part", 4096, 40_960, 1),
)
"""Tiles of Sentinel-2 overlap by 9.8 km; cells (`exact fetch --cell 40960`) do not."""

CHANGES = (
    "",
    "--runs 96",
    "--runs 16",
    "--parallelism 2",
    "--hours-to-failure 10",
    "--hours-to-failure 1",
    "--controller 10",
    "--spread 0.6",
    "--speedup 2",
)
"""What the assumptions are worth."""


@dataclass(frozen=True)
class Costs:
    """Measured seconds of the processor a megapixel, at 30 dates, one thread (docs/results.md)."""

    opening: float
    reading: float
    model: float
    blending: float
    writing: float


@dataclass(frozen=True)
class Cluster:
    """What there is to work with; seconds.

    workers: steps that can run at once. runs: runs of the pipeline at once; 0: all. parallelism: parts of one run at
    once; 0: all. before, after: the small steps of a run around its parts. controller: between the pods of two parts,
    whoever's they are. driver: from a part's turn until its pod exists. worker_start: before a worker's first part.
    pod_start: before each try. retries, backoff, backoff_max, limit: of a part that fails or runs longer than `limit`.
    """

    workers: int
    runs: int = 0
    parallelism: int = 0
    before: float = 0.0
    after: float = 0.0
    controller: float = 0.0
    driver: float = 0.0
    worker_start: float = 0.0
    pod_start: float = 0.0
    retries: int = RETRIES
    backoff: float = BACKOFF
    backoff_max: float = BACKOFF_MAX
    limit: float = MINUTES * 60.0


@dataclass(frozen=True)
class Work:
    """What is to be done.

    run: of each part (n,). seconds: that each takes (n,). fails: after how many seconds each try of it fails
    (n, tries), if it is not done by then; inf: never.
    """

    run: NDArray[np.int64]
    seconds: NDArray[np.float64]
    fails: NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What came of it; seconds.

    wall: until the last run has ended. busy: of workers, in tries that succeeded. paid: of workers, each from its first
    part to the end of its last. again: tries after a first one. lost: parts given up.
    """

    wall: float
    busy: float
    paid: float
    again: int
    lost: int


def part_seconds(costs: Costs, layout: Layout, *, speedup: float, gpu: bool) -> float:
    """Seconds of one part on a worker.

    Each part opens the whole season. Images are read by a thread of their own; the slower of both sets the pace.

    Args:
        costs: a megapixel.
        layout: what it is a part of.
        speedup: of the model alone, against one thread.
        gpu: whether blending goes on while the model is busy elsewhere; on a CPU both take turns.
    """
    inside = costs.model / speedup
    rest = max(inside, costs.blending) if gpu else inside + costs.blending
    pace = max(costs.reading, rest) + costs.writing
    return layout.side**2 / 1e6 * (costs.opening + pace / layout.parts)


def draw(
    *, runs: int, parts: int, mean: float, spread: float, hours_to_failure: float, retries: int, seed: int
) -> Work:
    """Parts of runs, with a time (lognormal) and failures (at a constant rate) of each.

    Args:
        runs: of the pipeline.
        parts: of each.
        mean: seconds of a part.
        spread: standard deviation of it, of 1.
        hours_to_failure: of a worker, mean; inf: never.
        retries: tries after the first.
        seed: of all of it.
    """
    rng = np.random.default_rng(seed)
    sigma = math.sqrt(math.log1p(spread**2))
    seconds = mean * np.exp(sigma * rng.standard_normal(runs * parts) - sigma**2 / 2)
    fails = 3600 * hours_to_failure * rng.standard_exponential((runs * parts, retries + 1))
    return Work(np.repeat(np.arange(runs), parts), seconds, fails)


def simulate(work: Work, cluster: Cluster) -> Outcome:
    """Let the work be done."""
    return _Simulation(work, cluster).result()


class _Simulation:
    """Events in the order of time; at one time, in the order in which they were foreseen."""

    def __init__(self, work: Work, cluster: Cluster) -> None:
        self._work, self._cluster = work, cluster
        self._events: list[tuple[float, int, Kind, int, int]] = []
        self._foreseen = 0
        self._created = 0.0  # when the controller is free again
        self._runs = deque(dict.fromkeys(work.run.tolist()))
        self._waiting = {run: deque(np.flatnonzero(work.run == run).tolist()) for run in self._runs}
        self._left = {run: len(parts) for run, parts in self._waiting.items()}
        self._ready: deque[tuple[int, int]] = deque()
        self._idle: list[int] = []
        self._held: list[
            tuple[float, float]
        ] = []  # of each worker that was started: first part's begin, last one's end
        self._worker: dict[int, int] = {}
        self._wall = self._busy = 0.0
        self._again = self._lost = 0

    def result(self) -> Outcome:
        """Go through all events."""
        for _ in range(self._cluster.runs or len(self._runs)):
            self._begin_run(0.0)
        while self._events:
            now, _, kind, what, number = heapq.heappop(self._events)
            if kind == "begin":
                for _ in range(self._cluster.parallelism or len(self._waiting[what])):
                    self._begin_part(now, what)
            elif kind == "again":
                self._create(now, what, number)
            elif kind == "ready":
                self._ready.append((what, number))
            elif kind == "done":
                self._done(now, what, number)
            else:
                self._wall = now
                self._begin_run(now)
            self._place(now)
        paid = sum(end - begin for begin, end in self._held)
        return Outcome(self._wall, self._busy, paid, self._again, self._lost)

    def _foresee(self, time: float, kind: Kind, what: int, number: int = 0) -> None:
        heapq.heappush(self._events, (time, self._foreseen, kind, what, number))
        self._foreseen += 1

    def _begin_run(self, now: float) -> None:
        if self._runs:
            self._foresee(now + self._cluster.before, "begin", self._runs.popleft())

    def _begin_part(self, now: float, run: int) -> None:
        if self._waiting[run]:
            self._create(now, self._waiting[run].popleft(), 0)

    def _create(self, now: float, part: int, number: int) -> None:
        """Pods of a try, after all that the controller has to do before; drivers run once a part."""
        self._created = max(now, self._created) + self._cluster.controller
        self._foresee(self._created + (0.0 if number else self._cluster.driver), "ready", part, number)

    def _place(self, now: float) -> None:
        """Tries that wait go to workers: to one that runs already, if there is one."""
        while self._ready and (self._idle or len(self._held) < self._cluster.workers):
            part, number = self._ready.popleft()
            begin = now
            if self._idle:
                worker = self._idle.pop()
            else:
                worker = len(self._held)
                self._held.append((now, now))
                begin += self._cluster.worker_start
            self._worker[part] = worker
            end = begin + self._cluster.pod_start + min(self._takes(part, number))
            self._foresee(end, "done", part, number)

    def _takes(self, part: int, number: int) -> tuple[float, float]:
        """Seconds until a try is done, and until it fails or is stopped."""
        return float(self._work.seconds[part]), min(float(self._work.fails[part, number]), self._cluster.limit)

    def _done(self, now: float, part: int, number: int) -> None:
        worker = self._worker.pop(part)
        self._held[worker] = (self._held[worker][0], now)
        self._idle.append(worker)
        needed, allowed = self._takes(part, number)
        if needed > allowed and number < self._cluster.retries:
            self._again += 1
            pause = min(self._cluster.backoff * 2**number, self._cluster.backoff_max)
            self._foresee(now + pause, "again", part, number + 1)
            return
        if needed > allowed:
            self._lost += 1
        else:
            self._busy += needed
        run = int(self._work.run[part])
        self._left[run] -= 1
        self._begin_part(now, run)
        if not self._left[run]:
            self._foresee(now + self._cluster.after, "end", run)


def tables(options: argparse.Namespace) -> str:
    """Tables of wall time and cost against the number of workers: on CPUs, and on GPUs."""
    costs = Costs(options.opening, options.reading, options.model, options.blending, options.writing)
    cluster = Cluster(
        workers=1,
        runs=options.runs,
        parallelism=options.parallelism,
        before=options.before,
        after=options.after,
        controller=options.controller,
        driver=options.driver,
        worker_start=options.worker_start,
        pod_start=options.pod_start,
    )
    lines = []
    for gpu in (False, True):
        speedup, price = (options.gpu, options.gpu_price) if gpu else (options.speedup, options.price)
        name = f"a GPU, {speedup:g} times" if gpu else f"4 cores, {speedup:g} times"
        means = [part_seconds(costs, layout, speedup=speedup, gpu=gpu) for layout in LAYOUTS]
        texts = [
            f"{layout.count(options.area)} {layout.name} of {mean / 60:.0f} min"
            for layout, mean in zip(LAYOUTS, means, strict=True)
        ]
        columns = [f"{layout.name}: h | paid h | cost" for layout in LAYOUTS]
        lines += [f"Workers of {name} as fast as one thread; {'; '.join(texts)}.", ""]
        lines += [f"| workers | {' | '.join(columns)} |", "| --- |" + " --- |" * 3 * len(LAYOUTS)]
        for workers in options.workers:
            there = replace(cluster, workers=workers)
            cells = [_cells(options, there, *each, price) for each in zip(LAYOUTS, means, strict=True)]
            lines.append(f"| {workers} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _cells(options: argparse.Namespace, cluster: Cluster, layout: Layout, mean: float, price: float) -> str:
    """A row's cells: means over seeds; parts that were given up are named."""
    found = [
        simulate(
            draw(
                runs=layout.count(options.area),
                parts=layout.parts,
                mean=mean,
                spread=options.spread,
                hours_to_failure=options.hours_to_failure,
                retries=cluster.retries,
                seed=seed,
            ),
            cluster,
        )
        for seed in range(options.seeds)
    ]
    wall, paid = (sum(getattr(each, name) for each in found) / len(found) / 3600 for name in ("wall", "paid"))
    lost = sum(each.lost for each in found) / len(found)
    noted = f" ({lost:.1f} lost)" if lost else ""
    return f"{wall:.1f}{noted} | {paid:.0f} | {paid * price:.0f}"


def sensitivity(*, workers: int) -> str:
    """Table of wall time with one option changed at a time, on CPUs."""
    lines = [f"| option | {' | '.join(layout.name for layout in LAYOUTS)} |", "| --- |" + " --- |" * len(LAYOUTS)]
    for changed in CHANGES:
        found = tables(parser().parse_args(["--workers", str(workers), *changed.split()]))
        row = next(line for line in found.splitlines() if line.startswith(f"| {workers} |")).split(" | ")
        lines.append(f"| {f'`{changed}`' if changed else 'as above'} | {' | '.join(row[1::3])} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Options, each with where its value is from."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--workers", type=int, nargs="+", default=[1, 4, 16, 64, 256], help="steps at once")
    add("--area", type=float, default=550_000.0, help="km2; France")
    add("--runs", type=int, default=0, help="runs at once; 0: all")
    add("--parallelism", type=int, default=0, help="parts of a run at once; 0: all, as `map_parts` is compiled")
    measured = "s of the processor a megapixel, 30 dates, one thread, measured"
    add("--opening", type=float, default=2.0, help=measured)
    add("--reading", type=float, default=4.4, help=measured)
    add("--model", type=float, default=55.0, help=measured)
    add("--blending", type=float, default=3.6, help=measured)
    add("--writing", type=float, default=0.09, help=measured)
    add("--speedup", type=float, default=3.0, help="of the model on a worker's 4 cores; not measured")
    add("--gpu", type=float, default=20.0, help="of the model on a GPU; not measured")
    add("--spread", type=float, default=0.2, help="standard deviation of a part's time, of 1; assumed")
    add("--hours-to-failure", type=float, default=100.0, help="of a worker, mean; assumed: spot machines, lost nodes")
    add("--worker-start", type=float, default=240.0, help="s: machine and image; assumed")
    add("--pod-start", type=float, default=20.0, help="s; assumed")
    add("--driver", type=float, default=30.0, help="s: KFP's two drivers before a part; assumed")
    add("--controller", type=float, default=1.0, help="s between the pods of two parts; assumed")
    add("--before", type=float, default=600.0, help="s of a run's steps before its parts; assumed")
    add("--after", type=float, default=180.0, help="s of a run's steps after its parts; assumed")
    add("--price", type=float, default=0.2, help="of an hour of a worker of 4 cores; assumed")
    add("--gpu-price", type=float, default=1.0, help="of an hour of a worker with a GPU; assumed")
    add("--seeds", type=int, default=5, help="simulations that are averaged")
    add("--sensitivity", action="store_true", help="change one option at a time instead; other options are not read")
    return made


def main() -> None:
    """Print the tables."""
    options = parser().parse_args()
    print(sensitivity(workers=64) if options.sensitivity else tables(options))


if __name__ == "__main__":
    main()
