"""Is preflight's estimate of memory what the trainings of a run take at their peak?

    python -m benchmarks.memory

Each training runs in a process of its own, as a step of a pipeline does, with MLflow over a file and dense labels.
Peaks are VmHWM, what was resident at once. One epoch is enough: the peak is that of a batch.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from exact_core.data.synthetic import ingest_synthetic
from exact_core.recipes import resolve
from exact_core.stages.lifecycle import open_stage
from exact_core.stages.preflight import survey, training_size
from tests.conftest import TINY

STEPS = ("train_classifier", "train_segmenter")
SHORT = ["device=cpu", "classifier.training.epochs=1", "segmenter.training.epochs=1"]
SMALL = [
    *SHORT,
    "data.synthetic.scenes=4",
    *(f"{kind}.training.fewest_steps=1" for kind in ("classifier", "segmenter")),  # whole batches
]
CASES = {
    "tests": ("demo", [*TINY, *SHORT]),
    "demo": ("demo", SMALL),
    "demo, batch 48": ("demo", [*SMALL, "classifier.training.batch=48", "segmenter.training.batch=48"]),
    "season": ("season", SMALL),
    "season, batch 64": ("season", [*SMALL, "classifier.training.batch=64", "segmenter.training.batch=64"]),
}


def step(name: str, recipe: str, root: Path, settings: list[str]) -> None:
    """Run a step, and print its peak in bytes."""
    import exact_kubeflow.components.train_segmenter  # noqa: F401 - what a step has imported before it begins

    config = resolve(recipe, seed=1, overrides=settings)
    with open_stage(name, config, pipeline_run="peak") as tracker:
        if name == "train_classifier":
            from exact_core.stages.train_classifier import train_classifier

            train_classifier(config, dataset=root / "dataset", out=root / name, tracker=tracker)
        else:
            from exact_core.stages.train_segmenter import train_segmenter

            train_segmenter(config, dataset=root / "dataset", masks=None, out=root / name, tracker=tracker)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(f"peak {1024 * int(peak[1])}")


def main() -> None:
    """Print estimate and peaks of each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one case")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        name, recipe, root, *settings = given.step
        step(name, recipe, Path(root), settings)
        return
    print("| case | estimate, GB | " + " | ".join(STEPS) + " | larger / estimate |")
    print("| --- " * (len(STEPS) + 3) + "|", flush=True)
    for case, (recipe, settings) in CASES.items():
        if given.only not in (None, case):
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
            config = resolve(recipe, seed=1, overrides=settings)
            ingest_synthetic(config.data, Path(folder) / "dataset", seed=1)
            estimate = training_size(config, survey(config, "synthetic", ""))
            peaks = []
            for name in STEPS:
                command = [sys.executable, "-m", "benchmarks.memory", "--step", name, recipe, folder, *settings]
                done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
                assert not done.returncode, done.stdout + done.stderr
                peaks.append(int(done.stdout.split()[-1]))
        shown = " | ".join(f"{peak / 1e9:.2f}" for peak in peaks)
        print(f"| {case} | {estimate / 1e9:.2f} | {shown} | {max(peaks) / estimate:.2f} |", flush=True)


if __name__ == "__main__":
    main()
