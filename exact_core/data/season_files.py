"""The acquisitions of a season on disk: which files they are, their grid, and their pixels.

    a STAC catalogue    collection.json or catalog.json; items with an asset a band, by asset key or band name
    a folder a date     S2_xxx_20180401/B02.tif
    flat files          S2_20180401_B02.tif, S2_2018-04-01_B8A_20m.tif

In the order of use: `find_acquisitions`, `clip_to_season`, `check_files`, `choose_grid`, `choose_dates`, `read_images`.
Every band of every date is brought to one grid, that of the finest band of the first date: coarser bands bilinear, the
scene classification (SCL) nearest. Axes: T dates, C bands, H W pixels.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from rasterio.windows import Window

from exact_core.config import SeasonConfig
from exact_core.data.dataset import CLEAR_PATCH
from exact_core.data.radiometry import clear_from_scl
from exact_core.data.windows import thin_dates
from exact_core.errors import DataError

__all__ = [
    "RASTERS",
    "SCL",
    "Acquisition",
    "Grid",
    "asset_bands",
    "band_of",
    "check_files",
    "choose_dates",
    "choose_grid",
    "clip_to_season",
    "find_acquisitions",
    "fit_to_grid",
    "read_images",
    "read_raster",
    "read_scl",
]

SCL = "SCL"
MARGIN = 2
"""Pixels of a coarser raster beside a grid that its bilinear values draw on."""
ALIGNED = 1e-4
"""Pixels by which two grids may differ and still be one."""
SAMPLE = 4_000_000
"""Pixels looked at to tell a raster's scale."""
RASTERS = (".tif", ".tiff", ".jp2", ".vrt")
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")
_RESOLUTION = re.compile(r"[_-](\d+)m$", re.IGNORECASE)
_SENTINEL_BAND = re.compile(r"B(0[1-9]|8A|1[0-2])|SCL", re.IGNORECASE)


@dataclass(frozen=True)
class Acquisition:
    """One date: its name in messages, and a file for each band."""

    name: str
    date: dt.date
    files: dict[str, Path]


@dataclass(frozen=True)
class Grid:
    """The pixels that everything is brought to; `file` is where the grid was taken from."""

    crs: Any
    transform: Any
    height: int
    width: int
    file: Path

    def rows(self, first: int, last: int) -> Grid:
        """The part from row `first` to before row `last`."""
        return replace(self, transform=self.transform @ Affine.translation(0, first), height=last - first)


# Acquisitions


def find_acquisitions(source: Path, bands: tuple[str, ...]) -> tuple[str, list[Acquisition]]:
    """Name of the scene and its acquisitions in the order of the calendar, one a date."""
    if not source.exists():
        raise DataError(f"{source}: no such folder; give the folder of a season")
    catalogues = [source] if source.is_file() else [source / name for name in ("collection.json", "catalog.json")]
    catalogue = next((path for path in catalogues if path.is_file()), None)
    if catalogue is None and (source / "fetched.json").exists():
        raise DataError(f"{source}: a fetch that has not come to its end; repeat `exact fetch`: it goes on from here")
    if catalogue is None and (source / "cells.json").exists():
        raise DataError(f"{source}: a folder of cells; name one of them, which {source / 'cells.json'} lists")
    if catalogue is None:
        name, found = "scene", _from_files(source, bands)
    else:
        name, found = _from_stac(catalogue, bands)
    if not found:
        raise DataError(
            f"{catalogue or source}: no acquisition with bands; expected a STAC collection.json, folders such as "
            f"S2_20180401/B02.tif, or files such as S2_20180401_B02.tif"
        )
    found.sort(key=lambda acquisition: (acquisition.date, acquisition.name))
    for first, second in itertools.pairwise(found):
        if first.date == second.date:
            raise DataError(
                f"{source}: {first.name} and {second.name} are both of {first.date}; "
                f"keep one of them, or merge the two to one image"
            )
    return name, found


