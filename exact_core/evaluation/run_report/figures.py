"""The pictures of a run: painted labels, CAMs over images, and charts, drawn without global matplotlib state.

Axes are C bands, K crop classes, H W pixels. An image is (H, W, 3) in [0, 1]. Label 0 is background, 1..K crops, VOID
unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from exact_core.data.windows.dataset import VOID
from exact_core.evaluation.chart_style import (
    INK,
    MUTED,
    RULE,
    SERIES,
    SHARES,
    abbreviate,
    class_labels,
    matrix_axes,
    new_figure,
    plain,
    shorten,
)
from exact_core.evaluation.palette import (
    CONFIDENCE,
    Image,
    overlay_cam,
    paint,
)

__all__ = [
    "Panel",
    "SceneMap",
    "confusion_figure",
    "curves_figure",
    "dates_figure",
    "histogram_figure",
    "map_figure",
    "paint_confidence",
    "panels_figure",
    "per_class_figure",
]

BY_DATE = {"oa_micro": "Overall accuracy", "miou_macro": "mIoU", "expected_oa": "Expected OA"}
"""Figures within the season that are drawn, and their names."""


@dataclass(frozen=True)
class Panel:
    """One window on its way from tags to map.

    Args:
        title: the window's name.
        tags: names of the crops tagged in it.
        image: true colour (H, W, 3).
        cam: CAM of each class at pixel resolution (K, H, W), 0..1, 0 for untagged classes. None with dense supervision.
        mask: pseudo mask (H, W).
        prediction: labels of the segmenter (H, W).
        truth: dense labels (H, W), None where unknown.
    """

    title: str
    tags: tuple[str, ...]
    image: Image
    cam: NDArray[np.float32] | None
    mask: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None


@dataclass(frozen=True)
class SceneMap:
    """One mapped scene of the evaluation split.

    Args:
        name: the scene's name.
        image: true colour (H, W, 3).
        prediction: labels (H, W), VOID where no window covered.
        confidence: probability of the predicted label (H, W), 0..1.
        truth: dense labels (H, W), None where unknown.
    """

    name: str
    image: Image
    prediction: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    truth: NDArray[np.uint8] | None


def paint_confidence(confidence_HW: NDArray[np.floating], mapped_HW: NDArray[np.bool_]) -> Image:
    """Confidence (0..1) as an image, dark = unsure, bright = sure. White where nothing is mapped."""
    # 32 steps: the eye sees no difference, and the PNG is a fifth of the size.
    steps = np.rint(np.clip(confidence_HW, 0, 1) * 31) / 31
    image = np.asarray(colormaps[CONFIDENCE](steps)[..., :3], np.float64)
    image[~mapped_HW] = 1.0
    return image


def columns_of_map(scene: SceneMap, colours: Sequence[str], *, sensor: str) -> list[tuple[str, Image]]:
    """Captions and images of a mapped scene, left to right. sensor: what the image is of."""
    columns = [(f"{sensor}, true colour", scene.image), ("Crop map", paint(scene.prediction, colours))]
    if scene.truth is not None:
        columns.append(("Reference", paint(scene.truth, colours)))
    return [*columns, ("Confidence", paint_confidence(scene.confidence, scene.prediction != VOID))]


def columns_of_panel(panel: Panel, colours: Sequence[str], *, sensor: str) -> list[tuple[str, Image]]:
    """Captions and images of a window, in the order of the method. sensor: what the image is of."""
    columns = [(sensor, panel.image)]
    if panel.cam is not None:
        columns.append(("CAM", overlay_cam(panel.image, panel.cam, colours)))
    if panel.mask is not None:
        columns.append(("Pseudo mask", paint(panel.mask, colours)))
    columns.append(("Prediction", paint(panel.prediction, colours)))
    if panel.truth is not None:
        columns.append(("Reference", paint(panel.truth, colours)))
    return columns


def map_figure(scenes: Sequence[SceneMap], classes: Sequence[str], colours: Sequence[str], *, sensor: str) -> Figure:
    """Scenes as rows with a legend. `classes` are the names of crops 1..K, `colours` of background and them."""
    rows = [(shorten(scene.name), columns_of_map(scene, colours, sensor=sensor)) for scene in scenes]
    return _image_grid(rows, classes, colours, side=3.2)


def panels_figure(panels: Sequence[Panel], classes: Sequence[str], colours: Sequence[str], *, sensor: str) -> Figure:
    """Windows as rows with a legend. `classes` are the names of crops 1..K, `colours` of background and them."""
    rows = [
        (
            "\n".join([shorten(panel.title, 28), *(shorten(tag) for tag in panel.tags)]),
            columns_of_panel(panel, colours, sensor=sensor),
        )
        for panel in panels
    ]
    return _image_grid(rows, classes, colours, side=1.9)


def confusion_figure(names: Sequence[str], counts: NDArray[np.int64]) -> Figure:
    """Shares of each reference class (rows) that were predicted as each class, with pixel counts.

    Args:
        names: background and crops.
        counts: (K + 1, K + 1), rows = reference.
    """
    size = len(names)
    cell = 0.78 if size <= 10 else 0.6
    figure = new_figure(cell * size + 2.0, cell * size + 1.4)
    axes = figure.add_subplot()
    total = counts.sum(1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    axes.imshow(shares, cmap=SHARES, vmin=0, vmax=1, interpolation="nearest")
    for row, column in np.argwhere(counts > 0):
        share = shares[row, column]
        text = f"{100 * share:.0f} %\n{abbreviate(int(counts[row, column]))}" if share >= 0.005 else "<1 %"
        colour = "white" if share > 0.5 else INK if share >= 0.005 else MUTED
        axes.text(column, row, text, ha="center", va="center", fontsize=10, color=colour, linespacing=1.25)
    axes.set_xlabel("Predicted")
    axes.set_ylabel("Reference")
    matrix_axes(axes, names)
    return figure


def per_class_figure(names: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> Figure:
    """IoU of each class, one bar a series. An undefined value has no bar.

    Args:
        names: background and crops.
        series: caption -> IoU of each name.
    """
    figure = new_figure(5.4, 1.1 + 0.118 * len(names) * (len(series) + 0.7))
    axes = figure.add_subplot()
    height = 0.8 / max(len(series), 1)
    for number, (caption, values) in enumerate(series.items()):
        place = np.arange(len(names)) + (number - (len(series) - 1) / 2) * height
        lengths = [0.0 if value is None else value for value in values]
        axes.barh(place, lengths, height * 0.88, color=SERIES[number], label=caption)
        for y, value in zip(place, values, strict=True):
            text = "–" if value is None else f"{100 * value:.0f}"
            axes.text((value or 0.0) + 0.008, y, text, va="center", fontsize=8.5, color=MUTED)
    axes.set_yticks(range(len(names)))
    class_labels(axes.set_yticklabels([shorten(name) for name in names]))
    axes.invert_yaxis()
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, 1.05)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{percent}" for percent in range(0, 101, 20)])
    axes.set_xlabel("IoU, %")
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.tick_params(length=0)
    plain(axes)
    if series:
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=10, columnspacing=1.2)
    return figure


CURVES = {
    "loss": "loss (total)",
    "loss_tags": "tags",
    "loss_auxiliary": "auxiliary tags",
    "loss_affinity": "affinity",
    "loss_contrast": "contrast",
    "validation_loss_tags": "tags, validation",
    "validation_tag_map": "tag mAP",
    "validation_miou": "mIoU",
    "validation_oa": "overall accuracy",
}


def curves_figure(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Losses and, where there was a validation split, its metrics by epoch: two charts a row.

    Args:
        histories: by training, one at least with an epoch.
    """
    charts = []
    for name, history in histories.items():
        keys = list(dict.fromkeys(key for row in history for key in row))
        losses = [key for key in keys if "loss" in key]
        validation = [key for key in keys if key.startswith("validation_") and "loss" not in key]
        charts += [
            (f"{name}: {what}", history, shown, what)
            for what, shown in (("losses", losses), ("validation", validation))
            if shown
        ]
    rows = -(-len(charts) // 2)
    figure = new_figure(11.5, 3.4 * rows)
    for number, (title, history, keys, what) in enumerate(charts):
        axes = figure.add_subplot(rows, 2, number + 1)
        _curves(axes, history, keys)
        axes.set_title(title, loc="left")
        if what == "validation":
            axes.set_ylim(0, 1.02)
    return figure


def dates_figure(by_date: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy of the map for what is seen of the season until a day, a row a day: `until`, and figures of 1.

    Figures that no row has are left out.
    """
    figure = new_figure(5.6, 3.0)
    axes = figure.add_subplot()
    days = [row["days"] for row in by_date]
    for number, (key, label) in enumerate(BY_DATE.items()):
        values = np.array([np.nan if row.get(key) is None else row[key] for row in by_date])
        if not np.isnan(values).all():
            axes.plot(days, values, label=label, color=SERIES[number], linewidth=2.4, marker="o", markersize=5)
    axes.set_xticks(days, [row["until"] for row in by_date], rotation=30, ha="right", fontsize=8)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("Images until")
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.legend(framealpha=0.8, edgecolor="none", fontsize=9)
    plain(axes)
    return figure


def histogram_figure(masks: Mapping[str, Any]) -> Figure:
    """How many tagged pixels have which strongest CAM, and where the threshold cuts."""
    counts = np.asarray(masks["histogram"], np.float64)
    threshold = float(masks["threshold"])
    figure = new_figure(5.6, 3.0)
    axes = figure.add_subplot()
    edges = np.linspace(0, 1, len(counts) + 1)
    kept = edges[:-1] >= threshold
    shares = 100 * counts / max(counts.sum(), 1.0)
    axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=np.where(kept, SERIES[0], "#cbc6b8"))
    axes.axvline(threshold, color=INK, linewidth=1.4)
    left = threshold > 0.6
    note = f" threshold {threshold:.3f} "
    axes.text(threshold, 1.02, note, transform=axes.get_xaxis_transform(), ha="right" if left else "left", color=INK)
    axes.set_xlim(0, 1)
    axes.set_xlabel("Strongest CAM of a pixel")
    axes.set_ylabel("Share of pixels, %")
    plain(axes)
    return figure


def _image_grid(
    rows: Sequence[tuple[str, list[tuple[str, Image]]]],
    classes: Sequence[str],
    colours: Sequence[str],
    *,
    side: float,
) -> Figure:
    names = ["background", *classes]
    columns = max((len(images) for _, images in rows), default=1)
    lines = -(-len(names) // max(2, int((side + 0.1) * columns / 1.9)))
    legend_height = 0.3 * lines + 0.2
    heights = [side * images[0][1].shape[0] / images[0][1].shape[1] for _, images in rows]
    figure = new_figure((side + 0.1) * columns + 1.2, sum(heights) + 0.4 + legend_height)
    grid = figure.subplots(max(len(rows), 1), columns, squeeze=False, height_ratios=heights or None)
    for axes in grid.flat:
        axes.axis("off")
    for row, (title, images) in enumerate(rows):
        for column, (caption, image) in enumerate(images):
            axes = grid[row, column]
            axes.axis("on")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(RULE)
            axes.imshow(image, interpolation="nearest")
            if row == 0:
                axes.set_title(caption, fontsize=11, color=INK)
            if column == 0:
                axes.text(-0.05, 0.5, title, transform=axes.transAxes, ha="right", va="center", parse_math=False)
    patches = [Patch(facecolor=colour, edgecolor=RULE, label=" ") for colour in colours]
    legend = figure.legend(handles=patches, loc="outside lower center", ncols=-(-len(names) // lines), frameon=False)
    # Texts are set afterwards: a name that starts with "_" would be left out, one with "$" read as a formula.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(shorten(name))
    return figure


def _curves(axes: Axes, history: Sequence[Mapping[str, float]], keys: Sequence[str]) -> None:
    epochs = np.arange(1, len(history) + 1)
    for number, key in enumerate(keys):
        values = [row.get(key, np.nan) for row in history]
        style = "--" if key.startswith("validation_loss") else "-"
        label = CURVES.get(key, key.replace("_", " "))
        width, colour = 2.4 if number == 0 else 1.7, SERIES[number % len(SERIES)]
        axes.plot(epochs, values, style, label=label, color=colour, linewidth=width, marker="o", markersize=4)
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    plain(axes)
    axes.legend(framealpha=0.8, edgecolor="none", fontsize=9, ncols=2)
