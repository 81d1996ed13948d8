"""U-TAE: a convolutional encoder and decoder with temporal attention between them (Garnot & Landrieu, ICCV 2021).

A shared encoder processes each date alone. At its lowest resolution a lightweight temporal attention (L-TAE: Garnot &
Landrieu, 2020) weights the dates, per head and cell. The same masks, enlarged, collapse the time axis of every skip
connection, and a decoder restores the resolution of pixels. Written from the papers' equations.

Notable choices, where the papers have no answer or a 24-pixel window needs another:
- Padding and cloudy acquisitions are in no weighted sum. Dates without a usable acquisition are never encoded.
- A cell of the lowest resolution has a date if at least half of its pixels have it (`seen_by_cells`). Enlarged masks
  are then limited to the acquisitions of each pixel and made to sum to 1 again (`enlarge_masks`).
- A window whose side is no multiple of the lowest resolution's cell is padded by repeating its edge, and cropped back.

Axes are B batch, T dates, M encoded acquisitions (over batch and dates), C channels, G heads, H W pixels of a level,
h w cells of the lowest level, K crop classes.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact_core.config import UtaeConfig
from exact_core.data.windows.batches import Series
from exact_core.errors import DataError
from exact_core.models.pixel_regression import WithPixels

__all__ = ["TemporalAttention", "Utae", "collapse", "enlarge_masks", "seen_by_cells", "seen_pixels"]

MAJORITY = 0.5
"""Share of a cell's pixels that must have a usable acquisition for the cell to have one."""


class Utae(WithPixels):
    """Logits of background and K crops for every pixel of a window."""

    def __init__(self, config: UtaeConfig, *, bands: int, classes: int) -> None:
        super().__init__()
        encoder, decoder = config.encoder_widths, config.decoder_widths
        self.cell = 2 ** (len(encoder) - 1)
        self.encoder = nn.ModuleList(
            [_EncoderLevel(bands, encoder[0], groups=config.groups, down=False)]
            + [_EncoderLevel(*pair, groups=config.groups, down=True) for pair in itertools.pairwise(encoder)]
        )
        self.attention = TemporalAttention(
            encoder[-1],
            width=config.attention_width,
            out=decoder[-1],
            heads=config.heads,
            key_dim=config.key_dim,
            period=config.period,
            dropout=config.dropout,
        )
        self.decoder = nn.ModuleList(
            _DecoderLevel(below, skip=skip, out=out)
            for below, skip, out in zip(decoder[1:], encoder, decoder, strict=False)
        )
        self.head = nn.Sequential(
            _convolution(decoder[0], decoder[0], nn.BatchNorm2d(decoder[0])),
            nn.Conv2d(decoder[0], classes + 1, 1),
        )

    def network(self, series: Series) -> Tensor:
        """See `WithPixels`."""
        height, width = series.pixels.shape[-2:]
        seen = seen_pixels(series)
        edge = (0, -width % self.cell, 0, -height % self.cell)
        if any(edge):
            seen = F.pad(seen, edge, mode="replicate")
        looks = seen.flatten(2).any(2)
        if not bool(looks.any()):
            looks = torch.ones_like(looks)  # nothing is known; zeros of the right shape come out of the sums
        features = F.pad(series.pixels[looks], edge, mode="replicate") if any(edge) else series.pixels[looks]
        levels = []
        for level in self.encoder:
            features = level(features)
            levels.append(_spread(features, looks))
        x, masks = self.attention(levels[-1], series.dates, seen_by_cells(seen, self.cell))
        for depth in reversed(range(len(self.decoder))):
            skip = collapse(levels[depth], enlarge_masks(masks, seen, levels[depth].shape[-1]))
            x = self.decoder[depth](x, skip)
        logits: Tensor = self.head(x)[..., :height, :width]
        return logits


