"""A finished map as a picture that stands alone: with scale, north, place, and a legend with areas and shares.

Axes are H W pixels.
"""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import transform as transform_places

from exact_core.data.lonlat import degrees
from exact_core.data.sources import is_source, short_name
from exact_core.evaluation.chart_style import DPI, INK, MUTED, RULE, shorten
from exact_core.evaluation.palette import paint
from exact_core.files import publishing
from exact_core.mapping.cogs import CLASS, MapRecord
from exact_core.mapping.item import QUICKLOOK

__all__ = ["LONGEST", "map_picture", "nice_length", "read_thinned", "write_quicklook"]

LONGEST = 1024
"""Longest side of the drawn map, pixels."""
SIDE, LEGEND, MARGIN, TITLE, FOOT = 6.2, 3.1, 0.3, 0.75, 0.95
"""Inches: longest side of the map, width of the legend, margins, heights above and below the map."""
ROW = 0.27
"""Inches between two rows of the legend."""
ENTRIES = 18
"""Classes in the legend, the largest first."""
EARTH_RADIUS = 6_371_008.8
"""Mean radius, metres (IUGG)."""


def write_quicklook(record: MapRecord, pixels: NDArray[np.int64], unmapped: int, folder: Path) -> None:
    """Draw the map in `folder`, as QUICKLOOK there.

    Args:
        record: of the map.
        pixels: of each label 0..K, by counting.
        unmapped: pixels without a label.
        folder: with class.tif.
    """
    label = read_thinned(folder / CLASS, longest=LONGEST)
    figure = map_picture(record, label, pixels, unmapped)
    with publishing(folder / QUICKLOOK, size=label.nbytes) as partial:
        figure.savefig(partial, format="png", dpi=DPI)


