"""The parts of TSViT that classifier and segmenter share (TSViT: Tarasiou et al., CVPR 2023).

Axes are B batch, T dates, C bands, H W pixels, p patch side, P patches, K class tokens, D embedding. A group has N
sequences of S date slots (`sequences`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact_core.config import EncoderConfig
from exact_core.data.windows.batches import Series
from exact_core.models.attention import Transformer
from exact_core.models.cpu_block import project, runs_on
from exact_core.models.sequences import SequenceGroup, group_sequences, part_size, shared_patches
from exact_core.models.threads import each_part, learned_parts

__all__ = [
    "PaddingToken",
    "SpatialEncoder",
    "TemporalEncoder",
    "TemporalTokens",
    "by_windows",
    "from_patches",
    "to_patches",
]

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
        return project(self.project, torch.cat([angle.sin(), angle.cos()], -1))


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


@dataclass(frozen=True)
class PaddingToken:
    """The one token that stands for a patch's attended padding rows, which are all equal.

    tokens (B, P, D). attention (B, K): class tokens to one of the rows, detached. count (B,): how many there are.
    """

    tokens: Tensor
    attention: Tensor
    count: Tensor

    def float(self) -> PaddingToken:
        """The same in float32."""
        return PaddingToken(self.tokens.float(), self.attention.float(), self.count)


@dataclass(frozen=True)
class TemporalTokens:
    """The temporal encoder's output for a batch.

    classes (B, P, K, D). dates (B, P, T, D): 0 where a patch is not seen. attention (B, K, T): class tokens to dates,
    averaged over heads, blocks and patches, detached. dates and attention are None when only classes were asked for.
    Padding is None where no padding is attended to.
    """

    classes: Tensor
    dates: Tensor | None
    attention: Tensor | None
    padding: PaddingToken | None

    def spread(self, place_BP: Tensor) -> TemporalTokens:
        """These tokens, of windows of one patch each, at the places (B, P) of the patches of other windows."""
        padding = None
        if self.padding is not None:
            tokens, single = self.padding.tokens[:, 0][place_BP], self.padding.attention[place_BP].mean(1)
            padding = PaddingToken(tokens, single, self.padding.count[place_BP[:, 0]])
        return TemporalTokens(
            self.classes[:, 0][place_BP],
            None if self.dates is None else self.dates[:, 0][place_BP],
            None if self.attention is None else self.attention[place_BP].mean(1),
            padding,
        )


class TemporalEncoder(nn.Module):
    """Per patch: K class tokens and the tokens of the dates on which it is seen, through a transformer over time."""

    def __init__(self, config: EncoderConfig, *, bands: int, tokens: int) -> None:
        super().__init__()
        self.config = config
        self.tokens = tokens
        self.patch_embedding = nn.Linear(config.patch**2 * bands, config.dim)
        self.date_embedding = {"season_day": FourierDates, "day_of_year": DayTable}[config.dates](config.dim)
        self.class_tokens = nn.Parameter(torch.randn(tokens, config.dim))
        self.transformer = _transformer(config, depth=config.temporal_depth)

    def forward(self, series: Series, *, only_classes: bool = False) -> TemporalTokens:
        """Encode a series. Where nothing is learned, each of the patches that windows share once."""
        patches = to_patches(series.pixels, self.config.patch)
        same = None if torch.is_grad_enabled() else shared_patches(series, patches)
        if same is None:
            return self._encode(series, patches, only_classes=only_classes)
        first, place = same
        window, patch = first // patches.shape[1], first % patches.shape[1]
        once = Series(
            pixels=series.pixels,
            dates=series.dates if len(series.dates) == 1 else series.dates[window],
            seen=None if series.seen is None else series.seen[window, patch % series.seen.shape[1]][:, None],
            padding=None if series.padding is None else series.padding[window],
        )
        found = self._encode(once, patches.flatten(0, 1)[first][:, None], only_classes=only_classes)
        return found.spread(place)

    def _encode(self, series: Series, patches: Tensor, *, only_classes: bool) -> TemporalTokens:
        """Encode patches (B, P, T, p * p * C), group by group. The rest of the series applies too."""
        windows, count, columns = *patches.shape[:2], patches.shape[2] + 2
        # Two more dates, all 0 and of day 0: what padding looks like, and what fills up a group.
        days = self.date_embedding(F.pad(series.dates, (0, 2)))
        # Where nothing is learned a sequence must not depend on its neighbours: a window's map does not change with
        # the windows beside it.
        groups = group_sequences(
            series, windows=windows, patches=count, tokens=self.tokens, even=not torch.is_grad_enabled()
        )

        def encode(group: SequenceGroup) -> tuple[Tensor, Tensor | None]:
            embedded = self._embed(group, patches, days)
            tokens = torch.cat([self.class_tokens.expand(len(embedded), -1, -1), embedded], 1)
            bias = None if group.bias is None else F.pad(group.bias, (self.tokens, 0))
            found: tuple[Tensor, Tensor | None] = self.transformer(
                tokens, bias=bias, rows=self.tokens, only_rows=only_classes
            )
            return found

        attention = days.new_zeros(windows, self.tokens, columns, dtype=torch.float32)
        classes, dates, sequences, places = [], [], [], []
        for group, (tokens, rows) in zip(groups, each_part(encode, groups, patches.device), strict=True):
            sequence = group.window * count + group.patch
            classes.append(tokens[:, : self.tokens])
            sequences.append(sequence)
            if rows is not None:
                dates.append(tokens[:, self.tokens :].flatten(0, 1))
                places.append((sequence[:, None] * columns + group.date).flatten())
                if count == 1:
                    attention.index_copy_(0, group.window, _by_date(rows[:, :, self.tokens :], group, columns))
                else:
                    attention += _by_window(rows[:, :, self.tokens :], group, windows, columns)
        class_tokens = _restored(classes, sequences, (windows, count))
        if only_classes:
            return TemporalTokens(class_tokens, None, None, None)
        date_tokens = _restored(dates, places, (windows, count, columns))
        attention /= count
        padding = None
        if series.padding is not None:
            single = attention[..., -2] / series.padding.clamp(min=1)[:, None]
            padding = PaddingToken(date_tokens[:, :, -2], single, series.padding)
        return TemporalTokens(class_tokens, date_tokens[:, :, :-2], attention[..., :-2], padding)

    def _embed(self, group: SequenceGroup, patches_BPTC: Tensor, days_BTD: Tensor) -> Tensor:
        """Date tokens (N, S, D) of a group, from all patches' values and the embeddings of the days and two more."""
        count, dates = patches_BPTC.shape[1:3]
        row = (group.window * count + group.patch)[:, None] * dates + group.date.clamp(max=dates - 1)
        chosen = patches_BPTC.flatten(0, 2)[row]
        if group.bias is not None:
            chosen = chosen.masked_fill((group.date >= dates)[..., None], 0)
        # A day's embedding serves all windows where they share their dates.
        day = (group.window % len(days_BTD))[:, None] * days_BTD.shape[1] + group.date
        values = project(self.patch_embedding, chosen)
        # In float32 also under autocast, so that the residual stream of every block keeps its precision.
        embedded: Tensor = (values + F.embedding(day, days_BTD.flatten(0, 1))).float()
        return embedded


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
        # An exported program takes any number of windows, so it cannot be cut into parts by their number.
        exporting = torch.compiler.is_compiling()
        parts = (x,) if exporting else torch.split(x, part_size(len(x), x.shape[1], x.device))
        encoded = torch.cat(each_part(lambda part: self.transformer(part)[0], parts, x.device))
        return encoded.view(batch, classes, -1, dim)


