"""Images of an area, each compressed block of them read once.

Files are compressed in blocks of 512 or 1,024 rows, and reading a few rows of a block costs as much as all. So the area
is read in strips of such a height. Every date of a strip is read once and stored, decompressed, in a file on disk,
which serves all requests. The next strip is read while the present one is in use. Only one date of a strip is in
memory. Requested rows are mapped from the file, not copied: filling memory anew cost more than all else done to them.

Axes are T dates, C bands, h W pixels.
"""

from __future__ import annotations

import itertools
import mmap
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from exact_core.data.season.images import SeasonImages
from exact_core.data.season.rasters import open_raster
from exact_core.data.windows.dataset import CLEAR_PATCH
from exact_core.data.windows.dates import joined
from exact_core.files import full_disk

__all__ = ["Strips", "strip_height"]

TALLEST = 1024
"""Rows of a strip: of 30 dates of a Sentinel-2 tile, 6.8 GB on disk."""


@dataclass(frozen=True)
class _Strip:
    """Rows on disk. Clear patches (T, h/2, W/2) are few enough for memory.

    file: of int16, chunk after chunk of rows, each (T, C, h, W). shape: T, C and W. changed: what was done to the
    values of each date.
    """

    first: int
    last: int
    chunk: int
    shape: tuple[int, int, int]
    file: IO[bytes]
    clear: NDArray[np.bool_]
    changed: list[Counter[str]]

    def chunks(self) -> Iterator[tuple[int, int]]:
        """First row of each chunk, and one past its last. They begin at multiples from the area's top."""
        edges = range(self.first - self.first % self.chunk, self.last, self.chunk)
        return ((max(edge, self.first), min(edge + self.chunk, self.last)) for edge in edges)

    def place(self, row: int) -> int:
        """Where in the file a chunk begins, bytes."""
        dates, bands, width = self.shape
        return (row - self.first) * dates * bands * width * np.dtype(np.int16).itemsize

    def keep(self, date: int, pixels: NDArray[np.int16]) -> None:
        """Write a date (C, h, W)."""
        for top, end in self.chunks():
            self.file.seek(self.place(top) + date * (self.place(end) - self.place(top)) // self.shape[0])
            for band in pixels[:, top - self.first : end - self.first]:
                self.file.write(np.ascontiguousarray(band).data.cast("B"))

    def rows(self, first: int, last: int) -> Iterator[NDArray[np.int16]]:
        """What there is of rows `first` to before `last`: pieces (T, C, h, W), each mapped from the file.

        A mapping covers one chunk: the kernel may bring in more of what is mapped than is looked at.
        """
        dates, bands, width = self.shape
        for top, end in self.chunks():
            if top >= last or end <= first:
                continue
            # Mappings begin at pages.
            before = self.place(top) % mmap.ALLOCATIONGRANULARITY
            begin, size = self.place(top) - before, self.place(end) - self.place(top)
            # A private one may be written to, as torch expects of what it is given.
            pages = mmap.mmap(self.file.fileno(), before + size, access=mmap.ACCESS_COPY, offset=begin)
            whole = np.frombuffer(pages, np.int16, offset=before).reshape(dates, bands, end - top, width)
            yield whole[:, :, max(first - top, 0) : last - top]


def strip_height(images: SeasonImages, chunk: int) -> int:
    """Rows of a strip: a multiple of `chunk` that spares reading blocks again."""
    tallest = chunk
    # One date speaks for all: an archive cuts its files alike. Were they not, blocks would be read twice, no more.
    first = images.acquisitions[0]
    for band in images.bands:
        with open_raster(first.files[band]) as file:
            # In rows of the grid: a block of a band of 20 m is twice as high on a grid of 10 m.
            rows = file.block_shapes[0][0] * max(1, round(images.grid.height / file.height))
        tallest = max(tallest, min(rows, TALLEST))
    # Rounded up, so that what is asked for at multiples of a chunk never straddles two strips.
    return -(-tallest // chunk) * chunk


class Strips:
    """Rows of a season's images, to be asked for from top to bottom.

    Two strips are on disk at a time. The next one is read as soon as all pending requests are within one strip.

    Args:
        images: the season.
        folder: where there is room for two strips. Files there have no name and end with the process.
        chunk: rows, even, of which a strip has a multiple: a request at their multiples is within one strip.
        spans: first row, and one past the last, of each request. Only strips with some of it are read.
    """

    def __init__(self, images: SeasonImages, folder: Path, *, chunk: int, spans: Sequence[tuple[int, int]]) -> None:
        self._images, self._folder = images, folder
        self._edges = _strips(spans, strip_height(images, chunk), chunk, images.grid.height)
        # One thread: strips are read in order, and two at once would need room on disk for a third.
        self._pool = ThreadPoolExecutor(1)
        self._chunk = chunk
        self._stop = False
        self._held: list[_Strip] = []
        self._next: Future[_Strip] | None = None
        self._changed = [Counter[str]() for _ in images.acquisitions]

    def __enter__(self) -> Strips:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A strip may take minutes; what is left of it is of no use to anybody.
        self._stop = True
        self._pool.shutdown()

    @property
    def changed(self) -> Counter[str]:
        """What was done to the values of the strips so far, as `SeasonImages.read_counted` says of all of them."""
        return sum(self._changed, Counter())

    def read(self, first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Pixels (T, C, h, W) and clear patches (T, h/2, W/2) of rows `first`, even, to before `last`.

        Rows of one chunk are a view of the strip's file, which takes memory for as long as it is kept. What is written
        into it is not written to the file.
        """
        # Requests go down only: what lies above is never asked for again, and its file goes with it.
        self._held = [strip for strip in self._held if strip.last > first]
        while not self._held or self._held[-1].last < last:
            self._take(first)
        # Begun only while one strip is held: with the next there are two on disk, never three.
        if len(self._held) == 1 and self._next is None and self._edges:
            self._next = self._pool.submit(self._fill, *self._edges.pop(0))
        pixels = [piece for strip in self._held for piece in strip.rows(first, last)]
        # A row of clear patches is two rows of pixels: strips begin at even ones.
        clear = [
            strip.clear[:, max(first - strip.first, 0) // CLEAR_PATCH : max(last - strip.first, 0) // CLEAR_PATCH]
            for strip in self._held
        ]
        return joined(pixels, 2), joined(clear, 1)

    def _take(self, first: int) -> None:
        """Hold the next strip that reaches beyond row `first`."""
        waiting, self._next = self._next, None
        # What was skipped is not read. A strip that is being read already is waited for, wherever it lies.
        while waiting is None and self._edges[0][1] <= first:
            self._edges.pop(0)
        if waiting is None:
            top, end = self._edges.pop(0)
            # Nothing above the request will be wanted any more.
            strip = self._fill(max(top, first), end)
        else:
            strip = waiting.result()
        for known, found in zip(self._changed, strip.changed, strict=True):
            # Fractions are counted by raster, and each strip has its rows of the same ones.
            fractions = max(known["fractions"], found["fractions"])
            known.update(found)
            known["fractions"] = fractions
        if strip.last > first:
            self._held.append(strip)

    def _fill(self, first: int, last: int) -> _Strip:
        """Read a strip, a date in memory at a time. In vain once nobody waits for it any more.

        Raises:
            ServiceError: it does not fit on the disk.
        """
        dates, bands, width = len(self._images.acquisitions), len(self._images.bands), self._images.grid.width
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it lives as long as the strip
        strip = _Strip(
            first,
            last,
            self._chunk,
            (dates, bands, width),
            file,
            np.empty((dates, (last - first) // CLEAR_PATCH, width // CLEAR_PATCH), np.bool_),
            [],
        )
        try:
            # Before a date is read, which takes minutes. And rows that have room on disk can always be mapped.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, strip.place(last))
            for number, acquisition in enumerate(self._images.acquisitions):
                if self._stop:
                    break
                pixels, strip.clear[number], counts = replace(self._images, acquisitions=[acquisition]).read_counted(
                    first, last
                )
                strip.keep(number, pixels[0])
                strip.changed.append(counts)
            file.flush()
        except OSError as error:
            # What it takes itself counts as free.
            file.close()
            if full := full_disk(error, self._folder, size=strip.place(last)):
                raise full from error
            raise
        return strip


def _strips(spans: Sequence[tuple[int, int]], height: int, chunk: int, rows: int) -> list[tuple[int, int]]:
    """First row, and one past the last, of the strips of an area with this many rows, cut to the requested spans.

    A rest lower than a chunk belongs to the strip above it.
    """
    edges = [*range(0, max(rows - chunk + 1, 1), height), rows]
    strips = []
    for top, end in itertools.pairwise(edges):
        wanted = [(max(first, top), min(last, end)) for first, last in spans if first < end and last > top]
        if wanted:
            last = max(last for _, last in wanted)
            # Even at the end, too: a row of clear patches is two rows of pixels.
            strips.append((min(first for first, _ in wanted), last + last % CLEAR_PATCH))
    return strips
