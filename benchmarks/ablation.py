"""What each part of the recipe is worth: mIoU of the pseudo masks, part by part, over several seeds.

    python -m benchmarks.ablation [--recipe demo] [--seeds 0 1 2] [--workdir runs/ablation] [--only NAME ...]
    python -m benchmarks.ablation --recipe season --source season:PATH

Every row is a classifier and a way to make masks from it. Its masks are scored on the training windows, where the
segmenter will learn from them; the truth serves to score alone, except for the column "best threshold", which says what
an oracle would have reached. The last epoch's weights are used, so that no choice of a checkpoint blurs the comparison.
What is done is kept in the work folder. The table goes to stdout as Markdown: mean ± standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.supervision import spread
from exact_core.clues.masks import strongest_class
from exact_core.clues.selection import BINS, THRESHOLDS
from exact_core.clues.sweep import sweep_confusions, sweep_figures
from exact_core.config import RunConfig
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.evaluation.score import score_masks
from exact_core.recipes import resolve
from exact_core.stages.generate_masks import generate_masks
from exact_core.stages.ingest import ingest
from exact_core.stages.train_classifier import train_classifier
from exact_core.tracking.runs import NoTracker

Changes = tuple[str, ...]

PAPER_CLASSIFIER: Changes = (
    "classifier.encoder.residual=normed",
    "classifier.encoder.dates=day_of_year",
    "classifier.encoder.mask_clouds=false",
    "classifier.encoder.mask_padding=false",
    "classifier.prototypes.momentum_warmup=false",
    "classifier.prototypes.present_only=false",
    "classifier.prototypes.weights=published",
    "classifier.affinity.time_weights=double_softmax",
    "classifier.training.schedule=published",
    "classifier.training.flips=false",
    "classifier.training.keep_dates=1",
)
"""The published behaviour with the recipe's sizes, learning rate, steps and momentum.

