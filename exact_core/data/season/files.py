"""The acquisitions of a season on disk: which files they are, and what their metadata state.

    a STAC catalogue    collection.json or catalog.json. Items with an asset a band, by asset key or band name
    a folder a date     S2_xxx_20180401/B02.tif
    flat files          S2_20180401_B02.tif, S2_2018-04-01_B8A_20m.tif
    .zip archives       of any of these, as S2A_MSIL2A_20180401T….SAFE.zip. Not unpacked

In the order of use: `find_acquisitions`, `clip_to_season`, `check_files`. Then `exact_core.data.season.images`.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, urlparse

import pystac

from exact_core.config import SeasonConfig
from exact_core.data.season.archives import list_archive
from exact_core.data.season.radiometry import NOTHING_STATED, Stated, stated_offset
from exact_core.data.season.rasters import RASTERS
from exact_core.data.windows.dates import MIN_DATES
from exact_core.errors import DataError
from exact_core.files import files_below

__all__ = [
    "CLOUD_MASKS",
    "COMMON_NAMES",
    "SCL",
    "Acquisition",
    "asset_bands",
    "band_of",
    "check_files",
    "clip_to_season",
    "cloud_mask",
    "find_acquisitions",
]

SCL = "SCL"
CLOUD_MASKS = (SCL, "CLM", "MG2", "FMASK")
"""Masks of clouds by the names that they have here. The first that an acquisition has is read."""
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")
_RESOLUTION = re.compile(r"[_-](\d+)m$", re.IGNORECASE)
_DECORATION = re.compile(r"(_V\d+|_(19|20)\d\d-?\d\d-?\d\d)$")
_DAY_OF_YEAR = re.compile(r"(?<!\d)((?:19|20)\d\d)([0-3]\d\d)T\d{6}")
_LANDSAT = re.compile(r"HLS\.L30\.")
_SURFACE = re.compile(r"_SRE_(?=B)")
_CLOUD_MASK = re.compile(r"(?:^|_)(CLM|MG2)(?:_R([12]))?$|(?:^|\.)(Fmask|FMASK)$")
_THEIA_METRES = {None: 0, "1": 10, "2": 20}
_SENTINEL_BAND = re.compile(r"B(0[1-9]|8A|1[0-2])|SCL", re.IGNORECASE)


COMMON_NAMES = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "swir16": "B11",
    "swir22": "B12",
    "scl": "SCL",
}
"""Keys of assets in catalogues that name bands by colour (Earth Search, v1)."""
FINEST = 10
"""Metres of the finest pixels of Sentinel-2."""


@dataclass(frozen=True)
class Acquisition:
    """One date.

    name: in messages. files: one per band. stated: scale and offset by the metadata. offset: subtracted from
    reflectance x 10,000. factor: reflectance x 10,000 of a stored 1. If None, the data type decides. others: further
    acquisitions of the same day, whose pixels are used where this one has no clear ones. lacking: bands without data
    where others have some.
    """

    name: str
    date: dt.date
    files: dict[str, Path]
    stated: Stated = NOTHING_STATED
    offset: int = 0
    factor: float | None = None
    others: tuple[Acquisition, ...] = ()
    lacking: tuple[str, ...] = ()


def find_acquisitions(source: Path, bands: tuple[str, ...]) -> tuple[str, list[Acquisition]]:
    """Name of the scene and its acquisitions in the order of the calendar. A day may have several."""
    if not source.exists():
        raise DataError(f"{source}: no such folder. Give the folder of a season")
    catalogues = [source] if source.is_file() else [source / name for name in ("collection.json", "catalog.json")]
    catalogue = next((path for path in catalogues if path.is_file()), None)
    if catalogue is None and (source / "fetched.json").exists():
        raise DataError(f"{source}: a fetch that has not come to its end. Repeat `exact fetch`: it goes on from here")
    if catalogue is None and (source / "cells.json").exists():
        raise DataError(f"{source}: a folder of cells. Name one of them, which {source / 'cells.json'} lists")
    if catalogue is None:
        name, found = "scene", _from_files(source, bands)
    else:
        name, found = _from_stac(catalogue, bands)
    if not found:
        raise DataError(
            f"{catalogue or source}: no acquisition with bands, expected a STAC collection.json, folders such as "
            f"S2_20180401/B02.tif, files such as S2_20180401_B02.tif, or .zip archives of them"
        )
    found.sort(key=lambda acquisition: (acquisition.date, acquisition.name))
    return name, found


def _from_stac(path: Path, bands: tuple[str, ...]) -> tuple[str, list[Acquisition]]:
    try:
        catalogue = pystac.read_file(str(path.resolve()))
        if not isinstance(catalogue, pystac.Catalog):
            raise DataError(f"{path}: a STAC {type(catalogue).__name__}, expected a Collection or Catalog")
        items = list(catalogue.get_items(recursive=True))
    except (
        pystac.errors.STACError,
        pystac.errors.STACTypeError,
        AttributeError,
        LookupError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(
            f"{path}: not a readable STAC catalogue: {error}. Repair it or the item it names, or remove it to use "
            f"the dates in the names of the files"
        ) from error
    return catalogue.id.replace("/", "-"), [_from_item(item, path, bands) for item in items]


def _from_item(item: pystac.Item, catalogue: Path, bands: tuple[str, ...]) -> Acquisition:
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise DataError(f"{catalogue}: item {item.id} has no datetime. Every item needs one")
    files: list[tuple[str, int, Path]] = []
    described: list[Mapping[str, Any]] = []
    for key, asset in item.assets.items():
        if matches := asset_bands(key, asset.extra_fields, bands):
            files.append((*matches[0], _local(asset, item.id, catalogue)))
            if matches[0][0] in bands:
                described += _described_bands(asset, item.properties)
    where, name = f"{catalogue}, item {item.id}", str(item.id)
    stated = stated_offset(item.properties, described, [name], where=where)
    return Acquisition(name=name, date=moment.date(), files=_finest(files, where), stated=stated)


def asset_bands(key: str, fields: Mapping[str, Any], bands: tuple[str, ...]) -> list[tuple[str, int]]:
    """What an asset's key and its band's name, in this order, say by `band_of`, and else by COMMON_NAMES.

    Metres are those of the name, or else of what the asset says of its pixels, or FINEST. An asset of several bands is
    none.
    """
    listed = fields.get("bands") or fields.get("eo:bands") or []
    named = [band for band in (listed if isinstance(listed, list) else []) if isinstance(band, dict)]
    own = [key, *(str(band.get("name")) for band in named)]
    if len(own) > 2:
        return []
    found = [match for match in (band_of(text, bands) for text in own) if match]
    found = found or [match for match in map(_common_band, own) if match]
    stated = _without_resolution(key)[1] or _pixel_of(fields) or FINEST
    return [(band, metres or stated) for band, metres in found]


def _common_band(text: str) -> tuple[str, int] | None:
    """(band, metres in the name or 0) of a common name: blue, nir08_60m."""
    rest, metres = _without_resolution(text)
    band = COMMON_NAMES.get(rest.lower())
    return (band, metres) if band else None


def _pixel_of(fields: Mapping[str, Any]) -> int:
    """Metres of an asset's pixels by projection, raster or item assets' fields. 0 where none says so."""
    described = fields.get("raster:bands") or fields.get("bands") or []
    first = described[0] if isinstance(described, list) and described and isinstance(described[0], dict) else {}
    transform = fields.get("proj:transform")
    candidates = [
        transform[0] if isinstance(transform, list) and transform else None,
        *(each.get(name) for each in (fields, first) for name in ("raster:spatial_resolution", "spatial_resolution")),
        *(each.get("gsd") for each in (fields, first)),
    ]
    # A ground sampling distance is often the sensor's, whatever the pixels of the file: it comes last.
    numbers = (each for each in candidates if isinstance(each, (int, float)) and not isinstance(each, bool))
    return next((round(number) for number in numbers if 1 <= number < 10_000), 0)


def _described_bands(asset: pystac.Asset, properties: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is said of an asset's bands, the more particular first: by STAC 1.1 a field stands for all below it."""
    fields = asset.extra_fields
    above = {
        name: each[name]
        for each in (properties, fields)
        for name in ("raster:scale", "raster:offset")
        if each.get(name) is not None
    }
    listed = [fields.get(name) for name in ("raster:bands", "bands")]
    found = [band for each in listed if isinstance(each, list) for band in each if isinstance(band, dict)]
    return [{**above, **_only_raster(band)} for band in found or [{}]]


