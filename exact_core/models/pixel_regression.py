"""A softmax regression on the series of single pixels, which shares the decision with the segmenter (not in the paper).

A network that learned from the windows of one scene knows fields and borders, and remembers much that is true of these
windows alone. A regression on single pixels knows neither. They err in different places, and the mean of their
probabilities is better than either (docs/results.md). A regression for a part of the season is cheap, too: where only
that part is seen, the one that was fitted to it takes part.

Axes are B windows, T dates, C bands, H W pixels, P patches, V values of a patch, G days of the calendar, K crops, M
parts of the season.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact_core.data.windows.batches import Series
from exact_core.data.windows.regular_series import CALENDAR_STEPS, calendar_days
from exact_core.models.cpu_block import linear, runs_on
from exact_core.models.probabilities import mean_logits
from exact_core.models.tsvit import from_patches, to_patches

__all__ = ["PixelRegression", "WithPixels", "regular_series"]

STATISTICS = 4
"""Of a band's regular series: mean, standard deviation, maximum, minimum."""
NONE = 2**31
"""Place of a date that does not exist, after all others."""
BLOCK = {"cpu": 512, "cuda": 8192}
"""Patches that are worked on at a time: of ten bands, 10 MB on a CPU, which its caches hold."""


class PixelRegression(nn.Module):
    """Probabilities of background and K crops for every pixel by its own series.

    Args:
        bands: C.
        classes: K.
        patch: side of the patches in which pixels are worked on, as clouds are known for: that of the encoder.
        days: parts of the season that there is a regression for, days from its start, ascending. The last is all of it.
        weight: what its probabilities count in the mean with the segmenter's, of 1.
    """

    coefficients: Tensor
    intercepts: Tensor
    calendar: Tensor

    def __init__(self, *, bands: int, classes: int, patch: int, days: Sequence[int], weight: float) -> None:
        super().__init__()
        self.bands, self.patch, self.days, self.weight = bands, patch, tuple(days), weight
        depth = (CALENDAR_STEPS + STATISTICS) * bands
        # Of a part of the season, the days of the calendar behind its end have coefficients of 0.
        self.register_buffer("coefficients", torch.zeros(len(self.days), classes + 1, depth))
        self.register_buffer("intercepts", torch.zeros(len(self.days), classes + 1))
        calendar = calendar_days(self.days[-1])
        self.register_buffer("calendar", torch.from_numpy(calendar).float(), persistent=False)
        self._steps = [int((calendar < each).sum()) for each in self.days]

    def part_seen(self, until: int | None) -> int | None:
        """The regression for a season of which `until` days have been seen: of the longest part not beyond.

        If None, there is none for so short a part.
        """
        if until is None:
            return len(self.days) - 1
        fitting = [number for number, days in enumerate(self.days) if days <= until]
        return fitting[-1] if fitting else None

    def forward(self, series: Series) -> Tensor:
        """Probabilities (B, K + 1, H, W). All 0 for pixels that no date shows.

        There must be a regression for what has been seen (`part_seen`).
        """
        pixels, part = series.pixels, self.part_seen(series.until)
        assert part is not None
        each = max(1, BLOCK.get(pixels.device.type, BLOCK["cpu"]) * self.patch**2 // pixels[0, 0, 0].numel())
        blocks = [slice(first, first + each) for first in range(0, len(pixels), each)]
        return torch.cat([self.of_part(series.windows(block), part) for block in blocks])

    def of_part(self, series: Series, part: int) -> Tensor:
        """The same by the regression for a part of the season."""
        features, seen = self.features(series, part)
        found = self._scores(features, part).softmax(-1) * seen[..., None, None]
        return from_patches(found.permute(0, 3, 1, 2))

    def features(self, series: Series, part: int) -> tuple[Tensor, Tensor]:
        """What describes each pixel (B, P, V / C, (g + 4) * C) in a part of the season, and whether it is seen (B, P).

        The values of its regular series, day by day, and per band the statistics of these. g days of the calendar are
        in this part. Pixels are in the order of `to_patches`.
        """
        values = to_patches(series.pixels, self.patch)
        usable = series.seen
        if part < len(self.days) - 1:
            before = (series.dates < self.days[part])[:, None]
            usable = before if usable is None else usable & before
        if usable is None:
            usable = values.new_ones(1, 1, values.shape[2], dtype=torch.bool)
        shares, seen = regular_series(series.dates, usable, self.calendar[: self._steps[part]])
        regular = shares.to(values.dtype) @ values
        regular = regular.view(*regular.shape[:3], -1, self.bands)
        mean = regular.mean(2)
        # Half of the time of this class would be torch's own standard deviation.
        deviation = (regular - mean[:, :, None]).square_().mean(2).sqrt_()
        by_day = regular.transpose(2, 3).flatten(3)
        features = torch.cat([by_day, mean, deviation, regular.amax(2), regular.amin(2)], -1)
        return features, seen.expand(values.shape[:2])

    def _scores(self, features: Tensor, part: int) -> Tensor:
        """Logits (..., K + 1) of features (..., D)."""
        rows, statistics = features.flatten(0, -2), STATISTICS * self.bands
        given = self.coefficients[part]
        weight = torch.cat([given[:, : rows.shape[1] - statistics], given[:, -statistics:]], 1)
        multiply = linear if runs_on(rows) and not torch.compiler.is_exporting() else F.linear
        return multiply(rows, weight, self.intercepts[part]).view(*features.shape[:-1], -1)


class WithPixels(nn.Module):
    """A segmentation network, and a regression of single pixels that has its share in the decision.

    pixels: the regression. If None, as in training, the network decides alone.
    """

    pixels: PixelRegression | None

    def __init__(self) -> None:
        super().__init__()
        self.pixels = None

    def network(self, series: Series) -> Tensor:
        """The network's logits (B, K + 1, H, W). Class 0 is background."""
        raise NotImplementedError

    def regression(self, until: int | None) -> PixelRegression | None:
        """The regression, if there is one for a season of which `until` days have been seen."""
        known = self.pixels is not None and self.pixels.part_seen(until) is not None
        return self.pixels if known else None

    def parts(self, series: Series) -> tuple[Tensor, Tensor | None]:
        """The network's logits, and probabilities (B, K + 1, H, W) of single pixels, where there is a regression."""
        regression = self.regression(series.until)
        return self.network(series), None if regression is None else regression(series)

    def forward(self, series: Series) -> Tensor:
        """Logits (B, K + 1, H, W) of both. Class 0 is background."""
        logits, single = self.parts(series)
        return self.mixed(logits, single)

    def mixed(self, logits_BKHW: Tensor, single_BKHW: Tensor | None) -> Tensor:
        """Logits (B, K + 1, H, W) of the mean of the network's probabilities and those of single pixels."""
        if self.pixels is None or single_BKHW is None:
            return logits_BKHW
        return mean_logits(logits_BKHW, single_BKHW, weight=self.pixels.weight)


def regular_series(dates: Tensor, usable: Tensor, calendar: Tensor) -> tuple[Tensor, Tensor]:
    """What each date is worth on regular days: linear between the usable dates around a day, constant at the ends.

    Args:
        dates: ascending days (B or 1, T). One that is usable nowhere may have any day.
        usable: bool (B or 1, P or 1, T).
        calendar: days (G,).

    Returns:
        Shares (B or 1, P or 1, G, T), each day's of sum 1, and where any date is usable (B or 1, P or 1). Elsewhere
        shares mean nothing.
    """
    count = dates.shape[1]
    # A date of no use has day 0, as padding, or that of other windows.
    days = torch.where(usable.any(1), dates, 0).cummax(1).values.float()
    # Not len(), which would be a constant of an exported program.
    usable = usable.expand(days.shape[0], -1, -1)
    place = torch.arange(count, device=dates.device)
    last = torch.where(usable, place, -1).cummax(-1).values
    following = torch.where(usable, place, NONE).flip(-1).cummin(-1).values.flip(-1)
    # The last usable date up to each day of the calendar, and the first from it on.
    wanted = calendar.expand(days.shape[0], -1).contiguous()
    before = _at(F.pad(last, (1, 0), value=-1), torch.searchsorted(days, wanted, right=True)[:, None])
    after = _at(F.pad(following, (0, 1), value=NONE), torch.searchsorted(days, wanted)[:, None])
    before, after = torch.where(before < 0, after, before), torch.where(after == NONE, before, after)
    before, after = before.clamp(0, count - 1), after.clamp(0, count - 1)
    first = _at(days[:, None], before)
    gap = _at(days[:, None], after) - first
    share = torch.where(gap > 0, (calendar - first) / gap.clamp(min=1), 0.0)
    shares = share.new_zeros(*share.shape, count)
    shares.scatter_(-1, before[..., None], (1 - share)[..., None])
    shares.scatter_add_(-1, after[..., None], share[..., None])
    return shares, usable.any(-1)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values (B, P or 1, T) at places (B, P or 1, G)."""
    patches = max(values.shape[1], places.shape[1])
    return values.expand(-1, patches, -1).gather(2, places.expand(-1, patches, -1))
