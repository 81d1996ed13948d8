"""The transfer report as one HTML file that needs no network.

Axes are N pixels, G days of the calendar, K crops.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from exact_core.config import TransferConfig
from exact_core.data.windows.series_sample import SeasonSamples, SeriesSample
from exact_core.evaluation.chart_style import DPI, INK, MUTED, RULE, SERIES, shorten
from exact_core.evaluation.html_page import data_uri, png_of, render
from exact_core.evaluation.palette import colours_of
from exact_core.evaluation.transfer.distances import class_curves, normalised_difference
from exact_core.evaluation.transfer.findings import Level, Transfer, key_days, level_of, missing_days, part_dates
from exact_core.evaluation.transfer.single_dates import DateRow, Without
from exact_core.files import publish_text

__all__ = ["TransferPage", "write_page"]

TRAINING, NEW = "#8f9aa8", SERIES[0]
SHOWN_DATES = 8
"""Dates that are listed, the least like training first."""
MOST_CLASSES = 12
"""Classes whose curves are drawn."""


@dataclass(frozen=True)
class TransferPage:
    """What a transfer report is made of.

    Args:
        transfer: what was found.
        reference: of the training season. If None, the model carries none.
        sample: of the new season.
        settings: limits and reach.
        record: content of transfer.json.
        start: first day of the new season.
        dates: its acquisitions.
        rows: each of them against training. If empty, not known.
        without: what the verdict would be without some. If None, leaving none out changes it.
        colours: #rrggbb of classes whose class map gives one.
    """

    transfer: Transfer
    reference: SeasonSamples | None
    sample: SeriesSample
    settings: TransferConfig
    record: dict[str, Any]
    start: dt.date
    dates: list[dt.date]
    colours: Mapping[str, str]
    rows: list[DateRow] = field(default_factory=list)
    without: Without | None = None

    def curves(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """NDVI of training and of the new season (N, G). None where it is not known."""
        if self.reference is None:
            return None
        bands, reach = self.reference.season.bands, self.settings.reach
        values = [normalised_difference(each.supported(reach), bands) for each in (self.reference.train, self.sample)]
        return None if values[0] is None or values[1] is None else (values[0], values[1])


def write_page(path: Path, page: TransferPage) -> None:
    """Write the report to `path`, complete or not at all."""
    charts = {}
    if page.reference is not None:
        charts["season"] = _uri(_season_figure(page))
        if page.curves() is not None and page.transfer.classes:
            charts["classes"] = _uri(_classes_figure(page))
    content = {
        "record": page.record,
        "verdict": page.transfer.verdict,
        "levels": {level.value: level.words for level in Level},
        "season_end": page.start + dt.timedelta(days=page.record["season_days"] - 1),
        "findings": page.transfer.findings,
        "rows": sorted(page.rows, key=lambda row: -row.distance)[:SHOWN_DATES],
        "without": page.without,
        "parts": _parts(page),
        "bands": _bands(page),
        "classes": page.transfer.classes,
        "colours": _colours(page),
        "charts": charts,
        "settings": page.settings,
    }
    publish_text(path, render("transfer/transfer.html.j2", content))


def _uri(figure: Figure) -> str:
    return data_uri(png_of(figure))


def _colours(page: TransferPage) -> dict[str, str]:
    classes = () if page.reference is None else page.reference.season.classes
    return dict(zip(("background", *classes), colours_of(classes, page.colours), strict=True))


def _parts(page: TransferPage) -> list[str]:
    """Headings of the bands' columns: the season, then its parts by their dates."""
    count = 1 + max([row.part for row in page.transfer.bands if row.part is not None], default=-1)
    headings = ["season"]
    if count:
        headings += [f"{first} – {last}" for first, last in part_dates(page.transfer.days, count, start=page.start)]
    return headings