def _only_raster(band: Mapping[str, Any]) -> dict[str, Any]:
    """Scale and offset of an entry, by the names of STAC 1.1."""
    pairs = ((name, band.get(f"raster:{name}", band.get(name))) for name in ("scale", "offset"))
    return {f"raster:{name}": value for name, value in pairs if value is not None}


def _local(asset: pystac.Asset, item: str, catalogue: Path) -> Path:
    href = asset.get_absolute_href() or asset.href
    parts = urlparse(href)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in href:
        raise DataError(f"{catalogue}: item {item}: {href} is not on this disk. Download the assets first")
    return Path(href)


def _from_files(folder: Path, bands: tuple[str, ...]) -> list[Acquisition]:
    """Files whose name ends in a band. The date is in the file's name or in that of a folder above it."""
    groups: dict[tuple[str, dt.date], list[tuple[str, int, Path]]] = {}
    named: dict[Path, str] = {}
    rasters = list(_rasters(folder))
    every = {path for path, _ in rasters}
    for path, inside in rasters:
        match = band_of(path.stem, bands)
        # Quality masks of a product are named by its bands too: MSK_DETFOO_B02.jp2.
        if match is None or inside.parts[0] == "labels" or "QI_DATA" in inside.parts:
            continue
        if _LANDSAT.search(path.name):
            raise DataError(
                f"{path}: Landsat's bands of HLS are not Sentinel-2's of the same number. Take the files HLS.L30 out"
            )
        # Theia delivers reflectance without and with correction for slopes: the corrected one is read.
        if path.with_name(_SURFACE.sub("_FRE_", path.name)) in every and _SURFACE.search(path.name):
            continue
        named[path] = str(inside)
        dated = [part for part in inside.parts[:-1] if _date_of(part)]
        date = next((date for date in map(_date_of, (path.stem, *reversed(dated))) if date), None)
        if date is None:
            raise DataError(
                f"{path}: neither the file's name nor a folder's has a date, expected YYYYMMDD or YYYY-MM-DD in it"
            )
        name = dated[0] if dated else _stem_without_band(path.stem)
        groups.setdefault((name, date), []).append((*match, path))
    return [
        Acquisition(
            name=name,
            date=date,
            files=_finest(files, f"{folder}, {name}"),
            stated=stated_offset({}, [], [named[path] for _, _, path in files]),
        )
        for (name, date), files in groups.items()
    ]


