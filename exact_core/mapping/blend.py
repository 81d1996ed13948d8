"""Overlapping windows blended into one map of a scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.dataset import VOID, WindowRecord

__all__ = ["SceneMosaic"]


class SceneMosaic:
    """Accumulates windows of one scene over their common bounding box.

    Args:
        records: the windows of the scene that will be added, all of one size.
        side: window side, pixels.
        channels: number of values a pixel, K + 1 for class probabilities.

    Memory is channels x bounding box: meant for scenes of the evaluation split, not for whole tiles.
    """

    def __init__(self, records: Sequence[WindowRecord], *, side: int, channels: int) -> None:
        self.side = side
        self._row0 = min(record.row for record in records)
        self._col0 = min(record.col for record in records)
        height = max(record.row for record in records) + side - self._row0
        width = max(record.col for record in records) + side - self._col0
        self._sum = np.zeros((channels, height, width), np.float32)
        self._count = np.zeros((height, width), np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the bounding box, pixels."""
        return self._count.shape[0], self._count.shape[1]

    def place(self, record: WindowRecord) -> tuple[slice, slice]:
        """Position of a window in the mosaic."""
        row, col = record.row - self._row0, record.col - self._col0
        return slice(row, row + self.side), slice(col, col + self.side)

    def add(self, record: WindowRecord, values: NDArray[np.float32]) -> None:
        """Add a window's values (channels, side, side)."""
        place = self.place(record)
        self._sum[(slice(None), *place)] += values
        self._count[place] += 1

    def mean(self) -> NDArray[np.float32]:
        """Mean over the windows that cover each pixel (channels, H, W). 0 where none does."""
        return np.asarray(self._sum / np.maximum(self._count, 1), np.float32)

    def labels(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Most probable class, VOID without a window, and its mean probability. Both are (H, W)."""
        mean = self.mean()
        label = mean.argmax(0).astype(np.uint8)
        return np.where(self._count > 0, label, VOID).astype(np.uint8), mean.max(0)
