"""TSViT of any size for one window, written from its description (Tarasiou et al., CVPR 2023; Zhu et al., CVPR 2025).

Its parameters have the published names. It knows no padding, no clouds and no batch: every date that it gets counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Size:
    """Crops include no background. width: of a head."""

    bands: int = 3
    crops: int = 2
    window: int = 8
    patch: int = 2
    dim: int = 8
    heads: int = 2
    width: int = 3
    temporal_depth: int = 2
    spatial_depth: int = 1
    mlp_ratio: int = 3
    residual: str = "pre_norm"

    @property
    def side(self) -> int:
        return self.window // self.patch

    @property
    def encoder(self) -> dict[str, object]:
        """The same as settings of an encoder."""
        names = ("patch", "dim", "heads", "temporal_depth", "spatial_depth", "mlp_ratio", "residual")
        return {"head_dim": self.width, **{name: getattr(self, name) for name in names}}


class Named(nn.Module):
    """A module `fn` after a layer norm `norm`."""

    def __init__(self, size: Size, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(size.dim), fn


class Attention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads, inner = size.heads, size.heads * size.width
        self.to_qkv = nn.Linear(size.dim, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, size.dim))
        self.seen = torch.zeros(0)

    def forward(self, x):
        parts, seen = [], []
        for q, k, v in zip(*(part.chunk(self.heads, -1) for part in self.to_qkv(x).chunk(3, -1)), strict=True):
            seen.append((torch.bmm(q, k.mT) / q.shape[-1] ** 0.5).softmax(-1))
            parts.append(torch.bmm(seen[-1], v))
        self.seen = torch.stack(seen).mean(0)
        return self.to_out(torch.cat(parts, -1))


class Mlp(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        hidden = size.mlp_ratio * size.dim
        layers = (nn.Linear(size.dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, size.dim), nn.Identity())
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


class Encoder(nn.Module):
    def __init__(self, size: Size, depth: int) -> None:
        super().__init__()
        self.residual = size.residual
        self.layers = nn.ModuleList(
            nn.ModuleList([Named(size, Attention(size)), Named(size, Mlp(size))]) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(size.dim)

    def forward(self, x):
        for attention, mlp in self.layers:
            normed = attention.norm(x)
            x = attention.fn(normed) + {"pre_norm": x, "normed": normed, "double": x + normed}[self.residual]
            x = x + mlp.fn(mlp.norm(x))
        return self.norm(x)


class Tsvit(nn.Module):
    """What classifier and segmenter share: time for each patch, then space for each class."""

    def __init__(self, size: Size, *, tokens: int, outputs: int) -> None:
        super().__init__()
        self.size = size
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear(size.bands * size.patch**2, size.dim))
        self.to_temporal_embedding_input = nn.Linear(366, size.dim)
        self.temporal_token = nn.Parameter(torch.randn(1, tokens, size.dim))
        self.temporal_transformer = Encoder(size, size.temporal_depth)
        self.space_pos_embedding = nn.Parameter(torch.randn(1, size.side**2, size.dim))
        self.space_transformer = Encoder(size, size.spatial_depth)
        self.mlp_head = nn.Sequential(nn.LayerNorm(size.dim), nn.Linear(size.dim, outputs))

    def class_tokens(self, pixels, day):
        """Normalised pixels (T, C, H, W) and days of the year, 0 of padding (T,) -> (K, P, D)."""
        size = self.size
        patches = F.unfold(pixels, size.patch, stride=size.patch).view(len(pixels), size.bands, size.patch**2, -1)
        tokens = self.to_patch_embedding(patches.permute(3, 0, 2, 1).flatten(2))
        tokens = tokens + self.to_temporal_embedding_input(F.one_hot(day, 366).float())
        classes = self.temporal_token.shape[1]
        tokens = torch.cat([self.temporal_token.expand(len(tokens), -1, -1), tokens], 1)
        return self.temporal_transformer(tokens)[:, :classes].transpose(0, 1)


class DenseTsvit(Tsvit):
    """The segmenter. Its outputs are one long list, patch by patch, that is read row by row."""

    def __init__(self, size: Size) -> None:
        super().__init__(size, tokens=size.crops + 1, outputs=size.patch**2)

    def forward(self, pixels, day):
        """Logits (K + 1, H, W)."""
        values = self.mlp_head(self.space_transformer(self.class_tokens(pixels, day) + self.space_pos_embedding))
        return values.reshape(len(values), self.size.window, self.size.window)


class TagTsvit(Tsvit):
    """The classifier, with a token for the whole window and a map of each class before and after space."""

    def __init__(self, size: Size) -> None:
        super().__init__(size, tokens=size.crops, outputs=1)
        self.space_token = nn.Parameter(torch.randn(1, 1, size.dim))
        self.patch_head = nn.Conv2d(size.dim, 1, 3, padding=1)

    def forward(self, pixels, day):
        """Logits (K,), temporal map and spatial map (K, h, w), attention of classes to dates (K, T)."""
        classes, side = self.class_tokens(pixels, day), self.size.side
        spatial = torch.cat([self.space_token.expand(len(classes), -1, -1), classes + self.space_pos_embedding], 1)
        spatial = self.space_transformer(spatial)
        maps = [self.patch_head(x.mT.reshape(len(x), -1, side, side))[:, 0] for x in (classes, spatial[:, 1:])]
        seen = torch.stack([block[0].fn.seen for block in self.temporal_transformer.layers])
        return self.mlp_head(spatial[:, 0])[:, 0], *maps, seen.mean((0, 1))[: len(classes), len(classes) :]


def stirred(model: Tsvit) -> Tsvit:
    """With parameters that leave nothing at its start: no zero bias, no unit scale."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(0.1 * torch.randn_like(parameter))
    return model.eval()