def by_windows(work: Callable[[Series], dict[str, Any]], model: nn.Module, series: Series) -> dict[str, Any]:
    """What `work` makes of a series with the model. A CPU learns from parts of the batch side by side.

    A batch stays whole where its size decides more than the order of sums: with dropout, and with attended padding.

    Args:
        work: gives tensors (B, ...) of a series, each of its windows by itself. With attended padding also its token.
        model: whose parameters learn.
        series: the batch.
    """
    pixels = series.pixels
    drawing = model.training and any(isinstance(each, nn.Dropout) and each.p for each in model.modules())
    whole = drawing or series.padding is not None or pixels.requires_grad
    if len(pixels) < 2 or whole or not torch.is_grad_enabled() or not runs_on(pixels):
        return work(series)
    return learned_parts(lambda part: work(series.windows(part)), len(pixels), model)


def to_patches(pixels: Tensor, patch: int) -> Tensor:
    """(B, T, C, H, W) -> (B, P, T, p * p * C). Values ordered row in patch, column in patch, band."""
    batch, dates, bands, height, width = pixels.shape
    rows, cols = height // patch, width // patch
    split = pixels.view(batch, dates, bands, rows, patch, cols, patch)
    return split.permute(0, 3, 5, 1, 4, 6, 2).reshape(batch, rows * cols, dates, patch * patch * bands)


def from_patches(values_BKPp: Tensor) -> Tensor:
    """Values (B, K, P, p * p) of the pixels of each patch -> (B, K, H, W), of square windows."""
    batch, channels, patches, pixels = values_BKPp.shape
    side, patch = math.isqrt(patches), math.isqrt(pixels)
    image = values_BKPp.reshape(batch, channels, side, side, patch, patch).transpose(3, 4)
    return image.reshape(batch, channels, side * patch, side * patch)


def _by_date(rows_NKS: Tensor, group: SequenceGroup, columns: int) -> Tensor:
    """Attention of a group's sequences to their slots -> to all dates, (N, K, columns)."""
    date = group.date[:, None].expand(-1, rows_NKS.shape[1], -1)
    return rows_NKS.new_zeros(*rows_NKS.shape[:2], columns).scatter_add_(2, date, rows_NKS)


def _by_window(rows_NKS: Tensor, group: SequenceGroup, windows: int, columns: int) -> Tensor:
    """Attention of a group's sequences to their slots -> its sum over each window's, (B, K, columns)."""
    dense = _by_date(rows_NKS, group, columns)
    # A product instead of an indexed sum: that adds in any order on CUDA.
    owner = F.one_hot(group.window, windows).to(dense.dtype)
    return torch.einsum("nb,nkt->bkt", owner, dense)


def _restored(tokens: list[Tensor], places: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Rows of all groups in the batch's order, (*shape, ...). 0 where no group has one."""
    values = torch.cat(tokens)
    rows = values.new_zeros(math.prod(shape), *values.shape[1:]).index_copy_(0, torch.cat(places), values)
    return rows.view(*shape, *values.shape[1:])


def _transformer(config: EncoderConfig, *, depth: int) -> Transformer:
    return Transformer(
        config.dim,
        depth=depth,
        heads=config.heads,
        head_dim=config.head_dim,
        mlp_ratio=config.mlp_ratio,
        dropout=config.dropout,
        residual=config.residual,
        checkpointing=config.checkpointing,
    )
