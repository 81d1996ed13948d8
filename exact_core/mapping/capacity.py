"""How many windows are predicted at a time: as many as fit the free memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exact_core.mapping.rows import Mapper, Predict
from exact_core.models.threads import one_thread

__all__ = ["Careful", "choose_batch", "window_bytes"]

log = logging.getLogger(__name__)

Found = TypeVar("Found")

SHARE = {"cpu": 0.25, "cuda": 0.8}
"""Share of the free memory. On a CPU, images and other processes require the rest."""
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
    with one_thread(), living:
        predict(pixels, seen)
    return living.peak // PROBE


class _Count:
    """What `_Living` does at every operator.

    Not a method of its own: a mode's own one makes torch import its compiler, 70 MB and seconds of a processor.
    """

    def __init__(self) -> None:
        super().__init__()
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


class _Living(_Count, TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of all tensors that operators make, while they live."""


class Careful:
    """A segmenter that takes less at a time once the GPU's memory has not sufficed.

    windows: how many were decoded.
    """

    def __init__(self, mapper: Mapper) -> None:
        self._mapper = mapper
        self._limits: dict[str, int] = {}
        self.cell, self.agreement = mapper.cell, mapper.agreement
        self.windows = 0

    def encode(self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None) -> Tensor:
        """See `exact_core.mapping.rows.Mapper`.

        Raises:
            torch.OutOfMemoryError: a single column of places does not fit.
        """

        def some(first: int, last: int) -> Tensor:
            left, right = first * self.cell, last * self.cell
            return self._mapper.encode(
                pixels[..., left:right], None if clear is None else clear[..., left // 2 : right // 2]
            )

        return torch.cat(self._parts(some, pixels.shape[-1] // self.cell, "columns of places"), 1)

    def decode(self, windows: list[Tensor]) -> NDArray[np.float32]:
        """See `exact_core.mapping.rows.Mapper`.

        Raises:
            torch.OutOfMemoryError: a single window does not fit.
        """
        found = self._parts(lambda first, last: self._mapper.decode(windows[first:last]), len(windows), "windows")
        self.windows += len(windows)
        return np.concatenate(found)

    def _parts(self, work: Callable[[int, int], Found], count: int, what: str) -> list[Found]:
        """`work` from one place to before another, for all of `count`, as many at a time as have fitted."""
        found: list[Found] = []
        done = 0
        while done < count:
            size = min(self._limits.get(what, count), count - done)
            try:
                found.append(work(done, done + size))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self._limits[what] = size // 2
                log.warning("the GPU's memory does not hold %d %s at a time: %d from here", size, what, size // 2)
            else:
                done += size
                continue
            # Not in the handler: there the error still holds the failed call's arrays.
            torch.cuda.empty_cache()
        return found
