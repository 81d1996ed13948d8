"""Gathering a preview from a season of images that nothing was cut from yet: its dates, and a few cut-outs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from exact_core.data.season.files import cloud_mask
from exact_core.data.season.folder import SeasonImages
from exact_core.data.season.overview import overview
from exact_core.data.season.rasters import pixel_metres
from exact_core.data.season.tag_checks import check_places, check_sizes, contradictions
from exact_core.data.season.tags import TagTable
from exact_core.data.windows.cutting import thin_dates
from exact_core.data.windows.dataset import Statistics, Window
from exact_core.data.windows.dates import MIN_DATES, measured_dates
from exact_core.errors import DataError
from exact_core.evaluation.palette import colours_of, true_colour
from exact_core.evaluation.preview.content import (
    ALL,
    BandSums,
    DrawnSquare,
    Footprint,
    Preview,
    SceneDates,
    Squares,
    Strip,
    find_gaps,
)
from exact_core.evaluation.preview.footprints import corners_of
from exact_core.evaluation.preview.from_dataset import STRIPS, NamedStatistics, counted, longest_first, strip_of

__all__ = ["preview_season"]

CUTOUTS = 12
"""Cut-outs whose pixels are read."""
PICTURE = 1100
"""Pixels of the longer side of the picture that squares are drawn on."""
CUTOUT = (16, 48)
"""Smallest and largest side of a cut-out, pixels. A third of a small scene in between."""


def preview_season(
    images: SeasonImages,
    *,
    source: str,
    limit: int,
    seed: int,
    reference: NamedStatistics | None = None,
    tags: TagTable | None = None,
    window: int = 24,
) -> Preview:
    """A preview of a season of images. A few cut-outs are in memory.

    Args:
        images: all dates of the season.
        source: its name.
        limit: dates that ingest would keep.
        seed: draws the cut-outs.
        reference: statistics of training to compare with. If None, no comparison.
        tags: of squares, to be drawn on the area. If None, there are none.
        window: side of a window, pixels.

    Raises:
        DataError: no cut-out was measured on two dates.
    """
    shares = np.array(images.shares)
    kept = thin_dates(shares, limit)
    thinned = replace(images, acquisitions=[images.acquisitions[position] for position in kept])
    cuts = _cut_outs(thinned, seed)
    if not cuts:
        raise DataError(f"{source}: no part that was looked at is measured on two dates. Give more acquisitions")
    side = cuts[0][2].shape[-1]
    known = reference or NamedStatistics(_own_statistics([pixels for _, _, pixels, _ in cuts]), "")
    sums = BandSums(images.bands, known.statistics)
    for _, _, pixels, _ in cuts:
        sums.add(ALL, pixels)
    every = SceneDates(f"{len(shares)} dates", images.days, shares)
    rows = (
        [every]
        if len(kept) == len(shares)
        else [every, SceneDates(f"{len(kept)} kept", images.days[kept], shares[kept])]
    )
    gaps = [gap for row in rows for gap in find_gaps(row, start=images.start, length=images.length)]
    clouds = cloud_mask(images.acquisitions[0].files)
    return Preview(
        title=images.name,
        kind="season",
        classes=(),
        colours=tuple(colours_of((), {})),
        season_start=images.start,
        season_days=images.length,
        footprints=[_season_footprint(images, [(row, col, pixels.shape[-1]) for row, col, pixels, _ in cuts])],
        calendar=rows,
        scenes=1,
        clouds_known=clouds is not None,
        gaps=longest_first(gaps),
        bands=sums.figures(compare=reference is not None),
        reference=known.name,
        tags=None,
        strips=[_strip_at(thinned, *cut) for cut in sorted(cuts, key=lambda cut: -cut[3].mean())[:STRIPS]],
        sampled=f"{len(cuts)} cut-outs of {side} × {side} pixels, on {counted(len(kept), len(shares), 'dates')}",
        facts={
            "Source": source,
            "Size": f"{images.grid.width} × {images.grid.height} pixels of {pixel_metres(images.grid):.3g} m",
            "Dates": f"{len(shares)}, of which ingest keeps {len(kept)} (data.max_dates)",
            "Clear": f"{100 * shares.mean():.0f} % on average, {100 * shares[kept].mean():.0f} % on the dates kept",
            "CRS": images.grid.crs.to_string(),
            "Bands": ", ".join(images.bands),
            "Clouds": f"known ({clouds[0]})" if clouds else "not known",
        },
        notes=tuple(images.notes),
        squares=None if tags is None else _squares(images, tags, window),
        remarks=() if tags is None else tuple(_remarks(images, tags, window, source)),
    )


def _squares(images: SeasonImages, table: TagTable, window: int) -> Squares:
    """The squares of a table on a picture of the area."""
    seen = overview(images, longest=PICTURE)
    placed, outside = table.place(images.name, images.grid, window=window)
    unused = {id(row) for row in outside}
    squares = [square for square in table.squares(images.grid, window=window) if np.isfinite(square.box).all()]
    tags = np.array([each.tags for each in placed], np.int64).reshape(len(placed), len(table.classes))
    counts = {
        name: (sum(name in row.crops for row in table.rows), int(windows))
        for name, windows in zip(table.classes, tags.sum(0), strict=True)
    }
    colours = colours_of(table.classes, table.colours)[1:]
    return Squares(
        image=true_colour(seen.pixels, seen.bands),
        date=seen.date,
        squares=tuple(
            DrawnSquare(_scaled(square.box, seen.step), square.tag.crops, used=id(square.tag) not in unused)
            for square in squares
        ),
        counts=counts,
        colours=dict(zip(table.classes, colours, strict=True)),
        windows=len(placed),
        together=tags.T @ tags,
        notes=table.notes,
    )


def _scaled(box: tuple[float, float, float, float], step: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return left / step, top / step, right / step, bottom / step


def _remarks(images: SeasonImages, table: TagTable, window: int, source: str) -> list[str]:
    """What ingest would say of the squares, or refuse them for."""
    grid = images.grid
    said = list(table.questions)
    try:
        said += check_sizes(table, grid, window=window)
        _, outside = table.place(images.name, grid, window=window)
        said += check_places(table, outside, grid, window=window, source=source)
        said += contradictions(table, grid, window=window)
    except DataError as error:
        said.append(str(error))
    return said


def _cut_outs(images: SeasonImages, seed: int) -> list[tuple[int, int, NDArray[np.int16], NDArray[np.bool_]]]:
    """Row, column, pixels and clear patches of cut-outs, drawn by seed, that two dates measured."""
    shorter = min(images.grid.height, images.grid.width)
    side = min(max(CUTOUT[0], shorter // 6 * 2), CUTOUT[1], shorter)
    places = [(row, col) for row in _starts(images.grid.height, side) for col in _starts(images.grid.width, side)]
    order = np.random.default_rng(seed).permutation(len(places)).tolist()
    found = []
    # Beyond the edge of a swath there is nothing; a few more are tried.
    for place in order[: 3 * CUTOUTS]:
        row, col = places[place]
        part = images.grid.rows(row, row + side)
        part = replace(part, transform=part.transform @ Affine.translation(col, 0), width=side)
        pixels, clear = replace(images, grid=part).read(0, side)
        if measured_dates(pixels).sum() >= MIN_DATES:
            found.append((row, col, pixels, clear))
        if len(found) == CUTOUTS:
            break
    return found


def _starts(length: int, side: int) -> list[int]:
    """Even first pixels of parts of `side`. Those that fit, at least one."""
    return [start - start % 2 for start in range(0, length - side + 1, side)]


def _own_statistics(parts: Sequence[NDArray[np.int16]]) -> Statistics:
    columns = [part.transpose(1, 0, 2, 3).reshape(part.shape[1], -1) for part in parts]
    values = np.concatenate([column[:, column.any(0)] for column in columns], 1).astype(np.float64)
    std = values.std(1)
    std[std < 1e-6] = 1.0
    mean = tuple(values.mean(1).tolist())
    return Statistics(mean=mean, std=tuple(std.tolist()), pixels=values.shape[1], origin="this data")


def _season_footprint(images: SeasonImages, cuts: Sequence[tuple[int, int, int]]) -> Footprint:
    grid = images.grid
    areas = [(0, 0, grid.height, grid.width), *((row, col, row + side, col + side) for row, col, side in cuts)]
    outlines = np.array(
        [
            [grid.transform @ corner for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]
            for top, left, bottom, right in areas
        ],
        np.float64,
    )
    crs = grid.crs.to_string()
    return Footprint(
        crs=crs,
        outlines=outlines,
        groups=("area", *("cut-outs read" for _ in cuts)),
        scenes=(images.name,) * len(areas),
        apart=False,
        corners=corners_of(crs, outlines),
    )


def _strip_at(images: SeasonImages, row: int, col: int, pixels: NDArray[np.int16], clear: NDArray[np.bool_]) -> Strip:
    window = Window(
        pixels=pixels,
        days=images.days.astype(np.int16),
        tags=np.zeros(0, np.uint8),
        labels=None,
        clear=clear.astype(np.uint8),
    )
    place = f"row {row}, column {col}"
    start, bands = images.start, images.bands
    return strip_of(title=images.name, place=place, tags=(), start=start, bands=bands, window=window, labels=None)
