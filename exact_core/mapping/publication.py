"""Maps under addresses that stay: a STAC catalogue of regions, in it a collection of seasons for each.

    catalog.json                        every region
    REGION/collection.json              its seasons, their extent in space and time
    REGION/SEASON/item.json             a map: what `item.py` wrote of it, with the names that its files have here
    REGION/SEASON/class-1a2b3c4d.tif    its files, named by their content
    REGION/SEASON_until_DAY/            the same of a map within the season

Files that are named by their content are never written over: an item and what it links to always belong together,
whenever they are read. All links are relative, so the whole may be copied or served from anywhere. Which order things
are written in is the business of `exact_core.stages.publish_map`.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pystac
import shapely

from exact_core.data.lonlat import box_of
from exact_core.errors import ConfigError
from exact_core.files import file_facts

__all__ = [
    "CATALOG",
    "COLLECTION",
    "ITEM",
    "catalog_of",
    "check_map_name",
    "collection_of",
    "published_item",
    "season_name",
]

CATALOG, COLLECTION, ITEM = "catalog.json", "collection.json", "item.json"
UNTIL = "_until_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
SHORT = 8
"""Digits of a file's SHA-256 in its name: a season has few files."""


def check_map_name(name: str) -> None:
    """Accept the name of a region in addresses of maps.

    Raises:
        ConfigError: it would not be one name in an address.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"map_name = {name!r}: expected at most 63 letters (a-z, A-Z), digits, dots, - and _, the first a letter "
            f"or digit: it stands in the address of the maps, as in maps/flanders/2026-04-01_2026-10-31/"
        )


def season_name(start: dt.date, days: int, *, until: dt.date | None = None) -> str:
    """A season in addresses of maps: first and last day, as 2026-04-01_2026-10-31.

    Args:
        start: first day.
        days: length.
        until: last day whose images a map within the season uses. The name ends in it, as …_until_2026-06-15.
    """
    return f"{start}_{start + dt.timedelta(days=days - 1)}{f'{UNTIL}{until}' if until else ''}"


def published_item(
    folder: Path, *, region: str, season: str, facts: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Path]]:
    """The item of a finished map as it stands in the catalogue, and its files by the names that they have there.

    Args:
        folder: of the map.
        region: name of its collection.
        season: as `season_name` has it.
        facts: what the item says besides, by property. See docs/data-format.md.
    """
    item = json.loads((folder / ITEM).read_text(encoding="utf-8"))
    whole = file_facts(folder / "map.json")
    item["assets"]["map"] = {
        "href": "./map.json",
        "type": "application/json",
        "title": "Areas of the classes, dates, calibration, notes",
        "roles": ["metadata"],
        "file:size": whole["bytes"],
        "file:checksum": f"1220{whole['sha256']}",
    }
    files = {}
    for asset in item["assets"].values():
        path = folder / asset["href"]
        name = f"{path.stem}-{asset['file:checksum'][4 : 4 + SHORT]}{path.suffix}"
        files[name], asset["href"] = path, f"./{name}"
    item |= {"id": f"{region}-{season}", "collection": region}
    words = season.replace(UNTIL, ", images until ").replace("_", " to ")
    item["properties"] |= {"title": f"Crops of {region}, {words}", **facts}
    item["links"] = [
        _link("root", f"../../{CATALOG}"),
        _link("parent", f"../{COLLECTION}"),
        _link("collection", f"../{COLLECTION}"),
    ]
    return item, files


def collection_of(region: str, items: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The collection of a region's items, which are given by the names of their folders. One at least.

    Its extent is that of them all, then of each, the earliest season first.
    """
    ordered = sorted(items, key=lambda season: (items[season]["properties"]["start_datetime"], season))
    shapes = [shapely.geometry.shape(items[season]["geometry"]) for season in ordered]
    boxes = [[float(edge) for edge in items[season]["bbox"]] for season in ordered]
    times = [
        [pystac.utils.str_to_datetime(items[season]["properties"][key]) for key in ("start_datetime", "end_datetime")]
        for season in ordered
    ]
    whole = [min(first for first, _ in times), max(last for _, last in times)]
    spatial = [box_of(shapely.GeometryCollection(shapes)), *boxes] if len(boxes) > 1 else boxes
    collection = pystac.Collection(
        id=region,
        title=f"Crop maps of {region}",
        description=f"Crop maps of {region}, an item a season: class and confidence of each pixel.",
        extent=pystac.Extent(
            pystac.SpatialExtent(spatial), pystac.TemporalExtent([whole, *times] if len(times) > 1 else [whole])
        ),
    ).to_dict(include_self_link=False)
    links = [_link("item", f"./{season}/{ITEM}", items[season]["properties"]["title"]) for season in ordered]
    collection["links"] = [_link("root", f"../{CATALOG}"), _link("parent", f"../{CATALOG}"), *links]
    return collection


def catalog_of(regions: Iterable[str]) -> dict[str, Any]:
    """The catalogue of all regions that have a collection."""
    catalog = pystac.Catalog(
        id="maps", title="Crop maps", description="Crop maps, a collection a region and an item a season."
    ).to_dict(include_self_link=False)
    children = [_link("child", f"./{name}/{COLLECTION}", f"Crop maps of {name}") for name in sorted(regions)]
    catalog["links"] = [_link("root", f"./{CATALOG}"), *children]
    return catalog


def _link(rel: str, href: str, title: str = "") -> dict[str, str]:
    kind = "application/geo+json" if PurePosixPath(href).name == ITEM else "application/json"
    return {"rel": rel, "href": href, "type": kind, **({"title": title} if title else {})}