The paper's own batch of 48 and rate of 1e-3 would make of a few thousand windows too few steps to learn anything.
"""
PAPER_MASKS: Changes = (
    "masks.stretch=min_max",
    "masks.shifts=false",
    "masks.diffusion=0",
    "masks.align_corners=true",
    "masks.threshold=otsu",
    "masks.relearn.rounds=0",
)
"""The published masks; their threshold, which the paper takes from the truth, by the simplest rule without it."""


@dataclass(frozen=True)
class Variant:
    """A row: how the classifier is trained, and how masks are made of it."""

    name: str
    classifier: Changes = ()
    masks: Changes = ()


NO_CONTRAST, NO_AFFINITY = "classifier.loss.contrast=0", "classifier.loss.affinity=0"
VARIANTS = (
    Variant("paper recipe", PAPER_CLASSIFIER, PAPER_MASKS),
    Variant("paper's training, masks as here", PAPER_CLASSIFIER),
    Variant("training as here, paper's masks", (), PAPER_MASKS),
    Variant("**default**"),
    Variant("fused CAM, no clue in training", (NO_CONTRAST, NO_AFFINITY), ("masks.cam=fused",)),
    Variant("fused CAM, temporal clue in training", (NO_CONTRAST,), ("masks.cam=fused",)),
    Variant("fused CAM, both clues in training", (), ("masks.cam=fused",)),
    Variant("clue-based CAM, no temporal clue in training", (NO_AFFINITY,)),
    Variant("default, clouds attended to", ("classifier.encoder.mask_clouds=false",)),
    Variant("default, no date dropping", ("classifier.training.keep_dates=1",)),
    Variant("default, no flips", ("classifier.training.flips=false",)),
    Variant(
        "default, published prototypes",
        (
            "classifier.prototypes.momentum_warmup=false",
            "classifier.prototypes.present_only=false",
            "classifier.prototypes.weights=published",
        ),
    ),
    Variant("default, min-max instead of maximum", (), ("masks.stretch=min_max",)),
    Variant("default, no shifted windows", (), ("masks.shifts=false",)),
    Variant("default, no diffusion", (), ("masks.diffusion=0",)),
    Variant("default, no pixel self-training", (), ("masks.relearn.rounds=0",)),
    Variant("default, no propagation of the clue-based CAM", (), ("masks.propagation=false",)),
    Variant("default, threshold by Otsu", (), ("masks.threshold=otsu",)),
)


def measure(
    variant: Variant, *, recipe: str, source: str, seed: int, workdir: Path, everywhere: Changes
) -> dict[str, float]:
    """Scores of a row for a seed, in percent."""
    config = configure(variant, recipe=recipe, seed=seed, everywhere=everywhere)
    data = data_folder(config, workdir)
    if not (data / "dataset.json").is_file():
        ingest(config, source=source, season="", out=data, tracker=NoTracker())
    windows = WindowDataset(data)
    trained = classifier_folder(config, workdir)
    if not (trained / "model.json").is_file():
        train_classifier(config, dataset=data, out=trained, tracker=NoTracker())
    made = workdir / f"masks-{config.digest()[:12]}"
    scores = made / "scores.json"
    if not scores.is_file():
        if not (made / "masks.json").is_file():
            generate_masks(config, dataset=data, classifier=trained, out=made, tracker=NoTracker())
        masks = MaskSet(made, windows)
        found = score_masks(masks, windows, split="train", fused=False)
        row = {"miou": 100 * found["miou_macro"], "oa": 100 * found["oa_micro"], "best": oracle(masks, windows)}
        scores.write_text(json.dumps(row))
        for shard in made.glob("*.safetensors"):
            shard.unlink()
    kept: dict[str, float] = json.loads(scores.read_text())
    return kept


def configure(variant: Variant, *, recipe: str, seed: int, everywhere: Changes) -> RunConfig:
    """The configuration of a row."""
    changes = [*everywhere, "classifier.training.keep_best=false", *variant.classifier]
    return resolve(recipe, seed=seed, overrides=[*changes, *variant.masks])


def data_folder(config: RunConfig, workdir: Path) -> Path:
    """Where the dataset of a configuration lies; rows share it."""
    return workdir / f"data-{config.digest('data', 'seed')[:12]}"


def classifier_folder(config: RunConfig, workdir: Path) -> Path:
    """Where its classifier lies; rows that differ in their masks alone share it."""
    return workdir / f"classifier-{config.digest('data', 'classifier', 'seed')[:12]}"


def trained_folder(variant: Variant, *, recipe: str, seed: int, workdir: Path, everywhere: Changes) -> tuple[Path, int]:
    """A measured row's classifier, and how many windows it was trained on."""
    config = configure(variant, recipe=recipe, seed=seed, everywhere=everywhere)
    windows = WindowDataset(data_folder(config, workdir))
    return classifier_folder(config, workdir), len(windows.indices("train"))


def oracle(masks: MaskSet, windows: WindowDataset) -> float:
    """The best mIoU, in percent, that any threshold could give."""
    total = np.zeros((BINS, windows.classes + 1, windows.classes + 1), np.int64)
    for index in windows.indices("train"):
        cams = torch.from_numpy(masks.cam(int(index))).float()[None]
        truth = windows.labels(int(index))[None]
        total += sweep_confusions(*strongest_class(cams), truth, THRESHOLDS, windows.classes)
    return 100 * float(sweep_figures(total)[1].max())


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Mean ± standard deviation over seeds, as Markdown."""
    lines = ["| masks | mIoU | OA | mIoU, best threshold |", "| --- | --- | --- | --- |"]
    for name, rows in found.items():
        cells = [spread([row[figure] for row in rows]) for figure in ("miou", "oa", "best")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--source", default="synthetic")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    settings: dict[str, Any] = {name: getattr(options, name) for name in ("recipe", "source", "workdir")}
    found: dict[str, list[dict[str, float]]] = {}
    for variant in VARIANTS:
        if options.only and variant.name not in options.only:
            continue
        found[variant.name] = [
            measure(variant, seed=seed, everywhere=tuple(options.changes), **settings) for seed in options.seeds
        ]
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main()
