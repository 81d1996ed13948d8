"""The pixels of a season on disk: the dates that are read, corrections of their values, and their clear patches.

Every band of every date is brought to one grid. It has the pixels of the finest band of the first date, and it covers
the images of all dates. Coarser bands are interpolated bilinearly, the mask of clouds by nearest neighbour.

Axes are T dates, C bands, H W pixels.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling

from exact_core.config import SeasonConfig
from exact_core.data.season.clouds import cloud_reach, hidden_places, read_ground
from exact_core.data.season.files import Acquisition, cloud_mask
from exact_core.data.season.radiometry import (
    NO_REFLECTANCE,
    SHORTWAVE,
    TEST_BASELINES,
    VISIBLE,
    Look,
    baseline_in,
    check_scales,
    settle,
    stated_offset,
)
from exact_core.data.season.rasters import Grid, fit_to_grid, open_raster, own_rows, read_raster
from exact_core.data.windows.clear_looks import all_of_patches, check_gaps
from exact_core.data.windows.cutting import thin_dates
from exact_core.data.windows.dataset import CLEAR_PATCH
from exact_core.data.windows.dates import MIN_DATES
from exact_core.errors import DataError

__all__ = [
    "SeasonImages",
    "choose_dates",
    "choose_grid",
    "describe_counts",
    "merge_days",
    "sample_places",
    "settle_offsets",
]

SAMPLE = 4_000_000
"""Pixels that are read to determine a raster's scale."""
LOOK = 200
"""Side of the sample of a date that its offset is checked on."""
ROWS_LOOKED_AT = 1024
"""Rows in memory at a time where a whole band is looked at: those of the tallest common blocks, which would otherwise
be decompressed twice."""
INFRARED = ("B08", "B8A", "B07")
MARGIN = 2
"""Pixels by which images may exceed those of the first date without enlarging the scene."""
SPARSE = 4.0
"""How many times larger than what images show their common grid may be."""
EDGE = 2
"""Sampled places beside what was not measured that show nothing of the offset: products have artifacts there."""
LACKING = 0.01
"""Share of the sampled places that other bands measured, without which a band is looked at in whole."""
MARK = -2000
"""Stored values from here down are marks of missing data that the file does not declare, as -9999, on any scale."""
LIMITS = np.iinfo(np.int16)
UINT16_SATURATED = 65535


