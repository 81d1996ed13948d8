"""The charts of a data preview: footprint map, date calendar, band histograms, joint tags, tags per window."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from exact_core.data.lonlat import degrees
from exact_core.evaluation.chart_style import (
    INK,
    MUTED,
    RULE,
    SERIES,
    SHARES,
    class_labels,
    matrix_axes,
    new_figure,
    plain,
    shorten,
)
from exact_core.evaluation.preview.content import BandFigures, Footprint, Gap, SceneDates, Squares, TagFigures
from exact_core.evaluation.preview.findings import LARGE_SHIFT

__all__ = [
    "GROUP_COLOURS",
    "bands_figure",
    "calendar_figure",
    "density_figure",
    "footprint_figure",
    "squares_figure",
    "together_figure",
]

GROUP_COLOURS = {
    "train": SERIES[0],
    "validation": SERIES[1],
    "test": SERIES[5],
    "all": SERIES[0],
    "area": "#e4e0d5",
    "cut-outs read": SERIES[0],
}
WARNING = "#b5524a"
GAP = "#f7dcc0"
CLEAR = LinearSegmentedColormap.from_list("clear", ["#d6d1c4", "#9ec7ad", "#1f5a40"])
"""Clouded dates stay visible on white."""
LABELLED_ROWS = 40
"""Rows of the calendar that are named. More are drawn thin."""
NAMED = 150
"""Number of squares up to which their crops are written into them. With more, only colours are shown."""
APART = 48
"""Scenes that are drawn apart, at most."""
TINY = 0.008
"""Side of a window, over that of the map, below which it is drawn as a mark."""


def footprint_figure(footprint: Footprint) -> Figure:
    """Windows in their CRS, coloured by split. Scenes on the same ground side by side."""
    if footprint.apart:
        return _scenes_apart(footprint)
    points = footprint.outlines.reshape(-1, 2)
    (west, south), (east, north) = points.min(0), points.max(0)
    width, height = max(east - west, 1e-9), max(north - south, 1e-9)
    pad = 0.13 * max(width, height)
    # A strip of land is widened, so that its corners can be written beside it.
    aside = max(pad, (0.75 * height - width) / 2)
    ratio = (height + 2 * pad) / (width + 2 * aside)
    figure = new_figure(6.4, min(max(6.0 * ratio, 2.6), 7.0) + 0.7)
    axes = figure.add_subplot()
    side = float(np.ptp(footprint.outlines[:, :, 0], axis=1).min())
    _windows(axes, footprint, marks=side < TINY * max(width, height))
    axes.set_xlim(west - aside, east + aside)
    axes.set_ylim(south - pad, north + pad)
    axes.set_aspect("equal")
    _coordinates(axes, footprint.crs)
    if footprint.corners:
        north_places = ((0.0, 1.0, "left", "bottom"), (1.0, 1.0, "right", "bottom"))
        places = (*north_places, (0.0, 0.0, "left", "top"), (1.0, 0.0, "right", "top"))
        narrow = width < 0.62 * (width + 2 * aside)
        for (lat, lon), (x, y, ha, va) in zip(footprint.corners, places, strict=True):
            if narrow and (x == 0) != (y == 1):
                continue
            at = (west if x == 0 else east, south if y == 0 else north)
            offset = (0, 4 if va == "bottom" else -4)
            axes.annotate(
                degrees(lat, lon), at, offset, textcoords="offset points", ha=ha, va=va, fontsize=8.5, color=MUTED
            )
    _group_legend(figure, footprint.groups)
    return figure


def _windows(axes: Axes, footprint: Footprint, *, marks: bool) -> None:
    groups = np.array(footprint.groups)
    for group in dict.fromkeys(footprint.groups):
        outlines = footprint.outlines[groups == group]
        colour = GROUP_COLOURS.get(group, SERIES[2])
        if marks and group != "area":
            x, y = outlines.mean(1).T
            axes.scatter(x, y, s=7, marker="s", color=colour, linewidth=0)
        else:
            axes.add_collection(PolyCollection(list(outlines), facecolor=colour, edgecolor="white", linewidth=0.4))


def _scenes_apart(footprint: Footprint) -> Figure:
    """Scenes side by side, each from its own upper left corner."""
    names = list(dict.fromkeys(footprint.scenes))
    shown = names[:APART]
    columns = min(8, max(4, math.ceil(math.sqrt(len(shown)))), len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(max(1.0 * columns, 4.0), 1.15 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    scenes, groups = np.array(footprint.scenes), np.array(footprint.groups)
    largest = 0.0
    for axes in grid.flat:
        axes.axis("off")
    for axes, name in zip(grid.flat, shown, strict=False):
        here = footprint.outlines[scenes == name]
        corner = (here[..., 0].min(), here[..., 1].max())
        outlines = here - corner
        largest = max(largest, float(np.abs(outlines).max()))
        colours = [GROUP_COLOURS.get(group, SERIES[2]) for group in groups[scenes == name]]
        axes.add_collection(PolyCollection(list(outlines), facecolor=colours, edgecolor="white", linewidth=0.4))
        axes.set_title(shorten(name, 14), fontsize=7.5, color=MUTED, pad=2, parse_math=False)
    for axes in grid.flat:
        axes.set_xlim(-0.02 * largest, 1.02 * largest)
        axes.set_ylim(-1.02 * largest, 0.02 * largest)
        axes.set_aspect("equal")
    _group_legend(figure, footprint.groups)
    return figure


def squares_figure(tags: Squares) -> Figure:
    """Squares of tags with the names of their crops on a picture of the area. dashed: those without a window in it."""
    height, width = tags.image.shape[:2]
    wide = min(11.4, 7.6 * width / height)
    figure = new_figure(wide, wide * height / width + 0.5)
    axes = figure.add_subplot()
    axes.imshow(tags.image, interpolation="nearest", extent=(0, width, height, 0))
    for square in tags.squares:
        left, top, right, bottom = square.box
        colour = next((tags.colours[crop] for crop in square.crops), "white")
        for drawn, thick in ((INK, 3.0), (colour, 1.8)):
            frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=drawn, linewidth=thick)
            if drawn == colour and not square.used:
                frame.set_linestyle("--")
            axes.add_patch(frame)
        # A name has place where the square is broad enough, or there are few.
        if len(tags.squares) <= NAMED and right > 0 and left < width and bottom > 0 and top < height:
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0}
            text = "\n".join(shorten(crop, 18) for crop in square.crops) or "no crop"
            at = (max(left, 0) + 0.006 * width, max(top, 0) + 0.006 * width)
            axes.text(*at, text, va="top", fontsize=7, color=INK, bbox=box, parse_math=False, clip_on=True)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(RULE)
    return figure


def _coordinates(axes: Axes, crs: str) -> None:
    """A few coordinates on each side, in km where the CRS is in metres."""
    west, east = axes.get_xlim()
    metres = max(map(abs, (west, east, *axes.get_ylim()))) > 400
    digits = max(0, 1 - math.floor(math.log10(abs(east - west) / (1000 if metres else 1))))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value / 1000 if metres else value:.{min(digits, 4)}f}")
        )
    axes.tick_params(labelsize=8.5, colors=MUTED, length=3)
    axes.spines[:].set_color(RULE)
    axes.set_xlabel(f"{crs}, {'km' if metres else 'degrees'}", fontsize=9, color=MUTED, parse_math=False)


def _group_legend(figure: Figure, groups: Sequence[str]) -> None:
    present = [group for group in GROUP_COLOURS if group in groups]
    counts = {group: sum(each == group for each in groups) for group in present}
    labels = [group if group == "area" else f"{group} ({counts[group]})" for group in present]
    patches = [Patch(facecolor=GROUP_COLOURS[group], label=text) for group, text in zip(present, labels, strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, frameon=False, fontsize=9.5)


def calendar_figure(rows: Sequence[SceneDates], gaps: Sequence[Gap], *, start: dt.date, length: int) -> Figure:
    """Scenes as rows, the season's days across. One mark per date, darker with its clear share. Gaps shaded."""
    named = len(rows) <= LABELLED_ROWS
    height = 0.3 * len(rows) if named else min(0.1 * len(rows), 8.0)
    figure = new_figure(11.4, max(height, 0.4) + 0.9)
    axes = figure.add_subplot()
    width = max(1.0, length / 240)
    numbers = {row.name: number for number, row in enumerate(rows)}
    for gap in gaps:
        if gap.scene in numbers:
            _gap(axes, gap, numbers[gap.scene], start=start, length=length, named=named)
    for number, row in enumerate(rows):
        boxes = [
            [(day, number - 0.36), (day + width, number - 0.36), (day + width, number + 0.36), (day, number + 0.36)]
            for day in row.days
        ]
        edge = "white" if named else "none"
        axes.add_collection(PolyCollection(boxes, facecolor=CLEAR(row.clear), edgecolor=edge, linewidth=0.3))
    _months(axes, start, length)
    axes.set_xlim(-2, length + width + 1)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    step = 1 if named else math.ceil(len(rows) / 25)
    axes.set_yticks(range(0, len(rows), step))
    class_labels(axes.set_yticklabels([shorten(row.name, 24) for row in rows[::step]], fontsize=9))
    plain(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _gap(axes: Axes, gap: Gap, number: int, *, start: dt.date, length: int, named: bool) -> None:
    first, days = (gap.first - start).days, (gap.last - gap.first).days
    axes.add_patch(Rectangle((first, number - 0.47), days, 0.94, facecolor=GAP, edgecolor="none"))
    if named:
        text = f"{gap.weeks:.0f} weeks" if days > 0.06 * length else f"{gap.weeks:.0f} w"
        box = {"facecolor": GAP, "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
        axes.text(first + days / 2, number, text, ha="center", va="center", fontsize=8, color=INK, bbox=box, zorder=4)


def _months(axes: Axes, start: dt.date, length: int) -> None:
    """A rule at the first of every month, and its name in the middle. The year below January and the first one."""
    end = start + dt.timedelta(days=length)
    month = start.replace(day=1)
    ticks: list[float] = []
    names: list[str] = []
    while month < end:
        following = (month + dt.timedelta(days=32)).replace(day=1)
        left, right = max(0, (month - start).days), min(length, (following - start).days)
        if month >= start:
            axes.axvline(left, color=RULE, linewidth=0.8, zorder=0)
        if right - left > 9 or length < 40:
            ticks.append((left + right) / 2)
            year = f"\n{month.year}" if not names or month.month == 1 else ""
            names.append(f"{month:%b}{year}")
        month = following
    axes.set_xticks(ticks, names, fontsize=9)
    axes.tick_params(axis="x", length=0)


def bands_figure(bands: Sequence[BandFigures], *, compare: bool) -> Figure:
    """Histograms of each band. With `compare`, mean and one standard deviation of training behind them."""
    columns = min(5, len(bands))
    rows = math.ceil(len(bands) / columns)
    figure = new_figure(2.25 * columns + 0.3, 1.75 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(bands) :]:
        axes.axis("off")
    groups = list(dict.fromkeys(group for figures in bands for group in figures.counts))
    for axes, figures in zip(grid.flat, bands, strict=False):
        _band(axes, figures, compare=compare)
    for axes in grid[-1]:
        axes.set_xlabel("reflectance", fontsize=8.5, color=MUTED)
    handles = [Patch(facecolor=GROUP_COLOURS.get(group, SERIES[2]), label=group) for group in groups if group != "all"]
    if compare:
        handles.append(Patch(facecolor="#e4e0d5", label="training: mean ± 1 standard deviation"))
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, fontsize=9.5)
    return figure


def _band(axes: Axes, figures: BandFigures, *, compare: bool) -> None:
    edges = figures.edges / 10_000
    # The outermost bins hold what lies beyond, which would press the rest down.
    highest = max((float((counts[1:-1] / counts.sum()).max()) for counts in figures.counts.values()), default=0.0)
    if compare:
        mean, std = (value / 10_000 for value in figures.reference)
        axes.axvspan(mean - std, mean + std, color="#eeebe2", linewidth=0)
        axes.axvline(mean, color="#a9a495", linewidth=1.2)
    for group, counts in figures.counts.items():
        shares = counts / max(1, counts.sum())
        colour = GROUP_COLOURS.get(group, SERIES[2])
        axes.stairs(shares, edges, color=colour, linewidth=1.4, fill=False)
        if len(figures.counts) == 1:
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.25)
    large = max(figures.shifts.values(), key=abs, default=0.0)
    flagged = abs(large) > LARGE_SHIFT
    title = f"{shorten(figures.band, 12)}{f'  {signed(large, 1)} std' if figures.shifts else ''}"
    axes.set_title(
        title,
        loc="left",
        fontsize=10,
        color=WARNING if flagged else INK,
        weight="bold" if flagged else "normal",
        parse_math=False,
    )
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.1 * (highest or 1.0))
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8)
    plain(axes)
    axes.spines["left"].set_visible(False)


