"""Transformer blocks.

Axes are N sequences, L tokens, D embedding, h heads. The attention map of a layer is never stored. On the CPU
`cpu_block` recomputes it for the backward pass. Elsewhere fused attention does. Only the rows that the clues need
(class tokens to dates) leave a block, without gradient.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from exact_core.models.cpu_block import BlockShape, cpu_block, runs_on

__all__ = ["Attention", "Block", "Transformer", "compile_blocks", "has_transformers"]

Residual = Literal["pre_norm", "normed", "double"]


class Attention(nn.Module):
    """Multi-head self-attention with a bias per key and, on request, the probabilities of the first rows."""

    def __init__(self, dim: int, *, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = head_dim**-0.5
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim)

    def forward(
        self, x_NLD: Tensor, *, bias: Tensor | None = None, rows: int = 0, only_rows: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            x_NLD: tokens (N, L, D).
            bias: (N, L), added to every score of a key: -inf where attention is not allowed, log(n) for a key that
                represents n equal tokens. If None, 0.
            rows: also return the attention probabilities of the first `rows` tokens.
            only_rows: return values for the first `rows` tokens only.

        Returns:
            Values (N, L or rows, D), and probabilities (N, rows, L) averaged over heads, detached. None without rows.
        """
        sequences, length, _ = x_NLD.shape
        q, k, v = self.qkv(x_NLD).view(sequences, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if bias is None else bias[:, None, None, :].to(q.dtype)
        probabilities = None
        if rows and not only_rows:
            with torch.no_grad():
                scores = (q[:, :, :rows] @ k.transpose(-1, -2)).float() * self.scale
                if mask is not None:
                    scores = scores + mask
                probabilities = scores.softmax(-1).mean(1)
        if only_rows:
            q = q[:, :, :rows]
        values = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        merged = values.transpose(1, 2).reshape(sequences, q.shape[2], -1)
        return F.dropout(self.out(merged), self.dropout, self.training), probabilities


class Block(nn.Module):
    """Attention and MLP, each after a layer norm. `residual` says what attention adds to (EncoderConfig)."""

    def __init__(
        self, dim: int, *, heads: int, head_dim: int, mlp_ratio: int, dropout: float, residual: Residual
    ) -> None:
        super().__init__()
        self.residual = residual
        self.dropout = dropout
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
        self, x_NLD: Tensor, *, bias: Tensor | None = None, rows: int = 0, only_rows: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `Attention.forward`, through the whole block."""
        if runs_on(x_NLD) and not (self.training and self.dropout):
            shape = BlockShape(self.attention.heads, self.residual, self.attention_norm.eps, rows, only_rows)
            return cpu_block(x_NLD, bias, shape, self._parameters_in_order())
        normed = self.attention_norm(x_NLD)
        attended, probabilities = self.attention(normed, bias=bias, rows=rows, only_rows=only_rows)
        if only_rows:
            x_NLD, normed = x_NLD[:, :rows], normed[:, :rows]
        x = attended + {"pre_norm": x_NLD, "normed": normed, "double": normed + x_NLD}[self.residual]
        return x + self.mlp(self.mlp_norm(x)), probabilities

    def _parameters_in_order(self) -> tuple[Tensor, ...]:
        """The parameters in the order of `cpu_block`, which is the order of their declaration."""
        parts = (self.attention_norm, self.attention.qkv, self.attention.out, self.mlp_norm, self.mlp)
        return tuple(parameter for part in parts for parameter in part.parameters())


class Transformer(nn.Module):
    """A stack of blocks and a final layer norm.

    With `checkpointing` only the input of each block is kept for the backward pass, which recomputes the block. This
    takes about a third more time and a fraction of the memory. On the CPU the gradients are bit-identical.

    product_dtype: type in which blocks multiply where nothing is learned (`precision.for_inference`). If None, as the
    autocast around them says.
    """

    product_dtype: torch.dtype | None = None

    def __init__(
        self,
        dim: int,
        *,
        depth: int,
        heads: int,
        head_dim: int,
        mlp_ratio: int,
        dropout: float,
        residual: Residual,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.blocks = nn.ModuleList(
            Block(dim, heads=heads, head_dim=head_dim, mlp_ratio=mlp_ratio, dropout=dropout, residual=residual)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, x_NLD: Tensor, *, bias: Tensor | None = None, rows: int = 0, only_rows: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Encode.

        Args:
            x_NLD: tokens (N, L, D).
            bias: (N, L), added to every score of a key, see `Attention.forward`.
            rows: number of leading tokens whose attention is of interest.
            only_rows: deliver only those tokens (the last block computes no others), and no attention.

        Returns:
            Tokens (N, L or rows, D), and attention probabilities of the first rows, averaged over heads and blocks
            (N, rows, L). None without rows or with only_rows.
        """
        total: Tensor | None = None
        learning = torch.is_grad_enabled()
        lower = self.product_dtype is not None and not learning
        with torch.autocast(x_NLD.device.type, self.product_dtype) if lower else nullcontext():
            for number, block in enumerate(self.blocks):
                last = number == len(self.blocks) - 1
                run = partial(block, bias=bias, rows=rows if last or not only_rows else 0, only_rows=only_rows and last)
                if self.checkpointing and learning:
                    x_NLD, probabilities = checkpoint(run, x_NLD, use_reentrant=False)
                else:
                    x_NLD, probabilities = run(x_NLD)
                if probabilities is not None:
                    total = probabilities if total is None else total + probabilities
        return self.norm(x_NLD), None if total is None else total / len(self.blocks)


def has_transformers(model: nn.Module) -> bool:
    """Whether a model is one of transformers, as TSViT is and U-TAE is not."""
    return any(isinstance(module, Transformer) for module in model.modules())


def compile_blocks(model: nn.Module, *, backend: str = "inductor") -> None:
    """Have torch.compile compile every block of a model, in place and on first use. Parameters keep their names.

    Only blocks are compiled, for any number of tokens, because the rest depends on the batch's dates. Compiled blocks
    are those of modules, also on the CPU, where `cpu_block` is the faster choice.
    """
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(backend=backend, dynamic=True)
