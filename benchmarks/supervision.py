"""Maps side by side: from tags and from dense labels, by two segmenters, and the floors below them.

    python -m benchmarks.supervision [--recipe demo] [--source synthetic] [--seeds 0 1 2] [--workdir runs/supervision]

Each seed is an `exact run` from tags. On its dataset, a second segmenter (U-TAE) learns from the same masks, and the
first one from dense labels (`exact train-segmenter`, `exact evaluate`); `benchmarks.floors` gives the floors. All are
recorded in MLflow. What has finished is not repeated, so a stopped benchmark continues. Tables go to stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.floors import floors

SETTINGS = {"dense": (), "utae": ("--set", "segmenter.model=utae")}
NAMES = {
    "class prior": "class prior (floor)",
    "best constant": "best constant from tags (floor)",
    "per pixel": "single pixels from tags (floor)",
    "utae": "map from tags, U-TAE on the same masks",
    "tags": "**map from tags**",
    "dense": "map from dense labels",
}


def exact(*arguments: str | Path) -> None:
    """One command of ours."""
    command = [sys.executable, "-m", "exact_kubeflow.cli", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603 - our own command


def from_tags(workdir: Path, *, source: str, common: Sequence[str]) -> dict[str, Any]:
    """Metrics of a whole run, with its duration in seconds."""
    timing = workdir / "seconds.json"
    if not timing.is_file():
        started = time.perf_counter()
        exact("run", "--workdir", workdir, "--source", source, *common)
        timing.write_text(json.dumps(time.perf_counter() - started))
    return {**read(workdir / "evaluation"), "seconds": json.loads(timing.read_text())}


def peer(workdir: Path, name: str, common: Sequence[str]) -> dict[str, Any]:
    """Metrics of another segmenter on the dataset of a finished run, from its masks or from dense labels."""
    model, scored, dataset = workdir / f"segmenter-{name}", workdir / f"evaluation-{name}", workdir / "dataset"
    masks = [] if name == "dense" else ["--masks", workdir / "masks"]
    if not (model / "model.json").is_file():
        exact("train-segmenter", dataset, model, *masks, *common, *SETTINGS[name])
    if not (scored / "metrics.json").is_file():
        exact("evaluate", dataset, model, scored, "--report", workdir / f"report-{name}.html", *masks, *common)
    return read(scored)


def read(folder: Path) -> dict[str, Any]:
    """Metrics of an evaluation."""
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def floor_rows(workdir: Path, seed: int) -> dict[str, dict[str, Any]]:
    """The floors on the dataset of a finished run."""
    path = workdir / "floors.json"
    if not path.is_file():
        path.write_text(json.dumps(floors(workdir / "dataset", seed=seed)))
    rows: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return rows


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--source", default="synthetic")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/supervision"))
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    seeds: list[dict[str, dict[str, Any]]] = []
    for seed in options.seeds:
        common = ["--recipe", options.recipe, "--seed", str(seed)]
        common += [part for change in options.changes for part in ("--set", change)]
        place = options.workdir / f"seed{seed}"
        found = {"tags": from_tags(place, source=options.source, common=common)}
        found |= {name: peer(place, name, common) for name in SETTINGS}
        seeds.append({**found, **floor_rows(place, seed)})
    sys.stdout.write(map_table(seeds) + "\n\n" + mask_table(options.seeds, seeds) + "\n")


def map_table(seeds: Sequence[dict[str, dict[str, Any]]]) -> str:
    """Maps of the evaluation split: mean ± standard deviation over seeds, and the share of dense supervision's mIoU."""
    lines = ["| map | mIoU | OA | mIoU, % of dense |", "| --- | --- | --- | --- |"]
    for name, title in NAMES.items():
        miou, accuracy = ([100 * found[name][figure] for found in seeds] for figure in ("miou_macro", "oa_micro"))
        share = [100 * found[name]["miou_macro"] / found["dense"]["miou_macro"] for found in seeds]
        lines.append(f"| {title} | {' | '.join(spread(values) for values in (miou, accuracy, share))} |")
    return "\n".join(lines)


def mask_table(numbers: Sequence[int], seeds: Sequence[dict[str, dict[str, Any]]]) -> str:
    """The masks of each seed, what was expected of them, and the maps that came of them."""
    lines = ["| seed | fused CAM | masks | expected | map from tags | map from dense | % of dense | tags run, s |"]
    lines.append("|" + " --- |" * 8)
    for seed, found in zip(numbers, seeds, strict=True):
        tags, dense = found["tags"], found["dense"]
        figures = [tags["baselines"]["fused_cam"]["miou_macro"], tags["pseudo_masks"]["miou_macro"]]
        figures += [tags["mask_quality"]["expected_miou"], tags["miou_macro"], dense["miou_macro"]]
        figures.append(tags["miou_macro"] / dense["miou_macro"])
        cells = " | ".join(f"{100 * value:.1f}" for value in figures)
        lines.append(f"| {seed} | {cells} | {tags['seconds']:.0f} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean, and the standard deviation where there are several."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


if __name__ == "__main__":
    main()