def _rasters(folder: Path) -> Iterator[tuple[Path, PurePath]]:
    """Rasters in a folder and in its archives, with their paths in the folder, unpacked or not.

    An archive whose product is also unpacked beside it is ignored.
    """
    for path in sorted(files_below(folder)):
        inside = path.relative_to(folder)
        if path.suffix.lower() in RASTERS:
            yield path, inside
        if path.suffix.lower() != ".zip" or inside.parts[0] == "labels":
            continue
        for entry in list_archive(path):
            if entry.suffix.lower() not in RASTERS or (path.parent / entry.parts[0]).is_dir():
                continue
            # As unpacked: a product's archive holds its folder; of loose files, the archive's name says the date.
            dated = any(_date_of(part) for part in entry.parts[:-1])
            yield path / entry, inside.parent / entry if dated else inside.parent / path.stem / entry


def _finest(files: Iterable[tuple[str, int, Path]], where: str) -> dict[str, Path]:
    """One file a band: that of the finest resolution in its name."""
    chosen: dict[str, tuple[int, Path]] = {}
    for band, resolution, path in files:
        known = chosen.get(band)
        if known and known[0] == resolution:
            raise DataError(f"{where}: {known[1]} and {path} are both band {band}. Keep one of them")
        if not known or resolution < known[0]:
            chosen[band] = (resolution, path)
    return {band: path for band, (_, path) in chosen.items()}


def band_of(text: str, bands: tuple[str, ...]) -> tuple[str, int] | None:
    """(band, metres in the name or 0) if `text` ends in a band's name: B02, S2_20180401_B8A_20m, TOC-B02_10M_V200.

    A version or a date may follow, as Terrascope and sits have them.
    """
    rest, metres = _without_resolution(_DECORATION.sub("", text))
    for band in bands:
        if rest == band or rest.endswith(("_" + band, "-" + band, "." + band)):
            return band, metres
    # Case counts: "fmask" in lower case is a classification of other numbers in some catalogues.
    if mask := _CLOUD_MASK.search(rest):
        return (mask[1] or "FMASK", metres or _THEIA_METRES[mask[2]])
    last = re.split(r"[_.-]", rest)[-1].upper()
    if last == "SCENECLASSIFICATION":
        return SCL, metres
    # Theia and Earth Engine write B2.
    last = f"B0{last[1]}" if re.fullmatch(r"B[1-9]", last) else last
    return (last, metres) if _SENTINEL_BAND.fullmatch(last) else None


def _without_resolution(text: str) -> tuple[str, int]:
    resolution = _RESOLUTION.search(text)
    return (text[: resolution.start()], int(resolution[1])) if resolution else (text, 0)


