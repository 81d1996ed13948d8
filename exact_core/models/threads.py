"""Parts of a batch side by side, each on one thread, because threads that share an operator wait for each other.

An operator here takes a fraction of a millisecond, which is too little to divide: after every division, all threads
wait for the slowest. A share of a batch is large enough for a thread. The result of a thread does not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from exact_core.models.attention import has_transformers

__all__ = ["each_part", "equal_parts", "learned_parts", "one_thread", "side_by_side"]

Part = TypeVar("Part")
Found = TypeVar("Found")

_threads: ContextVar[tuple[ThreadPoolExecutor, int] | None] = ContextVar("_threads", default=None)


@contextmanager
def side_by_side(device: torch.device, model: nn.Module | None = None) -> Iterator[None]:
    """Keep as many threads for parts as torch has on a CPU. What is not in parts is computed on one.

    Threads of an operator wait busily for the next one, on cores that parts need. Without it, `each_part` starts and
    ends its threads each time. A model without transformers is not computed in parts, and keeps all threads.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < 2 or not (model is None or has_transformers(model)):
        yield
        return
    # The number is a thread's own for OpenMP, and everybody's for MKL. It comes back after the other threads' end.
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        before = _threads.set((pool, threads))
        try:
            yield
        finally:
            _threads.reset(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute everything in this thread, parts too, for those who count what operators make of memory."""
    threads, before = torch.get_num_threads(), _threads.set(None)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _threads.reset(before)


def equal_parts(count: int, device: torch.device) -> list[slice]:
    """Things 0 to before `count` in as many runs as there are threads for them. In one on any other device."""
    return _runs(count, _asked() if device.type == "cpu" else 1)


def _asked() -> int:
    """Threads that torch was given."""
    held = _threads.get()
    return torch.get_num_threads() if held is None else held[1]


def _runs(count: int, most: int) -> list[slice]:
    parts = min(count, most)
    return [slice(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def each_part(work: Callable[[Part], Found], parts: Sequence[Part], device: torch.device) -> list[Found]:
    """The results of `work` for each part, in their order.

    Parts run side by side on a CPU with several threads. Where gradients are recorded they run one after the other,
    because a backward pass needs one thread's order (see `learned_parts`).
    """
    if device.type != "cpu" or len(parts) < 2 or torch.is_grad_enabled():
        return [work(part) for part in parts]
    held = _threads.get()
    if held is None and torch.get_num_threads() > 1:
        with side_by_side(device):
            return each_part(work, parts, device)
    inference, lower = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def run(part: Part) -> Found:
        # All of these modes are a thread's own. A cache of cast weights is not, and would join the parts' graphs.
        autocast = torch.autocast("cpu", dtype, enabled=lower, cache_enabled=False)
        with torch.inference_mode(inference), torch.no_grad(), autocast:
            return work(part)

    return [run(part) for part in parts] if held is None else list(held[0].map(run, parts))


def learned_parts(work: Callable[[slice], dict[str, Tensor]], count: int, model: nn.Module) -> dict[str, Tensor]:
    """What `work` makes of `count` things in equal parts on a CPU, joined, with gradients to the model's parameters.

    Backward, too, parts run side by side. Each has a graph of its own, and the gradients of parameters are added up in
    the order of parts. There are as many parts as threads, but two for a single one: it gives the results of two
    threads. `work` must draw no random numbers.
    """
    parts = _runs(count, max(2, _asked()))
    names: list[str] = []

    def tensors(part: slice) -> tuple[Tensor, ...]:
        made = work(part)
        names[:] = made
        return tuple(made.values())

    found = _Parts.apply(tensors, parts, *model.parameters())  # type: ignore[no-untyped-call]
    size = len(names)
    return {name: torch.cat([found[part * size + at] for part in range(len(parts))]) for at, name in enumerate(names)}


class _Parts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, work: Callable[[slice], tuple[Tensor, ...]], parts: list[slice], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        def run(part: slice) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                return work(part)

        ctx.made = each_part(run, parts, torch.device("cpu"))
        ctx.parameters = parameters
        made = [each for part in ctx.made for each in part]
        found = tuple(each.detach() for each in made)
        ctx.mark_non_differentiable(*(each for each, of in zip(found, made, strict=True) if not of.requires_grad))
        # An output that no loss uses comes back as None below, not as zeros to compute with.
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        made, learned = ctx.made, [each for each in ctx.parameters if each.requires_grad]
        # A part's graph lives until its thread has gone back through it.
        del ctx.made
        size = len(made[0])

        def run(part: int) -> tuple[Tensor | None, ...]:
            given = grads[part * size : (part + 1) * size]
            pairs = [(of, grad) for of, grad in zip(made[part], given, strict=True) if grad is not None]
            if not pairs:
                return (None,) * len(learned)
            outputs, of_outputs = zip(*pairs, strict=True)
            return torch.autograd.grad(outputs, learned, of_outputs, allow_unused=True)

        every = each_part(run, range(len(made)), torch.device("cpu"))
        total = iter([_sum(found) for found in zip(*every, strict=True)])
        return (None, None, *(next(total) if each.requires_grad else None for each in ctx.parameters))


def _sum(found: Sequence[Tensor | None]) -> Tensor | None:
    there = [each for each in found if each is not None]
    return sum(there[1:], there[0]) if there else None
