"""What all charts share: sizes, inks and axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = ["class_labels", "matrix_axes", "new_figure", "plain"]

INK = "#23291f"
MUTED = "#6a7066"
RULE = "#d9d6cd"
SERIES = ("#2f6b4f", "#d9913a", "#8f9aa8", "#7a5ea8", "#b5524a", "#3f86b5")
SHARES = LinearSegmentedColormap.from_list("shares", ["#f6f5f0", "#a9cdb6", "#2f6b4f"])
DPI = 160


def matrix_axes(axes: Axes, names: Sequence[str]) -> None:
    """Names along both axes of a square matrix, and white lines between its cells."""
    size = len(names)
    axes.set_xticks(range(size))
    axes.set_yticks(range(size))
    class_labels(axes.set_xticklabels([shorten(name) for name in names], rotation=40, ha="right"))
    class_labels(axes.set_yticklabels([shorten(name) for name in names]))
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def shorten(name: str, length: int = 22) -> str:
    """A name cut to fit beside a chart."""
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def abbreviate(count: int) -> str:
    """A pixel count in at most five characters: 950, 12.3k, 4.5M."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if count >= factor:
            value = count / factor
            return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"
    return str(count)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in the style of the reports, inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


def plain(axes: Axes) -> None:
    """Axes with left and bottom rules only, the grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=INK)
    axes.set_axisbelow(True)


def class_labels(labels: Sequence[Any]) -> None:
    """Class names are text: a dollar sign in one starts no formula."""
    for label in labels:
        label.set_parse_math(False)
