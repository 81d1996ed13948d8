"""The content of a data preview, before training: location, dates, bands, tags.

This module has the numbers only. `preview_read` gathers them from a dataset, and `preview_season` from images.
`preview_findings` states warnings, `preview_figures` draws, and `preview_page` writes the page. Axes are N windows, T
dates, C bands, H W pixels, K crop classes.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.dataset import SPLITS, Statistics

__all__ = [
    "BandFigures",
    "BandSums",
    "DrawnSquare",
    "Footprint",
    "Gap",
    "Preview",
    "SceneDates",
    "Squares",
    "Strip",
    "TagFigures",
    "count_tags",
    "find_gaps",
]

GAP_WEEKS = 4.0
"""A longer time without a usable date is named: a crop may emerge, flower or be cut in it."""
USABLE = 0.3
"""Clear share of a scene from which a date counts as usable."""
BINS = 48
ALL = "all"


@dataclass(frozen=True)
class Footprint:
    """Locations of windows.

    Args:
        crs: of the coordinates. Empty where it is not known.
        outlines: corners (N, 4, 2) in units of the CRS, x before y.
        groups: split of each window, or what else it is coloured by.
        scenes: scene of each window.
        apart: scenes are on the same ground or without coordinates, so they are drawn apart.
        corners: latitude and longitude, degrees, of the north-west, north-east, south-west and south-east corner of
            the bounding box. Empty where unknown.
    """

    crs: str
    outlines: NDArray[np.float64]
    groups: tuple[str, ...]
    scenes: tuple[str, ...]
    apart: bool
    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class SceneDates:
    """Dates of a scene: days since season start (T,), ascending, and the clear share 0..1 of each (T,)."""

    name: str
    days: NDArray[np.int64]
    clear: NDArray[np.float64]


@dataclass(frozen=True)
class Gap:
    """A time without a usable date. Its ends are such dates, or the ends of the season."""

    scene: str
    first: dt.date
    last: dt.date

    @property
    def weeks(self) -> float:
        """Its length."""
        return (self.last - self.first).days / 7


@dataclass(frozen=True)
class BandFigures:
    """One band: histograms by group over common edges, and the shift of each group from the reference.

    Args:
        band: its name.
        edges: (BINS + 1,), reflectance x 10,000. The outermost bins contain all values beyond.
        counts: group -> (BINS,).
        means: group -> mean, reflectance x 10,000.
        reference: mean and standard deviation of training.
        shifts: group -> (mean - mean of training) / standard deviation of training. Empty without such statistics.
    """

    band: str
    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]
    means: dict[str, float]
    reference: tuple[float, float]
    shifts: dict[str, float]


@dataclass(frozen=True)
class TagFigures:
    """Tags of all windows.

    Args:
        classes: names of crops 1..K.
        counts: split -> windows in which each crop is tagged (K,).
        together: windows in which both crops are tagged (K, K). The diagonal holds each crop's own.
        density: windows with 0, 1, 2, ... tags.
    """

    classes: tuple[str, ...]
    counts: dict[str, NDArray[np.int64]]
    together: NDArray[np.int64]
    density: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Tags a window."""
        return float((self.density * np.arange(len(self.density))).sum() / max(1, self.density.sum()))


@dataclass(frozen=True)
class DrawnSquare:
    """A square of tags: left, top, right, bottom in pixels of the picture, its crops, and whether a window is in it."""

    box: tuple[float, float, float, float]
    crops: tuple[str, ...]
    used: bool


