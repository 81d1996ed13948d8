"""What a `stac:` source says: a catalogue's address, and in its query what is asked of it.

    stac:https://earth-search.aws.element84.com/v1?collection=sentinel-2-l2a&bbox=2.9,50.8,3.1,51.0&cloud=60
        &labels=s3://bucket/labels/parcels-{year}.gpkg&labels=s3://bucket/labels/legend.csv

No part of the library that reads images is imported here, so that an address can be checked anywhere.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, urlsplit

from exact_core.data.stac import MOST_WORKERS, WORKERS
from exact_core.errors import ConfigError

__all__ = [
    "KEYS",
    "StacAddress",
    "area_names",
    "check_address",
    "check_stored",
    "parse_address",
    "parse_labels",
    "split_query",
    "stored_names",
]

KEYS = {
    "collection": "the collection of an API",
    "bbox": "the area, WEST,SOUTH,EAST,NORTH in degrees",
    "area": "the area as GeoJSON: a path, s3:// or https://",
    "bands": "bands to read, besides SCL; default: those of data.season.bands",
    "cloud": "percent of clouds that an image may have",
    "start": "first day; default: the season's",
    "end": "last day; default: the season's",
    "cell": "side in metres of the cells that a large area is cut into",
    "crs": "CRS of the images to read, as EPSG:32631; default: by the area",
    "missing": "images that may fail and are then left out; default 0; of each cell, where there are cells",
    "workers": f"files read at once, 1 to {MOST_WORKERS}; default {WORKERS}",
    "skip": "an image to leave out; may be repeated",
    "labels": "labels by path, s3:// or https://; may be repeated, {year} stands for the season's",
    "sign": "address that gives SAS tokens, as .../api/sas/v1/token; the Planetary Computer's is known",
    "token_host": "a host beside the API's that gets EXACT_STAC_TOKEN; may be repeated",
}
"""What the query may hold."""
REPEATED = ("skip", "labels", "token_host")


@dataclass(frozen=True)
class StacAddress:
    """A parsed address."""

    url: str
    """Address of the API or static catalogue, without the query."""
    collection: str = ""
    bbox: tuple[float, ...] | None = None
    """West, south, east, north, degrees."""
    area: str = ""
    bands: tuple[str, ...] = ()
    """Empty: those of the configuration."""
    cloud: float | None = None
    """Percent."""
    start: dt.date | None = None
    end: dt.date | None = None
    cell: int | None = None
    """Metres."""
    crs: str | None = None
    missing: int = 0
    """Images."""
    workers: int = WORKERS
    """Files read at once."""
    skip: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    sign: str = ""
    token_host: tuple[str, ...] = ()


def split_query(place: str) -> tuple[str, dict[str, list[str]]]:
    """An address without its query, and what that holds.

    Raises:
        ConfigError: a part without a value, or one given twice that may be there once.
    """
    address, mark, query = place.partition("?")
    given: dict[str, list[str]] = {}
    try:
        # A plus is itself, as in paths of a store.
        pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=bool(mark))
    except ValueError as error:
        raise ConfigError(f"{place!r}: {error}. Write the query as name=value&name=value") from error
    for name, value in pairs:
        if not value:
            raise ConfigError(f"{place!r}: {name} is empty. Give it a value, or leave it out")
        given.setdefault(name, []).append(value)
        if name not in REPEATED and len(given[name]) > 1:
            raise ConfigError(f"{place!r}: {name} is there twice. Give it once")
    return address, given


def refuse_unknown(place: str, given: dict[str, list[str]], known: tuple[str, ...]) -> None:
    """Refuse what the query of an address does not know.

    Raises:
        ConfigError: names the part, and what there is.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f". Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{place!r}: unknown {name!r} in the query{meant}. The keys are {', '.join(known)}")


def check_address(place: str) -> None:
    """Accept the address of a `stac:` source.

    Raises:
        ConfigError: see `parse_address`.
    """
    parse_address(place)


def check_stored(place: str) -> None:
    """Accept the address of a `season:` source: a path, or an address in a store.

    Raises:
        ConfigError: an address of another kind, or with another query than `labels`.
    """
    scheme, mark, rest = place.partition("://")
    if not mark:
        return
    if scheme not in ("s3", "file") or not rest.strip("/"):
        raise ConfigError(f"{place!r}: cannot be read, expected a path, s3://BUCKET/PREFIX or file:///FOLDER")
    parse_labels(place)


