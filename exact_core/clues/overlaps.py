"""Constraints of overlapping windows on each other's pixels (not in the paper).

If a window has no tag of a crop, the crop is excluded from its pixels in all windows that share them. Where windows
overlap, as in a scene too small to be split, each pixel then has fewer candidate crops than the tags of its own window
allow.

Axes are K crop classes, H W pixels of a window.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.dataset import WindowDataset

__all__ = ["OverlapTags"]

WITNESSES = 8
"""Number of windows of which one may lack a crop's tag before the crop is excluded. A small part of a field in a
window's corner gets no tag (data.tag_share), and missing tags are common. Chosen on flanders_2018, seed 0."""


class OverlapTags:
    """Crops that each pixel of a window may be, by its own window's tags and by those of the windows over it.

    Args:
        windows: the dataset.
        indices: positions of the windows whose tags may be used. Only these of one scene are compared.
        use: False: each window's own tags alone.
    """

    def __init__(self, windows: WindowDataset, indices: Sequence[int], *, use: bool = True) -> None:
        self._windows, self._indices, self._use = windows, indices, use

    def allowed(self, index: int) -> NDArray[np.float64]:
        """1 where a pixel may be background or a crop (K + 1, H, W), else 0; (K + 1, 1, 1) where no window overlaps."""
        own = np.array([1, *self._windows.tags[index]], np.float64)[:, None, None]
        others = self._others(index) if self._use else []
        if not others:
            return own
        over = self._over(others)
        allowed: NDArray[np.float64] = np.broadcast_to(own, over.shape).copy()
        allowed[1:][over[1:] > over[0] // WITNESSES] = 0
        return allowed

    def count(self, index: int) -> NDArray[np.int64]:
        """Windows over each pixel of a window (H, W), itself among them."""
        windows: NDArray[np.int64] = self._over(self._others(index))[0]
        return windows

    def _over(self, others: list[tuple[int, tuple[slice, slice]]]) -> NDArray[np.int64]:
        """Of each pixel the windows over it, its own among them, and how many others lack each crop (K + 1, H, W)."""
        side = self._windows.manifest.window
        over = np.zeros((self._windows.classes + 1, side, side), np.int64)
        over[0] = 1
        for other, shared in others:
            over[(slice(None), *shared)] += self._lacks[other][:, None, None]
        return over

    def told(self, index: int) -> NDArray[np.float64]:
        """1 for background and the crops that may grow in a window by its own tags (K + 1,), else 0."""
        return np.array([1, *(1 - self._lacks[index, 1:])], np.float64)

    def _others(self, index: int) -> list[tuple[int, tuple[slice, slice]]]:
        """The other windows that share pixels with one: their positions, and its pixels that they share."""
        side = self._windows.manifest.window
        scene, row, col = self._places[index]
        near = (
            each
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            for each in self._cells.get((scene, row // side + i, col // side + j), ())
        )
        return [
            (
                other,
                np.s_[max(top - row, 0) : side + min(top - row, 0), max(left - col, 0) : side + min(left - col, 0)],
            )
            for top, left, other in near
            if other != index and abs(top - row) < side and abs(left - col) < side
        ]

    @cached_property
    def _places(self) -> dict[int, tuple[str, int, int]]:
        records = ((int(index), self._windows.records[int(index)]) for index in self._indices)
        return {index: (each.scene, each.row, each.col) for index, each in records}

    @cached_property
    def _cells(self) -> dict[tuple[str, int, int], list[tuple[int, int, int]]]:
        side = self._windows.manifest.window
        cells: dict[tuple[str, int, int], list[tuple[int, int, int]]] = defaultdict(list)
        for index, (scene, row, col) in self._places.items():
            cells[scene, row // side, col // side].append((row, col, index))
        return cells

    @cached_property
    def _lacks(self) -> NDArray[np.int64]:
        """What a window counts: 1 for itself, and 1 for each crop that is known not to grow in it (N, K + 1)."""
        open_tags = self._windows.open
        told = self._windows.tags if open_tags is None else self._windows.tags | open_tags
        return np.pad(1 - told.astype(np.int64), ((0, 0), (1, 0)), constant_values=1)