def read_thinned(path: Path, *, longest: int) -> NDArray[np.uint8]:
    """The first band, every n-th pixel, so that no side is longer than `longest`."""
    with rasterio.open(path) as file:
        factor = max(1, math.ceil(max(file.height, file.width) / longest))
        shape = (max(1, file.height // factor), max(1, file.width // factor))
        found: NDArray[np.uint8] = file.read(1, out_shape=shape, resampling=Resampling.nearest)
        return found


def map_picture(record: MapRecord, label_HW: NDArray[np.uint8], pixels: NDArray[np.int64], unmapped: int) -> Figure:
    """The figure. Arguments as of `write_quicklook`, `label_HW` being the map, thinned or not."""
    scale = SIDE / max(record.height, record.width)
    width, height = max(record.width * scale, 0.05), max(record.height * scale, 0.05)
    entries = _entries(record, pixels, unmapped)
    body = max(height, ROW * (len(entries) + 1))
    size = (3 * MARGIN + SIDE + LEGEND, TITLE + body + FOOT)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")

    def box(left: float, top: float, across: float, down: float) -> Axes:
        """Axes by inches from the upper left corner."""
        axes = figure.add_axes((left / size[0], 1 - (top + down) / size[1], across / size[0], down / size[1]))
        axes.set_axis_off()
        return axes

    head = box(MARGIN, 0.0, size[0] - 2 * MARGIN, TITLE)
    head.text(0, 0.55, f"Crop map: {shorten(_title(record), 60)}", fontsize=17, weight="bold", **_text(INK))
    head.text(0, 0.2, _subtitle(record), fontsize=10.5, **_text(MUTED))
    left = MARGIN + (SIDE - width) / 2
    area = box(left, TITLE, width, height)
    area.imshow(paint(label_HW, record.colours), interpolation="nearest", aspect="auto")
    area.set_axis_on()
    area.set_xticks([])
    area.set_yticks([])
    area.spines[:].set_color(RULE)
    _foot(box(left, TITLE + height + 0.1, width, FOOT - 0.2), record, width)
    _legend(box(2 * MARGIN + SIDE, TITLE, LEGEND, body), entries, body)
    note = box(2 * MARGIN + SIDE, TITLE + body + 0.1, LEGEND, FOOT - 0.2)
    note.text(0, 1, f"Areas by counting pixels.\n{_credit(record)}", fontsize=8, va="top", **_text(MUTED))
    return figure


def _text(colour: str) -> dict[str, Any]:
    """Names are text: a dollar sign in one starts no formula."""
    return {"color": colour, "parse_math": False}


def _title(record: MapRecord) -> str:
    """What the area is called, as the report of a run has it."""
    return short_name(record.source) if is_source(record.source) else record.name


def _subtitle(record: MapRecord) -> str:
    end = record.season_start + dt.timedelta(days=record.season_days - 1)
    return f"Sentinel-2, {len(record.dates)} dates, {record.season_start} to {end}"


def _credit(record: MapRecord) -> str:
    """What the licence of the images asks for."""
    years = sorted({date.year for date in record.dates}) or [record.season_start.year]
    span = f"{years[0]}" if len(years) == 1 else f"{years[0]}–{years[-1]}"
    return f"Contains modified Copernicus\nSentinel data {span}."


def _entries(record: MapRecord, pixels: NDArray[np.int64], unmapped: int) -> list[tuple[str, str, str, str]]:
    """Colour, name, area and share of each class, the largest first, and of what is not mapped."""
    mapped, hectares = int(pixels.sum()), record.hectares_per_pixel

    def row(colour: str, name: str, count: int, whole: int) -> tuple[str, str, str, str]:
        area = f"{count:,} px" if hectares is None else f"{count * hectares:,.1f} ha"
        return colour, name, area, f"{100 * count / max(1, whole):.1f} %"

    order = sorted(range(len(record.names)), key=lambda number: -pixels[number])
    rows = [row(record.colours[each], record.names[each], int(pixels[each]), mapped) for each in order[:ENTRIES]]
    if rest := order[ENTRIES:]:
        rows.append(row("#ffffff", f"{len(rest)} more crops", int(pixels[rest].sum()), mapped))
    if unmapped:
        rows.append(row("#ffffff", "not mapped", unmapped, mapped + unmapped))
    return rows


def _legend(axes: Axes, entries: list[tuple[str, str, str, str]], height: float) -> None:
    axes.set_xlim(0, LEGEND)
    axes.set_ylim(height, 0)
    for number, (colour, name, area, share) in enumerate(entries):
        top = ROW * number
        axes.add_patch(Rectangle((0, top + 0.04), 0.2, 0.17, facecolor=colour, edgecolor="#00000040", linewidth=0.6))
        where: dict[str, Any] = {"y": top + 0.125, "va": "center", "fontsize": 9.5}
        axes.text(x=0.28, s=shorten(name, 20), **where, **_text(INK))
        axes.text(x=LEGEND - 0.6, s=area, ha="right", **where, **_text(INK))
        axes.text(x=LEGEND, s=share, ha="right", **where, **_text(MUTED))


def _foot(axes: Axes, record: MapRecord, width: float) -> None:
    """Scale bar, north arrow and place below a map that is so many inches wide."""
    metres, north, place = _ground(record)
    axes.set_xlim(0, width)
    axes.set_ylim(0, FOOT - 0.2)
    length = nice_length(metres / 3)
    bar = width * length / metres
    for part in range(4):
        fill = INK if part % 2 == 0 else "white"
        axes.add_patch(Rectangle((part * bar / 4, 0.62), bar / 4, 0.07, facecolor=fill, edgecolor=INK, linewidth=0.7))
    said = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.text(0, 0.52, said, fontsize=9.5, va="top", **_text(INK))
    axes.text(0, 0.28, place, fontsize=9, va="top", **_text(MUTED))
    tip = (width - 0.2 + 0.2 * north[0], 0.45 + 0.2 * north[1])
    tail = (width - 0.2 - 0.2 * north[0], 0.45 - 0.2 * north[1])
    axes.annotate(
        "", tip, tail, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.6}, annotation_clip=False
    )
    axes.text(tail[0] - 0.2, 0.45, "N", fontsize=11, weight="bold", ha="center", va="center", **_text(INK))


def _ground(record: MapRecord) -> tuple[float, tuple[float, float], str]:
    """Width of the map on the ground in metres, the direction of true north in it (right, up), and its centre."""
    affine, crs = Affine(*record.transform), record.rasterio_crs
    middle = record.width / 2, record.height / 2
    # A hundredth of the width to either side: far off the centre, a projection has another scale.
    step = record.width / 100
    places = [affine @ (middle[0] + side * step, middle[1]) for side in (-1, 0, 1)]
    lons, lats = transform_places(crs, "EPSG:4326", *zip(*places, strict=True))
    metres = 50 * _distance((lons[0], lats[0]), (lons[2], lats[2]))
    away = 1e-3 if lats[1] < 89 else -1e-3
    xs, ys = transform_places("EPSG:4326", crs, [lons[1]] * 2, [lats[1], lats[1] + away])
    start, end = (~affine @ (x, y) for x, y in zip(xs, ys, strict=True))
    right, up = (end[0] - start[0]) / away, (start[1] - end[1]) / away
    size = math.hypot(right, up) or 1.0
    return metres, (right / size, up / size), degrees(lats[1], lons[1])


def _distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Metres between two places in degrees, on a sphere (haversine)."""
    (lon, lat), (lon2, lat2) = (tuple(map(math.radians, place)) for place in (one, other))
    half = math.sin((lat2 - lat) / 2) ** 2 + math.cos(lat) * math.cos(lat2) * math.sin((lon2 - lon) / 2) ** 2
    return 2 * EARTH_RADIUS * math.asin(math.sqrt(half))


def nice_length(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `most` (greater than 0)."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= most * (1 + 1e-9))
