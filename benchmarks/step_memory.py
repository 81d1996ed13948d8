"""Peak memory of each step of a run, beside the recipe's estimate and what its first step would ask of a cluster.

    python -m benchmarks.step_memory --source season:FOLDER --recipe season --set segmenter.training.batch=32

The options are those of `exact run`. A step's peak is what its process held at most (VmHWM), looked at five times a
second. The local runner forks steps from a process that has imported all libraries, as a step of a cluster does itself.
Memory of one training does not depend on its epochs, so few of them do.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from exact_core.stages.sizing import BASE, MARGIN

__all__ = ["main", "peaks"]

STARTED = re.compile(r"(\w+): stage process (\d+)")
ESTIMATE = re.compile(r"training takes about ([\d.]+) GB")
EVERY = 0.2
"""Seconds between two looks."""


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


def main() -> None:
    """Run, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        found, estimate = peaks(sys.argv[1:], Path(folder) / "run")
    for name, peak in found.items():
        sys.stdout.write(f"{name:<20} {peak:5.2f} GB\n")
    asked = (BASE + MARGIN * estimate * 1e9) / 1e9
    sys.stdout.write(f"estimate {estimate:.2f} GB, a step that trains or maps gets {asked:.1f} GB\n")


if __name__ == "__main__":
    main()
