"""Fields found in a season's images alone, for land without a layer of outlines (not in the paper).

Pixels are described by NDVI and by the reflectance of three bands over the season. Regions are then merged, as in
region growing: every region smaller than the minimum joins the neighbour with the most similar mean, until none is
left. Several merge in one round, joined by `scipy.sparse.csgraph.connected_components`.

A scene is segmented in tiles, so that memory does not grow with it. The edge of a tile is also one of its segments.

Axes: C bands, H W pixels of a scene, h w of a tile, F features of a pixel, N regions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from exact_core.data.season.images import SeasonImages
from exact_core.data.season.rasters import pixel_metres
from exact_core.data.season.scene import SeasonScene
from exact_core.data.windows.dataset import Window
from exact_core.data.windows.regular_series import calendar_days, calendar_series
from exact_core.errors import ConfigError

__all__ = ["SEGMENTS", "merge_regions", "season_segments"]

SEGMENTS = "segments"
"""What `data.season.outlines` says for fields that are found in the images."""
RED, INFRARED, OTHERS = "B04", "B08", ("B03", "B11")
TILE = 256
"""Side of a tile, pixels."""
ROWS = 64
"""Rows whose images are in memory at a time."""


def season_segments(
    scene: SeasonScene, images: SeasonImages, *, hectares: float, notes: list[str]
) -> NDArray[np.int32]:
    """The segment of each pixel (H, W) of a scene, numbered from 1; 0 where no date measured anything.

    Args:
        scene: its images are read once, from top to bottom.
        images: the same images, for their bands, season and grid.
        hectares: smallest segment, beside those that the edge of a tile or of measured land leaves smaller.
        notes: gets the number of segments.

    Raises:
        ConfigError: the bands of NDVI are not read.
    """
    bands, calendar = _bands(images.bands), calendar_days(images.length)
    fewest = max(1, round(hectares * 10_000 / pixel_metres(images.grid) ** 2))
    numbers = np.zeros((scene.height, scene.width), np.int32)
    tops = range(0, scene.height, TILE)
    spans = [
        (row, min(row + ROWS, top + TILE, scene.height))
        for top in tops
        for row in range(top, min(top + TILE, scene.height), ROWS)
    ]
    count = 0
    rows: list[NDArray[np.float32]] = []
    for part, (_, last) in zip(scene.parts(spans), spans, strict=True):
        window = Window(part.pixels[:, bands], part.days, np.zeros(0, np.uint8), None, part.clear)
        series = calendar_series(window, calendar).reshape(*part.pixels.shape[2:], len(calendar), len(bands))
        rows.append(_features(series))
        if last % TILE and last < scene.height:
            continue
        strip = np.concatenate(rows)
        rows.clear()
        for left in range(0, scene.width, TILE):
            tile = strip[:, left : left + TILE]
            found = merge_regions(tile, fewest=fewest)
            found[found > 0] += count
            count = max(count, int(found.max()))
            numbers[last - len(strip) : last, left : left + TILE] = found
    notes.append(
        f"{count} fields of at least {fewest} pixels were found in the images (data.season.outlines={SEGMENTS})"
    )
    return numbers


def _bands(names: tuple[str, ...]) -> list[int]:
    """Places of the bands that describe a pixel, red and infrared first."""
    missing = [each for each in (RED, INFRARED) if each not in names]
    if missing:
        raise ConfigError(
            f"data.season.outlines={SEGMENTS} requires bands {RED} and {INFRARED}, but data.season.bands lacks "
            f"{', '.join(missing)}. Add them, or name a layer of outlines"
        )
    return [names.index(each) for each in (RED, INFRARED, *OTHERS) if each in names]


def _features(series_HWGC: NDArray[np.float32]) -> NDArray[np.float32]:
    """NDVI, and all bands but red, over the season (H, W, F); NaN where nothing was measured."""
    red, infrared = series_HWGC[..., 0], series_HWGC[..., 1]
    ndvi = (infrared - red) / np.maximum(infrared + red, 1)
    found = np.concatenate([ndvi, *np.moveaxis(series_HWGC[..., 1:], 3, 0)], 2)
    found[~series_HWGC.any((2, 3))] = np.nan
    return found


def merge_regions(features_HWF: NDArray[np.floating], *, fewest: int) -> NDArray[np.int32]:
    """Regions of similar neighbouring pixels: numbers (H, W) from 1, in the order of their first pixels.

    At first every pixel is a region. In each round, every region of fewer than `fewest` pixels joins the neighbour,
    across a side of a pixel, whose mean differs least. Features are standardised first, so their units do not matter.

    Args:
        features_HWF: descriptions of pixels; a pixel with NaN belongs to no region and has number 0.
        fewest: pixels of a region. One that has no neighbour may be smaller.
    """
    height, width, depth = features_HWF.shape
    known = ~np.isnan(features_HWF).any(2)
    pixels = _standardised(features_HWF[known].astype(np.float64))
    place = np.full((height, width), -1)
    place[known] = np.arange(len(pixels))
    ends = [(place[:, :-1], place[:, 1:]), (place[:-1], place[1:])]
    one, other = (np.concatenate([side.ravel() for side in sides]) for sides in zip(*ends, strict=True))
    both = (one >= 0) & (other >= 0)
    one, other = one[both], other[both]
    region, size, mean = np.arange(len(pixels)), np.ones(len(pixels)), pixels
    while True:
        start, end = (np.concatenate([region[a], region[b]]) for a, b in ((one, other), (other, one)))
        small = (start != end) & (size[start] < fewest)
        if not small.any():
            break
        start, end = np.divmod(np.unique(start[small] * len(size) + end[small]), len(size))
        start, end = _nearest(start, end, mean)
        joins = coo_array((np.ones(len(start)), (start, end)), shape=(len(size), len(size)))
        _, joined = connected_components(joins, directed=False)
        region = joined[region]
        size = np.bincount(region).astype(np.float64)
        mean = np.stack([np.bincount(region, pixels[:, each]) for each in range(depth)], 1) / size[:, None]
    numbers = np.zeros((height, width), np.int32)
    _, first, inverse = np.unique(region, return_index=True, return_inverse=True)
    numbers[known] = first.argsort().argsort()[inverse] + 1
    return numbers


def _standardised(values_NF: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of mean 0 and standard deviation 1; what does not vary stays 0."""
    if not len(values_NF):
        return values_NF
    deviation = values_NF.std(0)
    return np.asarray((values_NF - values_NF.mean(0)) / np.where(deviation > 0, deviation, 1))


def _nearest(
    start: NDArray[np.int64], end: NDArray[np.int64], mean_NF: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each region that starts a pair, the pair whose means differ least; of equal ones, the first."""
    # A feature at a time: the differences of all features together would take the most memory.
    distance = np.zeros(len(start))
    for column in mean_NF.T:
        distance += (column[start] - column[end]) ** 2
    order = np.lexsort((distance, start))
    start, end = start[order], end[order]
    first = np.concatenate([[True], start[1:] != start[:-1]])
    return start[first], end[first]
