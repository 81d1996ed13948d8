"""Spatial clues: foreground and background prototypes of each class (paper, L_cbl).

Axes are K classes, R rows (the patches of all windows of the batch), r the rows that this process contrasts, N
prototypes per class and side, D embedding. All operations are batched over classes. Rows that a class does not use are
masked and not removed, because reading their number would wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from exact_core.config import PrototypeConfig
from exact_core.models.classifier import Prototypes

__all__ = ["PrototypeClues", "SharedBatch", "prototype_clues", "sample_assignment", "sinkhorn"]


@dataclass(frozen=True)
class SharedBatch:
    """A batch whose windows several processes share.

    gather: joins the windows (first axis) of all processes in the order of the batch, without gradient.
    start: position of this process's first window in it.
    """

    gather: Callable[[Tensor], Tensor]
    start: int


@dataclass(frozen=True)
class Side:
    """One side's part of the clues.

    loss: scalar, the contrast; loss_per_class (K,), 0 where absent: of a shared batch this process's part of both.
    pixels (K,): rows that took part. assignment (K, R), -1 for the others. prototypes (K, N, D) and moves (K, N) after
    this batch, detached.
    """

    loss: Tensor
    loss_per_class: Tensor
    pixels: Tensor
    assignment: Tensor
    prototypes: Tensor
    moves: Tensor


@dataclass(frozen=True)
class PrototypeClues:
    """Both sides. L_cbl is the sum of their losses."""

    foreground: Side
    background: Side

    @property
    def loss(self) -> Tensor:
        """L_cbl before its weight."""
        return self.foreground.loss + self.background.loss

    @torch.no_grad()
    def move(self, prototypes: Prototypes) -> None:
        """Copy the moved prototypes into the model. Called by the training step, never by forward."""
        prototypes.foreground.copy_(self.foreground.prototypes)
        prototypes.foreground_moves.copy_(self.foreground.moves)
        prototypes.background.copy_(self.background.prototypes)
        prototypes.background_moves.copy_(self.background.moves)


def sinkhorn(similarity: Tensor, *, mask: Tensor | None = None, iterations: int = 3, epsilon: float = 0.05) -> Tensor:
    """Balanced assignment of rows to prototypes (paper; Sinkhorn-Knopp).

    Args:
        similarity: (..., R, N), cosine similarities, so that the exponential needs no shift.
        mask: bool (..., R), True for the rows that take part. If None, all.
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


def sample_assignment(plan: Tensor, generator: torch.Generator) -> Tensor:
    """A prototype for every row, drawn with the probabilities softmax(plan): the published Gumbel-softmax sample.

    It takes the plan (..., R, N), which holds probabilities, for logits. Its temperature, 0.5, divides plan and noise
    alike, so the hard sample does not depend on it.
    """
    noise = torch.empty_like(plan).exponential_(generator=generator)
    return (plan - noise.log()).argmax(-1)


