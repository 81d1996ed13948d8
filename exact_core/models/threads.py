"""Parts of a batch side by side, each on one thread, because threads that share an operator wait for each other.

An operator here takes a fraction of a millisecond, which is too little to divide: after every division, all threads
wait for the slowest. A share of a batch is large enough for a thread. The result of a thread does not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["each_part", "equal_parts"]

Part = TypeVar("Part")
Found = TypeVar("Found")


def equal_parts(count: int, device: torch.device) -> list[slice]:
    """Things 0 to before `count` in as many runs as there are threads for them. In one on any other device."""
    parts = min(count, torch.get_num_threads()) if device.type == "cpu" else 1
    return [slice(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def each_part(work: Callable[[Part], Found], parts: Sequence[Part], device: torch.device) -> list[Found]:
    """The results of `work` for each part, in their order.

    Parts run side by side on a CPU with several threads in inference only, because gradients need one thread's order.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < 2 or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return [work(part) for part in parts]
    inference = torch.is_inference_mode_enabled()

    def run(part: Part) -> Found:
        # Both modes are a thread's own.
        with torch.inference_mode(inference), torch.no_grad():
            return work(part)

    try:
        with ThreadPoolExecutor(
            min(threads, len(parts)) or 1, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return list(pool.map(run, parts))
    finally:
        # The number is a thread's own for OpenMP, and everybody's for MKL.
        torch.set_num_threads(threads)
