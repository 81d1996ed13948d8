"""Kills of every stage at random points, its services restarted and its disk filled: what comes out at the end?

    python -m tests.chaos [--kills 100] [--seed 0] [--server juicefs]

Pairs of runs of `new_season` on a tiny season: one trains, promotes and publishes, the other maps with that champion.
Each is repeated as a cluster repeats a step, or as a person repeats a command, until it succeeds. Its folders, its
published map and its figures in MLflow must then be those of a run that nothing disturbed. Half of the pairs keep
checkpoints on a disk that outlives the steps, the others in the store alone: each try is then a machine of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet
from exact_kubeflow.pipelines import local
from exact_kubeflow.pipelines.new_season import new_season
from kfp.local import subprocess_task_handler
from minio import Minio
from mlflow import MlflowClient
from mlflow.entities import ViewType

from exact_core.environment import STATE_VARIABLE
from exact_core.stages.lifecycle import FAILURE_VARIABLE
from exact_core.storage import open_store
from exact_core.tracking.runs import EXPERIMENT
from tests.conftest import TINY
from tests.fakes import write_season
from tests.services.servers import ACCESS_KEY, SECRET_KEY, JuiceFS, Mlflow, SeaweedFS, Server

TRIES = 30
"""Of a step; each kill costs one."""
KILLS = 10
"""Of steps in a run, and one of what runs the pipeline in half of them."""
DISK_MEGABYTES = 192
FULL = r"disk is full: [\d.,]+ MB are needed, [\d.,]+ MB are free"
"""What is said of a full disk."""
EPOCHS = {"classifier": 4, "segmenter": 6}
SETTINGS = [
    *TINY,
    "data.window=12",
    "data.season.longest_gap=366",
    *(f"{kind}.training.epochs={count}" for kind, count in EPOCHS.items()),
]
SEASON = {"season": "2018-04-01/214", "recipe": "season", "seed": 1, "overrides": SETTINGS, "map_parts": 2}
UNSTEADY = {"windows_per_second", "created", "checksum"}
"""Keys of JSON files that say how long something took, and when; and the checksum of a file that holds such."""


# The process that runs a pipeline


def run_pipeline(workdir: Path, given: dict[str, Any], *, new_machines: bool) -> None:
    """Run it, each step again until it succeeds."""

    def again(start: Callable[..., int], full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        code = 1
        for number in range(TRIES):
            cache = workdir.with_name(f"{workdir.name}.cache")
            own = {STATE_VARIABLE: "", "EXACT_CACHE_DIR": str(cache)} if new_machines else {}
            code = start(full_command, {**(env_vars or {}), **own})
            shutil.rmtree(cache, ignore_errors=True)
            said = Path(os.environ[FAILURE_VARIABLE])
            # Nobody repeats a step for want of room, which the person who started the run must make.
            if not code or (said.is_file() and "disk is full" in said.read_text(errors="replace")):
                break
            print(f"chaos: {full_command[3]}: try {number + 1} ended with {code}", flush=True)
        return code

    forked_steps = local.forked_steps

    @contextmanager
    def repeated(log: Any) -> Iterator[None]:
        with forked_steps(log):
            start = subprocess_task_handler.run_local_subprocess
            subprocess_task_handler.run_local_subprocess = partial(again, start)
            yield

    local.forked_steps = repeated
    workdir.mkdir(exist_ok=True)
    local._run(workdir, new_season, given, "tags")


# What disturbs it

Due = tuple[float, Callable[[], None]]
"""When something is to be done, and what."""


@dataclass
class Counts:
    """What was done, by stage."""

    kills: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    """What the run said of a full disk."""
    late: int = 0
    """Kills that found their step at its end."""


@dataclass
class Run:
    """A run in a process of its own, and what is done to it."""

    workdir: Path
    out: Path
    """What it prints."""
    given: dict[str, Any]
    new_machines: bool
    chance: random.Random
    counts: Counts
    services: dict[str, Server]
    lasts: dict[str, float]
    """Seconds that each stage takes where nothing disturbs it; a stage that is not there is left in peace."""
    fill: str = ""
    """The stage in which the disk is filled."""
    planned: Counter[str] = field(default_factory=Counter)
    """Kills to come, by stage."""
    kill_run_in: str = ""
    """The stage in which what runs the pipeline is killed, too."""
    own_kills: int = 0
    threads: list[threading.Thread] = field(default_factory=list)
    started: list[tuple[str, float]] = field(default_factory=list)

    def plan(self) -> None:
        """Draw the stages that are killed, rather those that few kills have hit. Their moments are drawn later."""
        stages = sorted(self.lasts)
        rare = [1 / (1 + self.counts.kills[name]) for name in stages]
        self.planned = Counter(self.chance.choices(stages, rare, k=KILLS))
        self.kill_run_in = self.chance.choice([*stages, *("" for _ in stages)])

    def finish(self) -> float:
        """Start it until it ends well; the seconds of the last start.

        Raises:
            AssertionError: a start ended badly although nothing was done to it.
        """
        while True:
            for thread in self.threads:
                thread.join()
            began, before = time.monotonic(), self.own_kills + sum(self.counts.filled.values())
            code = self._start()
            if not code:
                return time.monotonic() - began
            said = self.out.read_text()[-4000:]
            assert self.own_kills + sum(self.counts.filled.values()) > before, f"{self.workdir}: {code}\n{said}"

    def _start(self) -> int:
        log = self.workdir / "run.log"
        position = log.stat().st_size if log.is_file() else 0
        words = [str(self.workdir), json.dumps(self.given), str(int(self.new_machines))]
        with self.out.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos", "--child", *words], stdout=out, stderr=subprocess.STDOUT
            )
        try:
            self._disturb(process, log, position)
        finally:
            process.kill()
        self.started.append(("", time.monotonic()))
        return process.wait()

    def _disturb(self, process: subprocess.Popen[bytes], log: Path, position: int) -> None:
        """Follow the log from a position on until the process has ended, and do what is due."""
        due: list[Due] = []
        while process.poll() is None:
            time.sleep(0.01)
            if log.is_file():
                with log.open("rb") as lines:
                    lines.seek(position)
                    text = lines.read()
                text = text[: text.rfind(b"\n") + 1]
                position += len(text)
                for name, pid in re.findall(r"(\w+)(?: \d+/\d+)?: stage process (\d+)", text.decode(errors="replace")):
                    self.started.append((name, time.monotonic()))
                    due += self._plan(name, int(pid), process)
            for each in [each for each in due if each[0] <= time.monotonic()]:
                due.remove(each)
                each[1]()

    def _plan(self, name: str, pid: int, process: subprocess.Popen[bytes]) -> Iterator[Due]:
        """What shall be done to a step that has just begun."""
        if name not in self.lasts:
            return
        moment = time.monotonic() + self.chance.uniform(0, self.lasts[name])
        if self.fill == name:
            self.fill = ""
            yield moment, lambda: self._fill(name, process)
            return
        # What finds out at the start whether MLflow is there does not wait for it.
        if self.chance.random() < 0.1 and name != "preflight":
            service, away = self.chance.choice(list(self.services)), self.chance.uniform(0, 4)
            yield moment, lambda: self._restart(name, service, away)
            moment = time.monotonic() + self.chance.uniform(0, self.lasts[name])
        if self.kill_run_in == name:
            self.kill_run_in = ""
            yield moment, lambda: self._kill_run(name, process)
        elif self.planned[name]:
            try:
                step = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            number = signal.SIGTERM if self.chance.random() < 0.2 else signal.SIGKILL
            yield moment, lambda: self._kill(name, step, number)

    def _kill(self, name: str, step: int, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(step, number)
        except ProcessLookupError:
            self.counts.late += 1
        else:
            self.planned[name] -= 1
            self.counts.kills[name] += 1
        finally:
            os.close(step)

    def _kill_run(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.own_kills += 1
        self.counts.kills[f"{name}, and what runs the pipeline"] += 1
        process.kill()

    def _restart(self, name: str, service: str, away: float) -> None:
        def restart() -> None:
            self.services[service].kill()
            time.sleep(away)
            self.services[service].start()

        if any(thread.is_alive() for thread in self.threads):
            return
        self.counts.restarts[f"{service} in {name}"] += 1
        self.threads.append(threading.Thread(target=restart))
        self.threads[-1].start()

    def _fill(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Leave not a byte until the run has ended."""
        filler = self.workdir.parent / "filler"
        self.counts.filled[name] += 1
        with filler.open("wb", buffering=0) as file:
            block = bytes(2**20)
            while process.poll() is None:
                try:
                    file.write(block)
                except OSError:
                    block = block[: max(1, len(block) // 2)]
                    time.sleep(0.005)
        filler.unlink()
        lines = self.out.read_text().splitlines()
        said = [line for line in lines if re.search(FULL, line)]
        # Where nobody says it: the end of what was said instead.
        self.counts.told.append(said[-1] if said else " / ".join(lines[-5:]))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of that size, for which this process must be root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


# What it leaves


def contents(folder: Path, model: str) -> dict[str, str]:
    """A digest of each file that a run delivers, but for times and the name of the registered model."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            steady = _steady(json.loads(path.read_text().replace(model, "model")))
            text = json.dumps(steady, sort_keys=True).encode()
        elif path.suffix == ".parquet":
            text = repr(pyarrow.parquet.read_table(path).to_pydict()).encode()
        elif path.suffix in (".html", ".log"):
            continue
        else:
            text = path.read_bytes()
        found[name] = hashlib.sha256(text).hexdigest()
    return found


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in UNSTEADY}
    return [_steady(each) for each in value] if isinstance(value, list) else value


def published(name: str) -> dict[str, str]:
    """Digests of a published map's assets, each of which is what its item says."""
    store = open_store(f"{os.environ['EXACT_STORE']}/maps/{name}")
    (item,) = [key for key in store.list_keys() if key.endswith("item.json")]
    found = {}
    for asset, facts in json.loads(store.read(item))["assets"].items():
        content = store.read(f"{item.rpartition('/')[0]}/{facts['href'].removeprefix('./')}")
        found[asset] = hashlib.sha256(content).hexdigest()
        assert facts["file:checksum"] == "1220" + found[asset], (name, asset)
    return found


def recorded(client: MlflowClient, known: set[str]) -> dict[str, Any]:
    """The runs in MLflow that are not known yet, how they ended, and the losses of every epoch."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    new = [run for run in runs if run.info.run_id not in known]
    known.update(run.info.run_id for run in new)
    stages = Counter(run.data.tags.get("exact.stage", "whole") for run in new)
    losses = {}
    for run in new:
        if (stage := run.data.tags.get("exact.stage", "")).startswith("train_"):
            history = client.get_metric_history(run.info.run_id, "loss")
            losses[stage] = sorted((each.step, each.value) for each in history)
    ends = Counter(f"{run.data.tags.get('exact.stage', 'whole')} {run.info.status}" for run in new)
    return {"stages": dict(sorted(stages.items())), "ends": dict(sorted(ends.items())), "losses": losses}


def differences(got: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Names of what is not as it should be."""
    return [name for name in sorted({*got, *right}) if got.get(name) != right.get(name)]


# All of it


@dataclass
class Chaos:
    """Servers, a season, and what undisturbed runs leave."""

    root: Path
    services: dict[str, Server]
    counts: Counts
    seed: int
    known: set[str] = field(default_factory=set)
    right: dict[str, dict[str, Any]] = field(default_factory=dict)
    lasts: dict[str, dict[str, float]] = field(default_factory=dict)
    number: int = 0

    def pair(self, *, disturbed: bool, new_machines: bool, folder: Path, fill: str = "") -> list[str]:
        """A training, and a map by its champion; what differs from an undisturbed pair."""
        self.number += 1
        wrong = []
        client = MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
        for which in ("training", "champion"):
            name = f"{which}-{self.number}"
            own = {"training": "if_no_champion", "model": f"model-{self.number}", "map_name": name}
            run = Run(
                folder / name,
                self.root / f"{name}.out",
                {**SEASON, **own, "source": f"season:{self.root / 'season'}"},
                new_machines,
                random.Random(f"{self.seed} {name}"),  # noqa: S311 - to be repeated
                self.counts,
                self.services,
                self.lasts[which] if disturbed else {},
                fill=fill if which == "training" else "",
            )
            if disturbed:
                run.plan()
            run.finish()
            for thread in run.threads:
                thread.join()
            got = {
                **contents(run.workdir, own["model"]),
                **{f"published {asset}": digest for asset, digest in published(name).items()},
                **{f"MLflow's {key}": value for key, value in recorded(client, self.known).items()},
            }
            if left := open_store(f"{os.environ['EXACT_STORE']}/leases").list_keys():
                wrong.append(f"{name}: leases are left: {left}")
            shutil.rmtree(run.workdir)
            if fill and which == "training" and not re.search(FULL, self.counts.told[-1]):
                wrong.append(f"{name}: a full disk is not reported as one")
            if not disturbed and which not in self.lasts:
                steps = zip(run.started, run.started[1:], strict=False)
                self.lasts[which] = {step: end - begin for (step, begin), (_, end) in steps}
                self.right[which] = got
            differ = [
                f"{name}: {each}: {got.get(each)} instead of {self.right[which].get(each)}"
                for each in differences(got, self.right[which])
            ]
            wrong += differ
            kills = sum(self.counts.kills.values())
            print(f"{name}: {kills} kills until now, {', '.join(differ) or 'no difference'}", flush=True)
        return wrong


def main() -> int:
    """Print what was done and what came of it; 1 where something was lost or differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--server", choices=["juicefs", "seaweedfs"], default="juicefs", help="the store")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        workdir, given, new_machines = asked.child
        run_pipeline(Path(workdir), json.loads(given), new_machines=bool(int(new_machines)))
        return 0
    # Asked to end, it ends its servers and says what was done.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began, counts, pairs, wrong = time.monotonic(), Counts(), 0, []
    try:
        with tempfile.TemporaryDirectory() as folder, _servers(Path(folder), asked.server) as services:
            chaos = Chaos(Path(folder), services, counts, asked.seed)
            write_season(chaos.root / "season", size=(72, 72), dates=[f"2018{day}" for day in DAYS])
            chaos.pair(disturbed=False, new_machines=False, folder=chaos.root)
            while not wrong and (sum(counts.kills.values()) < asked.kills or not counts.filled):
                fill = "" if pairs else "train_segmenter"
                with small_disk(chaos.root / "disk") if fill else nullcontext(chaos.root) as disk:
                    wrong += chaos.pair(disturbed=True, new_machines=bool(pairs % 2), folder=disk, fill=fill)
                pairs += 1
    finally:
        # What was done until then, whatever ends it.
        print("\n| stage | kills |\n| --- | --- |")
        for stage, count in sorted(counts.kills.items()):
            print(f"| {stage} | {count} |")
        print(f"\nrestarts: {dict(sorted(counts.restarts.items()))}")
        print(f"disk filled: {dict(counts.filled)}, and it said: {counts.told}")
        kills, seconds = sum(counts.kills.values()), time.monotonic() - began
        print(f"{kills} kills ({counts.late} more came too late), {2 * pairs} whole runs, {seconds:.0f} s")
        print("\n".join(wrong) or "no difference")
    return 1 if wrong else 0


DAYS = ("0410", "0501", "0610", "0720", "0901")


@contextmanager
def _servers(root: Path, kind: str) -> Iterator[dict[str, Server]]:
    store = (JuiceFS if kind == "juicefs" else SeaweedFS)(root / "store")
    mlflow = Mlflow(root / "mlflow")
    store.start_seconds = mlflow.start_seconds = 600  # beside whatever else this machine does
    try:
        store.start()
        mlflow.start()
        Minio(f"127.0.0.1:{store.port}", ACCESS_KEY, SECRET_KEY, secure=False).make_bucket("exact")
        os.environ.update(store.variables)
        os.environ.update(EXACT_STORE="s3://exact/chaos", MLFLOW_TRACKING_URI=mlflow.uri)
        os.environ.update(EXACT_CACHE_DIR=str(root / "cache"))
        yield {kind: store, "MLflow": mlflow}
    finally:
        store.kill()
        mlflow.kill()


if __name__ == "__main__":
    sys.exit(main())
