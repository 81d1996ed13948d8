"""Peak memory of each step of a run, beside what `preflight` estimates and what it would ask of a cluster.

    python -m benchmarks.memory [--season FOLDER] [--only CASE]
    python -m benchmarks.memory --source season:FOLDER --recipe season --set segmenter.training.batch=32

The first form runs the cases below, the second one run with the options of `exact run`. A step's peak is what its
process held at most (VmHWM, which has the libraries' pages in it), looked at five times a second. The local runner
forks steps from a process that has imported all libraries, as a step of a cluster does itself. One epoch is enough: the
peak is that of a batch.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from exact_core.stages.sizing import BASE, MARGIN
from tests.conftest import TINY

__all__ = ["main", "peaks"]

STARTED = re.compile(r"(\w+)(?: \d+/\d+)?: stage process (\d+)")
ESTIMATE = re.compile(r"training takes about ([\d.]+) GB")
EVERY = 0.2
"""Seconds between two looks."""
TRAININGS = ("train_classifier", "train_segmenter")
SHORT = [
    "device=cpu",
    *(f"{kind}.training.{name}=1" for kind in ("classifier", "segmenter") for name in ("epochs", "fewest_steps")),
]
"""An epoch of whole batches."""


def batches(size: int) -> list[str]:
    """Settings of both trainings."""
    return [f"{kind}.training.batch={size}" for kind in ("classifier", "segmenter")]


FEW = [*SHORT, "data.synthetic.scenes=4"]
CASES = {
    "sizes of the tests": ("synthetic", "demo", [*TINY, *SHORT]),
    "demo": ("synthetic", "demo", FEW),
    "demo, batches of 48": ("synthetic", "demo", [*FEW, *batches(48)]),
    "season": ("season", "season", SHORT),
    "season, batches of 64": ("season", "season", [*SHORT, *batches(64)]),
}
"""Source, recipe and settings."""


def peaks(options: list[str], workdir: Path) -> tuple[dict[str, float], float]:
    """GB that each step of a run held at most, and GB that its training was estimated at.

    Raises:
        CalledProcessError: the run failed; its run.log says why.
    """
    command = [sys.executable, "-m", "exact_kubeflow.cli", "run", "--workdir", str(workdir), *options]
    log, found = workdir / "run.log", dict[str, float]()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:  # noqa: S603 - our own
        while run.poll() is None:
            said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
            for name, process in STARTED.findall(said):
                found[name] = max(found.get(name, 0.0), _held(process))
            time.sleep(EVERY)
    if run.returncode:
        raise subprocess.CalledProcessError(run.returncode, command)
    estimate = ESTIMATE.search(log.read_text(encoding="utf-8"))
    return found, float(estimate[1]) if estimate else float("nan")


def _held(process: str) -> float:
    """GB; 0 once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(peak[1]) * 1024 / 1e9 if peak else 0.0


def asked(estimate: float) -> float:
    """GB that a step that trains or maps gets on a cluster."""
    return (BASE + MARGIN * estimate * 1e9) / 1e9


def table(season: str, only: str) -> None:
    """A row a case, as each ends."""
    print("| case | estimate, GB | classifier | segmenter | larger / estimate | other steps | gets |")
    print("| --- " * 7 + "|", flush=True)
    for case, (source, recipe, settings) in CASES.items():
        if only not in ("", case) or (source == "season" and not season):
            continue
        given = f"season:{season}" if source == "season" else source
        options = ["--source", given, "--recipe", recipe, *(word for each in settings for word in ("--set", each))]
        with tempfile.TemporaryDirectory() as folder:
            found, estimate = peaks(options, Path(folder) / "run")
        trained = [found.pop(name) for name in TRAININGS]
        name, other = max(found.items(), key=lambda each: each[1])
        shown = " | ".join(f"{peak:.2f}" for peak in (estimate, *trained, max(trained) / estimate))
        print(f"| {case} | {shown} | {other:.2f} (`{name}`) | {asked(estimate):.1f} |", flush=True)


def main() -> None:
    """Run, and print the table."""
    given = sys.argv[1:]
    if any(word.split("=")[0] not in ("--season", "--only") for word in given[::2]):
        with tempfile.TemporaryDirectory() as folder:
            found, estimate = peaks(given, Path(folder) / "run")
        for name, peak in found.items():
            print(f"{name:<20} {peak:5.2f} GB")
        print(f"estimate {estimate:.2f} GB, a step that trains or maps gets {asked(estimate):.1f} GB")
        return
    words = dict(zip(given[::2], given[1::2], strict=True))
    table(words.get("--season", ""), words.get("--only", ""))


if __name__ == "__main__":
    main()