@dataclass(frozen=True)
class SeasonImages:
    """The images of a season on disk, read on demand. None are kept in memory.

    name: of the scene. start, length: first day and days of the season. settings: of the season, as they were resolved.
    shares: clear share of each date, of 1.
    """

    name: str
    start: dt.date
    length: int
    settings: SeasonConfig
    grid: Grid
    acquisitions: list[Acquisition]
    shares: tuple[float, ...]
    notes: list[str]

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self.settings.bands

    @property
    def days(self) -> NDArray[np.int64]:
        """Days since the season's start, (T,)."""
        return np.array([(acquisition.date - self.start).days for acquisition in self.acquisitions], np.int64)

    @property
    def seen_days(self) -> int | None:
        """Days of the season that its images are seen for. If None, all."""
        until = self.settings.until
        return None if until is None else (until - self.start).days + 1

    def read(self, first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Rows `first` to before `last`, both even: pixels (T, C, h, W) and clear patches (T, h/2, W/2).

        A patch is clear where all of it was measured, no band is saturated and, if clouds are known, none covers it.
        """
        pixels, clear, _ = self.read_counted(first, last)
        return pixels, clear

    def read_counted(self, first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.bool_], Counter[str]]:
        """As `read`, and how many values were changed, by what was done to them.

        Parts that follow each other have together the counts of the whole, but fractions are rasters, in each part.
        """
        part = self.grid.rows(first, last)
        counts: Counter[str] = Counter()
        shape = (len(self.acquisitions), len(self.bands), part.height, part.width)
        pixels = np.empty(shape, np.int16)
        clear = np.empty((shape[0], part.height // CLEAR_PATCH, part.width // CLEAR_PATCH), np.bool_)
        for place, acquisition in enumerate(self.acquisitions):
            usable = _read_date(
                acquisition, self.bands, self.grid, first, last, self.settings, counts, out=pixels[place]
            )
            measured = _measured(pixels[place])
            if not measured.all():
                some = (pixels[place] != 0).any(0) & ~measured
                counts["partly"] += int(some.sum())
                pixels[place][:, some] = 0
            usable &= measured
            for band in pixels[place]:
                # Rarely, and a maximum costs a fraction of a comparison.
                if band.max(initial=0) == LIMITS.max:
                    usable &= band != LIMITS.max
            clear[place] = all_of_patches(usable)
        return pixels, clear, counts


def describe_counts(counts: Counter[str]) -> list[str]:
    """What was done to the values, in words."""
    words = {
        "fractions": "rasters hold reflectance as fractions and were multiplied by 10,000",
        "missing": f"values at or below {NO_REFLECTANCE} are no reflectance and count as not measured",
        "partly": "looks at a pixel have no data in some of the bands and count as not measured",
        "saturated": f"values are saturated or above {LIMITS.max}. Their patches do not count as clear",
    }
    return [f"{counts[key]} {text}" for key, text in words.items() if counts[key]]


# Which dates


def settle_offsets(
    acquisitions: list[Acquisition], grid: Grid, settings: SeasonConfig, source: Path, notes: list[str]
) -> list[Acquisition]:
    """The acquisitions with the offset that is to be taken off each (`exact_core.data.season.radiometry`).

    Raises:
        DataError: an offset that cannot be settled under the rule, or a date of another scale than the others.
    """
    acquisitions = [_described(each, settings) for each in acquisitions]
    looks = [_look(acquisition, grid, settings) for acquisition in acquisitions]
    check_scales(looks, source=source, bounds=settings.scale is None)
    offsets = settle(looks, settings.offset, source=source, notes=notes)
    scaled = [each for each in acquisitions if each.factor is not None and each.factor != 1]
    if scaled:
        notes.append(
            f"{len(scaled)} of {len(acquisitions)} dates were brought to reflectance x 10,000 by the "
            f"{'scale of data.season.scale' if settings.scale else 'scale that they state'}: a stored 1 is "
            f"{' or '.join(sorted({f'{each.factor:g}' for each in scaled}))}"
        )
    return [
        replace(each, offset=offset, lacking=look.lacking)
        for each, offset, look in zip(acquisitions, offsets, looks, strict=True)
    ]


def _described(acquisition: Acquisition, settings: SeasonConfig) -> Acquisition:
    """With what the files themselves say of scale and offset, where the metadata beside them do not."""
    stated = acquisition.stated
    tags: dict[str, Any] = {}
    described = []
    for band in settings.bands:
        path = acquisition.files[band]
        with open_raster(path) as file:
            if file.dtypes[0] in ("uint8", "int8"):
                raise DataError(
                    f"{path}: 8-bit values are a picture, not reflectance. Give the product's own bands (uint16, x "
                    f"10,000)"
                )
            described.append({"scale": file.scales[0], "offset": file.offsets[0]})
            try:
                tags = file.tags() | tags
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: damaged tags: {error}. Download it again") from error
    own = stated_offset(tags, described, [], where=acquisition.name)
    factor = own.factor if stated.factor is None else stated.factor
    stated = replace(own if stated.offset is None else stated, factor=factor)
    factor = stated.factor if settings.scale is None else settings.scale * 10_000
    return replace(acquisition, stated=stated, factor=factor)


def _look(acquisition: Acquisition, grid: Grid, settings: SeasonConfig) -> Look:
    """A sample of a date, on places that are the same for all dates of the grid."""
    coarse = grid.coarse(grid.step(LOOK))
    files = acquisition.files
    clear: NDArray[np.bool_] | None = None
    if mask := cloud_mask(files):
        name, path = mask
        clear = ~hidden_places(name, np.nan_to_num(sample_places(path, coarse)).astype(np.uint8), settings)

    found: dict[str, NDArray[np.bool_]] = {}

    def sample(band: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        values = sample_places(files[band], coarse)
        found[band] = np.isfinite(values) & (values > MARK) & (values != 0)
        return values, found[band]

    def reflectance(band: str) -> NDArray[np.float32]:
        values, measured = sample(band)
        factor = _factor(values, files[band], acquisition.factor)
        scaled = values.astype(np.float32) * np.float32(factor)
        return np.where(measured, scaled, np.float32(np.nan))

    def shown(bands: tuple[str, ...]) -> NDArray[np.float32] | None:
        if not all(each in files for each in bands):
            return None
        values = np.stack([reflectance(each) for each in bands])
        # Beside the edge of what was measured, which a swath, a detector or the file ends at.
        inner = _inner(np.asarray(np.isfinite(values).all(0)))
        values[:, ~(inner if clear is None else inner & clear)] = np.nan
        return values.reshape(len(bands), -1)

    infrared = next((reflectance(each) for each in INFRARED if each in files), None)
    is_empty = infrared is not None and not np.isfinite(infrared).any()
    if infrared is not None and clear is not None:
        infrared[~clear] = np.nan
    visible, shortwave = shown(VISIBLE), shown(SHORTWAVE)
    for band in settings.bands:
        if band not in found:
            sample(band)
    measured = np.logical_or.reduce([found[band] for band in settings.bands])
    return Look(
        acquisition.name,
        acquisition.date,
        acquisition.stated,
        visible,
        shortwave,
        None if infrared is None else infrared.ravel(),
        is_empty=is_empty,
        lacking=tuple(band for band in settings.bands if (measured & ~found[band]).sum() > LACKING * measured.sum()),
    )


def _inner(measured: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Places (H, W) that are EDGE or more places from anything unmeasured, and from the edge of all."""
    inner = np.zeros_like(measured)
    height, width = (side - 2 * EDGE for side in measured.shape)
    if height > 0 and width > 0:
        inner[EDGE:-EDGE, EDGE:-EDGE] = np.logical_and.reduce(
            [
                measured[row : row + height, col : col + width]
                for row in range(2 * EDGE + 1)
                for col in range(2 * EDGE + 1)
            ]
        )
    return inner


def _factor(values: NDArray[Any], path: Path, stated: float | None) -> float:
    """Reflectance x 10,000 of a stored 1: as stated. for floats without a stated scale, by their values."""
    if values.dtype.kind == "f" and stated in (None, 1.0) and _holds_fractions(path):
        return 10_000.0
    return 1.0 if stated is None else stated


def sample_places(path: Path, coarse: Grid) -> NDArray[Any]:
    """Single pixels of a file at the places of a coarse grid (H, W), 0 where it has none."""
    with open_raster(path) as file:
        try:
            with WarpedVRT(
                file,
                src_crs=file.crs or coarse.crs,
                crs=coarse.crs,
                transform=coarse.transform,
                height=coarse.height,
                width=coarse.width,
                resampling=Resampling.nearest,
                nodata=0,
            ) as places:
                return np.asarray(places.read(1))
        except (RasterioError, CPLE_BaseError) as error:
            raise DataError(f"{path}: damaged: {error}. Download it again or leave its date out") from error


def merge_days(acquisitions: list[Acquisition], notes: list[str]) -> list[Acquisition]:
    """One acquisition a day: tiles of one overpass, overlapping orbits and products processed twice are merged.

    Of a product that was processed twice, the later processing comes first (by name, where the baseline stands), and
    one of a test last.
    """

    def order(acquisition: Acquisition) -> tuple[bool, str]:
        return (baseline_in(acquisition.name) or 0) < TEST_BASELINES, acquisition.name

    days: dict[dt.date, list[Acquisition]] = {}
    for acquisition in acquisitions:
        days.setdefault(acquisition.date, []).append(acquisition)
    merged = [each for each in days.values() if len(each) > 1]
    if merged:
        several = merged[0]
        notes.append(
            f"{len(merged)} days have more than one acquisition (the first {several[0].date}: "
            f"{', '.join(dict.fromkeys(each.name for each in several))}) and were merged: each pixel is of the first "
            f"that is clear"
        )
    chosen = []
    for group in days.values():
        first, *others = sorted(group, key=order, reverse=True)
        chosen.append(replace(first, others=tuple(others)))
    return chosen


def choose_dates(
    acquisitions: list[Acquisition],
    grid: Grid,
    settings: SeasonConfig,
    *,
    start: dt.date,
    length: int,
    limit: int,
    source: Path,
    notes: list[str],
) -> tuple[list[Acquisition], tuple[float, ...]]:
    """Dates to read, with the clear share of each: useless ones dropped, and long series thinned.

    The best date of a group shows most of the scene. A pixel without data or under cloud does not count, so a clear
    corner of a swath does not rank above a whole scene. Without a mask of clouds, every measured patch counts as clear.

    Raises:
        DataError: fewer than two dates remain, or the season has a long gap.
    """
    kept, shares = [], []
    hidden = 0
    for acquisition in acquisitions:
        seen, clear = _seen(acquisition, grid, settings)
        if not seen:
            bands = ", ".join(acquisition.lacking)
            empty = (
                f"has no place that all bands measured ({bands} lacks data)" if bands else "is 0 (nodata) everywhere"
            )
            notes.append(f"{acquisition.name} ({acquisition.date}) {empty} and was dropped")
        elif clear < settings.min_clear:
            hidden += 1
        else:
            kept.append(acquisition)
            shares.append(clear)
    if hidden:
        notes.append(f"{hidden} dates are clear on less than {settings.min_clear:.0%} of the scene and were dropped")
    if len(kept) < MIN_DATES:
        raise DataError(
            f"{source}: {len(kept)} of {len(acquisitions)} dates has a measured pixel on the grid of {grid.file}"
            f"{f' and is clear enough (data.season.min_clear {settings.min_clear:g})' if hidden else ''}. "
            f"A time series needs at least {MIN_DATES}. Add acquisitions"
        )
    days = np.array([(acquisition.date - start).days for acquisition in kept])
    check_gaps(days, np.array(shares), start=start, length=length, limit=settings.longest_gap, source=source)
    chosen = thin_dates(np.array(shares), limit)
    if len(chosen) < len(kept):
        notes.append(
            f"{len(kept)} dates were thinned to {len(chosen)}: the one of each of {len(chosen)} runs that shows most"
        )
    return [kept[place] for place in chosen], tuple(float(shares[place]) for place in chosen)


def _seen(acquisition: Acquisition, grid: Grid, settings: SeasonConfig) -> tuple[bool, float]:
    """Whether a date has a measured pixel, and the share of its patches that are clear.

    By the first band, and those that lack what others measured: reading all of them here would double the time.
    """
    lacking = {band for each in (acquisition, *acquisition.others) for band in each.lacking}
    bands = (settings.bands[0], *(band for band in settings.bands[1:] if band in lacking))
    any_measured, clear = False, 0
    for first in range(0, grid.height, ROWS_LOOKED_AT):
        last = min(first + ROWS_LOOKED_AT, grid.height)
        pixels = np.empty((len(bands), last - first, grid.width), np.int16)
        ground = _read_date(acquisition, bands, grid, first, last, settings, Counter(), out=pixels)
        measured = _measured(pixels)
        any_measured |= bool(measured.any())
        clear += int(all_of_patches(measured & ground).sum())
    return any_measured, clear / (grid.height // CLEAR_PATCH * (grid.width // CLEAR_PATCH))


# Grid and values


def choose_grid(acquisitions: Sequence[Acquisition], bands: tuple[str, ...]) -> Grid:
    """Grid of the finest band of the first date, grown to all dates' images, and cut to an even number of pixels.

    Raises:
        DataError: images of several CRS, or so far apart that most of the grid would be in none.
    """
    grid = _finest_grid(acquisitions[0], bands)
    frames: dict[tuple[float, float, float, float], Path] = {}
    for acquisition in acquisitions:
        # A band's footprint is that of all: no more than one file a date is opened.
        own = grid if acquisition is acquisitions[0] else _grid_of(acquisition.files[bands[0]])
        if own.crs != grid.crs:
            raise DataError(
                f"{own.file}: its CRS is {own.crs.to_string()}, that of {grid.file} is {grid.crs.to_string()}. All "
                f"dates must share one CRS. Reproject this one (gdalwarp -t_srs)"
            )
        corners = [
            ~grid.transform @ (own.transform @ corner)
            for corner in ((0, 0), (own.width, 0), (0, own.height), (own.width, own.height))
        ]
        cols, rows = zip(*corners, strict=True)
        frames.setdefault((min(cols), min(rows), max(cols), max(rows)), own.file)
    left, top = (math.ceil(min(frame[side] for frame in frames)) for side in (0, 1))
    right, bottom = (math.floor(max(frame[side] for frame in frames)) for side in (2, 3))
    # Images that lie a pixel or two beside the first are cut to it: their dates alone would show that margin.
    left, top = (0 if edge >= -MARGIN else edge for edge in (left, top))
    right, bottom = (
        size if edge <= size + MARGIN else edge for edge, size in ((right, grid.width), (bottom, grid.height))
    )
    shown = shapely.union_all([shapely.box(*frame) for frame in frames]).area
    if (right - left) * (bottom - top) > SPARSE * shown:
        first, *others = frames.items()
        middle = shapely.box(*first[0]).centroid
        _, farthest = max(others, key=lambda each: shapely.distance(shapely.box(*each[0]), middle))
        raise DataError(
            f"{farthest} and {first[1]} show separate land, and most of the area between is in no image. "
            f"Make a season of each"
        )
    whole = replace(
        grid, transform=grid.transform @ Affine.translation(left, top), height=bottom - top, width=right - left
    )
    even = [side - side % CLEAR_PATCH for side in (whole.height, whole.width)]
    return replace(whole, height=even[0], width=even[1])


def _finest_grid(acquisition: Acquisition, bands: tuple[str, ...]) -> Grid:
    return min((_grid_of(acquisition.files[band]) for band in bands), key=lambda grid: abs(grid.transform.determinant))


def _grid_of(path: Path) -> Grid:
    with open_raster(path) as file:
        if file.crs is None:
            raise DataError(f"{path}: no CRS. Georeference it, for example with gdal_edit -a_srs EPSG:32631")
        return Grid(file.crs, file.transform, file.height, file.width, path)


def _read_date(
    acquisition: Acquisition,
    bands: tuple[str, ...],
    grid: Grid,
    first: int,
    last: int,
    settings: SeasonConfig,
    counts: Counter[str],
    *,
    out: NDArray[np.int16],
) -> NDArray[np.bool_]:
    """Rows `first` to `last` of a date into `out` (C, h, W). Where the ground shows, as far as clouds are known (h, W).

    Where several acquisitions of the day overlap, a pixel is of the first that measured it clearly, else of the first
    that measured it at all.
    """
    part = grid.rows(first, last)
    for row, band in zip(out, bands, strict=True):
        row[:] = _read_band(acquisition.files[band], part, acquisition, counts)
    ground = read_ground(acquisition, grid, first, last, settings)
    if not acquisition.others:
        return ground
    measured = _measured(out)
    for each in acquisition.others:
        # A cell of a large area is a small part of it, and the cells of a day are many.
        left, right = _shown_columns(each.files[bands[0]], part, beside=cloud_reach(settings))
        if left >= right:
            continue
        cols = slice(left, right)
        found = np.stack([_read_band(each.files[band], part.columns(left, right), each, counts) for band in bands])
        clear = read_ground(each, grid.columns(left, right), first, last, settings)
        here = _measured(found)
        better = here & (~measured[:, cols] | (clear & ~ground[:, cols]))
        out[:, :, cols][:, better] = found[:, better]
        ground[:, cols][better] = clear[better]
        measured[:, cols] |= here
    return ground


def _shown_columns(path: Path, part: Grid, *, beside: int) -> tuple[int, int]:
    """First column of a grid that a file may show something of, and one past the last. Two equal ones: it shows none.

    beside: columns that are looked at on both sides of the file.
    """
    own = _grid_of(path)
    if own.crs != part.crs:
        # Reading it says so.
        return 0, part.width
    onto = ~part.transform @ own.transform
    corners = [onto @ corner for corner in ((0, 0), (own.width, 0), (0, own.height), (own.width, own.height))]
    cols, rows = zip(*corners, strict=True)
    if max(rows) <= -beside or min(rows) >= part.height + beside:
        return 0, 0
    edges = math.floor(min(cols)) - beside, math.ceil(max(cols)) + beside
    left, right = (min(max(edge, 0), part.width) for edge in edges)
    return left, right


def _measured(pixels: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Where all bands of (C, h, W) have a value (h, W): an acquisition without one of them does not count.

    Band by band, as all at once would take as much memory again.
    """
    measured: NDArray[np.bool_] = pixels[0] != 0
    for band in pixels[1:]:
        measured &= band != 0
    return measured


def _read_band(path: Path, grid: Grid, of: Acquisition, counts: Counter[str]) -> NDArray[np.int16]:
    """A date's band on the grid, int16 reflectance x 10,000, 0 where not measured. `counts`: what was done."""
    values, crs, transform, nodata = read_raster(path, around=grid)
    if crs != grid.crs:
        raise DataError(
            f"{path}: its CRS is {crs.to_string() if crs else 'missing'}, that of {grid.file} is "
            f"{grid.crs.to_string()}. All dates must share one CRS. Reproject this one (gdalwarp -t_srs)"
        )
    whole = _plain(values, nodata, of.offset) if of.factor in (None, 1.0) else None
    if whole is None:
        whole = _checked(values, nodata, of, path, counts, own_rows(transform, grid))
    fitted: NDArray[np.int16] = fit_to_grid(whole, crs, transform, grid, nearest=False, fill=0)
    return fitted


def _plain(values: NDArray[Any], nodata: float | None, offset: int) -> NDArray[np.int16] | None:
    """As `_checked`, of what nearly all rasters hold: values that are whole, not negative, and fit as they are."""
    if values.dtype != np.uint16 or not values.size or not LIMITS.min <= -offset <= LIMITS.max:
        return None
    brightest = int(values.max())
    if max(brightest, brightest - offset) >= LIMITS.max:
        return None
    whole = values.astype(np.int16)
    if offset:
        possible = values > max(offset + NO_REFLECTANCE, 0)
        if np.count_nonzero(possible) < np.count_nonzero(values):
            return None
        whole -= np.int16(offset)
        whole += whole == 0
        whole *= possible
    if nodata:
        whole *= values != nodata
    return whole


def _checked(
    values: NDArray[Any], nodata: float | None, of: Acquisition, path: Path, counts: Counter[str], own: slice
) -> NDArray[np.int16]:
    """Values of any type as int16 reflectance x 10,000, 0 where not measured. `counts` is about `own` rows alone."""
    measured = values != 0
    if nodata is not None:
        measured &= values != nodata
    if values.dtype.kind == "f":
        measured &= np.isfinite(values)
    factor = _factor(values, path, of.factor)
    scaled = values.astype(np.float32)
    if factor != 1:
        scaled = scaled * np.float32(factor)
        counts["fractions"] += factor == 10_000
    missing = measured & ((values <= MARK) | (scaled - of.offset <= NO_REFLECTANCE))
    saturated = measured & ((scaled > LIMITS.max) | ((values == UINT16_SATURATED) & (values.dtype.kind != "f")))
    counts["missing"] += int(missing[own].sum())
    counts["saturated"] += int(saturated[own].sum())
    with np.errstate(invalid="ignore"):
        whole = np.clip(np.rint(scaled - of.offset), LIMITS.min, LIMITS.max - 1).astype(np.int16)
    whole[saturated] = LIMITS.max
    # 0 says not measured: a measured pixel that reflects nothing is 1.
    whole[whole == 0] = 1
    whole[~measured | missing] = 0
    return whole


@functools.lru_cache(maxsize=4096)
def _holds_fractions(path: Path) -> bool:
    """Whether a float raster holds reflectance as fractions of 1. The whole band decides, not the part read."""
    with open_raster(path) as file:
        step = max(1, math.isqrt(file.height * file.width // SAMPLE))
        try:
            values = file.read(1, out_shape=(max(1, file.height // step), max(1, file.width // step)))
        except RasterioError as error:
            raise DataError(f"{path}: damaged: {error}. Download it again or leave its date out") from error
        measured = values[np.isfinite(values) & (values > MARK) & (values != 0) & (values != file.nodata)]
    # A quantile, not the maximum: a few glints are brighter than any reflecting surface.
    return bool(measured.size and np.quantile(measured, 0.99) <= 2)
