"""Tags against dense labels: the same segmenter, the same windows, several seeds (`make bench`).

    python -m benchmarks.supervision [--recipe demo] [--source synthetic] [--seeds 0 1 2] [--workdir runs/supervision]

Each seed is a pair of `exact run`: from tags, and with --supervision dense. A finished run in the work folder is not
repeated, so a stopped benchmark continues. The table goes to stdout as Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def run(workdir: Path, *, recipe: str, source: str, seed: int, supervision: str, changes: list[str]) -> dict[str, Any]:
    """Metrics of one run, with its duration in seconds."""
    timing = workdir / "seconds.json"
    if not timing.is_file():
        started = time.perf_counter()
        command = [sys.executable, "-c", "from exact_core.cli import main; main()", "run"]
        command += ["--workdir", str(workdir), "--recipe", recipe, "--source", source, "--seed", str(seed)]
        command += ["--supervision", supervision, *(part for change in changes for part in ("--set", change))]
        subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603 - our own command
        timing.write_text(json.dumps(time.perf_counter() - started))
    metrics: dict[str, Any] = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    return {**metrics, "seconds": json.loads(timing.read_text())}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--source", default="synthetic")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/supervision"))
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        pair = {
            supervision: run(
                options.workdir / f"seed{seed}-{supervision}",
                recipe=options.recipe,
                source=options.source,
                seed=seed,
                supervision=supervision,
                changes=options.changes,
            )
            for supervision in ("tags", "dense")
        }
        rows.append(row(seed, pair["tags"], pair["dense"]))
    names = list(rows[0])
    means = {name: statistics.mean(entry[name] for entry in rows) for name in names[1:]}
    out = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    out += [f"| {' | '.join(shown(name, entry[name]) for name in names)} |" for entry in rows]
    out += [f"| mean | {' | '.join(shown(name, means[name]) for name in names[1:])} |"]
    sys.stdout.write("\n".join(out) + "\n")


def row(seed: int, tags: dict[str, Any], dense: dict[str, Any]) -> dict[str, float]:
    """One seed's figures, in percent and seconds."""
    masks, fused = tags["pseudo_masks"], tags["baselines"]["fused_cam"]
    return {
        "seed": seed,
        "fused CAM mIoU": 100 * fused["miou_macro"],
        "masks mIoU": 100 * masks["miou_macro"],
        "masks OA": 100 * masks["oa_micro"],
        "map from tags mIoU": 100 * tags["miou_macro"],
        "map from tags OA": 100 * tags["oa_micro"],
        "map from dense mIoU": 100 * dense["miou_macro"],
        "map from dense OA": 100 * dense["oa_micro"],
        "mIoU tags / dense, %": 100 * tags["miou_macro"] / dense["miou_macro"],
        "tags run, s": tags["seconds"],
    }


def shown(name: str, value: float) -> str:
    """A figure as the table shows it."""
    return f"{value:.0f}" if name in {"seed", "tags run, s"} else f"{value:.1f}"


if __name__ == "__main__":
    main()
