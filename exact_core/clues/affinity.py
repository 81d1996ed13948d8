"""Temporal clues: the dates that identify each class, and the similarity of neighbours on them (paper, L_tap).

Axes are M maps, D embedding, h w patches, n the 8 neighbours. B batch, K classes, P patches, T dates.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from exact_core.config import AffinityConfig

__all__ = ["neighbour_affinity", "propagate", "refine", "time_weights", "weighted_embedding"]

OFFSETS = tuple((row, col) for row in (-1, 0, 1) for col in (-1, 0, 1) if (row, col) != (0, 0))


def time_weights(
    attention_BKT: Tensor,
    seen_BPT: Tensor | None,
    *,
    rule: Literal["attention", "double_softmax"] = "attention",
    count_BT: Tensor | None = None,
) -> Tensor:
    """The weight of each date for each class.

    Args:
        attention_BKT: class-to-date attention, rows summing to at most 1.
        seen_BPT: usable acquisitions. A date without any has weight 0. If None, all dates count.
        rule: renormalise the attention, or apply a softmax (as published: nearly uniform).
        count_BT: number of equal dates that a column represents. Its attention is that to one of them, its weight that
            of all. If None, one each.

    Returns:
        (B, K, T), rows summing to 1 where any date counts.
    """
    dates = None if seen_BPT is None else seen_BPT.any(1)[:, None]
    if rule == "double_softmax":
        scores = attention_BKT if count_BT is None else attention_BKT + count_BT.log()[:, None]
        if dates is not None:
            scores = scores.masked_fill(~dates, torch.finfo(attention_BKT.dtype).min)
        return scores.softmax(-1)
    weights = attention_BKT if count_BT is None else attention_BKT * count_BT[:, None]
    weights = weights if dates is None else weights * dates
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)


def weighted_embedding(date_tokens_BPTD: Tensor, weights_BKT: Tensor, seen_BPT: Tensor | None) -> Tensor:
    """Date tokens of each patch, averaged with the time weights of each class.

    Cloudy acquisitions of a patch are left out, and its other weights are rescaled. A patch without any is 0.

    Returns:
        (B, K, P, D).
    """
    weights = weights_BKT.to(date_tokens_BPTD.dtype)[:, None]
    if seen_BPT is not None:
        weights = weights * seen_BPT[:, :, None]
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)
    # One product a patch: the tokens stay where they are.
    return torch.matmul(weights, date_tokens_BPTD).transpose(1, 2)


def _neighbours(x: Tensor, dilation: int) -> list[Tensor]:
    """The 8 neighbours at `dilation` of every patch, as views like x (M, ..., h, w). Edges replicated, row-major."""
    return _of_each(F.pad(x, (dilation,) * 4, mode="replicate"), dilation)


def _of_each(padded: Tensor, dilation: int) -> list[Tensor]:
    height, width = (side - 2 * dilation for side in padded.shape[-2:])
    return [padded[..., dilation * (1 + row) :, dilation * (1 + col) :][..., :height, :width] for row, col in OFFSETS]


class _Neighbourhood(torch.autograd.Function):
    """Cosines of patches and their neighbours (M, 8, h, w), and the unbiased variance of these (M, D, h, w).

    Neighbour by neighbour, because one array of all eight would leave the cache. Backward, autograd would make an array
    for each of them, mostly of zeros, and took two and a half times as long.
    """

    @staticmethod
    def forward(ctx: Any, embedding: Tensor, unit: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
        cosine = torch.stack([(unit * other).sum(1) for other in _neighbours(unit, dilation)], 1)
        # Of the steps to the neighbours, whose variance is the same: they are small, so their squares lose no digits.
        total, squares = torch.zeros_like(embedding), torch.zeros_like(embedding)
        for other in _neighbours(embedding, dilation):
            step = other - embedding
            total += step
            squares.addcmul_(step, step)
        count = len(OFFSETS)
        variance = squares.addcmul_(total, total, value=-1 / count).div_(count - 1).clamp_(min=0)
        ctx.save_for_backward(embedding, unit, total)
        ctx.dilation = dilation
        return cosine, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_cosine: Tensor, grad_variance: Tensor) -> tuple[Tensor, Tensor, None]:
        embedding, unit, total = ctx.saved_tensors
        margin = (ctx.dilation,) * 4
        padded, padded_unit = (F.pad(each, margin, mode="replicate") for each in (embedding, unit))
        of_padded, of_padded_unit, of_unit = (torch.zeros_like(each) for each in (padded, padded_unit, unit))
        mean = embedding + total / len(OFFSETS)
        weight = grad_variance * (2 / (len(OFFSETS) - 1))
        arrays = (padded, padded_unit, of_padded, of_padded_unit)
        views = zip(grad_cosine.unbind(1), *(_of_each(each, ctx.dilation) for each in arrays), strict=True)
        for grad, other, other_unit, of_other, of_other_unit in views:
            grad = grad[:, None]
            of_unit.addcmul_(grad, other_unit)
            of_other_unit.addcmul_(grad, unit)
            # The patch itself is in no variance.
            of_other.addcmul_(weight, other - mean)
        folded = torch.ops.aten.replication_pad2d_backward
        return folded(of_padded, embedding, margin), of_unit.add_(folded(of_padded_unit, unit, margin)), None


def neighbour_affinity(embedding_MDhw: Tensor, config: AffinityConfig) -> Tensor:
    """Affinity of every patch to its 8 neighbours.

    Softmax over the neighbours of cosine / std / temperature, where std is the unbiased standard deviation of the
    neighbours' values, averaged over D.

    Returns:
        (M, 8, h, w), summing to 1 over the neighbours.
    """
    unit = F.normalize(embedding_MDhw, dim=1, eps=1e-8)
    cosine, variance = _Neighbourhood.apply(embedding_MDhw, unit, config.dilation)  # type: ignore[no-untyped-call]
    # The root is kept off 0, where its gradient is infinite: a field of equal tokens has no spread.
    spread = (variance + 1e-12).sqrt().mean(1)
    affinity: Tensor = (cosine / (spread[:, None] + 1e-8) / config.temperature).softmax(1)
    return affinity


def propagate(cam_Mhw: Tensor, affinity_M8hw: Tensor, config: AffinityConfig) -> Tensor:
    """CAMs (M, h, w) after `config.iterations` steps of averaging over neighbours by affinity."""
    cam = cam_Mhw
    for _ in range(config.iterations):
        cam = (affinity_M8hw * torch.stack(_neighbours(cam, config.dilation), 1)).sum(1)
    return cam


def refine(cam_Mhw: Tensor, embedding_MDhw: Tensor, config: AffinityConfig) -> Tensor:
    """The mean of CAMs (M, h, w) and their propagation: what L_tap and the clue-based CAM use."""
    affinity = neighbour_affinity(embedding_MDhw.float(), config)
    return (cam_Mhw + propagate(cam_Mhw.float(), affinity, config)) / 2
