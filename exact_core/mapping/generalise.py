"""A class map without specks: a majority filter, and a minimum mapping unit. Both are the same however rows are cut.

Only classes change. Confidence and probabilities stay what the model gave each pixel.

Axes are h rows, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import scipy.ndimage
from numpy.typing import NDArray
from rasterio.windows import Window

from exact_core.data.windows.dataset import VOID
from exact_core.mapping.finished_rows import FinishedRows

__all__ = ["majority_filter", "majority_rows", "merge_small_regions", "regions_of", "without_small_regions"]

SIDES = (
    (np.s_[:, :-1], np.s_[:, 1:]),
    (np.s_[:-1], np.s_[1:]),
)
"""Pixels and their neighbours to the right, and below."""
STRIP = 512
"""Rows of a map whose small regions are merged at a time, beside those around them."""


def majority_filter(label: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The most frequent class of the square around each pixel (modal filter).

    On a tie the pixel's own class stays, or else the lowest label is taken. Pixels without a class do not
    vote, and stay without one.

    Args:
        label: labels (h, W), VOID where there is none.
        side: of the square, pixels, odd.
    """
    half = side // 2
    padded = np.pad(label, half, constant_values=VOID)
    best, most, own = label.copy(), np.zeros(label.shape, np.uint16), np.zeros(label.shape, np.uint16)
    for number in np.unique(label[label != VOID]):
        votes = _box_sums(padded == number, side)
        np.copyto(own, votes, where=label == number)
        more = votes > most
        best[more], most[more] = number, votes[more]
    return np.where((own == most) | (label == VOID), label, best)


def _box_sums(votes: NDArray[np.bool_], side: int) -> NDArray[np.uint16]:
    """Sums over squares (h - side + 1, W - side + 1). Unsigned sums may wrap on the way, their differences do not."""
    found = votes.astype(np.uint16)
    for axis in (0, 1):
        sums = np.moveaxis(np.cumsum(found, axis, dtype=np.uint16), axis, 0)
        found = sums[side - 1 :].copy()
        found[1:] -= sums[:-side]
        found = np.moveaxis(found, 0, axis)
    return found


def majority_rows(rows: Iterable[FinishedRows], side: int) -> Iterator[FinishedRows]:
    """Rows of a map with `majority_filter`: only rows that wait for those below them are in memory.

    Args:
        rows: of a map, from top to bottom.
        side: of the square, pixels, odd.
    """
    half = side // 2
    waiting: list[FinishedRows] = []
    above: NDArray[np.uint8] | None = None
    for each in rows:
        waiting.append(each)
        while waiting[-1].end - waiting[0].end >= half:
            filtered, above = _first_filtered(waiting, above, side)
            yield filtered
    while waiting:
        filtered, above = _first_filtered(waiting, above, side)
        yield filtered


def _first_filtered(
    waiting: list[FinishedRows], above: NDArray[np.uint8] | None, side: int
) -> tuple[FinishedRows, NDArray[np.uint8]]:
    """Take the first of the waiting rows, filtered. With it, what the next ones need of the rows above them."""
    half, first = side // 2, waiting[0]
    known = [each.label for each in waiting]
    over = len(above) if above is not None else 0
    whole = np.concatenate([*([] if above is None else [above]), *known])
    height = len(first.label)
    filtered = majority_filter(whole[: over + height + half], side)[over : over + height]
    waiting.pop(0)
    return replace(first, label=filtered), whole[max(0, over + height - half) : over + height]


def regions_of(label: NDArray[np.uint8]) -> tuple[NDArray[np.int32], int]:
    """Number of the region of each pixel, 1..n, 0 where there is no class, and n.

    A region is what hangs together by sides of pixels.
    """
    region = np.zeros(label.shape, np.int32)
    last = 0
    for number in np.unique(label[label != VOID]):
        own = label == number
        found, count = scipy.ndimage.label(own)
        region[own] = found[own] + last
        last += count
    return region, last


def without_small_regions(label: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Labels (h, W) whose regions of fewer pixels take the class that they share the longest border with.

    Borders count that lead to regions of the minimum size. Of
    equally long ones, that of the lowest label. A region without such a border stays, as an island among pixels without
    a class does.

    Args:
        label: labels, VOID where there is none.
        pixels: of the smallest region that stays.
    """
    region, last = regions_of(label)
    small = np.bincount(region.ravel(), minlength=last + 1) < pixels
    # Region 0 are the pixels without a class: neither small nor a neighbour.
    small[0] = False
    if not small.any():
        return label
    numbers, classes = np.cumsum(small, dtype=np.int64) - 1, int(label[label != VOID].max()) + 1
    borders = np.zeros(int(small.sum()) * classes, np.int64)
    for one, other in SIDES:
        for here, there in ((one, other), (other, one)):
            joined = small[region[here]] & ~small[region[there]] & (label[there] != VOID)
            place = numbers[region[here][joined]] * classes + label[there][joined]
            borders += np.bincount(place, minlength=len(borders))
    lengths = borders.reshape(-1, classes)
    found_class = np.where(lengths.any(1), lengths.argmax(1), VOID).astype(np.uint8)
    inside = small[region]
    taken = found_class[numbers[region[inside]]]
    merged = label.copy()
    merged[inside] = np.where(taken == VOID, label[inside], taken)
    return merged


def merge_small_regions(path: Path, pixels: int) -> None:
    """Merge small regions of a raster of labels in place, again until none is left that can be.

    Rows are read in strips with so many rows around them that a strip shows all that decides about its regions: one of
    fewer than n pixels, and a neighbour of it, of which n pixels suffice, reach no further than 2 n rows. So memory
    follows the width of the map and the size of the smallest region.

    Args:
        path: a plain GeoTIFF of one band of uint8.
        pixels: of the smallest region that stays.

    Raises:
        RasterioError, OSError: it cannot be read or written.
    """
    reach, changed = 2 * pixels, True
    while changed:
        changed = False
        partial = path.with_name(f"{path.name}.merged")
        with rasterio.open(path) as before, rasterio.open(partial, "w", **before.profile) as after:
            after.write_colormap(1, before.colormap(1))
            after.update_tags(1, **before.tags(1))
            for first in range(0, before.height, STRIP):
                end = min(before.height, first + STRIP)
                top, bottom = max(0, first - reach), min(before.height, end + reach)
                label = before.read(1, window=Window(0, top, before.width, bottom - top))
                own = slice(first - top, end - top)
                merged = without_small_regions(label, pixels)[own]
                changed = changed or bool((merged != label[own]).any())
                after.write(merged, 1, window=Window(0, first, before.width, end - first))
        os.replace(partial, path)