def _stem_without_band(stem: str) -> str:
    rest = _RESOLUTION.sub("", _DECORATION.sub("", stem))
    # Theia's masks and bands have names of unequal length.
    rest = re.sub(r"_([FS]RE_B\w+|(CLM|MG2)_R\d)$", "_", rest)
    return re.sub(r"[_.-]?[^_.-]*$", "", rest) or rest


def _date_of(text: str) -> dt.date | None:
    """The first calendar date in a name (in a product's name, that of sensing)."""
    for match in _DATE.finditer(text):
        try:
            return dt.date(int(match[1]), int(match[2]), int(match[3]))
        except ValueError:
            continue
    # HLS counts days of the year.
    counted = _DAY_OF_YEAR.search(text)
    if counted and 1 <= int(counted[2]) <= 365 + calendar.isleap(int(counted[1])):
        return dt.date(int(counted[1]), 1, 1) + dt.timedelta(int(counted[2]) - 1)
    return None


def clip_to_season(
    found: list[Acquisition], settings: SeasonConfig, source: Path, notes: list[str]
) -> tuple[dt.date, int, list[Acquisition]]:
    """First day and length of the season, and the acquisitions in it.

    The default first day is that of the quarter of the year with the first image. So days count from a day of the year
    that does not depend on the date of the first image.
    """
    strange = sorted(set(settings.leave_out) - {acquisition.date for acquisition in found})
    if strange:
        dates = sorted({str(each.date) for each in found}, key=lambda day: _apart(day, strange[0]))
        raise DataError(
            f"{source}: no image of {strange[0]}, which data.season.leave_out names. The nearest dates are "
            f"{', '.join(dates[:3])}"
        )
    if settings.leave_out:
        found = [acquisition for acquisition in found if acquisition.date not in settings.leave_out]
        notes.append(f"left out by data.season.leave_out: {', '.join(map(str, sorted(settings.leave_out)))}")
    if not found:
        raise DataError(f"{source}: data.season.leave_out names all of its dates. Leave fewer out")
    start = settings.start or _quarter(found[0].date)
    last = settings.until or found[-1].date
    days = settings.days or max(1, (last - start).days + 1)
    seen = [acquisition for acquisition in found if acquisition.date <= last]
    kept = [acquisition for acquisition in seen if 0 <= (acquisition.date - start).days < days]
    if len(kept) < MIN_DATES:
        until, later = "", ""
        if settings.until is not None:
            until, later = f" until {settings.until} (data.season.until)", " or a later data.season.until"
        raise DataError(
            f"{source}: {len(kept)} date{'s' * (len(kept) != 1)} in the season of {days} days from {start}{until}, of "
            f"{len(found)} from {found[0].date} to {found[-1].date}. A time series needs at least {MIN_DATES}. Add "
            f"acquisitions, or set data.season.start and data.season.days{later}"
        )
    if len(seen) < len(found):
        notes.append(f"images until {last} are used; {len(found) - len(seen)} later dates were left out")
    if len(kept) < len(seen):
        notes.append(f"{len(seen) - len(kept)} of {len(found)} dates are outside the season and were left out")
    return start, days, kept


def _apart(day: str, other: dt.date) -> int:
    return abs((dt.date.fromisoformat(day) - other).days)


def _quarter(date: dt.date) -> dt.date:
    return date.replace(month=date.month - (date.month - 1) % 3, day=1)


def cloud_mask(files: Mapping[str, Path]) -> tuple[str, Path] | None:
    """Name and file of the mask of clouds that is read, by an acquisition's files."""
    return next(((name, files[name]) for name in CLOUD_MASKS if name in files), None)


def check_files(acquisitions: list[Acquisition], bands: tuple[str, ...]) -> None:
    """Raise DataError unless every date has all bands, and a mask of clouds is there for all dates or for none."""
    for acquisition in acquisitions:
        missing = [band for band in bands if band not in acquisition.files]
        if missing:
            raise DataError(
                f"{acquisition.name} ({acquisition.date}): band {', '.join(missing)} is missing. It has "
                f"{', '.join(sorted(acquisition.files)) or 'none'}. Add the file, or name the bands to use in "
                f"data.season.bands"
            )
    masks = [cloud_mask(acquisition.files) for acquisition in acquisitions]
    if any(masks) and not all(masks):
        first = acquisitions[masks.index(None)]
        name = next(mask[0] for mask in masks if mask)
        raise DataError(
            f"{first.name} ({first.date}): {name} is missing (on {masks.count(None)} of {len(acquisitions)} dates). "
            f"Add it, or leave these dates out: clouds must be known for all dates or for none"
        )
