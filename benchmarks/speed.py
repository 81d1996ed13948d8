"""Time and memory of training and inference against a plain implementation of the same equations.

    OMP_NUM_THREADS=2 python -m benchmarks.speed [--quick]        a Markdown table on standard output

Sizes are the paper's: dim 128, depth 8 and 4, 4 heads of 64, 24 x 24 pixels, 18 classes, 4 windows with 33-61 dates
(cut at 60). `benchmarks.plain` is the other side: full attention maps, 60 dates computed for every series, loops over
classes. Both sides do a step in turn, in one process, and each figure is a median; both run with the allocator settings
that `exact run` gives its stages. Peak memory is that of a process of its own for each side, with the same settings.
On a machine that others use, `OMP_NUM_THREADS=1 ... --cpu-time` counts the seconds a step computed, not not its waits.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from exact_kubeflow.pipelines.local import ALLOCATOR
from torch import Tensor, nn

from benchmarks import plain
from exact_core.clues.cams import clue_cams
from exact_core.clues.masks import enlarge, strongest_class
from exact_core.clues.sweep import sweep_confusions
from exact_core.config import ClassifierConfig, EncoderConfig, SegmenterConfig
from exact_core.data.windows.batches import Batch, Series
from exact_core.losses import segmentation_loss
from exact_core.models.classifier import TagClassifier
from exact_core.models.cpu_block import linear, weight_gradient
from exact_core.models.segmenter import Segmenter
from exact_core.models.sequences import group_sequences, part_size
from exact_core.training.classifier import classifier_losses

SHAPE = {"bands": 10, "classes": 18, "window": 24}
DATES = 60
WINDOWS = 4
MEMORY_SIDES = ("plain", "ours", "checkpointing")
Step = Callable[[], object]


def paper_batch(*, masked: bool, seed: int = 0, side: int = 24) -> Batch:
    """Windows with dates drawn from 33-61 and cut at 60, and 2-4 tags each."""
    rng = np.random.default_rng(seed)
    counts = torch.from_numpy(np.minimum(rng.integers(33, 62, WINDOWS), DATES))
    longest = int(counts.max())
    real = torch.arange(longest) < counts[:, None]
    pixels = torch.from_numpy(rng.standard_normal((WINDOWS, longest, 10, side, side), np.float32))
    tags = np.zeros((WINDOWS, 18), np.float32)
    for row in tags:
        row[rng.choice(18, rng.integers(2, 5), replace=False)] = 1
    return Batch(
        series=Series(
            pixels * real[:, :, None, None, None],
            torch.arange(1, 6 * longest, 6) * real,
            None if bool(real.all()) else real[:, None],
            None if masked else DATES - counts,
        ),
        tags=torch.from_numpy(tags),
        target=torch.from_numpy(rng.integers(0, 19, (WINDOWS, side, side))),
        index=np.arange(WINDOWS),
    )


def encoder(*, masked: bool, **changes: object) -> EncoderConfig:
    """The paper's encoder with day-of-year dates."""
    return EncoderConfig.model_validate({"dates": "day_of_year", "mask_padding": masked, **changes})


