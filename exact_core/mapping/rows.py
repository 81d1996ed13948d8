"""A map of any area, a band of rows after the other: memory follows the width of the area, not its size.

What a segmenter makes of each place by itself (`Mapper.encode`) is computed once, and handed to every window that holds
the place. What it makes of a window, where they meet (`Mapper.decode`), once a window.

Windows overlap by a quarter, or as asked. Each counts most in its middle and nothing at its very edge, where it knows
least of its surroundings: weights of a squared sine, divided by their sum.

Axes are C bands, H W pixels of the area, K crops, S window side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.dataset import VOID
from exact_core.data.windows.dates import MIN_DATES, joined

if TYPE_CHECKING:
    # Parts of a map are joined where there is no torch.
    from torch import Tensor

__all__ = [
    "MOST",
    "MappedRows",
    "Mapper",
    "Seams",
    "bands_of_part",
    "map_rows",
    "usual_stride",
    "window_starts",
    "window_weights",
]

MOST = 0.5
"""Share of the weights of a pixel's windows from which network and regression count as agreeing on it."""

Predict = Callable[[list[NDArray[np.int16]], list[NDArray[np.bool_] | None]], NDArray[np.float32]]
"""Pixels (T, C, S, S) and clear patches (T, S/2, S/2) of windows -> class probabilities (n, K + 1, S, S)."""


class Mapper(Protocol):
    """A segmenter in two steps: over each place by itself, and over a window.

    cell: side of a place, pixels. Even, as clouds are known per 2 x 2.
    agreement: whether the segmenter is a network with a regression of single pixels, and says where both agree.
    """

    cell: int
    agreement: bool

    def encode(self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None) -> Tensor:
        """Pixels (T, C, h, w) and clear patches (T, h/2, w/2) -> what is known of each place, (h/cell, w/cell, ...)."""

    def decode(self, windows: list[Tensor]) -> NDArray[np.float32]:
        """The places of windows, (S/cell, S/cell, ...) each -> class probabilities (n, K + 1, S, S).

        With `agreement` a further plane follows: 1 where both name the same class, else 0.
        """


Read = Callable[[int, int], tuple[NDArray[np.int16], NDArray[np.bool_] | None]]
"""First and last row -> pixels (T, C, h, W) and clear patches (T, h/2, W/2), if known."""


@dataclass(frozen=True)
class MappedRows:
    """A finished band of rows.

    first: its first row. label: uint8 (h, W), VOID where no series was measured. probabilities: float32 (K + 1, h, W).
    agree: bool (h, W), whether network and regression name the same class, by most of the windows' weights. None where
    the mapper does not say.
    """

    first: int
    label: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    agree: NDArray[np.bool_] | None = None


