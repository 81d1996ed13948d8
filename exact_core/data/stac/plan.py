"""Which images of a search are read, and on which pixels: nothing of an image is read here but, at most, its head."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import shapely

from exact_core.data.season.radiometry import TEST_BASELINES
from exact_core.data.stac import WORKERS
from exact_core.data.stac.grid import Bounds, bounds_in, choose_crs, crop, projected
from exact_core.data.stac.items import RemoteItem, finite_number, parse_item
from exact_core.data.stac.search import Wanted
from exact_core.data.stac.web import Web
from exact_core.data.stac.window_copy import Place, place_of
from exact_core.errors import DataError, ExactError, ServiceError

__all__ = ["NothingFoundError", "Plan", "make_plan"]

SHOWN = 5
"""Number of broken items named in a message."""
SAME = 0.98
"""Common share from which two footprints count as the same, because processings draw them differently."""
LITTLE = 2.0
"""Percent of a tile without data by which two processings of one image may differ."""
OVERPASS = dt.timedelta(minutes=20)
"""Between two images of one overpass at most. The next orbit is 100 minutes later."""
_STRIP = re.compile(r"_S(\d{8}T\d{6})_")
"""Where the datastrip of a product begins, in its identity."""


class NothingFoundError(DataError):
    """No image of the collection is over the area in these days."""


@dataclass(frozen=True)
class Plan:
    """What is read: the images by date, their common CRS, the bounds of the window in it.

    missing: identities of images that cannot be read and are left out, and why.
    """

    crs: str
    bounds: Bounds
    items: tuple[RemoteItem, ...]
    notes: tuple[str, ...]
    missing: Mapping[str, ExactError]


def make_plan(
    web: Web,
    found: Iterable[tuple[dict[str, Any], str]],
    wanted: Wanted,
    *,
    bands: tuple[str, ...],
    crs: str | None = None,
    bounds: Bounds | None = None,
    skip: frozenset[str] = frozenset(),
    missing: int = 0,
    workers: int = WORKERS,
) -> Plan:
    """Choose images and window.

    Args:
        web: requests the heads of files whose items do not state their position.
        found: items as they came, with what their links are relative to.
        wanted: area, days and clouds.
        bands: to be read.
        crs: If None, that of the images that cover most of the area.
        bounds: in this CRS. If None, those of the area.
        skip: identities of items to leave out.
        missing: images that may be broken, and are then left out.
        workers: files asked for at once.

    Raises:
        NothingFoundError: no image. DataError: invalid items.
    """
    notes: list[str] = []
    broken: dict[str, ExactError] = {}
    items = _choose(web, found, wanted, bands, skip, notes, broken)
    if len(broken) > missing:
        raise _of_many(list(broken.values()))
    if not items:
        raise NothingFoundError(
            f"no image over the area from {wanted.start} to {wanted.end}"
            + (f" with at most {wanted.max_cloud:g} % clouds" if wanted.max_cloud is not None else "")
            + f". Check area, dates and collection{''.join('; ' + note for note in notes)}"
        )
    items = _with_files(web, items, notes)
    with ThreadPoolExecutor(workers) as pool:
        found_places = zip(items, pool.map(lambda item: _place(web, item), items), strict=True)
        places: dict[str, Place] = {}
        for item, place in found_places:
            if isinstance(place, Place):
                places[item.id] = place
            else:
                broken[item.id] = place
    if len(broken) > missing:
        raise next(iter(broken.values()))
    items = [item for item in items if item.id in places]
    if crs is None:
        crs, note = choose_crs([(item, places[item.id].crs) for item in items], wanted.geometry)
        notes += [note] if note else []
    items = [item for item in items if places[item.id].crs == crs]
    projected(crs, items[0].id if items else "--crs")
    window = bounds_in(wanted.geometry, crs) if bounds is None else bounds
    items = [item for item in items if not _is_empty(crop(window, [places[item.id].extent]))]
    if not items:
        raise NothingFoundError(f"no image in {crs} over the area from {wanted.start} to {wanted.end}. Check --crs")
    window = crop(window, [places[item.id].extent for item in items])
    items = _once(
        items, {name: _covers(place.extent, window) for name, place in places.items()}, wanted.geometry, notes
    )
    return Plan(crs, window, tuple(sorted(items, key=lambda item: (item.moment, item.id))), tuple(notes), broken)


def _choose(
    web: Web,
    found: Iterable[tuple[dict[str, Any], str]],
    wanted: Wanted,
    bands: tuple[str, ...],
    skip: frozenset[str],
    notes: list[str],
    broken: dict[str, ExactError],
) -> list[RemoteItem]:
    """Items that match the request, because some servers ignore parts of it. broken: gets invalid ones."""
    items: dict[str, RemoteItem] = {}
    cloudy = 0
    for raw, base in found:
        if isinstance(raw, dict) and str(raw.get("id")) in skip:
            continue
        try:
            item = parse_item(raw, base=base, bands=bands)
            _check_addresses(web, item)
        except DataError as error:
            broken[_named(raw) or f"item {len(broken) + 1} without an id"] = error
            continue
        if not (
            wanted.start <= item.moment.astimezone(dt.UTC).date() <= wanted.end
            and shapely.intersects(item.geometry, wanted.geometry)
        ):
            continue
        if wanted.max_cloud is not None and item.cloud is not None and item.cloud > wanted.max_cloud:
            cloudy += 1
            continue
        items[item.id] = item
    if cloudy:
        notes.append(f"{cloudy} images with more than {wanted.max_cloud:g} % clouds were left out")
    return list(items.values())


def _check_addresses(web: Web, item: RemoteItem) -> None:
    for asset in item.assets.values():
        if asset.href.startswith("s3://") and not web.reads_stores:
            raise DataError(
                f"item {item.id}, asset {asset.key}: {asset.href} is not on a web server (http, https), and nothing "
                f"here signs its address"
            )


def _named(raw: Any) -> str:
    name = raw.get("id") if isinstance(raw, dict) else None
    return name if isinstance(name, str) else ""


def _of_many(broken: list[ExactError]) -> DataError:
    more = f"\n... and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    return DataError("\n".join(map(str, broken[:SHOWN])) + more)


def _place(web: Web, item: RemoteItem) -> Place | ExactError:
    """CRS and extent of an image, by what the item says or by the head of one of its files, or why there is none."""
    if item.crs is not None and item.extent is not None:
        return Place(item.crs, item.extent)
    first = next(iter(item.assets.values()))
    try:
        return place_of(web, first, where=f"item {item.id}, asset {first.key}")
    except (DataError, ServiceError) as error:
        return error


def _once(
    items: list[RemoteItem], whole: dict[str, bool], area: shapely.Geometry, notes: list[str]
) -> list[RemoteItem]:
    """Each look once: tiles overlap, and what was processed anew stays beside what it replaces.

    Of one tile and time, the newest processing, and what an older one shows beside it: a tile may come in parts. Of the
    tiles of one overpass, which are cut from one image, the first that shows all of the window that they show together,
    if one does. Otherwise all of them.
    """
    newest = [item for group in _twins(items) for item in _newest(group)]
    if len(newest) < len(items):
        notes.append(
            f"{len(items) - len(newest)} images were left out for others of their tile and time, processed later"
        )
    kept = []
    for looks in _overpasses(newest):
        tiles = sorted({item.tile for item in looks if whole[item.id] and item.tile})
        seen = _seen(looks, area)
        full = [tile for tile in tiles if _seen([each for each in looks if each.tile == tile], area) >= SAME * seen]
        kept += [item for item in looks if not full or item.tile in ("", full[0])]
    if len(kept) < len(newest):
        notes.append(f"{len(newest) - len(kept)} images were left out for others of that day that show all of the area")
    return kept


def _twins(items: list[RemoteItem]) -> list[list[RemoteItem]]:
    """Images by tile and time."""
    groups: dict[tuple[str, str], list[RemoteItem]] = defaultdict(list)
    for item in items:
        groups[item.tile or item.id, item.moment.isoformat()].append(item)
    return list(groups.values())


def _with_files(web: Web, items: list[RemoteItem], notes: list[str]) -> list[RemoteItem]:
    """Without those whose files are not on the server, if another image of their tile and time is."""
    kept = []
    for group in _twins(items):
        missing = {item.id: _missing(web, item) for item in group} if len(group) > 1 else {}
        whole = [item for item in group if not missing.get(item.id)]
        # Where all are broken, reading one says what is wrong.
        kept += whole or group
        if whole:
            notes += [
                f"{name}: its file of {band} is not available, so another image of its tile and time was taken"
                for name, band in missing.items()
                if band
            ]
    return kept


def _newest(group: list[RemoteItem]) -> list[RemoteItem]:
    """Of images of one tile and time, the latest processed, and those that are no earlier version of it."""
    kept: list[RemoteItem] = []
    for item in sorted(group, key=_age, reverse=True):
        if not any(_replaces(other, item) for other in kept):
            kept.append(item)
    return kept


def _replaces(newer: RemoteItem, older: RemoteItem) -> bool:
    """Whether an image covers all of an older one of its tile and time, so that it replaces it.

    Parts of a tile have datastrips that begin at different times, or footprints beside each other, or, where footprints
    are the whole tile's, shares without data that complete each other.
    """
    strips = [_STRIP.search(str(each.raw["properties"].get("s2:datastrip_id"))) for each in (newer, older)]
    if strips[0] and strips[1] and strips[0][1] != strips[1][1]:
        return False
    empty = [finite_number(each.raw["properties"].get("s2:nodata_pixel_percentage")) for each in (newer, older)]
    if empty[0] is not None and empty[1] is not None:
        complete = abs(empty[0] + empty[1] - 100) < LITTLE and min(empty[0], empty[1]) > LITTLE
        if complete or empty[0] > empty[1] + LITTLE:
            return False
    beside = shapely.difference(older.geometry, newer.geometry).area
    return bool(beside <= (1 - SAME) * older.geometry.area)


def _missing(web: Web, item: RemoteItem) -> str:
    """The first band whose file is not on the server. Empty if all are there."""
    for band, asset in item.assets.items():
        try:
            web.head(asset.href, where=f"item {item.id}, asset {asset.key}")
        except DataError:
            return band
    return ""


def _overpasses(items: list[RemoteItem]) -> list[list[RemoteItem]]:
    """Images by platform and overpass: those of the next orbit, on the same day, are another look."""
    passes: dict[str, list[list[RemoteItem]]] = defaultdict(list)
    for item in sorted(items, key=lambda each: (each.moment, each.id)):
        known = passes[str(item.raw["properties"].get("platform"))]
        if not known or item.moment - known[-1][-1].moment > OVERPASS:
            known.append([])
        known[-1].append(item)
    return [looks for known in passes.values() for looks in known]


def _seen(items: list[RemoteItem], area: shapely.Geometry) -> float:
    """How much of an area images show together, in square degrees."""
    return float(shapely.intersection(shapely.union_all([item.geometry for item in items]), area).area)


def _age(item: RemoteItem) -> tuple[bool, float, str, str]:
    """Later processing is higher. Baselines that mark a test come first."""
    match = re.match(r"\d+(\.\d+)?", item.baseline)
    baseline = float(match[0]) if match else -1.0
    return baseline < TEST_BASELINES, baseline, item.updated, item.id


def _covers(extent: Bounds, window: Bounds) -> bool:
    return extent[0] <= window[0] and extent[1] <= window[1] and extent[2] >= window[2] and extent[3] >= window[3]


def _is_empty(bounds: Bounds) -> bool:
    return bounds[0] >= bounds[2] or bounds[1] >= bounds[3]