class TemporalAttention(nn.Module):
    """L-TAE: each head attends over dates with a learned master query and its own group of channels.

    Args:
        channels: of the features that enter.
        width: channels that the features are projected to and that the heads divide among themselves.
        out: channels of the result.
        heads: number of heads G.
        key_dim: width of keys and of the master query of a head.
        period: longest period of the sines and cosines of the day is 2 pi times this, days.
        dropout: probability with which a weight or an output is left out in training.
    """

    frequencies: Tensor

    def __init__(
        self, channels: int, *, width: int, out: int, heads: int, key_dim: int, period: float, dropout: float
    ) -> None:
        super().__init__()
        self.heads, self.key_dim, self.dropout = heads, key_dim, dropout
        self.project = nn.Conv1d(channels, width, 1)
        self.norm = nn.GroupNorm(heads, width)
        # Without bias: it would add the same to the scores of all dates, which the softmax takes out again.
        self.keys = nn.Conv1d(width, heads * key_dim, 1, groups=heads, bias=False)
        self.query = nn.Parameter(torch.randn(heads, key_dim) * math.sqrt(2 / key_dim))
        half = width // heads // 2
        self.register_buffer("frequencies", period ** (-torch.arange(half) / half), persistent=False)
        self.merge = nn.Sequential(nn.Conv2d(width, out, 1), nn.BatchNorm2d(out), nn.ReLU(), nn.Dropout(dropout))
        self.out_norm = nn.GroupNorm(heads, out)

    def forward(self, features: Tensor, dates: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            features: (B, T, C, h, w) of the lowest resolution.
            dates: (B, T) days since the season's start.
            seen: bool (B, T, h, w), True where a cell has a usable acquisition.

        Returns:
            Features without time (B, out, h, w), and masks (B, G, T, h, w) that sum to 1 over dates, or are 0 where
            nothing was ever seen.
        """
        batch, count, channels, height, width = features.shape
        values = self.norm(self.project(features.reshape(batch * count, channels, height * width)))
        values = values.view(batch, count, self.heads, -1, height * width)
        values = values + self.positions(dates)[:, :, None, :, None]
        keys = self.keys(values.reshape(batch * count, -1, height * width))
        keys = keys.view(batch, count, self.heads, self.key_dim, height * width)
        scores = torch.einsum("gd,btgdp->bgtp", self.query / math.sqrt(self.key_dim), keys).float()
        masks = masked_softmax(scores, seen.flatten(2)[:, None])
        weights = F.dropout(masks, self.dropout, self.training)
        mixed = torch.einsum("bgtp,btgcp->bgcp", weights.to(values.dtype), values)
        merged = self.out_norm(self.merge(mixed.reshape(batch, -1, height, width)))
        return merged, masks.view(batch, self.heads, count, height, width)

    def positions(self, dates: Tensor) -> Tensor:
        """(B, T) days -> (B, T, channels of a head): sines, then cosines. Every head sees the same."""
        angle = dates[..., None].float() * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1)


def masked_softmax(scores: Tensor, seen: Tensor) -> Tensor:
    """Softmax over the third axis, (B, G, T, cells), of what is seen. 0 everywhere where nothing is."""
    hidden = ~seen.expand_as(scores)
    weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(2)
    return weights.masked_fill(hidden, 0.0)


def seen_pixels(series: Series) -> Tensor:
    """Float (B, T, H, W): 1 where a pixel has a usable acquisition on that date."""
    batch, dates, _, height, width = series.pixels.shape
    if series.seen is None:
        return series.pixels.new_ones(batch, dates, height, width)
    patches = series.seen.shape[1]
    patch = math.isqrt(height * width // patches)
    rows, cols = (1, 1) if patches == 1 else (height // patch, width // patch)
    if rows * cols != patches:
        raise DataError(
            f"seen has {patches} patches, which do not tile a window of {height} x {width} pixels, expected a square "
            f"number of square patches"
        )
    grid = series.seen.transpose(1, 2).reshape(batch, dates, rows, cols).to(series.pixels.dtype)
    return F.interpolate(grid, size=(height, width), mode="nearest")


def seen_by_cells(seen: Tensor, cell: int) -> Tensor:
    """Bool (B, T, h, w): where a cell has a usable acquisition.

    At least half of its pixels must have one. A cell without such a date takes the dates with most of its pixels.
    """
    share = F.avg_pool2d(seen, cell)
    needed = share.amax(1, keepdim=True).clamp(max=MAJORITY)
    return (share >= needed) & (share > 0)


def enlarge_masks(masks: Tensor, seen: Tensor, side: int) -> Tensor:
    """Masks (B, G, T, h, w) for a level with rows of `side` values.

    Bilinear, then limited to the acquisitions of a value's pixels, and divided by the remaining sum over the dates. So
    the weight of a date on which a pixel is under cloud goes to its other dates. A value without a usable weighted date
    gets equal weights for its acquisitions.
    """
    batch, heads, dates, height, width = masks.shape
    factor = side // width
    size = (height * factor, side)
    large = F.interpolate(masks.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
    large = large.view(batch, heads, dates, *size)
    share = F.avg_pool2d(seen, seen.shape[-1] // side)[:, None]
    cut = large * share
    total = cut.sum(2, keepdim=True)
    even = share / share.sum(2, keepdim=True).clamp(min=torch.finfo(share.dtype).eps)
    return torch.where(total > FAINT, cut / total.clamp(min=FAINT), even.expand_as(cut))


FAINT = 1e-4
"""Weight below which a pixel's dates get equal weights, because nearly all of its attention is under cloud."""


def collapse(features: Tensor, masks: Tensor) -> Tensor:
    """Sum over dates of features (B, T, C, H, W), each head's group of channels under its mask -> (B, C, H, W)."""
    batch, dates, channels, height, width = features.shape
    heads = masks.shape[1]
    grouped = features.view(batch, dates, heads, channels // heads, height, width)
    weights = masks.transpose(1, 2)[:, :, :, None].to(features.dtype)
    return (grouped * weights).sum(1).reshape(batch, channels, height, width)


class _EncoderLevel(nn.Module):
    """One level: halve the side (not the first), then two convolutions, the second around a residual."""

    def __init__(self, channels: int, out: int, *, groups: int, down: bool) -> None:
        super().__init__()

        # Group normalisation sees one look at a time: a look's features do not depend on those beside it.
        def norm(width: int) -> nn.Module:
            return nn.GroupNorm(groups, width)

        self.down = _convolution(channels, channels, norm(channels), kernel=4, stride=2) if down else nn.Identity()
        self.first = _convolution(channels, out, norm(out))
        self.second = _convolution(out, out, norm(out))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.down(x))
        return x + self.second(x)  # type: ignore[no-any-return]


class _DecoderLevel(nn.Module):
    """One level: double the side, join the skip connection, then two convolutions, the second around a residual."""

    def __init__(self, below: int, *, skip: int, out: int) -> None:
        super().__init__()
        self.skip = nn.Sequential(nn.Conv2d(skip, skip, 1), nn.BatchNorm2d(skip), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(below, out, 4, 2, 1), nn.BatchNorm2d(out), nn.ReLU())
        self.first = _convolution(out + skip, out, nn.BatchNorm2d(out))
        self.second = _convolution(out, out, nn.BatchNorm2d(out))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.first(torch.cat([self.up(x), self.skip(skip)], 1))
        return x + self.second(x)  # type: ignore[no-any-return]


def _convolution(channels: int, out: int, norm: nn.Module, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, kernel, stride, 1), norm, nn.ReLU())


def _spread(values: Tensor, looks: Tensor) -> Tensor:
    """Features of the encoded acquisitions (M, ...) at their positions (B, T, ...), 0 elsewhere."""
    if bool(looks.all()):
        return values.view(*looks.shape, *values.shape[1:])
    spread = values.new_zeros(*looks.shape, *values.shape[1:])
    spread[looks] = values
    return spread