def _from_stac(path: Path, bands: tuple[str, ...]) -> tuple[str, list[Acquisition]]:
    try:
        catalogue = pystac.read_file(str(path.resolve()))
        if not isinstance(catalogue, pystac.Catalog):
            raise DataError(f"{path}: a STAC {type(catalogue).__name__}; expected a Collection or Catalog")
        items = list(catalogue.get_items(recursive=True))
    except (
        pystac.errors.STACError,
        pystac.errors.STACTypeError,
        AttributeError,
        KeyError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(
            f"{path}: not a readable STAC catalogue: {error}; repair it or the item it names, or remove it to use "
            f"the dates in the names of the files"
        ) from error
    return catalogue.id.replace("/", "-"), [_from_item(item, path, bands) for item in items]


def _from_item(item: pystac.Item, catalogue: Path, bands: tuple[str, ...]) -> Acquisition:
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise DataError(f"{catalogue}: item {item.id} has no datetime; every item needs one")
    files: list[tuple[str, int, Path]] = []
    for key, asset in item.assets.items():
        if matches := asset_bands(key, asset.extra_fields, bands):
            files.append((*matches[0], _local(asset, item.id, catalogue)))
    where = f"{catalogue}, item {item.id}"
    return Acquisition(name=item.id, date=moment.date(), files=_finest(files, where))


def asset_bands(key: str, fields: Mapping[str, Any], bands: tuple[str, ...]) -> list[tuple[str, int]]:
    """What an asset's key and its band's name, in this order, say by `band_of`; an asset of several bands is none."""
    listed = fields.get("bands") or fields.get("eo:bands") or []
    named = [band for band in (listed if isinstance(listed, list) else []) if isinstance(band, dict)]
    own = [key, *(str(band.get("name")) for band in named)]
    return [match for match in (band_of(text, bands) for text in own if len(own) <= 2) if match]


def _local(asset: pystac.Asset, item: str, catalogue: Path) -> Path:
    href = asset.get_absolute_href() or asset.href
    parts = urlparse(href)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in href:
        raise DataError(f"{catalogue}: item {item}: {href} is not on this disk; download the assets first")
    return Path(href)


def _from_files(folder: Path, bands: tuple[str, ...]) -> list[Acquisition]:
    """Files whose name ends in a band; the date is in the file's name or in that of a folder above it."""
    groups: dict[tuple[str, dt.date], list[tuple[str, int, Path]]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        match = band_of(path.stem, bands)
        if path.suffix.lower() not in RASTERS or inside.parts[0] == "labels" or match is None:
            continue
        dated = [part for part in inside.parts[:-1] if _date_of(part)]
        date = next((date for date in map(_date_of, (path.stem, *reversed(dated))) if date), None)
        if date is None:
            raise DataError(
                f"{path}: neither the file's name nor a folder's has a date; expected YYYYMMDD or YYYY-MM-DD in it"
            )
        name = dated[0] if dated else _stem_without_band(path.stem)
        groups.setdefault((name, date), []).append((*match, path))
    return [
        Acquisition(name=name, date=date, files=_finest(files, f"{folder}, {name}"))
        for (name, date), files in groups.items()
    ]


def _finest(files: Iterable[tuple[str, int, Path]], where: str) -> dict[str, Path]:
    """One file a band: that of the finest resolution in its name."""
    chosen: dict[str, tuple[int, Path]] = {}
    for band, resolution, path in files:
        known = chosen.get(band)
        if known and known[0] == resolution:
            raise DataError(f"{where}: {known[1]} and {path} are both band {band}; keep one of them")
        if not known or resolution < known[0]:
            chosen[band] = (resolution, path)
    return {band: path for band, (_, path) in chosen.items()}


def band_of(text: str, bands: tuple[str, ...]) -> tuple[str, int] | None:
    """(band, metres in the name or 0) if `text` ends in a band's name: B02, S2_20180401_B8A_20m."""
    resolution = _RESOLUTION.search(text)
    rest = text[: resolution.start()] if resolution else text
    metres = int(resolution[1]) if resolution else 0
    for band in bands:
        if rest == band or rest.endswith(("_" + band, "-" + band, "." + band)):
            return band, metres
    last = re.split(r"[_.-]", rest)[-1]
    return (last.upper(), metres) if _SENTINEL_BAND.fullmatch(last) else None


def _stem_without_band(stem: str) -> str:
    rest = _RESOLUTION.sub("", stem)
    return re.sub(r"[_.-]?[^_.-]*$", "", rest) or rest


def _date_of(text: str) -> dt.date | None:
    """The first calendar date in a name (in a product's name, that of sensing)."""
    for match in _DATE.finditer(text):
        try:
            return dt.date(int(match[1]), int(match[2]), int(match[3]))
        except ValueError:
            continue
    return None


def clip_to_season(
    found: list[Acquisition], settings: SeasonConfig, source: Path, notes: list[str]
) -> tuple[dt.date, int, list[Acquisition]]:
    """First day and length of the season, and the acquisitions in it."""
    start = settings.start or found[0].date
    days = settings.days or (found[-1].date - start).days + 1
    kept = [acquisition for acquisition in found if 0 <= (acquisition.date - start).days < days]
    if len(kept) < 2:
        raise DataError(
            f"{source}: {len(kept)} date in the season of {days} days from {start}, of {len(found)} from "
            f"{found[0].date} to {found[-1].date}; a time series needs at least 2: add acquisitions, or set "
            f"data.season.start and data.season.days"
        )
    if len(kept) < len(found):
        notes.append(f"{len(found) - len(kept)} of {len(found)} dates lie outside the season and were left out")
    return start, days, kept


def check_files(acquisitions: list[Acquisition], bands: tuple[str, ...]) -> None:
    """Raise DataError unless every date has all bands, and SCL is there for all dates or for none."""
    for acquisition in acquisitions:
        missing = [band for band in bands if band not in acquisition.files]
        if missing:
            raise DataError(
                f"{acquisition.name} ({acquisition.date}): band {', '.join(missing)} is missing; it has "
                f"{', '.join(sorted(acquisition.files)) or 'none'}; add the file, or name the bands to use in "
                f"data.season.bands"
            )
    with_scl = [SCL in acquisition.files for acquisition in acquisitions]
    if any(with_scl) and not all(with_scl):
        first = acquisitions[with_scl.index(False)]
        raise DataError(
            f"{first.name} ({first.date}): SCL is missing (on {with_scl.count(False)} of {len(acquisitions)} dates); "
            f"add it, or leave these dates out: clouds must be known for all dates or for none"
        )


# Grid and images


def choose_grid(first: Acquisition, bands: tuple[str, ...]) -> Grid:
    """Grid of the finest band, cut to an even number of pixels."""
    grids = []
    for band in bands:
        path = first.files[band]
        with _open(path) as file:
            if file.crs is None:
                raise DataError(f"{path}: no CRS; georeference it, for example with gdal_edit -a_srs EPSG:32631")
            grids.append(Grid(file.crs, file.transform, file.height, file.width, path))
    grid = min(grids, key=lambda grid: abs(grid.transform.determinant))
    even = [side - side % CLEAR_PATCH for side in (grid.height, grid.width)]
    return replace(grid, height=even[0], width=even[1])


def _open(path: Path) -> Any:
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise DataError(f"{path}: not a readable raster: {error}; download it again or leave its date out") from error


def read_raster(path: Path, *, around: Grid | None = None) -> tuple[NDArray[Any], Any, Any, float | None]:
    """Values (H, W), CRS, transform and nodata of a one-band raster; `around` a grid, what it needs to be filled."""
    with _open(path) as file:
        if file.count != 1:
            raise DataError(f"{path}: {file.count} bands in one file; expected a file for each band")
        try:
            window = None if around is None else _window_around(file, around)
            transform = file.transform if window is None else file.window_transform(window)
            return file.read(1, window=window), file.crs, transform, file.nodata
        except RasterioError as error:
            raise DataError(f"{path}: damaged: {error}; download it again or leave its date out") from error


def _window_around(file: Any, grid: Grid) -> Window | None:
    """The pixels of a file that a grid is filled from, with neighbours for interpolation; None: all of them."""
    if file.crs != grid.crs:
        return None
    onto = ~file.transform @ grid.transform
    corners = [onto @ (col, row) for col in (0, grid.width) for row in (0, grid.height)]
    left, right = min(col for col, _ in corners), max(col for col, _ in corners)
    top, bottom = min(row for _, row in corners), max(row for _, row in corners)
    same = np.allclose([onto.a, onto.b, onto.d, onto.e], [1, 0, 0, 1], atol=1e-9, rtol=0)
    aligned = same and max(abs(left - round(left)), abs(top - round(top))) < ALIGNED
    if aligned:
        edges = [round(value) for value in (top, bottom, left, right)]
    else:
        edges = [math.floor(top) - MARGIN, math.ceil(bottom) + MARGIN, math.floor(left) - MARGIN]
        edges.append(math.ceil(right) + MARGIN)
    row0, row1 = (min(max(edge, 0), file.height) for edge in edges[:2])
    col0, col1 = (min(max(edge, 0), file.width) for edge in edges[2:])
    if row0 >= row1 or col0 >= col1:
        # Beside the grid: fitted as it is, it fills nothing.
        return Window(0, 0, 1, 1)
    return Window(col0, row0, col1 - col0, row1 - row0)


def fit_to_grid(
    values: NDArray[Any], crs: Any, transform: Any, grid: Grid, *, nearest: bool, fill: int
) -> NDArray[Any]:
    """Values on the grid; `fill` where there are none. A bilinear value leaves out neighbours that are `fill`."""
    covers = values.shape[0] >= grid.height and values.shape[1] >= grid.width
    if crs == grid.crs and covers and transform.almost_equals(grid.transform, precision=1e-6):
        return values[: grid.height, : grid.width]
    fitted = np.full((grid.height, grid.width), fill, values.dtype)
    reproject(
        values,
        fitted,
        src_crs=crs,
        src_transform=transform,
        src_nodata=fill,
        dst_crs=grid.crs,
        dst_transform=grid.transform,
        dst_nodata=fill,
        resampling=Resampling.nearest if nearest else Resampling.bilinear,
    )
    return fitted


def _read_band(path: Path, grid: Grid, counts: Counter[str] | None = None) -> NDArray[np.int16]:
    """A band on the grid, int16 reflectance x 10,000, nodata 0. `counts` gathers what was done to the values."""
    values, crs, transform, nodata = read_raster(path, around=grid)
    if crs != grid.crs:
        raise DataError(
            f"{path}: its CRS is {crs.to_string() if crs else 'missing'}, that of {grid.file} is "
            f"{grid.crs.to_string()}; all dates must share one CRS, reproject this one (gdalwarp -t_srs)"
        )
    counts = Counter() if counts is None else counts
    if nodata is not None and nodata != 0:
        values = np.where(values == nodata, values.dtype.type(0), values)
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, values.dtype.type(0))
        if _holds_fractions(path):
            values = values * 10_000
            counts["reflectance"] += 1
        values = np.rint(values)
    limits = np.iinfo(np.int16)
    counts["clipped"] += int(((values < limits.min) | (values > limits.max)).sum())
    fitted: NDArray[np.int16] = fit_to_grid(
        np.clip(values, limits.min, limits.max).astype(np.int16), crs, transform, grid, nearest=False, fill=0
    )
    return fitted


@functools.lru_cache(maxsize=4096)
def _holds_fractions(path: Path) -> bool:
    """Whether a float raster holds reflectance as fractions of 1; told by all of it, whatever part is read."""
    with _open(path) as file:
        step = max(1, math.isqrt(file.height * file.width // SAMPLE))
        try:
            values = file.read(1, out_shape=(max(1, file.height // step), max(1, file.width // step)))
        except RasterioError as error:
            raise DataError(f"{path}: damaged: {error}; download it again or leave its date out") from error
        measured = values[np.isfinite(values) & (values != 0) & (values != file.nodata)]
    # A quantile, not the maximum: a few glints are brighter than any reflecting surface.
    return bool(measured.size and np.quantile(measured, 0.99) <= 2)


def read_scl(path: Path, grid: Grid) -> NDArray[np.uint8]:
    """Clear patches (H/2, W/2) of a grid by a file of the scene classification."""
    values, crs, transform, _ = read_raster(path, around=grid)
    if values.dtype != np.uint8 and (values.min() < 0 or values.max() > 255):
        raise DataError(f"{path}: SCL values from {values.min()} to {values.max()}; expected classes 0..11")
    return clear_from_scl(fit_to_grid(values.astype(np.uint8), crs or grid.crs, transform, grid, nearest=True, fill=0))


def choose_dates(
    acquisitions: list[Acquisition],
    bands: tuple[str, ...],
    grid: Grid,
    limit: int,
    source: Path,
    notes: list[str],
    *,
    keep_clear: bool = True,
) -> tuple[list[Acquisition], NDArray[np.uint8]]:
    """Dates to read, empty ones dropped and long series thinned, and their clear patches (T, H/2, W/2).

    The best date of a run shows most of the scene: a pixel without data or under cloud does not count, so that a
    clear corner of a swath is no better than a whole scene. Without SCL, every measured patch
    counts as clear. Clear patches of a large scene fill memory; without `keep_clear` they come back empty.
    """
    kept, shares, clear = [], [], []
    for acquisition in acquisitions:
        seen = _seen(acquisition, bands, grid)
        if not seen.any():
            notes.append(f"{acquisition.name} ({acquisition.date}) is 0 (nodata) everywhere and was dropped")
            continue
        patches = seen.reshape(grid.height // CLEAR_PATCH, CLEAR_PATCH, -1, CLEAR_PATCH).all(axis=(1, 3))
        if SCL in acquisition.files:
            patches &= read_scl(acquisition.files[SCL], grid).astype(bool)
        clear.append(np.asarray(patches if keep_clear else np.empty((0, 0)), np.uint8))
        kept.append(acquisition)
        shares.append(patches.mean())
    if len(kept) < 2:
        raise DataError(
            f"{source}: {len(kept)} of {len(acquisitions)} dates has a measured pixel on the grid of {grid.file}; "
            f"a time series needs at least 2, add acquisitions"
        )
    chosen = thin_dates(np.array(shares), limit)
    if len(chosen) < len(kept):
        notes.append(
            f"{len(kept)} dates were thinned to {len(chosen)}: the one of each of {len(chosen)} runs that shows most"
        )
    return [kept[position] for position in chosen], np.stack(clear)[chosen]


def _seen(acquisition: Acquisition, bands: tuple[str, ...], grid: Grid) -> NDArray[np.bool_]:
    """Pixels measured (H, W), by the first band that has any: reading all of them here would double the time."""
    for band in bands:
        seen: NDArray[np.bool_] = _read_band(acquisition.files[band], grid) != 0
        if seen.any():
            break
    return seen


def read_images(
    acquisitions: list[Acquisition], bands: tuple[str, ...], grid: Grid, notes: list[str]
) -> NDArray[np.int16]:
    """int16 (T, C, H, W), one file in memory at a time."""
    counts: Counter[str] = Counter()
    pixels = np.empty((len(acquisitions), len(bands), grid.height, grid.width), np.int16)
    for image, acquisition in zip(pixels, acquisitions, strict=True):
        for plane, band in zip(image, bands, strict=True):
            plane[:] = _read_band(acquisition.files[band], grid, counts)
    if counts["reflectance"]:
        notes.append(f"{counts['reflectance']} rasters hold reflectance as fractions and were multiplied by 10,000")
    if counts["clipped"]:
        notes.append(f"{counts['clipped']} pixels are outside -32768..32767 and were clipped")
    return pixels
