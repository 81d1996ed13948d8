"""Temporal clues: the dates that identify each class, and the similarity of neighbours on them (paper, L_tap).

Axes are M maps, D embedding, h w patches, n the 8 neighbours. B batch, K classes, P patches, T dates.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
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
    height, width = x.shape[-2:]
    padded = F.pad(x, (dilation,) * 4, mode="replicate")
    return [padded[..., dilation * (1 + row) :, dilation * (1 + col) :][..., :height, :width] for row, col in OFFSETS]


def neighbour_affinity(embedding_MDhw: Tensor, config: AffinityConfig) -> Tensor:
    """Affinity of every patch to its 8 neighbours.

    Softmax over the neighbours of cosine / std / temperature, where std is the unbiased standard deviation of the
    neighbours' values, averaged over D.

    Returns:
        (M, 8, h, w), summing to 1 over the neighbours.
    """
    # Neighbour by neighbour: one array of all eight would leave the cache.
    unit = F.normalize(embedding_MDhw, dim=1, eps=1e-8)
    cosine = torch.stack([(unit * other).sum(1) for other in _neighbours(unit, config.dilation)], 1)
    steps = [other - embedding_MDhw for other in _neighbours(embedding_MDhw, config.dilation)]
    mean = sum(steps[1:], steps[0]) / len(steps)
    squares = [(step - mean).square() for step in steps]
    variance = sum(squares[1:], squares[0]) / (len(steps) - 1)
    # The root is kept off 0, where its gradient is infinite: a field of equal tokens has no spread.
    spread = (variance + 1e-12).sqrt().mean(1)
    return (cosine / (spread[:, None] + 1e-8) / config.temperature).softmax(1)


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