def usual_stride(side: int) -> int:
    """Three quarters of a window, an even number of pixels: of the wide ones, none made a map measurably worse."""
    return max(2, 3 * side // 8 * 2)


def window_starts(length: int, side: int, stride: int) -> list[int]:
    """Where windows begin along an axis: every `stride`, and a last one that ends with the axis.

    All are even where length and stride are, as clouds are known per 2 x 2 pixels.
    """
    starts = list(range(0, length - side + 1, stride))
    if starts[-1] != length - side:
        starts.append(length - side)
    return starts


def window_weights(side: int) -> NDArray[np.float32]:
    """Weights (S, S) of a window's pixels: squared sines of both positions, 1 in the middle."""
    # Half a pixel in, so that no weight is 0: at the edge of the area a pixel may have one window only.
    along = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    return np.outer(along, along).astype(np.float32)


def bands_of_part(height: int, side: int, stride: int, part: int, parts: int) -> tuple[int, int]:
    """Which bands, of those that begin at `window_starts`, part 1..n of n parts maps: first, and one past the last."""
    bands = len(window_starts(height, side, stride))
    # In whole numbers: the end of a part is the start of the next, to the band.
    return bands * (part - 1) // parts, bands * part // parts


def map_rows(
    read: Read,
    mapper: Mapper,
    *,
    height: int,
    width: int,
    side: int,
    stride: int,
    classes: int,
    batch: int,
    chunk: int,
    bands: tuple[int, int] | None = None,
) -> Iterator[MappedRows]:
    """Map an area, or some of its bands, from top to bottom.

    A pixel is the sum over the windows that cover it, always in the same order, and rows are read at the same places
    whatever is mapped. So bands mapped alone are to the bit those of the whole.

    Args:
        read: gives rows of the area.
        mapper: a segmenter.
        height: rows of the area, at least `side`.
        width: columns, at least `side`.
        side: S, even.
        stride: from a window to the next, pixels, even, at most S.
        classes: K.
        batch: windows that are decoded at a time.
        chunk: rows read at a time. More of them spare reading the same blocks of compressed files again.
        bands: first band and one past the last, in the order of `window_starts`. If None, all. The windows above that
            reach into the first one are predicted too.
    """
    starts = window_starts(height, side, stride)
    first_band, end_band = (0, len(starts)) if bands is None else bands
    if first_band >= end_band:
        return
    top = starts[first_band]
    # Windows above reach into the first band; without them its pixels would differ from those of the whole map.
    begin = next(number for number, start in enumerate(starts) if start + side > top)
    weights, columns = window_weights(side), window_starts(width, side, stride)
    rows = _Rows(read, height, max(chunk, side), first=starts[begin])
    ground = _Ground(mapper, side, width)
    total = np.zeros((classes + 1 + mapper.agreement, side, width), np.float32)
    weight = np.zeros((side, width), np.float32)
    for number in range(begin, end_band):
        start = starts[number]
        pixels, clear, measured = rows.get(start, start + side)
        ground.move(start, starts[number + 1] if number + 1 < end_band else None)
        # Beyond the edge of a swath nothing is predicted: a segmenter would name a class there, too.
        wanted = [col for col in columns if (measured[:, col : col + side] >= MIN_DATES).any()]
        for first in range(0, len(wanted), batch):
            chosen = wanted[first : first + batch]
            found = mapper.decode(ground.windows(pixels, clear, chosen))
            for col, values in zip(chosen, found, strict=True):
                total[:, :, col : col + side] += values * weights
                weight[:, col : col + side] += weights
        # Views of what was read would keep it while the next is.
        del pixels, clear
        # No later window reaches above the start of the next band: these rows are complete.
        done = (starts[number + 1] if number + 1 < len(starts) else start + side) - start
        if number >= first_band:
            # Where no window was predicted the sum is 0 as well, and stays 0.
            divisor = np.maximum(weight[:done], np.finfo(np.float32).tiny)
            mean = np.asarray(total[:, :done] / divisor, np.float32)
            probabilities = mean[: classes + 1]
            seen = (measured[:done] >= MIN_DATES) & (weight[:done] > 0)
            label = np.where(seen, probabilities.argmax(0), VOID).astype(np.uint8)
            yield MappedRows(start, label, probabilities, mean[-1] >= MOST if mapper.agreement else None)
        # What is not complete yet moves up; the next band adds to it.
        total = np.concatenate([total[:, done:], np.zeros_like(total[:, :done])], 1)
        weight = np.concatenate([weight[done:], np.zeros_like(weight[:done])])


class _Ground:
    """What is known of each place of the present band, computed once where windows share it.

    Kept from a band to the next is what both hold: memory follows the overlap. Places are on one grid from the area's
    corner. A window off that grid, as the last one of an axis may be, is computed by itself.
    """

    def __init__(self, mapper: Mapper, side: int, width: int) -> None:
        self._mapper, self._side, self._cell = mapper, side // mapper.cell, mapper.cell
        self._columns = width // mapper.cell
        self._row = 0
        self._kept: Tensor | None = None
        self._known = np.zeros(self._columns, bool)
        self._next: tuple[int, Tensor | None] = (0, None)
        self._next_known = self._known
        self._left = 0
        self._block: Any = ()

    def move(self, row: int, following: int | None) -> None:
        """Begin the band at a row. `following` is that of the next one, None after the last."""
        on_grid = row % self._cell == 0
        # Rows of places that the band above has left here, and how many are to be left for the next.
        (shared, kept), known = self._next, self._next_known
        self._kept, self._known = (kept, known) if on_grid else (None, np.zeros_like(known))
        self._shared = shared if self._kept is not None else 0
        leave = 0
        if on_grid and following is not None and following % self._cell == 0:
            leave = max(0, self._side - (following - row) // self._cell)
        self._next, self._next_known = (leave, None), np.zeros(self._columns, bool)
        self._row, self._left, self._block = row, 0, ()

    def windows(self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None, columns: list[int]) -> list[Tensor]:
        """The places of the windows of this band that begin at ascending columns.

        Args:
            pixels: of the band (T, C, S, W).
            clear: of the band.
            columns: first columns.
        """
        found = []
        for col in columns:
            if self._row % self._cell or col % self._cell:
                found.append(self._encode(pixels, clear, slice(0, self._side * self._cell), col, self._side))
                continue
            first = col // self._cell
            if first + self._side > self._left + len(self._block):
                ahead = [each // self._cell for each in columns if each >= col and each % self._cell == 0]
                self._extend(pixels, clear, first, ahead)
            found.append(self._block[first - self._left :][: self._side].transpose(0, 1))
        return found

    def _extend(self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None, first: int, ahead: list[int]) -> None:
        """Have the block begin at a column of places and reach to the end of the windows ahead, up to a gap."""
        end = first
        for each in ahead:
            if each > end and end > first:
                break
            end = each + self._side
        had = self._left + len(self._block)
        rest = self._block[first - self._left :] if first < had else None
        start = max(first, had)
        new = self._places(pixels, clear, start, end)
        self._keep(new, start, end)
        self._left, self._block = first, new if rest is None else _beside(rest, new, 0)

    def _places(self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None, start: int, end: int) -> Tensor:
        """Columns of places, (end - start, S/cell, ...), of which the band above may have left the first rows."""
        above = self._shared if self._known[start:end].all() else 0
        rows = slice(above * self._cell, self._side * self._cell)
        new = self._encode(pixels, clear, rows, start * self._cell, end - start).transpose(0, 1)
        if not above or self._kept is None:
            return new
        return _beside(self._kept[start:end], new, 1)

    def _keep(self, places: Tensor, start: int, end: int) -> None:
        """Leave the last rows of these columns for the next band."""
        leave, kept = self._next
        if not leave:
            return
        if kept is None:
            # What was left here has been taken, column by column: where both are as high, its memory serves again.
            kept = self._kept if self._kept is not None and self._shared == leave else None
            if kept is None:
                kept = places.new_empty(self._columns, leave, *places.shape[2:])
            self._next = leave, kept
        kept[start:end] = places[:, -leave:]
        self._next_known[start:end] = True

    def _encode(
        self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None, rows: slice, col: int, columns: int
    ) -> Tensor:
        """Places of some rows of the band, from a column of pixels on, (rows, columns, ...)."""
        end = col + columns * self._cell
        seen = None if clear is None else clear[:, rows.start // 2 : rows.stop // 2, col // 2 : end // 2]
        return self._mapper.encode(pixels[:, :, rows, col:end], seen)


def _beside(first: Tensor, second: Tensor, axis: int) -> Tensor:
    """Two arrays of places as one along an axis."""
    shape = list(first.shape)
    shape[axis] += second.shape[axis]
    both = first.new_empty(shape)
    both.narrow(axis, 0, first.shape[axis]).copy_(first)
    both.narrow(axis, first.shape[axis], second.shape[axis]).copy_(second)
    return both


class _Rows:
    """Rows of an area, read in chunks from top to bottom. Rows above the last request are released.

    Chunks begin at multiples of their height from the area's top, even if reading begins elsewhere.
    """

    def __init__(self, read: Read, height: int, chunk: int, *, first: int) -> None:
        self._read, self._height, self._chunk = read, height, chunk - chunk % 2
        # At a multiple from the top, wherever reading begins: parts read, and round, as the whole does.
        self._last = first // self._chunk * self._chunk
        self._parts: list[tuple[int, NDArray[np.int16], NDArray[np.bool_] | None]] = []

    def get(self, first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.bool_] | None, NDArray[np.int64]]:
        """Pixels, clear patches, and on how many dates each pixel was measured (h, W). `first` and `last` even."""
        while self._last < last:
            # The few rows that are still wanted are copied, so that their chunk can go before the next one is read.
            self._parts = [
                (max(start, first), pixels.copy(), None if clear is None else clear.copy())
                for start, (pixels, clear) in self._reaching(first, last)
            ]
            end = min(self._height, self._last + self._chunk)
            self._parts.append((self._last, *self._read(self._last, end)))
            self._last = end
        cuts = self._reaching(first, last)
        pixels = joined([each for _, (each, _) in cuts], 2)
        seen = [each for _, (_, each) in cuts if each is not None]
        measured = np.zeros(pixels.shape[2:], np.int64)
        for image in pixels:
            # Band by band: all at once would need a mask for each.
            seen_here = image[0] != 0
            for band in image[1:]:
                # Mostly the first band says all.
                if seen_here.all():
                    break
                seen_here |= band != 0
            measured += seen_here
        return pixels, joined(seen, 1) if seen else None, measured

    def _reaching(self, first: int, last: int) -> list[tuple[int, tuple[NDArray[np.int16], NDArray[np.bool_] | None]]]:
        """What is there of these rows: where each array began, and its part of them."""
        parts = [part for part in self._parts if part[0] + part[1].shape[2] > first]
        return [(start, _cut(start, pixels, clear, first, last)) for start, pixels, clear in parts]


def _cut(
    start: int, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None, first: int, last: int
) -> tuple[NDArray[np.int16], NDArray[np.bool_] | None]:
    """Rows `first` to before `last` of an array that begins at row `start`, as far as it has them."""
    # A slice may end beyond its array, not begin before it: below 0 it would count from the end.
    rows = slice(max(first - start, 0), last - start)
    return pixels[:, :, rows], None if clear is None else clear[:, rows.start // 2 : rows.stop // 2]


class Seams:
    """Whether window borders show: how often the class changes there, against how often it does elsewhere.

    Borders are where windows begin and end. A ratio of 1 says that nothing shows. A map of separate windows has
    far more.
    """

    def __init__(self, side: int, stride: int) -> None:
        self._side, self._stride = side, stride
        # Elsewhere, and at borders.
        self._changes = np.zeros(2, np.int64)
        self._pairs = np.zeros(2, np.int64)
        self._above: NDArray[np.uint8] | None = None

    def add(self, rows: MappedRows) -> None:
        """Take in the next rows."""
        label = rows.label
        # The pair of pixel i - 1 and i is at a border where a window begins or ends at i.
        borders = self._borders(np.arange(1, label.shape[1]))
        self._count(label[:, 1:], label[:, :-1], borders[None])
        # The last row of the band before belongs to the first pair of this one.
        stacked = label if self._above is None else np.concatenate([self._above, label])
        first = rows.first + (0 if self._above is not None else 1)
        below = np.arange(first, first + len(stacked) - 1)
        self._count(stacked[1:], stacked[:-1], self._borders(below)[:, None])
        self._above = label[-1:]

    def ratio(self) -> float | None:
        """Changes a pair at borders over those elsewhere. None where there are none to speak of."""
        if not self._changes[0] or not self._pairs[1]:
            return None
        return float((self._changes[1] / self._pairs[1]) / (self._changes[0] / self._pairs[0]))

    def _borders(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        begins = places % self._stride == 0
        ends = (places >= self._side) & ((places - self._side) % self._stride == 0)
        return np.asarray(begins | ends)

    def _count(self, one: NDArray[np.uint8], other: NDArray[np.uint8], borders: NDArray[np.bool_]) -> None:
        # Where nothing was measured there is no class to change.
        known = (one != VOID) & (other != VOID)
        changed = known & (one != other)
        for place, chosen in enumerate((~borders, borders)):
            self._pairs[place] += int((known & chosen).sum())
            self._changes[place] += int((changed & chosen).sum())
