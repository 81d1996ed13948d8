"""A scene of a season, whose images are read as windows are cut from them.

Axes are T dates, C bands, H W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exact_core.data.season.images import SeasonImages
from exact_core.data.season.strips import Strips
from exact_core.data.windows.cutting import Scene
from exact_core.data.windows.dataset import CLEAR_PATCH

__all__ = ["SeasonScene"]

FEWEST_ROWS = 256
"""Rows read at a time, at least, of files of lower blocks: each time, every file of the season is opened."""


class SeasonScene:
    """A scene that is larger than memory: some rows of it at a time are a `Scene`.

    Args:
        images: the season.
        labels: uint8 (H, W), or None.
        fields: number of each pixel's field, int32 (H, W), or None.
        window: window side, pixels.
        folder: for decompressed strips of the images, temporarily (`exact_core.data.season.strips`).
        origin: name in error messages.

    Attributes:
        changed: corrections of the values that `parts` read last.
    """

    def __init__(
        self,
        images: SeasonImages,
        labels: NDArray[np.uint8] | None,
        *,
        window: int,
        folder: Path,
        origin: str,
        fields: NDArray[np.int32] | None = None,
    ) -> None:
        self.name, self.origin, self.labels, self.fields = images.name, origin, labels, fields
        self.height, self.width = images.grid.height, images.grid.width
        self.changed = Counter[str]()
        self._images, self._folder = images, folder
        self._chunk = max(FEWEST_ROWS, window + window % CLEAR_PATCH)

    def parts(self, spans: Sequence[tuple[int, int]]) -> Generator[Scene]:
        """Some rows of the scene after others. Only what is needed of these is read.

        Args:
            spans: first row, even, and one past the last. None begins above the one before.
        """
        grid = self._images.grid
        with Strips(self._images, self._folder, chunk=self._chunk, spans=spans) as strips:
            for first, last in spans:
                pixels, clear = strips.read(first, last)
                yield Scene(
                    name=self.name,
                    pixels=pixels,
                    days=self._images.days.astype(np.int16),
                    labels=self.labels,
                    clear=clear.astype(np.uint8),
                    crs=grid.crs.to_string(),
                    transform=tuple(grid.transform)[:6],
                    origin=self.origin,
                    first=first,
                    fields=self.fields,
                )
                # None of this stays in memory while the next is read.
                del pixels, clear
            self.changed = strips.changed