def signed(value: float, digits: int) -> str:
    """A number with its sign. None where it rounds to 0."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def together_figure(tags: TagFigures) -> Figure:
    """Share of the windows with a row's crop that also have a column's crop."""
    size = len(tags.classes)
    cell = 0.62 if size <= 10 else 0.46
    figure = new_figure(cell * size + 2.0, cell * size + 1.5)
    axes = figure.add_subplot()
    own = tags.together.diagonal()[:, None]
    shares: NDArray[np.float64] = np.divide(tags.together, own, out=np.zeros((size, size)), where=own > 0)
    shown = np.where(np.eye(size, dtype=bool), 0, shares)
    axes.imshow(shown, cmap=SHARES, vmin=0, vmax=1, interpolation="nearest")
    for row, column in np.argwhere(tags.together > 0):
        alone = row == column
        text = str(tags.together[row, column]) if alone else f"{100 * shares[row, column]:.0f}"
        colour = MUTED if alone else "white" if shares[row, column] > 0.6 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5 if size > 10 else 9, color=colour)
    axes.set_xlabel("… also tagged with, % (grey: windows)")
    axes.set_ylabel("Windows tagged with …")
    matrix_axes(axes, tags.classes)
    return figure


def density_figure(tags: TagFigures) -> Figure:
    """How many windows have how many tags."""
    figure = new_figure(5.4, 2.6)
    axes = figure.add_subplot()
    shares = 100 * tags.density / max(1, tags.density.sum())
    axes.bar(range(len(shares)), shares, 0.75, color=SERIES[0])
    for place, share in enumerate(shares):
        axes.text(place, share + 1, f"{share:.0f}", ha="center", va="bottom", fontsize=9, color=MUTED)
    axes.axvline(tags.mean, color=INK, linewidth=1.2)
    axes.text(tags.mean, 1.02, f" mean {tags.mean:.1f} ", transform=axes.get_xaxis_transform(), color=INK, fontsize=9)
    axes.set_xticks(range(len(shares)))
    axes.set_ylim(0, 1.15 * max(float(shares.max()), 1.0))
    axes.set_xlabel("Tags of a window")
    axes.set_ylabel("Share of windows, %")
    axes.tick_params(length=0)
    plain(axes)
    return figure
