"""Class activation maps: fused (the baseline) and clue-based (paper).

Axes are B batch, K classes, h w patches, P = h * w, D embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from exact_core.clues.affinity import refine, time_weights, weighted_embedding
from exact_core.config import AffinityConfig
from exact_core.models.classifier import Prototypes, TemporalClues

__all__ = ["STRETCH", "by_maximum", "clue_cams", "fused_cam", "min_max", "tagged_embedding"]


def fused_cam(spatial_map: Tensor, temporal_map: Tensor) -> Tensor:
    """(relu(spatial) + relu(temporal)) / 2, any shape. Not yet divided by its maximum."""
    return (spatial_map.relu() + temporal_map.relu()) / 2


def by_maximum(cams: Tensor) -> Tensor:
    """CAMs (..., h, w) divided by their maxima: in [0, 1], all 0 where a map is all 0."""
    return cams / (cams.amax((-2, -1), keepdim=True) + 1e-5)


def min_max(cams: Tensor) -> Tensor:
    """CAMs (..., h, w) stretched to [0, 1], each on its own. Constant maps become 0."""
    low = cams.amin((-2, -1), keepdim=True)
    high = cams.amax((-2, -1), keepdim=True)
    return (cams - low) / (high - low + 1e-8)


def tagged_embedding(clues: TemporalClues, tags_BK: Tensor, seen_BPT: Tensor | None, config: AffinityConfig) -> Tensor:
    """Class-weighted temporal embeddings of the tagged (window, class) pairs, as maps (M, D, h, w)."""
    attention, tokens, count = clues.attention, clues.date_tokens, None
    if clues.padding is not None:
        # The padding rows are one more date, which counts as often as there are rows.
        attention = torch.cat([attention, clues.padding.attention[..., None]], -1)
        tokens = torch.cat([tokens, clues.padding.tokens[:, :, None]], 2)
        real = attention.new_ones(len(tokens), 1, tokens.shape[2] - 1).bool() if seen_BPT is None else seen_BPT
        seen_BPT = F.pad(real, (0, 1), value=True)
        count = F.pad(torch.ones_like(real[:, 0], dtype=attention.dtype), (0, 1))
        count[:, -1] = clues.padding.count
    weights = time_weights(attention, seen_BPT, rule=config.time_weights, count_BT=count)
    embedding = weighted_embedding(tokens, weights, seen_BPT)[tags_BK.nonzero(as_tuple=True)]
    return embedding.transpose(1, 2).reshape(len(embedding), -1, clues.side, clues.side)


STRETCH = {"maximum": by_maximum, "min_max": min_max}
"""How CAMs are brought to [0, 1]. `masks.stretch` names one."""


@torch.no_grad()
def clue_cams(
    clues: TemporalClues,
    tags_BK: Tensor,
    seen_BPT: Tensor | None,
    prototypes: Prototypes,
    config: AffinityConfig,
    *,
    stretch: Literal["maximum", "min_max", "none"],
    propagate: bool = True,
) -> Tensor:
    """Clue-based CAMs (B, K, h, w). 0 where a class is not tagged.

    relu(max cosine to foreground - max cosine to background prototypes) of the temporal class tokens. With `propagate`
    averaged with its propagation along the temporal clues (paper). Brought to [0, 1] per map unless `stretch` is none.
    """
    tagged = tags_BK.bool()
    raw = prototype_similarity(clues.class_tokens, prototypes)
    raw = raw.view(*raw.shape[:2], clues.side, clues.side)
    cams = torch.zeros_like(raw)
    if tagged.any():
        found = raw[tagged]
        if propagate:
            found = refine(found, tagged_embedding(clues, tags_BK, seen_BPT, config), config)
        cams[tagged] = found if stretch == "none" else STRETCH[stretch](found)
    return cams


def prototype_similarity(class_tokens_BKPD: Tensor, prototypes: Prototypes) -> Tensor:
    """relu(max cosine to a class's foreground - max cosine to its background prototypes), (B, K, P)."""
    features = F.normalize(class_tokens_BKPD.float(), dim=-1)
    nearest = [
        torch.einsum("bkpd,knd->bkpn", features, F.normalize(side, dim=-1)).amax(-1)
        for side in (prototypes.foreground, prototypes.background)
    ]
    return (nearest[0] - nearest[1]).relu()
