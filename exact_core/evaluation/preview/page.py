"""The page of a data preview: one HTML file that needs no network."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from exact_core.data.lonlat import degrees
from exact_core.evaluation.html_page import data_uri, embed, png_of, render
from exact_core.evaluation.palette import paint
from exact_core.evaluation.preview.charts import (
    APART,
    GROUP_COLOURS,
    bands_figure,
    calendar_figure,
    density_figure,
    footprint_figure,
    signed,
    squares_figure,
    together_figure,
)
from exact_core.evaluation.preview.content import ALL, GAP_WEEKS, USABLE, Preview, TagFigures
from exact_core.evaluation.preview.findings import ALWAYS, FEW_WINDOWS, LARGE_SHIFT, few, findings
from exact_core.files import publish_text

__all__ = ["summary", "write_preview"]

MAPS = 4
"""Coordinate reference systems that have a map, at most."""
GAPS = 6
"""Gaps that are listed below the calendar."""


def write_preview(path: Path, preview: Preview) -> None:
    """Write the page to `path`, complete or not at all."""
    publish_text(path, render("preview/preview.html.j2", _content(preview)))


def summary(preview: Preview) -> str:
    """What the page says, in a few lines for a terminal."""
    end = _end(preview)
    scenes = f"{preview.scenes} {'scene' if preview.scenes == 1 else 'scenes'}"
    lines = [
        f"{preview.title}: {preview.facts.get('Windows', preview.facts.get('Size', ''))}, {scenes}",
        f"season: {preview.season_start} to {end} ({preview.season_days} days), {_dates(preview)}",
    ]
    for footprint in preview.footprints[:MAPS]:
        if footprint.corners:
            north_west, south_east = (degrees(*footprint.corners[number]) for number in (0, 3))
            lines.append(f"place: {north_west} to {south_east} ({footprint.crs})")
    if preview.tags is not None:
        own = preview.tags.together.diagonal()
        lines.append(
            f"tags: {preview.tags.mean:.1f} per window, {len(own)} crops, {own.min()} to {own.max()} windows per crop"
        )
    if preview.squares is not None:
        lines.extend(f"tags: {note}" for note in preview.squares.notes)
    lines.extend(f"look: {finding}" for finding in findings(preview))
    return "\n".join(lines)


def _end(preview: Preview) -> dt.date:
    return preview.season_start + dt.timedelta(days=preview.season_days - 1)


def _dates(preview: Preview) -> str:
    """Dates of each scene and their clear share, in words. The last row of a season is what ingest keeps."""
    rows = preview.calendar[-1:] if preview.kind == "season" else preview.calendar
    counts = [len(row.days) for row in rows]
    low, high = min(counts), max(counts)
    usable = [int((row.clear >= USABLE).sum()) for row in rows]
    number = str(low) if low == high else f"{low} to {high}"
    text = f"{number} dates a scene"
    if preview.clouds_known:
        least, most = min(usable), max(usable)
        text += f", {least if least == most else f'{least} to {most}'} of them at least {100 * USABLE:.0f} % clear"
    return text


def _content(preview: Preview) -> dict[str, Any]:
    """Values of the template."""
    compare = any(figures.shifts for figures in preview.bands)
    groups = list(dict.fromkeys(group for figures in preview.bands for group in figures.counts))
    return {
        "preview": preview,
        "season_end": _end(preview),
        "dates": _dates(preview),
        "findings": findings(preview),
        "maps": [
            {
                "crs": footprint.crs,
                "apart": footprint.apart,
                "hidden": max(0, len(set(footprint.scenes)) - APART) if footprint.apart else 0,
                "figure": data_uri(png_of(footprint_figure(footprint))),
            }
            for footprint in preview.footprints[:MAPS]
        ],
        "calendar": data_uri(
            png_of(
                calendar_figure(preview.calendar, preview.gaps, start=preview.season_start, length=preview.season_days)
            )
        ),
        "squares": None if preview.squares is None else data_uri(png_of(squares_figure(preview.squares))),
        "gap_weeks": GAP_WEEKS,
        "usable": USABLE,
        "gaps": preview.gaps[:GAPS],
        "bands": data_uri(png_of(bands_figure(preview.bands, compare=bool(preview.reference)))),
        "groups": ["" if group == ALL else group for group in groups],
        "shifts": [
            [
                (signed(figures.shifts[group], 2), abs(figures.shifts[group]) > LARGE_SHIFT)
                for figures in preview.bands
                if group in figures.shifts
            ]
            for group in groups
        ],
        "compare": compare,
        "tags": None if preview.tags is None else _tag_content(preview.tags),
        "colours": dict(zip(("background", *preview.classes), preview.colours, strict=True)),
        "group_colours": GROUP_COLOURS,
        "strips": [
            {
                "title": strip.title,
                "place": strip.place,
                "tags": strip.tags,
                "columns": [
                    (f"{date:%d %b %Y}", share, uri)
                    for date, share, (_, uri) in zip(
                        strip.dates, strip.clear, embed([("", image) for image in strip.images]), strict=True
                    )
                ],
                "labels": None
                if strip.labels is None
                else embed([("labels", paint(strip.labels, preview.colours))])[0][1],
            }
            for strip in preview.strips
        ],
    }


def _tag_content(tags: TagFigures) -> dict[str, Any]:
    windows = int(tags.density.sum())
    scarce = set(few(tags))
    rows = []
    for number, name in enumerate(tags.classes):
        own = int(tags.together[number, number])
        flag = "few" if number in scarce else "nearly always" if own > ALWAYS * windows else ""
        rows.append({"name": name, "counts": [int(tags.counts[split][number]) for split in tags.counts], "flag": flag})
    return {
        "splits": list(tags.counts),
        "rows": rows,
        "largest": max(1, *(int(counts.max()) for counts in tags.counts.values())),
        "few": FEW_WINDOWS,
        "together": data_uri(png_of(together_figure(tags))),
        "density": data_uri(png_of(density_figure(tags))),
        "mean": tags.mean,
        "size": len(tags.classes),
    }