class ClassifierSides:
    """A classifier of each side with the same parameters, and a training step of each."""

    def __init__(self, *, masked: bool, checkpointing: bool = False) -> None:
        torch.manual_seed(0)
        self.config = ClassifierConfig.model_validate(
            {
                "encoder": encoder(masked=masked, residual="normed", checkpointing=checkpointing),
                "prototypes": {"momentum_warmup": False},
                "affinity": {"time_weights": "attention" if masked else "double_softmax"},
            }
        )
        self.batch = paper_batch(masked=masked)
        self.ours = TagClassifier(self.config, **SHAPE)
        # As after some training: about half of the pixels of a tagged class are active.
        nn.init.normal_(self.ours.patch_head.weight, std=0.05)
        self.plain = plain.PlainClassifier(self.config, **SHAPE)
        self.plain.load_state_dict(self.ours.state_dict())
        padded, real = plain.pad_series(self.batch.series, DATES)
        self.padded, self.keys = padded, real if masked else None
        self.optimizers = {
            side: torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
            for side, model in (("ours", self.ours), ("plain", self.plain))
        }

    def our_losses(self, *, start: bool) -> dict[str, Tensor]:
        """Loss parts of ours, prototypes moved."""
        losses, clues = classifier_losses(
            self.ours(self.batch.series), self.batch, self.ours, self.config, contrast=start
        )
        if clues is not None:
            clues.move(self.ours.prototypes)
        parts = {"tags": losses.tags, "auxiliary": losses.auxiliary, "affinity": losses.affinity}
        return parts if losses.contrast is None else {**parts, "contrast": losses.contrast}

    def plain_losses(self, *, start: bool) -> dict[str, Tensor]:
        """Loss parts of the plain side, prototypes moved."""
        output = self.plain(self.padded, self.keys)
        return plain.classifier_loss(
            output, self.batch.tags, self.keys, self.plain.prototypes, self.config, start=start
        )

    def step(self, side: str, *, start: bool) -> None:
        """Forward, backward, AdamW."""
        parts = (self.our_losses if side == "ours" else self.plain_losses)(start=start)
        self.optimizers[side].zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        self.optimizers[side].step()

    def cams(self, side: str) -> Tensor:
        """CAMs of the batch."""
        with torch.no_grad():
            tags = self.batch.tags
            if side == "plain":
                output = self.plain(self.padded, self.keys)
                return plain.clue_cams(output, tags, self.keys, self.plain.prototypes, self.config)
            seen = self.batch.series.seen
            return clue_cams(
                self.ours.clues(self.batch.series),
                tags,
                seen,
                self.ours.prototypes,
                self.config.affinity,
                stretch="maximum",
            )

    def differences(self) -> str:
        """How far both sides' losses, gradients and CAMs are apart."""
        ours, theirs = self.our_losses(start=True), self.plain_losses(start=True)
        loss = max(abs(float((ours[name] - theirs[name]).detach()) / float(theirs[name].detach())) for name in theirs)
        torch.stack(list(ours.values())).sum().backward()
        torch.stack(list(theirs.values())).sum().backward()
        named = dict(self.plain.named_parameters())
        gradient = max(
            float((p.grad - named[name].grad).norm() / named[name].grad.norm().clamp(min=1e-6))
            for name, p in self.ours.named_parameters()
            if p.grad is not None
        )
        cams = float((self.cams("ours") - self.cams("plain")).abs().max())
        text = f"relative differences: losses {loss:.1e}, gradients {gradient:.1e}; CAMs {cams:.1e}"
        if loss > 1e-4 or gradient > 1e-3 or cams > 1e-3:
            raise SystemExit(f"the two sides differ: {text}")
        return text


