"""This code against an older one that is installed elsewhere: whole runs, and the step that makes masks.

    python -m benchmarks.against run OTHER/.venv/bin --source SOURCE --recipe RECIPE [--runs 1] [--threads 2]
    python -m benchmarks.against masks OTHER/.venv/bin --dataset DATASET --classifier CLASSIFIER [--recipe season]

Runs are those of `exact run`, each in an empty folder, so that no champion of the other is met. Masks are made of a
dataset and a classifier that both can read, those of the older one, on one thread. Sides take turns. Seconds are the
processor's, of all processes, and of masks those of the step without imports. Peak memory is that of the largest
process. A busy machine lengthens processor time too, so let nothing else run. Several threads are for wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from exact_kubeflow.pipelines.local import ALLOCATOR

STEP = """
import json, resource, sys, time
from pathlib import Path
try:  # as a step begins
    from exact_core.environment import load_environment
    load_environment()
except ImportError:
    pass
import torch
from exact_core.recipes import resolve
from exact_core.stages.generate_masks import generate_masks
try:
    from exact_core.tracking.runs import NoTracker
except ImportError:  # as it was called
    from exact_core.tracking import NoTracker
torch.set_num_threads(1)
recipe, dataset, classifier, out = sys.argv[1:]
config = resolve(recipe)
began = time.process_time()
generate_masks(config, dataset=Path(dataset), classifier=Path(classifier), out=Path(out), tracker=NoTracker())
spent = time.process_time() - began
print(json.dumps({"cpu": spent, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def whole_run(binaries: Path, given: list[str], threads: int) -> dict[str, float]:
    """Processor and wall seconds of one `exact run` of the installation."""
    with tempfile.TemporaryDirectory(prefix="exact-against-") as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [str(binaries / "exact"), "run", "--workdir", "run", *given]
        environment = _environment(threads)
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        scores = json.loads((Path(folder) / "run/evaluation/metrics.json").read_text())
    return {"cpu": cpu, "wall": wall, "miou": scores["miou_macro"]}


def masks(binaries: Path, given: list[str], threads: int) -> dict[str, float]:
    """Processor seconds and peak memory (MB) of one making of masks by the installation."""
    with tempfile.TemporaryDirectory(prefix="exact-against-") as folder:
        command = [str(binaries / "python"), "-c", STEP, *given, f"{folder}/masks"]
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, env=_environment(threads), check=True, stdout=subprocess.PIPE, text=True
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment(threads: int) -> dict[str, str]:
    return os.environ | ALLOCATOR | {"OMP_NUM_THREADS": str(threads)}


def main(arguments: list[str] | None = None) -> None:
    """Print a row for each side, and the share of the time that this code takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "masks"))
    parser.add_argument("other", type=Path, help="folder of the other installation's `exact` and `python`")
    parser.add_argument("--source", default="synthetic")
    parser.add_argument("--recipe", default="season")
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--classifier", type=Path)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of a run")
    options = parser.parse_args(arguments)
    if options.what == "run":
        work, given = whole_run, ["--source", options.source, "--recipe", options.recipe]
    elif options.dataset is None or options.classifier is None:
        parser.error("masks are made of --dataset and --classifier")
    else:
        work, given = masks, [options.recipe, str(options.dataset.resolve()), str(options.classifier.resolve())]
    sides = {"other": options.other.absolute(), "here": Path(sys.executable).absolute().parent}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(options.runs):
        for name, binaries in sides.items():
            found[name].append(work(binaries, given, options.threads))
            print(name, {key: round(value, 3) for key, value in found[name][-1].items()}, file=sys.stderr, flush=True)
    keys = list(found["here"][0])
    print(f"| | {' | '.join(keys)} |\n| --- |{' --- |' * len(keys)}")
    for name, each in found.items():
        print(f"| {name} | {' | '.join(f'{median(one[key] for one in each):.3f}' for key in keys)} |")
    pairs = list(zip(found["here"], found["other"], strict=True))
    for key in ("cpu", "wall") if options.what == "run" else ("cpu",):
        print(f"share of the time, {key}: {median(mine[key] / theirs[key] for mine, theirs in pairs):.2f}")


if __name__ == "__main__":
    main()