@dataclass(frozen=True)
class Squares:
    """Tags of squares on a picture of the whole area.

    Args:
        image: true colour (H, W, 3).
        date: of the picture.
        squares: those with coordinates.
        counts: crop -> squares that name it, windows that take it.
        colours: crop -> #rrggbb.
        windows: that the squares give.
        together: windows that take both crops (K, K), in the order of `counts`.
        notes: remarks on the table.
    """

    image: NDArray[np.float64]
    date: str
    squares: tuple[DrawnSquare, ...]
    counts: Mapping[str, tuple[int, int]]
    colours: Mapping[str, str]
    windows: int
    together: NDArray[np.int64]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Strip:
    """A window over time: true colour (H, W, 3) of some dates in the order of time, one stretch for all of them."""

    title: str
    place: str
    tags: tuple[str, ...]
    dates: tuple[dt.date, ...]
    clear: tuple[float, ...]
    images: tuple[NDArray[np.float64], ...]
    labels: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Preview:
    """The content of the page.

    Args:
        title: name of the dataset or season.
        kind: `dataset`, or `season` for images that are not cut into windows yet.
        classes: crops 1..K. Empty where not known.
        colours: #rrggbb of background and of them.
        season_start, season_days: the season that days count from.
        footprints: one for each CRS.
        calendar: rows of the date calendar: at most a few hundred scenes.
        scenes: number of scenes that there are.
        clouds_known: whether clear shares include clouds.
        gaps: times without a usable date, longest first.
        bands: one for each band.
        reference: source of the training statistics. If empty, there are none to compare with.
        tags: None where tags are unknown.
        strips: windows over time.
        sampled: the pixels that were read, in words.
        facts: label -> value.
        notes: remarks of ingest, or of opening the season.
        squares: tags of squares, of a season that is not cut yet. If None, it has none.
        remarks: warnings about them, one sentence each.
    """

    title: str
    kind: str
    classes: tuple[str, ...]
    colours: tuple[str, ...]
    season_start: dt.date
    season_days: int
    footprints: list[Footprint]
    calendar: list[SceneDates]
    scenes: int
    clouds_known: bool
    gaps: list[Gap]
    bands: list[BandFigures]
    reference: str
    tags: TagFigures | None
    strips: list[Strip]
    sampled: str
    facts: dict[str, str]
    notes: tuple[str, ...]
    squares: Squares | None = None
    remarks: tuple[str, ...] = ()


def find_gaps(scene: SceneDates, *, start: dt.date, length: int) -> list[Gap]:
    """Times of more than GAP_WEEKS without a date that shows USABLE of a scene, in the order of time."""
    looks = scene.days[scene.clear >= USABLE].tolist()
    edges = [0, *looks, max([length - 1, *looks])]
    return [
        Gap(scene.name, start + dt.timedelta(days=first), start + dt.timedelta(days=last))
        for first, last in itertools.pairwise(edges)
        if last - first > 7 * GAP_WEEKS
    ]


def count_tags(
    tags: NDArray[np.uint8], members: Mapping[str, NDArray[np.int64]], classes: tuple[str, ...]
) -> TagFigures:
    """Counts of tags (N, K). `members` has the positions of each split's windows."""
    wide = tags.astype(np.int64)
    return TagFigures(
        classes=classes,
        counts={split: wide[positions].sum(0) for split, positions in members.items()},
        together=wide.T @ wide,
        density=np.bincount(wide.sum(1)),
    )


class BandSums:
    """Histograms and means of bands, gathered window by window. Pixels that are 0 in every band were not measured.

    Args:
        bands: names of the C bands.
        statistics: range of the histograms: from 3 standard deviations below the mean, but not below 0, to 4 above.
    """

    def __init__(self, bands: tuple[str, ...], statistics: Statistics) -> None:
        self._bands, self._statistics = bands, statistics
        mean, std = np.array(statistics.mean), np.array(statistics.std)
        self._low = np.minimum(np.maximum(mean - 3 * std, 0), mean)
        self._step = (mean + 4 * std - self._low) / BINS
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._sums: dict[str, NDArray[np.float64]] = {}

    def add(self, group: str, pixels: NDArray[np.int16]) -> None:
        """Count pixels (T, C, H, W) for a group: a split, or ALL."""
        values = pixels.transpose(1, 0, 2, 3).reshape(len(self._bands), -1)
        values = values[:, values.any(0)]
        counts = self._counts.setdefault(group, np.zeros((len(self._bands), BINS), np.int64))
        sums = self._sums.setdefault(group, np.zeros(len(self._bands)))
        for band, row in enumerate(values):
            bins = np.clip((row - self._low[band]) / self._step[band], 0, BINS - 1).astype(np.int64)
            counts[band] += np.bincount(bins, minlength=BINS)
            sums[band] += row.sum(dtype=np.float64)

    def figures(self, *, compare: bool) -> list[BandFigures]:
        """The counts. Without `compare` there is no shift."""
        figures = []
        for number, band in enumerate(self._bands):
            mean, std = self._statistics.mean[number], self._statistics.std[number]
            tables = [(group, self._counts[group][number]) for group in (*SPLITS, ALL) if group in self._counts]
            counts = {group: table for group, table in tables if table.sum()}
            means = {group: float(self._sums[group][number] / counts[group].sum()) for group in counts}
            figures.append(
                BandFigures(
                    band=band,
                    edges=self._low[number] + self._step[number] * np.arange(BINS + 1),
                    counts=counts,
                    means=means,
                    reference=(mean, std),
                    shifts={group: (value - mean) / std for group, value in means.items()} if compare else {},
                )
            )
        return figures