def prototype_clues(
    features_BKPD: Tensor,
    cams_BKP: Tensor,
    tags_BK: Tensor,
    prototypes: Prototypes,
    config: PrototypeConfig,
    *,
    shared: SharedBatch | None = None,
    draw: int = 0,
    teaching_BKP: Tensor | None = None,
) -> PrototypeClues:
    """Contrast of pixels with prototypes, and the prototypes moved by this batch.

    The foreground pass comes first and its moved prototypes enter the background pass (as published). In a shared
    batch, every process assigns all rows and moves the prototypes equally. Each process contrasts its own rows, and its
    loss is its part of the batch's loss.

    Args:
        features_BKPD: temporal class tokens (B, K, P, D). The contrast's gradient flows into them.
        cams_BKP: fused CAMs divided by their maxima (B, K, P), in [0, 1].
        tags_BK: image-level tags (B, K).
        prototypes: the current ones. Not changed.
        config: thresholds, temperatures, momentum.
        shared: where the rest of the batch is. If None, this is all of it.
        draw: seed of sampled assignments, another one for every update.
        teaching_BKP: bool, the rows that may take part, of a class's foreground or background. If None, all.
    """
    classes, patches = features_BKPD.shape[1:3]
    features = F.normalize(features_BKPD.float(), dim=-1)
    # Prototypes follow a running mean, no gradient: only the contrast of own rows teaches the features.
    joint, cams, tags, start = features.detach(), cams_BKP.detach().float(), tags_BK, 0
    if shared is not None:
        joint, cams, tags, start = shared.gather(joint), shared.gather(cams), shared.gather(tags), shared.start
        teaching_BKP = None if teaching_BKP is None else shared.gather(teaching_BKP)
    rows = _Rows(
        own=features.transpose(0, 1).flatten(1, 2),
        joint=joint.transpose(0, 1).flatten(1, 2),
        position=slice(start * patches, (start + len(features)) * patches),
    )
    cams = cams.transpose(0, 1).flatten(1)
    # A crop that is not tagged has no foreground in the window, whatever its CAM says.
    tagged = tags.bool().t().repeat_interleave(patches, 1)
    allowed: Tensor | bool = True
    if teaching_BKP is not None:
        allowed = teaching_BKP.transpose(0, 1).flatten(1)
    weight = cams if config.weights == "cam" else cams**2
    generator = None
    if config.assignment == "gumbel":
        generator = torch.Generator(features.device).manual_seed(draw)
    foreground = _pass(
        rows,
        tagged & (cams >= config.foreground) & allowed,
        weight,
        own=(prototypes.foreground, prototypes.foreground_moves),
        every=torch.cat([prototypes.foreground, prototypes.background]),
        offset=0,
        config=config,
        generator=generator,
    )
    background = _pass(
        rows,
        (cams < config.background) & allowed,
        1 - cams if config.weights == "cam" else weight,
        own=(prototypes.background, prototypes.background_moves),
        every=torch.cat([foreground.prototypes, prototypes.background]),
        offset=classes,
        config=config,
        generator=generator,
    )
    return PrototypeClues(foreground, background)


@dataclass(frozen=True)
class _Rows:
    """Features of unit length: this process's (K, r, D), with gradient, and the batch's (K, R, D)."""

    own: Tensor
    joint: Tensor
    position: slice


def _pass(
    features: _Rows,
    rows_KR: Tensor,
    weight_KR: Tensor,
    *,
    own: tuple[Tensor, Tensor],
    every: Tensor,
    offset: int,
    config: PrototypeConfig,
    generator: torch.Generator | None,
) -> Side:
    """One side: assign the rows, contrast them with every prototype, move its own prototypes."""
    prototypes_KND, moves_KN = own
    classes, count, _ = prototypes_KND.shape
    with torch.no_grad():
        similarity = torch.einsum("krd,knd->krn", features.joint, prototypes_KND)
        plan = sinkhorn(similarity, mask=rows_KR, iterations=config.iterations, epsilon=config.epsilon)
        assigned_KR = plan.argmax(-1)
        # As published, the contrast keeps the arg max where the prototypes follow a sample.
        followed_KR = assigned_KR if generator is None else sample_assignment(plan, generator)
        moved, moves = _move(features.joint, rows_KR, weight_KR, followed_KR, prototypes_KND, moves_KN, config)

    logits_KrM = features.own @ F.normalize(every, dim=-1).flatten(0, 1).t() / config.temperature
    # `every` lists the foreground prototypes of all classes, then the background ones; `offset` says where ours begin.
    first_K = offset + torch.arange(classes, device=logits_KrM.device)
    target_Kr = first_K[:, None] * count + assigned_KR[:, features.position]
    per_row = F.cross_entropy(logits_KrM.flatten(0, 1), target_Kr.flatten(), reduction="none").view_as(target_Kr)
    pixels = rows_KR.sum(1)
    # Mean of each class first: a crop of many pixels must not outweigh one of few.
    per_class = (per_row * rows_KR[:, features.position]).sum(1) / pixels.clamp(min=1)
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
    numbers_N = torch.arange(prototypes_KND.shape[1], device=assigned_KR.device)
    share = (assigned_KR[..., None] == numbers_N) * (rows_KR * weight_KR)[..., None]
    direction = F.normalize(torch.einsum("krn,krd->knd", share, features_KRD), dim=-1)
    # A prototype that no row follows has no direction to move in, and stays.
    moving = share.sum(1) > 0
    momentum = torch.full_like(moves_KN, config.momentum)
    if config.momentum_warmup:
        # After n moves the next one weighs 1 / (n + 1): a plain mean, until `momentum` leaves it more than that.
        momentum = torch.minimum(momentum, moves_KN / (moves_KN + 1))
    stepped = momentum[..., None] * prototypes_KND + (1 - momentum[..., None]) * direction
    moved = F.normalize(torch.where(moving[..., None], stepped, prototypes_KND), dim=-1)
    return moved, moves_KN + moving
