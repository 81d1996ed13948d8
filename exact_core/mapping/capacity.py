"""How many windows are predicted at a time: as many as fit the free memory."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exact_core.mapping.rows import Predict

__all__ = ["Careful", "choose_batch", "window_bytes"]

log = logging.getLogger(__name__)

SHARE = {"cpu": 0.25, "cuda": 0.8}
"""Of the free memory: on a CPU the images and other processes want theirs."""
LARGEST = {"cpu": 64, "cuda": 512}
"""Larger batches were not faster."""
MARGIN = 1.5
"""For what operators use inside, which is not seen, and memory in pieces."""
PROBE = 4
"""Windows of the trial."""


def choose_batch(window: int, free: int, device: torch.device) -> int:
    """Windows a forward pass: a power of two, so that machines alike choose alike.

    Args:
        window: bytes that one window takes.
        free: bytes that may be had.
        device: decides which share of them is taken, and where more windows gain nothing.
    """
    fitting = SHARE[device.type] * free / (MARGIN * max(window, 1))
    batch = 1
    while 2 * batch <= min(fitting, LARGEST[device.type]):
        batch *= 2
    return batch


def window_bytes(predict: Predict, *, dates: int, bands: int, side: int, clear: bool, device: torch.device) -> int:
    """Bytes that a window takes at the height of its prediction, from a trial of a few.

    Args:
        predict: the segmenter.
        dates: T.
        bands: C.
        side: S.
        clear: whether clear patches are known.
        device: where it computes: CUDA counts by itself, on a CPU the operators' results are added up.
    """
    rng = np.random.default_rng(0)
    pixels = [rng.integers(1, 5000, (dates, bands, side, side)).astype(np.int16) for _ in range(PROBE)]
    seen = [np.ones((dates, side // 2, side // 2), bool) if clear else None for _ in range(PROBE)]
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        predict(pixels, seen)
        return int((torch.cuda.max_memory_allocated(device) - before) // PROBE)
    living = _Living()
    with living:
        predict(pixels, seen)
    return living.peak // PROBE


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of all tensors that operators make, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and take stock."""
        result = func(*args, **(kwargs or {}))
        self._alive = {key: each for key, each in self._alive.items() if not each[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference: Any = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._alive.setdefault(reference.cdata, (reference, storage.nbytes()))
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


class Careful:
    """A segmenter that takes fewer windows at a time once the GPU's memory has not sufficed.

    windows: how many were predicted.
    """

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._limit: int | None = None
        self.windows = 0

    def __call__(self, pixels: list[NDArray[np.int16]], clear: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        """See `exact_core.mapping.rows.Predict`.

        Raises:
            torch.OutOfMemoryError: a single window does not fit.
        """
        found: list[NDArray[np.float32]] = []
        done = 0
        while done < len(pixels):
            size = min(self._limit or len(pixels), len(pixels) - done)
            try:
                found.append(self._predict(pixels[done : done + size], clear[done : done + size]))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self._limit = size // 2
                log.warning("the GPU's memory does not hold %d windows at a time: %d from here", size, self._limit)
            else:
                done += size
                continue
            # Not in the handler: there the error still holds the failed call's arrays.
            torch.cuda.empty_cache()
        self.windows += len(pixels)
        return found[0] if len(found) == 1 else np.concatenate(found)
