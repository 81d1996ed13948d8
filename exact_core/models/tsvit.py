"""The parts of TSViT that classifier and segmenter share (TSViT: Tarasiou et al., CVPR 2023).

Axes: B batch, T dates, C bands, H W pixels, p patch side, P patches, K class tokens, D embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from exact_core.config import EncoderConfig
from exact_core.data.batches import Series
from exact_core.models.attention import Transformer

__all__ = ["SpatialEncoder", "TemporalEncoder"]

DAY_TABLE = 367
"""Columns of the day-of-year table: days 1..366 and 0, which padding has."""
FOURIER_PERIODS = (730.0, 8.0)
"""Longest and shortest period, days, of the date features: two years to about one revisit."""
FOURIER_FEATURES = 24


class FourierDates(nn.Module):
    """A linear map of sines and cosines of the day: smooth in time, so days never trained on have a meaning."""

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        longest, shortest = (math.log(period) for period in FOURIER_PERIODS)
        periods = torch.linspace(longest, shortest, FOURIER_FEATURES).exp()
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)
        self.project = nn.Linear(2 * FOURIER_FEATURES, dim)

    def forward(self, dates: Tensor) -> Tensor:
        """(B, T) days -> (B, T, D)."""
        angle = dates[..., None].float() * self.frequencies
        projected: Tensor = self.project(torch.cat([angle.sin(), angle.cos()], -1))
        return projected


class DayTable(nn.Module):
    """The published embedding: a learned column a day of the year, plus a bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(DAY_TABLE, dim)
        bound = DAY_TABLE**-0.5
        nn.init.uniform_(self.table.weight, -bound, bound)
        self.bias = nn.Parameter(torch.zeros(dim).uniform_(-bound, bound))

    def forward(self, dates: Tensor) -> Tensor:
        """(B, T) days of year -> (B, T, D)."""
        column: Tensor = self.table(dates)
        return column + self.bias


class TemporalEncoder(nn.Module):
    """Per patch: K class tokens and T date tokens through a transformer over time."""

    def __init__(self, config: EncoderConfig, *, bands: int, tokens: int) -> None:
        super().__init__()
        self.config = config
        self.tokens = tokens
        self.patch_embedding = nn.Linear(config.patch**2 * bands, config.dim)
        self.date_embedding = {"season_day": FourierDates, "day_of_year": DayTable}[config.dates](config.dim)
        self.class_tokens = nn.Parameter(torch.randn(tokens, config.dim))
        self.transformer = _transformer(config, depth=config.temporal_depth)

    def forward(self, series: Series, *, only_classes: bool = False) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Encode a series.

        Returns:
            class tokens (B, P, K, D); date tokens (B, P, T, D); attention of class tokens to dates, averaged over
            heads, blocks and patches (B, K, T), detached. The last two are None with only_classes.
        """
        patches = to_patches(series.pixels, self.config.patch)
        batch, count, dates, _ = patches.shape
        # In float32 also under autocast, so that the residual stream of every block keeps its precision.
        embedded = (self.patch_embedding(patches) + self.date_embedding(series.dates)[:, None]).float()
        classes = self.class_tokens.expand(batch * count, -1, -1)
        tokens = torch.cat([classes, embedded.view(batch * count, dates, -1)], 1)
        keys = None
        if series.seen is not None:
            seen = series.seen.expand(batch, count, dates).reshape(batch * count, dates)
            keys = torch.cat([seen.new_ones(len(seen), self.tokens), seen], 1)
        tokens, attention = self.transformer(tokens, keys=keys, rows=self.tokens, only_rows=only_classes)
        tokens = tokens.view(batch, count, tokens.shape[1], -1)
        if only_classes:
            return tokens, None, None
        assert attention is not None
        to_dates = attention[:, :, self.tokens :].reshape(batch, count, self.tokens, dates).mean(1)
        return tokens[:, :, : self.tokens], tokens[:, :, self.tokens :], to_dates


class SpatialEncoder(nn.Module):
    """Per class: P patch tokens, after an optional global token, through a transformer over space."""

    def __init__(self, config: EncoderConfig, *, patches: int, global_token: bool) -> None:
        super().__init__()
        self.global_token = nn.Parameter(torch.randn(config.dim)) if global_token else None
        self.position = nn.Parameter(0.02 * torch.randn(patches, config.dim))
        self.transformer = _transformer(config, depth=config.spatial_depth)

    def forward(self, tokens_BKPD: Tensor) -> Tensor:
        """(B, K, P, D) -> (B, K, P, D), or (B, K, 1 + P, D) with the global token first."""
        batch, classes, patches, dim = tokens_BKPD.shape
        x = (tokens_BKPD + self.position).reshape(batch * classes, patches, dim)
        if self.global_token is not None:
            x = torch.cat([self.global_token.expand(len(x), 1, -1), x], 1)
        x, _ = self.transformer(x)
        encoded: Tensor = x.view(batch, classes, -1, dim)
        return encoded


def to_patches(pixels: Tensor, patch: int) -> Tensor:
    """(B, T, C, H, W) -> (B, P, T, p * p * C); values ordered row in patch, column in patch, band."""
    batch, dates, bands, height, width = pixels.shape
    rows, cols = height // patch, width // patch
    split = pixels.view(batch, dates, bands, rows, patch, cols, patch)
    return split.permute(0, 3, 5, 1, 4, 6, 2).reshape(batch, rows * cols, dates, patch * patch * bands)


def _transformer(config: EncoderConfig, *, depth: int) -> Transformer:
    return Transformer(
        config.dim,
        depth=depth,
        heads=config.heads,
        head_dim=config.head_dim,
        mlp_ratio=config.mlp_ratio,
        dropout=config.dropout,
        residual=config.residual,
    )
