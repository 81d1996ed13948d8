"""A segmenter as one program of tensors (torch.export), for those who map with it without this package.

`Segmenter.forward` leaves out what is not seen, and groups what is by its length, which no fixed program can. Here
every date of every patch is computed, and what is not seen is masked: the same equations, other rounding.

Axes are B windows, T dates, C bands, S window side, P patches, K crops, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact_core.config import EncoderConfig
from exact_core.data.windows.batches import Series, clear_patches
from exact_core.data.windows.dataset import CLEAR_PATCH, Statistics
from exact_core.models.segmenter import Segmenter
from exact_core.models.tsvit import to_patches

__all__ = ["SegmenterProgram", "export_segmenter"]


class SegmenterProgram(nn.Module):
    """From measured pixels to logits, normalisation and masks inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter, *, statistics: Statistics, encoder: EncoderConfig) -> None:
        super().__init__()
        self.model, self.encoder = model, encoder
        self.register_buffer("mean", torch.tensor(statistics.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(statistics.std)[:, None, None])

    def forward(self, pixels: Tensor, dates: Tensor, clear: Tensor) -> Tensor:
        """Logits (B, K + 1, S, S), class 0 is background.

        Args:
            pixels: int16 (B, T, C, S, S), reflectance x 10,000, 0 where nothing was measured.
            dates: int64 (B, T), days since the first day of the season, or days of the year, as the model was trained.
            clear: bool (B, T, S / 2, S / 2), True where 2 x 2 pixels are clear. All True where that is not known.
        """
        temporal, encoder = self.model.temporal, self.encoder
        measured = (to_patches(pixels, encoder.patch) != 0).any(-1)
        seen = measured & clear_patches(clear, encoder) if encoder.mask_clouds else measured
        values = temporal.patch_embedding(to_patches((pixels.float() - self.mean) / self.std, encoder.patch))
        sequences = (values + temporal.date_embedding(dates)[:, None]).flatten(0, 1)
        first = [temporal.class_tokens.expand(sequences.shape[0], -1, -1)]
        bias = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf).flatten(0, 1)
        if not encoder.mask_padding:
            # As published, rows of zeros and day 0 are attended to; n equal ones hold n exp(s) = exp(s + log n).
            count = (encoder.pad_dates - measured.sum(-1, keepdim=True)).clamp(min=0).flatten(0, 1)
            nothing = torch.zeros(1, 1, temporal.patch_embedding.in_features)
            blank = temporal.patch_embedding(nothing) + temporal.date_embedding(dates[:1, :1] * 0)
            first.append(blank.expand(sequences.shape[0], -1, -1))
            bias = torch.cat([count.float().log(), bias], 1)
        tokens = torch.cat([*first, sequences], 1)
        found, _ = temporal.transformer(
            tokens, bias=F.pad(bias, (temporal.tokens, 0)), rows=temporal.tokens, only_rows=True
        )
        logits: Tensor = self.model.decode(found.unflatten(0, (-1, self.model.side**2)))
        single = self.model.pixels
        if single is None:
            return logits
        series = Series((pixels.float() - self.mean) / self.std, dates, seen)
        return self.model.mixed(logits, single.of_part(series, len(single.days) - 1))


def export_segmenter(
    model: Segmenter, *, statistics: Statistics, encoder: EncoderConfig, bands: int, window: int
) -> torch.export.ExportedProgram:
    """The program, for any number of windows and dates.

    Args:
        model: for evaluation.
        statistics: those that it was trained with.
        encoder: how it reads its batches.
        bands: C.
        window: S.
    """
    program = SegmenterProgram(model, statistics=statistics, encoder=encoder).eval()
    # Not named: of a named one, torch 2.13 wants proofs about strides that it cannot make for the paper's padding.
    shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    example = (
        torch.ones(2, 3, bands, window, window, dtype=torch.int16),
        torch.arange(1, 4).expand(2, -1).contiguous(),
        torch.ones(2, 3, window // CLEAR_PATCH, window // CLEAR_PATCH, dtype=torch.bool),
    )
    with torch.no_grad():
        return torch.export.export(program, example, dynamic_shapes=(shape, shape, shape), strict=False)