class SegmenterSides:
    """A segmenter of each side with the same parameters, and a training step of each."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        config = SegmenterConfig(encoder=encoder(masked=True, temporal_depth=4, head_dim=32, residual="double"))
        self.batch = paper_batch(masked=True)
        self.ours, self.plain = Segmenter(config, **SHAPE), plain.PlainSegmenter(config, **SHAPE)
        self.plain.load_state_dict(self.ours.state_dict())
        self.padded, self.keys = plain.pad_series(self.batch.series, DATES)
        self.optimizers = {
            side: torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
            for side, model in (("ours", self.ours), ("plain", self.plain))
        }

    def step(self, side: str) -> None:
        """Forward, backward, AdamW."""
        logits = self.ours(self.batch.series) if side == "ours" else self.plain(self.padded, self.keys)
        self.optimizers[side].zero_grad(set_to_none=True)
        segmentation_loss(logits, self.batch.target).backward()
        self.optimizers[side].step()


def products_alone(model: TagClassifier, batch: Batch) -> Step:
    """The matrix products of our step, forward and backward, on arrays of the same shapes, and nothing else."""
    config = model.temporal.config
    inner = config.heads * config.head_dim
    weights = [(3 * inner, config.dim), (config.dim, inner)]
    weights += [(config.mlp_ratio * config.dim, config.dim), (config.dim, config.mlp_ratio * config.dim)]
    groups = group_sequences(batch.series, patches=model.side**2, tokens=18)
    shapes = [(len(g.window), 18 + g.date.shape[1], config.temporal_depth) for g in groups]
    sequences, length = WINDOWS * 18, 1 + model.side**2
    size = part_size(sequences, length, torch.device("cpu"))
    shapes += [(min(size, sequences - at), length, config.spatial_depth) for at in range(0, sequences, size)]

    def block(count: int, length: int) -> None:
        for out, into in weights:
            x, weight = torch.ones(count * length, into), torch.ones(out, into)
            y = linear(x, weight)
            linear(y, weight.t())
            weight_gradient(y, x)
        for _ in range(config.heads):
            q = torch.ones(count, length, config.head_dim)
            scores = torch.bmm(q, q.transpose(1, 2))
            torch.bmm(scores, q)
            torch.bmm(scores.transpose(1, 2), q)
            torch.bmm(q, q.transpose(1, 2))
            torch.bmm(scores, q)
            torch.bmm(scores.transpose(1, 2), q)

    def run() -> None:
        for count, tokens, depth in shapes:
            for _ in range(depth):
                block(count, tokens)

    return run


def medians(steps: dict[str, Step], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each step; all of them in turn, `repeats` times, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(repeats + 1):
        for name, step in steps.items():
            started = clock()
            step()
            if round_:
                seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def row(what: str, theirs: float, ours: float, aim: str, unit: str = "s") -> None:
    """One line of the table."""
    print(f"| {what} | {theirs:.4g} {unit} | {ours:.4g} {unit} | {theirs / ours:.2f} | {aim} |", flush=True)


def classifier_rows(repeats: int, clock: Callable[[], float]) -> None:
    """Steps with padding masked and attended, the floor, CAMs."""
    for masked, name in ((True, "padding masked"), (False, "padding attended")):
        sides = ClassifierSides(masked=masked)
        print(f"<!-- {name}: {sides.differences()} -->", flush=True)
        lean = ClassifierSides(masked=masked, checkpointing=True)
        steps: dict[str, Step] = {
            f"{side} {start}": lambda side=side, start=start, sides=sides: sides.step(side, start=start)
            for start in (False, True)
            for side in ("plain", "ours")
        }
        steps["checkpointing"] = lambda lean=lean: lean.step("ours", start=True)
        steps["products"] = products_alone(sides.ours, sides.batch)
        steps |= {f"cams {side}": lambda side=side, sides=sides: sides.cams(side) for side in ("plain", "ours")}
        found = medians(steps, repeats, clock)
        row(f"classifier step before prototypes, {name}", found["plain False"], found["ours False"], "1.5")
        row(f"classifier step with prototypes, {name}", found["plain True"], found["ours True"], "1.5")
        row(f"the same with checkpointing, {name}", found["plain True"], found["checkpointing"], "-")
        ratio = found["ours True"] / found["products"]
        print(
            f"| its products alone, {name} | | {found['products']:.4g} s | step / products {ratio:.2f} | at most 1.5 |"
        )
        row(f"CAM generation, {WINDOWS} windows, {name}", found["cams plain"], found["cams ours"], "2")


def other_rows(repeats: int, clock: Callable[[], float]) -> None:
    """Segmenter and sweep."""
    sides = SegmenterSides()
    found = medians({side: lambda side=side: sides.step(side) for side in ("plain", "ours")}, repeats, clock)
    row("segmenter step", found["plain"], found["ours"], "1.5")
    generator = torch.Generator().manual_seed(0)
    cams = torch.rand(64, 18, 12, 12, generator=generator) * (torch.rand(64, 18, 1, 1, generator=generator) < 0.2)
    truth = torch.randint(0, 19, (64, 24, 24), generator=generator).numpy().astype(np.uint8)
    thresholds = np.arange(60) / 100

    def once() -> np.ndarray:
        return sweep_confusions(*strongest_class(enlarge(cams, 24, align_corners=True)), truth, thresholds, 18)

    if not np.array_equal(once(), plain.sweep(cams, truth, thresholds, 18)):
        raise SystemExit("the two sweeps differ")
    found = medians({"plain": lambda: plain.sweep(cams, truth, thresholds, 18), "ours": once}, repeats, clock)
    row("sweep of 60 thresholds, a window", found["plain"] / 64e-3, found["ours"] / 64e-3, "100", "ms")


def memory_of(side: str) -> float:
    """Peak resident memory, MB, of this process after two steps with prototypes."""
    sides = ClassifierSides(masked=True, checkpointing=side == "checkpointing")
    for _ in range(2):
        sides.step("plain" if side == "plain" else "ours", start=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_rows() -> None:
    """Peak memory of each side in a process of its own."""
    found = {}
    for side in MEMORY_SIDES:
        command = [sys.executable, "-m", "benchmarks.speed", "--memory", side]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
        found[side] = float(done.stdout)
    row("peak memory of a classifier step", found["plain"], found["ours"], "2", "MB")
    row("the same with checkpointing", found["plain"], found["checkpointing"], "4", "MB")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds; only with one thread")
    parser.add_argument("--memory", choices=MEMORY_SIDES, help="only print the peak memory of one side, MB")
    options = parser.parse_args()
    if not all(os.environ.get(name) == value for name, value in ALLOCATOR.items()):
        # The allocator reads them when a process starts.
        command = [sys.executable, "-m", "benchmarks.speed", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | ALLOCATOR)  # noqa: S606 - ourselves
    if options.memory:
        print(memory_of(options.memory))
        return
    print(f"<!-- torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} CPUs -->")
    print("| | plain | ours | ratio | aim |\n| --- | --- | --- | --- | --- |", flush=True)
    if options.cpu_time and torch.get_num_threads() > 1:
        raise SystemExit("--cpu-time adds up the threads' seconds; set OMP_NUM_THREADS=1")
    repeats = 1 if options.quick else 3
    memory_rows()
    clock = time.process_time if options.cpu_time else time.perf_counter
    classifier_rows(repeats, clock)
    other_rows(repeats, clock)


if __name__ == "__main__":
    main()
