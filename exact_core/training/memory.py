"""The memory that a training will need, estimated before it starts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from exact_core.cgroup import memory_free
from exact_core.config import ClassifierConfig, RunConfig, SegmenterConfig
from exact_core.data.windows.batches import Series
from exact_core.models.classifier import TagClassifier
from exact_core.models.precision import choose_precision
from exact_core.models.segmenter import build_segmenter
from exact_core.models.threads import one_thread

__all__ = ["available_bytes", "training_bytes"]

PROBE = 2
"""Windows of the trial: the minimum for batch normalisation."""
COPIES = 5
"""Copies of the weights: themselves, their gradients, Adam's two moments, and the best epoch's."""
BACKWARD = 1.1
"""What losses and gradients on their way take beside what the forward pass saved. Measured: 1.25 in wide blocks, 0.9 to
1 in narrow ones, which save more of what they would compute again, and 0.5 to 1.6 in bfloat16."""
PROCESS = 640 * 10**6
"""What a step holds before its first batch: Python, torch, KFP, MLflow with its database, shards. Measured."""
THREAD = 120 * 10**6
"""What each further thread takes: its heap, its kernels, and what a part needs on its way. Measured with two."""
CUDA_BUILD = 480 * 10**6
"""What the libraries of torch's GPU build take beside that, on a CPU too. Measured."""


def training_bytes(config: RunConfig, *, bands: int, classes: int, dates: int, kind: str) -> int:
    """Peak memory of a training step, from a trial of two windows on the CPU.

    What a forward pass saves for the backward pass grows with the batch, and is counted as it is saved.

    Args:
        config: model, batch, window and `keep_dates` apply.
        bands: C.
        classes: K.
        dates: T, dates of a series.
        kind: classifier or segmenter.

    Returns:
        Bytes. Measured peaks were within a quarter of it (tests).
    """
    settings: ClassifierConfig | SegmenterConfig
    settings = config.classifier if kind == "classifier" else config.segmenter
    seen = max(2, round(dates * settings.training.keep_dates))
    side = config.data.window
    with torch.random.fork_rng():
        if kind == "classifier":
            model: nn.Module = TagClassifier(config.classifier, bands=bands, classes=classes, window=side)
        else:
            model = build_segmenter(config.segmenter, bands=bands, classes=classes, window=side)
        series = Series(
            pixels=torch.rand(PROBE, seen, bands, side, side),
            dates=torch.linspace(0, 360, seen).long().expand(PROBE, seen),
            seen=torch.ones(PROBE, 1, seen, dtype=torch.bool),
        )
        # As this machine would train. Steps of a cluster may run on others.
        lower = choose_precision(settings.training.precision, model, torch.device("cpu")) == "bf16"
        with one_thread(), torch.autocast("cpu", torch.bfloat16, enabled=lower):
            saved = _saved_bytes(lambda: model.train()(series), keep={p.data_ptr() for p in model.parameters()})
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    process = PROCESS + (CUDA_BUILD if torch.version.cuda else 0) + THREAD * (torch.get_num_threads() - 1)
    return process + COPIES * weights + int(BACKWARD * saved / PROBE * settings.training.batch)


def available_bytes(device: torch.device) -> int:
    """Memory that this process may still take: the GPU's free memory, or what the machine and its container leave."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return memory_free()


def _saved_bytes(forward: Callable[[], object], *, keep: set[int]) -> int:
    """Bytes that a forward pass saves for the backward pass, each storage once. `keep`: addresses that are not new."""
    sizes: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in keep:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # alive, so that no later storage gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(sizes.values())
