"""How long training takes to reach the masks of the paper's recipe.

    python -m benchmarks.time_to_quality [--recipe demo] [--seeds 0 1 2] [--workdir runs/time] [--epochs 4]

A seed trains the paper's recipe (its behaviour with the recipe's sizes, see `benchmarks.ablation`) to its end, and the
default one, right after it, for a few epochs under a schedule of that length. Time is training alone: windows by
windows a second, summed over epochs; making masks is not in it. The paper's masks have the best of all thresholds,
which only the truth can tell; ours choose theirs without it. The table goes to stdout as Markdown.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from pathlib import Path

from benchmarks.ablation import PAPER_CLASSIFIER, PAPER_MASKS, Changes, Variant, measure, trained_folder
from exact_core.artifacts.model_folders import read_metrics

SHORT: Changes = (
    "classifier.training.batch=4",
    "classifier.training.learning_rate=3e-3",
    "classifier.training.warmup_epochs=1.5",
)
"""What few epochs want: more and smaller steps, and a rate that rises over so many of them that none is lost."""


def seconds(folder: Path, windows: int) -> float:
    """Training time of a classifier."""
    return sum(windows / row["windows_per_second"] for row in read_metrics(folder))


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--source", default="synthetic")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/time"))
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    short = (*SHORT, f"classifier.training.epochs={options.epochs}")
    variants = (Variant("paper", PAPER_CLASSIFIER, PAPER_MASKS), Variant("short", short))
    lines = ["| seed | paper's recipe: s | its masks, best threshold | here: s | masks | share of the time |"]
    lines.append("|" + " --- |" * 6)
    shares = []
    for seed in options.seeds:
        cells: list[str] = []
        times = []
        for variant in variants:
            place = {"recipe": options.recipe, "seed": seed, "workdir": options.workdir}
            row = measure(variant, source=options.source, everywhere=(), **place)
            folder, windows = trained_folder(variant, everywhere=(), **place)
            times.append(seconds(folder, windows))
            cells += [f"{times[-1]:.0f}", f"{row['best' if variant.name == 'paper' else 'miou']:.1f}"]
        shares.append(times[1] / times[0])
        lines.append(f"| {seed} | {' | '.join(cells)} | {shares[-1]:.2f} |")
    lines.append(f"| median | | | | | {statistics.median(shares):.2f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
