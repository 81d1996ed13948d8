"""A batch of series as sequences without padding.

A sequence is one patch of one window with its usable dates. Dates beyond the end of a series or under a cloud are not
computed at all. Sequences of similar length form a group, whose tokens are in one array. Shorter ones in it are padded
and masked.

Where padding is attended to as published, all padding rows of a patch are the same token. One token represents all n of
them, with log(n) added to its score.

Axes are B windows, P patches, T dates, N sequences, S slots of a group (dates of its longest sequence).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exact_core.data.windows.batches import Series

__all__ = ["SequenceGroup", "group_sequences", "part_size", "shared_patches"]

TOKENS = {"cpu": 2**13}
"""Tokens of a group: on the CPU few enough for its arrays to stay in cache, and to be served from freed memory."""
TOKENS_ELSEWHERE = 2**17
"""Large enough to keep a GPU busy, but small enough that the longest sequence does not pad all others."""


@dataclass(frozen=True)
class SequenceGroup:
    """Sequences of about the same length.

    window (N,), patch (N,): the origin of each. date (N, S): the date in each slot. T is the padding that represents n
    rows, T + 1 is empty. bias (N, S): 0, log(n) or -inf accordingly. If None, all 0.
    """

    window: Tensor
    patch: Tensor
    date: Tensor
    bias: Tensor | None


def shared_patches(series: Series, patches_BPTC: Tensor) -> tuple[Tensor, Tensor] | None:
    """Equal patches in the windows of a batch, which overlapping windows have.

    A key of 128 bits identifies them: two sums of all values and days with random factors. Among a million patches, two
    different ones have the same key with a probability of 1e-26.

    Args:
        series: the batch. Dates, seen and padding apply.
        patches_BPTC: its patches' values, float32.

    Returns:
        One patch of each kind, positions among B * P (U,), and the kind of each patch (B, P). None where all differ.
    """
    windows, count, dates, values = patches_BPTC.shape
    if windows * count == 1 or count == 1 or patches_BPTC.dtype != torch.float32:
        return None
    # Of the whole range of 64 bits; odd, so that no bit of a value is lost.
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (2, dates + 3, values + 1), generator=generator) * 2 + 1
    factors = factors.to(patches_BPTC.device)
    keys = []
    for number in range(windows):
        bits = patches_BPTC[number].contiguous().view(torch.int32).long()
        day = series.dates[number % len(series.dates)].long()
        seen = None if series.seen is None else series.seen[number]
        for factor in factors:
            look = (bits * factor[0, :values]).sum(-1) + day * factor[0, values]
            # Stirred, so that looks do not add up as values do; each date by a factor of its own.
            look = (look ^ (look >> 31)) * factor[1, 0]
            look = (look ^ (look >> 29)) * factor[2 : dates + 2, 0]
            if seen is not None:
                look = look * seen
            key = look.sum(-1)
            if series.padding is not None:
                key = key + series.padding[number] * factor[dates + 2, 0]
            keys.append(key)
    pairs = torch.stack(keys).view(windows, 2, count).transpose(1, 2).reshape(-1, 2)
    kinds, place = torch.unique(pairs, dim=0, return_inverse=True)
    if len(kinds) == len(pairs):
        return None
    every = torch.arange(len(pairs), device=pairs.device)
    first = every.new_full((len(kinds),), len(pairs)).scatter_reduce_(0, place, every, "amin")
    return first, place.view(windows, count)


def group_sequences(
    series: Series, *, patches: int, tokens: int, even: bool = False, windows: int | None = None
) -> list[SequenceGroup]:
    """The sequences of a batch in groups.

    Args:
        series: the batch.
        patches: patches P of a window.
        tokens: tokens a sequence has beside its dates.
        even: group only sequences of the very same length. Then none is filled up, and what is computed of one does not
            depend on which others there are, to the last bit.
        windows: of the batch. If None, as many as the series has pixels for.
    """
    windows, dates = len(series.pixels) if windows is None else windows, series.dates.shape[1]
    device = series.dates.device
    seen = series.seen
    if seen is None:
        seen = torch.ones(1, 1, dates, dtype=torch.bool, device=device)
    # Seen dates first, in their order.
    slots = torch.argsort(seen.long(), dim=-1, descending=True, stable=True)
    counts = seen.sum(-1)
    slots = torch.where(torch.arange(dates, device=device) < counts[..., None], slots, dates + 1)
    if series.padding is not None:
        # One slot more: where a patch is seen on every date, its padding token needs a place of its own.
        slots = torch.cat([slots, torch.full_like(slots[..., :1], dates + 1)], -1)
        counts = counts.expand(windows, -1)
        slots = slots.expand(windows, -1, -1)
        padded = (series.padding > 0)[:, None].expand_as(counts)
        stack = torch.where(padded, dates, dates + 1)
        slots = slots.scatter(-1, counts[..., None], stack[..., None])
        counts = counts + padded
    slots = slots.expand(windows, patches, -1).flatten(0, 1)
    lengths = counts.expand(windows, patches).flatten()
    groups = []
    budget = TOKENS.get(device.type, TOKENS_ELSEWHERE)
    for chosen, longest in _plan(lengths.cpu().numpy(), tokens, budget, even=even):
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


def _plan(lengths: NDArray[np.int64], tokens: int, budget: int, *, even: bool) -> list[tuple[NDArray[np.int64], int]]:
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
        if even or 2 * (alike - start) >= room:
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
