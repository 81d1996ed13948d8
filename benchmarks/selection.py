"""Choosing without masks, compared: rules for the threshold, criteria for the checkpoint, expected quality.

    python -m benchmarks.selection [--workdir runs/selection] [--cases b1 k4 ...] [--flanders PATH]

Each case is a generated season of another difficulty, or the real scene. A classifier is trained on its tags, with
snapshots from half of the training on; the CAMs of each snapshot are then given to every rule, and the masks are scored
against the truth, which no rule sees. What is done is kept in the work folder. Tables go to stdout as Markdown.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from benchmarks.rules import agreement_threshold, evidence_threshold, tags_threshold
from exact_core.artifacts.model_folders import save_model
from exact_core.clues.maps import CamMaker
from exact_core.clues.masks import strongest_class
from exact_core.clues.selection import BINS, THRESHOLDS, otsu_threshold, valley_threshold
from exact_core.clues.sweep import sweep_confusions, sweep_figures
from exact_core.config import MasksConfig, RunConfig, load_config
from exact_core.data.windows.batches import BatchLoader
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.metrics import Scores, confusion_matrix
from exact_core.models.classifier import TagClassifier
from exact_core.recipes import resolve
from exact_core.stages.generate_masks import generate_masks
from exact_core.stages.ingest import ingest
from exact_core.tracking.runs import NoTracker
from exact_core.training.checkpoint import Checkpoints, Progress
from exact_core.training.classifier import ClassifierTask
from exact_core.training.loop import fit, seed_everything

CPU = torch.device("cpu")
SNAPSHOTS = 2
JUDGED = 128
"""Windows that the costly rules are computed on."""


@dataclass(frozen=True)
class Case:
    """A source, a seed, and what is changed in the recipe."""

    name: str
    seed: int
    changes: tuple[str, ...] = ()
    source: str = "synthetic"
    recipe: str = "demo"


def generated(name: str, seed: int, **settings: float) -> Case:
    """A generated season; settings are those of `data.synthetic`."""
    return Case(name, seed, tuple(f"data.synthetic.{key}={value}" for key, value in settings.items()))


CASES = (
    generated("b0", 0),
    generated("b1", 1),
    generated("b2", 2),
    generated("k4", 3, crops=4),
    generated("k12", 4, crops=12),
    generated("k18", 5, crops=18),
    generated("t12", 6, dates=12),
    generated("t60", 7, dates=58),
    generated("c0", 8, cloud_share=0.0),
    generated("c60", 9, cloud_share=0.6),
    generated("n05", 10, tag_noise=0.05),
    generated("n10", 11, tag_noise=0.1),
    generated("im", 12, imbalance=1.0),
    generated("mix", 13, crops=12, dates=30, cloud_share=0.5, tag_noise=0.05, imbalance=0.7),
)


class Snapshots:
    """Keeps the model of some epochs from the middle of the training on, and every epoch's figures."""

    def __init__(self, model: TagClassifier, folder: Path, epochs: int) -> None:
        self.model, self.folder, self.epochs = model, folder, epochs
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], *, step: int, **_: object) -> None:
        """At the end of an epoch."""
        self.rows.append(metrics)
        if 2 * step >= self.epochs and (self.epochs - step) % max(1, self.epochs // 12) == 0:
            state = {name: value.clone() for name, value in self.model.state_dict().items()}
            save_file(state, self.folder / f"e{step:03d}.safetensors")


def train(case: Case, folder: Path) -> None:
    """Ingest and train a case, unless that has been done."""
    config = resolve(case.recipe, seed=case.seed, overrides=list(case.changes))
    if not (folder / "data" / "dataset.json").is_file():
        ingest(config, source=case.source, season="", out=folder / "data", tracker=NoTracker())
    checkpoints = folder / "ck"
    if (checkpoints / "log.json").is_file():
        return
    checkpoints.mkdir(parents=True, exist_ok=True)
    windows = WindowDataset(folder / "data")
    model = new_model(config, windows)
    seed_everything(case.seed)
    training = config.classifier.training
    snapshots = Snapshots(model, checkpoints, training.epochs)
    fit(
        ClassifierTask(model, config.classifier, loader(windows, config, "validation")),
        loader(windows, config, "train"),
        training,
        seed=case.seed,
        device=CPU,
        checkpoints=Checkpoints(None),
        metrics=snapshots,
        name=case.name,
    )
    config.save(checkpoints / "config.yaml")
    (checkpoints / "log.json").write_text(json.dumps({"rows": snapshots.rows}))


def new_model(config: RunConfig, windows: WindowDataset) -> TagClassifier:
    """An untrained classifier for a dataset."""
    seed_everything(config.seed)
    manifest = windows.manifest
    return TagClassifier(config.classifier, bands=len(manifest.bands), classes=windows.classes, window=manifest.window)


def loader(windows: WindowDataset, config: RunConfig, *splits: str, limit: int | None = None) -> BatchLoader:
    """Windows of splits, or about `limit` of them, evenly chosen."""
    indices = np.concatenate([windows.indices(split) for split in splits])
    if limit is not None and len(indices) > limit:
        indices = indices[np.linspace(0, len(indices) - 1, limit).astype(int)]
    settings = config.classifier
    return BatchLoader(windows, indices, batch=settings.training.batch, encoder=settings.encoder, device=CPU)


def examine(folder: Path, snapshot: Path, *, costly: bool) -> dict[str, Any]:
    """Every rule's threshold and score, the oracle's, the final masks' score and quality figures, for one snapshot."""
    config, windows = load_config(folder / "ck" / "config.yaml"), WindowDataset(folder / "data")
    config = config.model_copy(update={"masks": MasksConfig()})
    model = new_model(config, windows)
    model.load_state_dict(load_file(snapshot))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        classifier, made = Path(place) / "classifier", Path(place) / "masks"
        classifier.mkdir()
        save_model(classifier, model, config=config, dataset=windows, progress=Progress())
        generate_masks(config, dataset=folder / "data", classifier=classifier, out=made, tracker=NoTracker())
        masks = MaskSet(made, windows)
        confusions, final = score_windows(masks, windows)
    accuracy, miou = (100 * figures for figures in sweep_figures(confusions))
    histogram = np.array(masks.manifest.histogram)
    rules = {
        "borders": masks.manifest.threshold,
        "otsu": otsu_threshold(histogram),
        "valley": valley_threshold(histogram),
        "fixed 0.3": 0.3,
    }
    if costly:
        maker = CamMaker(model.eval(), config.classifier, config.masks)
        some = loader(windows, config, "train", limit=JUDGED)
        rules |= {
            "evidence removal": evidence_threshold(maker, loader(windows, config, "train", limit=JUDGED // 4)),
            "agreement of dates": agreement_threshold(maker, some),
            "tags kept": tags_threshold(maker, some, share=config.data.tag_share),
        }
    at = {name: min(round(value * BINS), BINS - 1) for name, value in rules.items()}
    return {
        "snapshot": int(snapshot.stem[1:]),
        "oracle": float(miou.max()),
        "oracle threshold": float(THRESHOLDS[miou.argmax()]),
        "rules": {name: {"threshold": rules[name], "miou": float(miou[place])} for name, place in at.items()},
        "oa": float(accuracy[at["borders"]]),
        "final": 100 * Scores(final).miou_macro,
        "final oa": 100 * Scores(final).oa_micro,
        "quality": masks.manifest.quality.model_dump(),
    }


def score_windows(masks: MaskSet, windows: WindowDataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Confusion matrices of the training windows: of the CAMs at every threshold, and of the masks as they are."""
    classes = windows.classes
    confusions, final = np.zeros((BINS, classes + 1, classes + 1), np.int64), np.zeros((classes + 1,) * 2, np.int64)
    for index in map(int, windows.indices("train")):
        truth, cams = windows.labels(index), torch.from_numpy(masks.cam(index)).float()[None]
        confusions += sweep_confusions(*strongest_class(cams), truth[None], THRESHOLDS, classes)
        final += confusion_matrix(truth, masks.mask(index), classes=classes)
    return confusions, final


def main() -> None:
    """Train what is missing, examine every snapshot, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/selection"))
    parser.add_argument("--cases", nargs="+", default=None)
    parser.add_argument("--flanders", type=Path, default=None, help="the real scene, as a season source")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    cases = list(CASES)
    if options.flanders:
        cases.append(Case("flanders", 0, source=f"season:{options.flanders}", recipe="season"))
    found: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        if options.cases and case.name not in options.cases:
            continue
        folder = options.workdir / f"case_{case.name}"
        train(case, folder)
        found[case.name] = results(folder)
    tables = [threshold_table(found), checkpoint_table(options.workdir, found), quality_table(found)]
    sys.stdout.write("\n\n".join(tables) + "\n")


def results(folder: Path) -> list[dict[str, Any]]:
    """One row a snapshot; the last one is also given to the costly rules."""
    path = folder / "selection.json"
    if path.is_file():
        rows: list[dict[str, Any]] = json.loads(path.read_text())
        return rows
    snapshots = sorted((folder / "ck").glob("e[0-9]*.safetensors"))
    chosen = [snapshots[round(place)] for place in np.linspace(0, len(snapshots) - 1, SNAPSHOTS)]
    rows = [examine(folder, one, costly=one is chosen[-1]) for one in chosen]
    path.write_text(json.dumps(rows, indent=1))
    return rows


def threshold_table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Of each case's last snapshot: mIoU at the oracle's threshold, and how much each rule loses against it."""
    rules = list(next(iter(found.values()))[-1]["rules"])
    lines = [f"| case | oracle | {' | '.join(rules)} | after pixel self-training |", "|" + " --- |" * (len(rules) + 3)]
    losses = []
    for name, rows in found.items():
        last = rows[-1]
        loss = [last["oracle"] - last["rules"][rule]["miou"] for rule in rules]
        losses.append(loss)
        lost = " | ".join(f"−{value:.1f}" for value in loss)
        lines.append(f"| {name} | {last['oracle']:.1f} | {lost} | {last['final']:.1f} |")
    for label, figure in (("mean", np.mean), ("worst", np.max)):
        lines.append(
            f"| {label} loss | | {' | '.join(f'−{value:.1f}' for value in figure(np.array(losses), axis=0))} |"
        )
    return "\n".join(lines)


def quality_table(found: dict[str, list[dict[str, Any]]]) -> str:
    """What was expected of each case's last masks without truth, against what they score."""
    lines = ["| case | expected OA | OA | error | expected mIoU | mIoU | error |", "|" + " --- |" * 7]
    for name, rows in found.items():
        cells = []
        for figure, score in (("expected_oa", "final oa"), ("expected_miou", "final")):
            expected, scored = 100 * rows[-1]["quality"][figure], rows[-1][score]
            cells += [f"{expected:.1f}", f"{scored:.1f}", f"{expected - scored:+.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def checkpoint_table(workdir: Path, found: dict[str, list[dict[str, Any]]]) -> str:
    """MIoU of the masks from the checkpoint that each criterion picks, against the best of the snapshots."""
    lines = ["| case | best | by border contrast | by tag precision | the last |", "|" + " --- |" * 5]
    losses = []
    for name, rows in found.items():
        history = json.loads((workdir / f"case_{name}" / "ck" / "log.json").read_text())["rows"]
        miou = np.array([row["final"] for row in rows])
        border = np.array([row["quality"]["border_contrast"] for row in rows])
        tags = np.array([history[row["snapshot"] - 1].get("validation_tag_map", row["snapshot"]) for row in rows])
        # Of equal ones the later, which has learned longer.
        picks = [miou[len(miou) - 1 - int(np.argmax(figure[::-1]))] for figure in (border, tags)] + [miou[-1]]
        losses.append([miou.max() - pick for pick in picks])
        lines.append(f"| {name} | {miou.max():.1f} | {' | '.join(f'{pick:.1f}' for pick in picks)} |")
    mean = np.mean(losses, axis=0)
    lines.append(f"| mean loss | | {' | '.join(f'−{value:.1f}' for value in mean)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