def _bands(page: TransferPage) -> list[dict[str, Any]]:
    """A row a band: distance, own distance, shift and tint of each column."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in page.transfer.bands:
        limits = page.settings.bands if row.part is None else page.settings.part_bands
        known = not np.isnan(row.distance)
        cell = {
            "text": f"{row.distance:.2f}" if known else "–",
            "own": f"{row.own:.2f}" if known and not np.isnan(row.own) else "–",
            "shift": f"{row.shift:+.2f}" if known else "–",
            "level": level_of(row.beyond, limits).value if known else "unknown",
        }
        rows.setdefault(row.band, []).append(cell)
    return [{"band": band, "cells": cells} for band, cells in rows.items()]


def _season_figure(page: TransferPage) -> Figure:
    """NDVI of both seasons over the new one's dates. Below, when it matters, and what was seen then."""
    curves = page.curves()
    figure = Figure(figsize=(11.5, 5.8 if curves else 2.8), dpi=DPI, layout="constrained", facecolor="white")
    grid = figure.subplots(
        2 if curves else 1, 1, sharex=True, height_ratios=[1.7, 1] if curves else None, squeeze=False
    )
    days = page.transfer.days
    if curves:
        axes = grid[0, 0]
        for values, colour, label in zip(curves, (TRAINING, NEW), ("training", "new season"), strict=True):
            low, middle, high = _quantiles(values)
            axes.fill_between(days, low, high, color=colour, alpha=0.22, linewidth=0)
            axes.plot(days, middle, color=colour, linewidth=2.2, marker="o", markersize=4, label=label)
        axes.set_ylabel("NDVI: median, 10–90 % of pixels")
        _finish(axes)
        # Above the axes: inside them, some season's band lies under it.
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2)
    axes = grid[-1, 0]
    width = 0.9 * (days[1] - days[0] if len(days) > 1 else 10)
    weights, seen = page.transfer.importance, page.transfer.seen
    key = key_days(weights)
    looks = [(date - page.start).days for date in page.dates]
    colours = np.where(key & missing_days(seen), SERIES[4], np.where(key, "#d9c9a8", "#ece9e1"))
    axes.bar(days, 100 * weights / weights.max(), width, color=colours, label="_")
    for values, colour, label in zip(seen, (TRAINING, NEW), ("training", "new season"), strict=True):
        axes.plot(days, 100 * values, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=label)
    axes.plot(looks, np.full(len(looks), -6), "|", color=INK, markersize=9, clip_on=False)
    axes.set_ylim(-12, 108)
    axes.set_ylabel(f"Area seen within {page.settings.reach} days, %")
    _finish(axes)
    axes.set_xticks(*_months(page.start, days))
    axes.set_xlim(days[0] - width, days[-1] + width)
    return figure


def _classes_figure(page: TransferPage) -> Figure:
    """Mean NDVI of each class as the model sees it: training and new season."""
    reference, curves = page.reference, page.curves()
    assert reference is not None
    assert curves is not None
    names = ("background", *reference.season.classes)
    labels = (reference.train.label, page.sample.label)
    means = [class_curves(values, label, classes=len(names) - 1) for values, label in zip(curves, labels, strict=True)]
    judged = sorted(page.transfer.classes, key=lambda row: -max(row.share, row.own_share))[:MOST_CLASSES]
    across = 3 if len(judged) in (5, 6, 9) else min(4, len(judged))
    down = -(-len(judged) // across)
    figure = Figure(figsize=(2.9 * across, 2.1 * down + 0.4), dpi=DPI, layout="constrained", facecolor="white")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(judged) :]:
        axes.set_visible(False)
    for axes, row in zip(grid.flat, judged, strict=False):
        for mean, colour, label in zip(means, (TRAINING, NEW), ("training", "new season"), strict=True):
            axes.plot(page.transfer.days, mean[names.index(row.name)], color=colour, linewidth=2, label=label)
        title = axes.set_title(shorten(row.name), loc="left", fontsize=11, color=INK)
        title.set_parse_math(False)
        _finish(axes)
        axes.set_xticks(*_months(page.start, page.transfer.days, every=2))
    handles, captions = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, captions, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _months(start: dt.date, days: NDArray[np.float64], *, every: int = 1) -> tuple[list[int], list[str]]:
    """Days since the season's start on which months begin, within the calendar, and the months' names."""
    dates = [start + dt.timedelta(days=day) for day in range(int(days[0]), int(days[-1]) + 1)]
    firsts = [date for date in dates if date.day == 1][::every]
    return [(date - start).days for date in firsts], [f"{date:%b}" for date in firsts]


def _quantiles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The 10, 50 and 90 % quantiles of each day (3, G). NaN on a day that nothing shows."""
    found = np.full((3, values.shape[1]), np.nan)
    seen = ~np.isnan(values).all(0)
    found[:, seen] = np.nanquantile(values[:, seen], (0.1, 0.5, 0.9), axis=0)
    return found


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=MUTED, length=0)
    axes.yaxis.label.set_color(MUTED)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
