"""Transformer blocks.

Axes: N sequences, L tokens, D embedding, h heads. The attention map of a layer is never kept: fused attention computes
the values, and only the rows that the clues need (class tokens to dates) are computed explicitly, without gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Attention", "Block", "Transformer"]

Residual = Literal["pre_norm", "normed", "double"]


class Attention(nn.Module):
    """Multi-head self-attention with a key mask and, on request, the probabilities of the first rows."""

    def __init__(self, dim: int, *, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = head_dim**-0.5
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim)

    def forward(
        self, x_NLD: Tensor, *, keys: Tensor | None = None, rows: int = 0, only_rows: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            x_NLD: tokens (N, L, D).
            keys: bool (N, L), True where a token may be attended to; None: everywhere.
            rows: also return the attention probabilities of the first `rows` tokens.
            only_rows: return values for the first `rows` tokens only.

        Returns:
            Values (N, L or rows, D), and probabilities (N, rows, L) averaged over heads, detached; None without rows.
        """
        sequences, length, _ = x_NLD.shape
        q, k, v = self.qkv(x_NLD).view(sequences, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if keys is None else keys[:, None, None, :]
        probabilities = None
        if rows and not only_rows:
            with torch.no_grad():
                scores = (q[:, :, :rows] @ k.transpose(-1, -2)).float() * self.scale
                if mask is not None:
                    scores = scores.masked_fill(~mask, -torch.inf)
                probabilities = scores.softmax(-1).mean(1)
        if only_rows:
            q = q[:, :, :rows]
        values = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        merged = values.transpose(1, 2).reshape(sequences, q.shape[2], -1)
        return F.dropout(self.out(merged), self.dropout, self.training), probabilities


class Block(nn.Module):
    """Attention and MLP, each after a layer norm; `residual` says what attention adds to (EncoderConfig)."""

    def __init__(
        self, dim: int, *, heads: int, head_dim: int, mlp_ratio: int, dropout: float, residual: Residual
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads=heads, head_dim=head_dim, dropout=dropout)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_ratio * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_ratio * dim, dim),
            nn.Dropout(dropout),
        )

    def forward(
        self, x_NLD: Tensor, *, keys: Tensor | None = None, rows: int = 0, only_rows: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `Attention.forward`, through the whole block."""
        normed = self.attention_norm(x_NLD)
        attended, probabilities = self.attention(normed, keys=keys, rows=rows, only_rows=only_rows)
        if only_rows:
            x_NLD, normed = x_NLD[:, :rows], normed[:, :rows]
        x = attended + {"pre_norm": x_NLD, "normed": normed, "double": normed + x_NLD}[self.residual]
        return x + self.mlp(self.mlp_norm(x)), probabilities


class Transformer(nn.Module):
    """A stack of blocks and a final layer norm."""

    def __init__(
        self, dim: int, *, depth: int, heads: int, head_dim: int, mlp_ratio: int, dropout: float, residual: Residual
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads=heads, head_dim=head_dim, mlp_ratio=mlp_ratio, dropout=dropout, residual=residual)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, x_NLD: Tensor, *, keys: Tensor | None = None, rows: int = 0, only_rows: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Encode.

        Args:
            x_NLD: tokens (N, L, D).
            keys: bool (N, L), True where a token may be attended to.
            rows: number of leading tokens whose attention is of interest.
            only_rows: deliver only those tokens (the last block computes no others), and no attention.

        Returns:
            Tokens (N, L or rows, D), and attention probabilities of the first rows, averaged over heads and blocks
            (N, rows, L); None without rows or with only_rows.
        """
        total: Tensor | None = None
        for number, block in enumerate(self.blocks):
            last = number == len(self.blocks) - 1
            x_NLD, probabilities = block(
                x_NLD, keys=keys, rows=rows if last or not only_rows else 0, only_rows=only_rows and last
            )
            if probabilities is not None:
                total = probabilities if total is None else total + probabilities
        return self.norm(x_NLD), None if total is None else total / len(self.blocks)
