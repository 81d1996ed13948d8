"""Spatial clues: foreground and background prototypes of each class (paper, L_cbl).

Axes: K classes, R rows (the patches of all windows of the batch), N prototypes a class and side, D embedding.
Everything is batched over classes; rows that a class does not use are masked, not removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from exact_core.config import PrototypeConfig
from exact_core.models.classifier import Prototypes

__all__ = ["PrototypeClues", "prototype_clues", "sinkhorn"]


@dataclass(frozen=True)
class Side:
    """One side's part of the clues.

    loss: scalar, the contrast; loss_per_class (K,), 0 where absent; pixels (K,): rows that took part; prototypes
    (K, N, D) and moves (K, N) after this batch, detached.
    """

    loss: Tensor
    loss_per_class: Tensor
    pixels: Tensor
    assignment: Tensor
    prototypes: Tensor
    moves: Tensor


@dataclass(frozen=True)
class PrototypeClues:
    """Both sides; L_cbl is the sum of their losses."""

    foreground: Side
    background: Side

    @property
    def loss(self) -> Tensor:
        """L_cbl before its weight."""
        return self.foreground.loss + self.background.loss

    @torch.no_grad()
    def move(self, prototypes: Prototypes) -> None:
        """Take the moved prototypes over into the model; called by the training step, never by forward."""
        prototypes.foreground.copy_(self.foreground.prototypes)
        prototypes.foreground_moves.copy_(self.foreground.moves)
        prototypes.background.copy_(self.background.prototypes)
        prototypes.background_moves.copy_(self.background.moves)


def sinkhorn(similarity: Tensor, *, mask: Tensor | None = None, iterations: int = 3, epsilon: float = 0.05) -> Tensor:
    """Balanced assignment of rows to prototypes (paper; Sinkhorn-Knopp).

    Args:
        similarity: (..., R, N), cosine similarities, so that the exponential needs no shift.
        mask: bool (..., R), True for the rows that take part; None: all.
        iterations: rounds of (equal share for each prototype, equal share for each row).
        epsilon: temperature.

    Returns:
        (..., R, N), each participating row summing to 1, masked rows 0.
    """
    kernel = (similarity / epsilon).exp()
    if mask is not None:
        kernel = kernel * mask[..., None]
    tiny = torch.finfo(kernel.dtype).tiny
    rows = kernel.shape[-2] if mask is None else mask.sum(-1).clamp(min=1)[..., None, None]
    kernel = kernel / kernel.sum((-2, -1), keepdim=True).clamp(min=tiny)
    for _ in range(iterations):
        kernel = kernel / kernel.sum(-2, keepdim=True).clamp(min=tiny) / kernel.shape[-1]
        kernel = kernel / kernel.sum(-1, keepdim=True).clamp(min=tiny) / rows
    return kernel * rows


def prototype_clues(
    features_BKPD: Tensor, cams_BKP: Tensor, tags_BK: Tensor, prototypes: Prototypes, config: PrototypeConfig
) -> PrototypeClues:
    """Contrast of pixels with prototypes, and the prototypes moved by this batch.

    The foreground pass comes first and its moved prototypes enter the background pass (as published).

    Args:
        features_BKPD: temporal class tokens (B, K, P, D); the contrast's gradient flows into them.
        cams_BKP: fused CAMs divided by their maxima (B, K, P), in [0, 1].
        tags_BK: image-level tags (B, K).
        prototypes: the current ones; not changed.
        config: thresholds, temperatures, momentum.
    """
    classes = features_BKPD.shape[1]
    features = F.normalize(features_BKPD.float().transpose(0, 1).flatten(1, 2), dim=-1)
    cams = cams_BKP.detach().float().transpose(0, 1).flatten(1)
    tagged = tags_BK.bool().t()[:, :, None].expand(-1, -1, cams_BKP.shape[2]).flatten(1)
    weight = cams if config.weights == "cam" else cams**2
    foreground = _pass(
        features,
        tagged & (cams >= config.foreground),
        weight,
        own=(prototypes.foreground, prototypes.foreground_moves),
        every=torch.cat([prototypes.foreground, prototypes.background]),
        offset=0,
        config=config,
    )
    background = _pass(
        features,
        cams < config.background,
        1 - cams if config.weights == "cam" else weight,
        own=(prototypes.background, prototypes.background_moves),
        every=torch.cat([foreground.prototypes, prototypes.background]),
        offset=classes,
        config=config,
    )
    return PrototypeClues(foreground, background)


def _pass(
    features_KRD: Tensor,
    rows_KR: Tensor,
    weight_KR: Tensor,
    *,
    own: tuple[Tensor, Tensor],
    every: Tensor,
    offset: int,
    config: PrototypeConfig,
) -> Side:
    """One side: assign the rows, contrast them with every prototype, move its own prototypes."""
    prototypes_KND, moves_KN = own
    classes, count, _ = prototypes_KND.shape
    with torch.no_grad():
        similarity = torch.einsum("krd,knd->krn", features_KRD, prototypes_KND)
        plan = sinkhorn(similarity, mask=rows_KR, iterations=config.iterations, epsilon=config.epsilon)
        assigned_KR = plan.argmax(-1)
        moved, moves = _move(features_KRD, rows_KR, weight_KR, assigned_KR, prototypes_KND, moves_KN, config)

    owner, row = rows_KR.nonzero(as_tuple=True)
    logits = features_KRD[owner, row] @ F.normalize(every, dim=-1).flatten(0, 1).t() / config.temperature
    target = (offset + owner) * count + assigned_KR[owner, row]
    per_row = F.cross_entropy(logits, target, reduction="none")
    pixels = rows_KR.sum(1)
    per_class = per_row.new_zeros(classes).index_add(0, owner, per_row) / pixels.clamp(min=1)
    divisor = (pixels > 0).sum().clamp(min=1) if config.present_only else classes
    return Side(
        loss=per_class.sum() / divisor,
        loss_per_class=per_class,
        pixels=pixels,
        assignment=assigned_KR.masked_fill(~rows_KR, -1),
        prototypes=moved,
        moves=moves,
    )


def _move(
    features_KRD: Tensor,
    rows_KR: Tensor,
    weight_KR: Tensor,
    assigned_KR: Tensor,
    prototypes_KND: Tensor,
    moves_KN: Tensor,
    config: PrototypeConfig,
) -> tuple[Tensor, Tensor]:
    """Prototypes after a step towards the weighted mean direction of their rows."""
    share = F.one_hot(assigned_KR, prototypes_KND.shape[1]) * (rows_KR * weight_KR)[..., None]
    direction = F.normalize(torch.einsum("krn,krd->knd", share, features_KRD), dim=-1)
    moving = share.sum(1) > 0
    momentum = torch.full_like(moves_KN, config.momentum)
    if config.momentum_warmup:
        momentum = torch.minimum(momentum, moves_KN / (moves_KN + 1))
    stepped = momentum[..., None] * prototypes_KND + (1 - momentum[..., None]) * direction
    moved = F.normalize(torch.where(moving[..., None], stepped, prototypes_KND), dim=-1)
    return moved, moves_KN + moving
