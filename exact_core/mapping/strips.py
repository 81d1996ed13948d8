"""Images of an area, each compressed block of them read once.

Files are compressed in blocks, 512 or 1,024 rows high, and a few rows of them cost as much as all: of a strip of such a
height, every date is read once and put, decompressed, into a file on disk; what is wanted of it then comes from there.
The next strip is read while the model is busy with this one. In memory is one date of a strip.

Axes: T dates, C bands, h W pixels.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from exact_core.data.rasters import open_raster
from exact_core.data.season import SeasonImages

__all__ = ["Strips", "strip_height"]

TALLEST = 1024
"""Rows of a strip: of 30 dates of a Sentinel-2 tile, 6.8 GB on disk."""


@dataclass(frozen=True)
class _Strip:
    """Rows on disk: file of int16 (T, C, h, W); clear patches (T, h/2, W/2) are few enough for memory."""

    first: int
    last: int
    file: IO[bytes]
    clear: NDArray[np.bool_]


def strip_height(images: SeasonImages, chunk: int) -> int:
    """Rows of a strip: a multiple of `chunk` that spares reading blocks again."""
    tallest = chunk
    first = images.acquisitions[0]
    for band in images.bands:
        with open_raster(first.files[band]) as file:
            rows = file.block_shapes[0][0] * max(1, round(images.grid.height / file.height))
        tallest = max(tallest, min(rows, TALLEST))
    return -(-tallest // chunk) * chunk


class Strips:
    """Rows of a season's images, to be asked for from top to bottom, `chunk` of them at a time.

    Args:
        images: the season.
        folder: where there is room for two strips; files there have no name and end with the process.
        chunk: rows asked for at a time; requests begin at multiples of it.
        end: no row from here on will be asked for.
    """

    def __init__(self, images: SeasonImages, folder: Path, *, chunk: int, end: int) -> None:
        self._images, self._folder, self._end = images, folder, min(end, images.grid.height)
        self._height = strip_height(images, chunk)
        self._pool = ThreadPoolExecutor(1)
        self._strip: _Strip | None = None
        self._next: Future[_Strip | None] | None = None
        self._stop = False

    def __enter__(self) -> Strips:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop = True
        self._pool.shutdown()

    def read(self, first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Pixels (T, C, h, W) and clear patches (T, h/2, W/2) of rows `first` to before `last`, both even."""
        if self._strip is None or first >= self._strip.last:
            self._advance(first, last)
        strip = self._strip
        assert strip is not None
        assert strip.first <= first < last <= strip.last
        dates, bands, width = len(self._images.acquisitions), len(self._images.bands), self._images.grid.width
        pixels = np.empty((dates, bands, last - first, width), np.int16)
        row = width * pixels.itemsize
        for number, plane in enumerate(pixels.reshape(-1, last - first, width)):
            strip.file.seek((number * (strip.last - strip.first) + first - strip.first) * row)
            strip.file.readinto(plane.data.cast("B"))  # type: ignore[attr-defined]
        return pixels, strip.clear[:, (first - strip.first) // 2 : (last - strip.first) // 2]

    def _advance(self, first: int, last: int) -> None:
        """Take the strip that holds these rows, and have the one below it read."""
        waiting, self._next, self._strip = self._next, None, None
        strip = None if waiting is None else waiting.result()
        if strip is None or strip.first != first:
            strip = self._fill(first, self._below(first, last))
        self._strip = strip
        if strip is not None and strip.last < self._end:
            self._next = self._pool.submit(self._fill, strip.last, self._below(strip.last, strip.last + 1))

    def _below(self, first: int, last: int) -> int:
        """Where the strip that begins at `first` ends: at a multiple of its height, and not before `last`."""
        return max(min((first // self._height + 1) * self._height, self._end), min(last, self._images.grid.height))

    def _fill(self, first: int, last: int) -> _Strip | None:
        """Read a strip, a date in memory at a time; None when nobody waits for it any more."""
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it lives as long as the strip
        clear = []
        for acquisition in self._images.acquisitions:
            if self._stop:
                return None
            pixels, seen = replace(self._images, acquisitions=[acquisition]).read(first, last)
            file.write(np.ascontiguousarray(pixels).data.cast("B"))
            clear.append(seen)
        file.flush()
        return _Strip(first, last, file, np.concatenate(clear))
