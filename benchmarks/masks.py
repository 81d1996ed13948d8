"""Masks of a scene: CAMs with patches encoded once or window by window, and the regression of pixel self-training.

    python -m benchmarks.masks --source season:PATH [--recipe season] [--batch 32 128] [--runs 5] [--threads 1]

The source is ingested as a run would; its training windows overlap, and CAMs are made of each shifted within a patch.
Sides take turns, each in a process of its own; seconds are the processor's, medians, peak memory is the process's. The
classifier is untrained, which changes no cost.

- plain: every window encoded whole, as of 44aab5d, by today's layers; here: shared patches once.
- solver: scikit-learn's logistic regression, as of 44aab5d, against today's, with the series and new masks beside;
  trained on the scene's own labels, which the source must have. What the fit alone takes is said as well.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from benchmarks.plain import nothing_shared
from benchmarks.sides import Side, answer, interleaved
from exact_core.clues.maps import CamMaker
from exact_core.clues.pixels import FirstMask, PixelModel, PixelTable, taught_by_masks
from exact_core.clues.regression import PixelOdds, fit_pixels
from exact_core.config import RunConfig
from exact_core.data.windows.batches import BatchLoader
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.models.classifier import TagClassifier
from exact_core.models.precision import for_inference
from exact_core.recipes import RECIPES, resolve
from exact_core.stages.ingest import ingest
from exact_core.tracking.runs import NoTracker


def cams(config: RunConfig, dataset: Path, out: Path, *, batch: int, shared: bool) -> Callable[[], dict[str, Any]]:
    """Make CAMs of both kinds of the training windows; kept in `out`."""
    windows = WindowDataset(dataset)
    torch.manual_seed(0)
    shape = {"bands": len(windows.manifest.bands), "classes": windows.classes, "window": windows.manifest.window}
    device = torch.device("cpu")
    model = for_inference(TagClassifier(config.classifier, **shape), device, config.precision)
    maker = CamMaker(model, config.classifier, config.masks)

    def work() -> dict[str, Any]:
        loader = BatchLoader(
            windows, windows.indices("train"), batch=batch, encoder=config.classifier.encoder, device=device
        )
        found = []
        with nullcontext() if shared else nothing_shared():
            for part in loader:
                made = maker(part.series, part.tags)
                found.append(torch.stack([made.clue, made.fused], 1).numpy())
        np.save(out, np.concatenate(found))
        return {"windows": len(loader.indices)}

    return work


def relearn(config: RunConfig, dataset: Path, out: Path, *, plain: bool) -> Callable[[], dict[str, Any]]:
    """Learn the labels of the training windows again, and label them anew; kept in `out`."""
    windows = WindowDataset(dataset)
    chosen = windows.indices("train").tolist()
    labels = [windows.labels(index) for index in chosen]
    taught_by = [
        FirstMask(index, np.where(each == VOID, 0, each), each != VOID)
        for index, each in zip(chosen, labels, strict=True)
    ]

    fit, spent = fit_plainly if plain else fit_pixels, [0.0]

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        found = fit(*args, **kwargs)
        spent[0] += time.process_time() - began
        return found

    def work() -> dict[str, Any]:
        spent[0] = 0.0
        with patch("exact_core.clues.pixels.fit_pixels", timed):
            table = PixelTable(windows)
            odds = taught_by_masks(table, taught_by, config.masks.relearn, count=len(taught_by), seed=config.seed)
        model = PixelModel(table, odds)
        np.save(out, np.stack([model.mask(index) for index in chosen]))
        return {"windows": len(chosen), "fit": spent[0]}

    return work


def fit_plainly(
    features: NDArray[Any],
    labels: NDArray[Any],
    *,
    classes: int,
    ridge: float,
    balance: float,
    start: object = None,  # noqa: ARG001 - scikit-learn's starts from nothing
) -> PixelOdds:
    """`exact_core.clues.regression.fit_pixels` by scikit-learn's solver."""
    known, place, count = np.unique(labels, return_inverse=True, return_counts=True)
    weight = ((count / len(labels)) ** -balance)[place]
    with threadpool_limits(1, user_api="blas"):
        model = LogisticRegression(C=ridge, max_iter=1000, tol=1e-6)
        model.fit(features.astype(np.float64), labels, weight / weight.mean())
    found = np.concatenate([model.coef_.T, model.intercept_[None]])
    # Of two classes it gives the difference.
    return PixelOdds(known, found if len(known) > 2 else np.pad(found, ((0, 0), (1, 0))), classes)


def side_of(name: str, config: RunConfig, dataset: Path) -> Callable[[], dict[str, Any]]:
    """What a side does: "plain 32" and the like, "solver plain", "solver here"."""
    first, second = name.split()
    out = dataset.parent / f"{name}.npy"
    if first == "solver":
        return relearn(config, dataset, out, plain=second == "plain")
    return cams(config, dataset, out, batch=int(second), shared=first == "here")


def row(what: str, plain: Side, ours: Side) -> None:
    """One line of the table."""
    print(f"| {what} | {plain.cpu:.2f} | {ours.cpu:.2f} | {plain.ratio(ours):.2f} |", end=" ")
    print(f"{plain.peak:.0f} → {ours.peak:.0f} |", end=" ", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="season")
    parser.add_argument(
        "--batch", type=int, nargs="*", default=[32, 128], help="windows at a time; none: only the solver"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    config = resolve(options.recipe, overrides=[])
    if options.side:
        torch.set_num_threads(options.threads)
        answer(side_of(options.side[0], config, Path(options.side[1])))
        return
    with tempfile.TemporaryDirectory(prefix="exact-masks-") as name:
        dataset = Path(name) / "dataset"
        ingest(config, source=options.source, season="", out=dataset, tracker=NoTracker())
        pairs = {f"CAMs, batches of {batch}": (f"plain {batch}", f"here {batch}") for batch in options.batch}
        pairs["pixel self-training"] = ("solver plain", "solver here")
        given = ["--source", options.source, "--recipe", options.recipe, "--threads", str(options.threads)]
        sides = [side for pair in pairs.values() for side in pair]
        commands = {side: ["benchmarks.masks", *given, "--side", side, str(dataset)] for side in sides}
        found = interleaved(commands, runs=options.runs, threads=options.threads)
        windows = found[sides[0]].found["windows"]
        print(f"| {windows} windows | plain, s | here, s | ratio | peak memory, MB | differ |")
        print("| --- | --- | --- | --- | --- | --- |")
        for what, (one, other) in pairs.items():
            row(what, found[one], found[other])
            theirs, ours = (np.load(dataset.parent / f"{side}.npy").astype(np.float64) for side in (one, other))
            if one.startswith("solver"):
                print(f"{int((theirs != ours).sum())} of {ours.size} labels |")
                fits = [median(run["fit"] for run in found[side].runs) for side in (one, other)]
                print(f"| its fit alone | {fits[0]:.2f} | {fits[1]:.2f} | {fits[0] / fits[1]:.2f} | | |")
            else:
                print(f"by {np.abs(theirs - ours).max():.1e} at most |")


if __name__ == "__main__":
    main()