def area_names(place: str) -> list[str]:
    """What the area of a `stac:` source is called: its box, or the name of its file."""
    asked = parse_address(place)
    if asked.bbox is not None:
        return ["bbox_" + "_".join(f"{edge:g}" for edge in asked.bbox)]
    return [PurePosixPath(asked.area.partition("?")[0]).stem]


def stored_names(place: str) -> list[str]:
    """The names of a path in a store, the nearest first; none of a published folder, which is named by its digest."""
    address = parse_labels(place)[0].rstrip("/")
    if address.endswith(".json"):
        return []
    return [name for name in reversed(address.partition("://")[2].split("/")) if name]


def parse_labels(place: str) -> tuple[str, tuple[str, ...]]:
    """The address of a season in a store without its query, and the addresses of labels in the query.

    Raises:
        ConfigError: another query than `labels`.
    """
    address, given = split_query(place)
    refuse_unknown(place, given, ("labels",))
    return address, tuple(given.get("labels", ()))


def parse_address(place: str) -> StacAddress:
    """The content of the address of a `stac:` source.

    Raises:
        ConfigError: no web address, no area, or a value of another form. The message names it and what is expected.
    """
    # A path on the command line loses the second slash.
    place = re.sub(r"^(https?):/+", r"\1://", place)
    url, given = split_query(place)
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or parts.username is not None:
        raise ConfigError(
            f"{url!r}: not the address of a STAC API or catalogue, expected http(s)://HOST/..., without a login"
        )
    refuse_unknown(place, given, tuple(KEYS))
    one = {name: values[0] for name, values in given.items()}
    if ("bbox" in one) == ("area" in one):
        raise ConfigError(f"{place!r}: give the area, by one of bbox=WEST,SOUTH,EAST,NORTH and area=FILE.geojson")
    box = None
    if "bbox" in one:
        box = tuple(_number(place, "bbox", part, "WEST,SOUTH,EAST,NORTH in degrees") for part in one["bbox"].split(","))
        if len(box) != 4 or not (-180 <= box[0] < box[2] <= 180 and -90 <= box[1] < box[3] <= 90):
            raise ConfigError(
                f"{place!r}: bbox = {one['bbox']!r}: expected WEST,SOUTH,EAST,NORTH in degrees, west < east and "
                f"south < north"
            )
    bands = tuple(name.strip() for name in one.get("bands", "").split(",") if name.strip() not in ("", "SCL"))
    if len(set(bands)) < len(bands) or ("bands" in one and not bands):
        raise ConfigError(f"{place!r}: bands = {one['bands']!r}: expected names, each once, as B02,B03,B04,B08")
    cloud = _number(place, "cloud", one["cloud"], "percent") if "cloud" in one else None
    if cloud is not None and not 0 <= cloud <= 100:
        raise ConfigError(f"{place!r}: cloud = {one['cloud']!r}: expected percent, 0 to 100")
    start, end = (_date(place, name, one[name]) if name in one else None for name in ("start", "end"))
    if (start is None) != (end is None) or (start and end and end < start):
        raise ConfigError(f"{place!r}: give both start and end, or neither. Start is not after end")
    return StacAddress(
        url=url,
        collection=one.get("collection", ""),
        bbox=box,
        area=one.get("area", ""),
        bands=bands,
        cloud=cloud,
        start=start,
        end=end,
        cell=_whole(place, "cell", one["cell"]) if "cell" in one else None,
        crs=one.get("crs"),
        missing=_whole(place, "missing", one.get("missing", "0")),
        workers=_workers(place, one.get("workers", str(WORKERS))),
        skip=tuple(given.get("skip", ())),
        labels=tuple(given.get("labels", ())),
        sign=one.get("sign", ""),
        token_host=tuple(given.get("token_host", ())),
    )


def _number(place: str, name: str, text: str, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{place!r}: {name}: {text!r} is no number, expected {expected}")
    return number


def _whole(place: str, name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ConfigError(f"{place!r}: {name} = {text!r}: expected a whole number")
    return int(text)


def _workers(place: str, text: str) -> int:
    count = _whole(place, "workers", text)
    if not 1 <= count <= MOST_WORKERS:
        raise ConfigError(f"{place!r}: workers = {text!r}: expected files read at once, 1 to {MOST_WORKERS}")
    return count


def _date(place: str, name: str, text: str) -> dt.date:
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise ConfigError(f"{place!r}: {name} = {text!r}: expected a day, YYYY-MM-DD") from error
