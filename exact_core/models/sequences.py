"""A batch of series as the sequences that are worth computing.

A sequence is one patch of one window with the dates on which it is seen; what is not seen, because the series is
shorter or under a cloud, is not computed at all. Sequences of about the same number of dates form a group, whose tokens
lie in one array; short ones in it are filled up and masked.

Where padding is attended to as published, a patch's padding rows are all the same token: one stands for all n of them,
with log(n) added to its score.

Axes: B windows, P patches, T dates, N sequences, S slots of a group (dates of its longest sequence).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exact_core.data.windows.batches import Series

__all__ = ["SequenceGroup", "group_sequences", "part_size"]

TOKENS = {"cpu": 2**13}
"""Tokens of a group: on the CPU few enough for its arrays to stay in cache, and to be served from freed memory."""
TOKENS_ELSEWHERE = 2**17
"""On a GPU many, so that it is busy, but not so many that the longest sequence of a batch fills up all others."""


@dataclass(frozen=True)
class SequenceGroup:
    """Sequences of about the same length.

    window (N,), patch (N,): whose they are. date (N, S): the date in each slot; T is the padding that stands for n
    rows, T + 1 nothing. bias (N, S): 0, log(n) or -inf accordingly; None: all 0.
    """

    window: Tensor
    patch: Tensor
    date: Tensor
    bias: Tensor | None


def group_sequences(series: Series, *, patches: int, tokens: int) -> list[SequenceGroup]:
    """The sequences of a batch in groups.

    Args:
        series: the batch.
        patches: patches P of a window.
        tokens: tokens a sequence has beside its dates.
    """
    windows, dates = series.dates.shape
    device = series.dates.device
    seen = series.seen
    if seen is None:
        seen = torch.ones(windows, 1, dates, dtype=torch.bool, device=device)
    # Seen dates first, in their order.
    slots = torch.argsort(seen.long(), dim=-1, descending=True, stable=True)
    counts = seen.sum(-1)
    slots = torch.where(torch.arange(dates, device=device) < counts[..., None], slots, dates + 1)
    if series.padding is not None:
        # One slot more: where a patch is seen on every date, its padding token needs a place of its own.
        slots = torch.cat([slots, torch.full_like(slots[..., :1], dates + 1)], -1)
        padded = (series.padding > 0)[:, None].expand_as(counts)
        stack = torch.where(padded, dates, dates + 1)
        slots = slots.scatter(-1, counts[..., None], stack[..., None])
        counts = counts + padded
    slots = slots.expand(-1, patches, -1).flatten(0, 1)
    lengths = counts.expand(-1, patches).flatten()
    groups = []
    for chosen, longest in _plan(lengths.cpu().numpy(), tokens, TOKENS.get(device.type, TOKENS_ELSEWHERE)):
        index = torch.from_numpy(chosen).to(device)
        # Flattened, a sequence's number is window x patches + patch. Slots beyond the longest hold nothing.
        window, date = index // patches, slots[index, :longest]
        groups.append(SequenceGroup(window, index % patches, date, _bias(date, window, dates, series.padding)))
    return groups


def _bias(date_NS: Tensor, window_N: Tensor, dates: int, padding_B: Tensor | None) -> Tensor | None:
    """What to add to each slot's score, None where it is nothing."""
    # A group that needs no mask says so: attention has faster kernels without one.
    if bool((date_NS < dates).all()):
        return None
    # exp(-inf) is 0: what fills up a sequence takes no part in the softmax.
    bias = torch.zeros(date_NS.shape, device=date_NS.device).masked_fill(date_NS > dates, -math.inf)
    if padding_B is None:
        return bias
    # n equal tokens of score s hold n exp(s) = exp(s + log n) of the sum together.
    return torch.where(date_NS == dates, padding_B[window_N].log()[:, None], bias)


def _plan(lengths: NDArray[np.int64], tokens: int, budget: int) -> list[tuple[NDArray[np.int64], int]]:
    """Groups as (sequences, longest length): what `budget` allows, of one length where there are enough of it."""
    # Stable, so that equal batches make equal groups, and with them the same rounding, on every run.
    order = np.argsort(lengths, kind="stable")
    ascending = lengths[order]
    groups = []
    start = 0
    while start < len(order):
        alike = int(np.searchsorted(ascending, ascending[start], side="right"))
        # One at least: a sequence longer than the budget is computed all the same, alone.
        room = max(1, budget // int(tokens + ascending[start]))
        if 2 * (alike - start) >= room:
            # Enough of one length: they need no mask. In equal parts, so that none is left with a few.
            stop = start + math.ceil((alike - start) / math.ceil((alike - start) / room))
        else:
            # Few of one length share a group with longer ones; it is as wide as its last, which is its longest.
            ends = np.arange(start + 1, min(start + room, len(order)) + 1)
            fitting = ends[(ends - start) * (tokens + ascending[ends - 1]) <= budget]
            stop = int(fitting[-1]) if len(fitting) else start + 1
        groups.append((order[start:stop], int(ascending[stop - 1])))
        start = stop
    return groups


def part_size(sequences: int, length: int, device: torch.device) -> int:
    """Sequences of one group, where all `sequences` have the same length: equal parts within the budget."""
    # Equal parts, as in `_plan`: a small rest would cost a pass of its own.
    room = max(1, TOKENS.get(device.type, TOKENS_ELSEWHERE) // length)
    return math.ceil(sequences / math.ceil(sequences / room))
