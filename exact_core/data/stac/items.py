"""An item from a server -> the files to read: checked, one file per band, each with its address.

Bands are recognised by the rules of `exact_core.data.season.files`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urljoin, urlsplit

import pystac.utils
import shapely
from rasterio.errors import RasterioError
from rasterio.transform import Affine

from exact_core.data.lonlat import cut_at_180, in_degrees, unwrapped
from exact_core.data.season.files import CLOUD_MASKS, asset_bands
from exact_core.data.season.radiometry import baseline_in
from exact_core.data.stac.web import without_secrets
from exact_core.errors import DataError

__all__ = ["RemoteAsset", "RemoteItem", "finite_number", "parse_item"]

KEPT = ("title", "roles", "gsd", "eo:bands", "bands", "raster:bands", "raster:scale", "raster:offset", "nodata", "unit")
"""Fields of an asset that stay true of a part of it."""


@dataclass(frozen=True)
class RemoteAsset:
    """A file of one band on a server.

    key: in the item. fields: those that stay true of a part of it. shape: rows and columns. transform: as rasterio's.
    crs: as EPSG:N. size: bytes. All None where the item does not say.
    """

    band: str
    key: str
    href: str
    fields: Mapping[str, Any]
    shape: tuple[int, int] | None
    transform: Affine | None
    crs: str | None
    size: int | None


@dataclass(frozen=True)
class RemoteItem:
    """One image. folder: its identity as a folder's name. geometry: longitude and latitude. raw: as it came.

    extent: left, bottom, right, top in the CRS. Both None where the item does not say.
    updated, baseline, tile: empty where the item does not say. cloud: percent or None.
    """

    id: str
    folder: str
    moment: dt.datetime
    geometry: shapely.Geometry
    crs: str | None
    extent: tuple[float, float, float, float] | None
    tile: str
    updated: str
    baseline: str
    cloud: float | None
    assets: Mapping[str, RemoteAsset]
    raw: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the server says of the image, signatures left out: another one means that it changed."""
        said = [self.raw.get("properties"), [[a.key, without_secrets(a.href), a.size] for a in self.assets.values()]]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def parse_item(raw: Any, *, base: str, bands: tuple[str, ...]) -> RemoteItem:
    """An item, checked.

    Args:
        raw: the item's JSON.
        base: what its links are relative to.
        bands: to be read, and beside them a mask of clouds where the item has one.

    Raises:
        DataError: no identity, date or geometry, a band that is missing or there twice, a file on no web server.
    """
    name = raw.get("id") if isinstance(raw, dict) else None
    if not isinstance(name, str) or not name:
        raise DataError(f"{without_secrets(base)}: an item without an id. Report it to the catalogue's operator")
    where = f"{without_secrets(base)}: item {name}"
    properties = raw.get("properties")
    if not isinstance(properties, dict):
        raise DataError(f"{where}: no properties. Report it to the catalogue's operator, or --skip {name}")
    try:
        json.dumps(raw).encode()
    except (RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{where}: cannot be written as JSON: {error}. Leave it out by --skip {name}") from error
    assets = _assets(raw.get("assets"), base=base, where=where, bands=bands)
    extents = [_extent(properties), *(_extent(raw["assets"][asset.key]) for asset in assets.values())]
    crs = _crs(properties) or next((asset.crs for asset in assets.values() if asset.crs), None)
    extent = next((extent for extent in extents if extent), None)
    return RemoteItem(
        id=name,
        folder=_folder(name),
        moment=_moment(properties, where),
        geometry=_on_one_side(_geometry(raw, where), crs, extent),
        crs=crs,
        extent=extent,
        tile=next((str(properties[key]) for key in ("grid:code", "s2:mgrs_tile") if properties.get(key)), ""),
        updated=_text(properties.get("updated")),
        baseline=_baseline(name, properties),
        cloud=finite_number(properties.get("eo:cloud_cover")),
        assets=assets,
        raw=raw,
    )


def _assets(found: Any, *, base: str, where: str, bands: tuple[str, ...]) -> dict[str, RemoteAsset]:
    """The best file of each band: the finest, and rather a GeoTIFF than a JPEG 2000."""
    candidates: dict[str, list[tuple[tuple[int, bool], str, dict[str, Any]]]] = {}
    for key, fields in (found if isinstance(found, dict) else {}).items():
        if not isinstance(fields, dict) or not isinstance(fields.get("href"), str):
            continue
        for band, metres in asset_bands(key, fields, bands)[:1]:
            if band in (*bands, *CLOUD_MASKS) and not _is_zarr(fields):
                jpeg = "jp2" in str(fields.get("type", "")).lower() or fields["href"].lower().endswith(".jp2")
                candidates.setdefault(band, []).append(((metres, jpeg), key, fields))
    chosen = {}
    mask = [band for band in CLOUD_MASKS if band in candidates][:1]
    for band in (*bands, *mask):
        ranked = sorted(candidates.get(band, []), key=lambda each: each[0])
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            raise DataError(
                f"{where}: its assets {ranked[0][1]} and {ranked[1][1]} are both band {band}. Report it to the "
                f"catalogue's operator, or leave the band out by --bands"
            )
        if ranked:
            _, key, fields = ranked[0]
            chosen[band] = _asset(band, key, fields, base=base, where=f"{where}, asset {key}")
    if missing := [band for band in bands if band not in chosen]:
        zarr = next((a for a in (found if isinstance(found, dict) else {}).values() if _is_zarr(a)), None)
        if zarr is not None:
            raise DataError(
                f"{where}: no GeoTIFF or JPEG 2000 for band {', '.join(missing)}: its images are Zarr (media type "
                f"{zarr.get('type') or 'none, ' + str(zarr.get('href'))[-60:]}), which is not read here. Name a "
                f"collection of files a band, as sentinel-2-l2a of another catalogue"
            )
        keys = ", ".join(sorted(map(str, found))) if isinstance(found, dict) and found else "none"
        raise DataError(
            f"{where}: no asset for band {', '.join(missing)}. It has {keys[:300]}. Name the bands to read by --bands"
        )
    return chosen


def _baseline(name: str, properties: Mapping[str, Any]) -> str:
    """The processing baseline by the properties, or else by the product's name. Empty where neither says."""
    stated = _text(properties.get("s2:processing_baseline")) or _text(properties.get("processing:version"))
    named = baseline_in(name)
    return stated or ("" if named is None else f"{named:05.2f}")


def _is_zarr(fields: Any) -> bool:
    """Whether an asset is a Zarr store, as those of ESA's EOPF, or a group of one."""
    if not isinstance(fields, dict):
        return False
    return "zarr" in str(fields.get("type", "")).lower() or bool(re.search(r"\.zarr(/|$)", str(fields.get("href", ""))))


def _asset(band: str, key: str, fields: Mapping[str, Any], *, base: str, where: str) -> RemoteAsset:
    size = fields.get("file:size")
    return RemoteAsset(
        band=band,
        key=key,
        href=_href(fields, base=base, where=where),
        fields={name: fields[name] for name in KEPT if name in fields},
        shape=_shape(fields.get("proj:shape")),
        transform=_transform(fields.get("proj:transform")),
        crs=_crs(fields),
        size=size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None,
    )


def _href(fields: Mapping[str, Any], *, base: str, where: str) -> str:
    """The first address on a web server, of the asset or of its alternates. Otherwise the first in an object store."""
    others = fields.get("alternate")
    alternates = others.values() if isinstance(others, dict) else ()
    hrefs = [fields["href"], *(other.get("href") for other in alternates if isinstance(other, dict))]
    stored = ""
    for href in hrefs:
        try:
            full = urljoin(base, href) if isinstance(href, str) else ""
            parts = urlsplit(full)
        except ValueError:
            continue
        if parts.scheme in ("http", "https") and parts.netloc and not re.search(r"[\s\x00-\x1f]", full):
            return full
        if parts.scheme == "s3" and parts.netloc and parts.path.strip("/"):
            stored = stored or full
    if stored:
        return stored
    raise DataError(
        f"{where}: {without_secrets(hrefs[0])[:200]} is not on a web server (http, https) or in a store (s3). Use a "
        f"catalogue that serves the files by https, or download the scene and name its folder"
    )


def _moment(properties: Mapping[str, Any], where: str) -> dt.datetime:
    text: Any = properties.get("datetime") or properties.get("start_datetime")
    try:
        moment = pystac.utils.str_to_datetime(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{where}: datetime is {text!r}, expected one as 2018-04-01T10:53:28Z") from error


def _geometry(raw: Mapping[str, Any], where: str) -> shapely.Geometry:
    """The footprint. The box where it is missing or broken."""
    try:
        shape = shapely.make_valid(shapely.from_geojson(json.dumps(raw["geometry"])))
        if not shape.is_empty and all(map(math.isfinite, shape.bounds)):
            return shape
    except (KeyError, TypeError, ValueError, shapely.errors.ShapelyError):
        pass
    box = raw.get("bbox")
    edges = [finite_number(edge) for edge in box] if isinstance(box, list) else []
    flat = [edges[0], edges[1], edges[-3], edges[-2]] if len(edges) == 6 else edges
    west, south, east, north = (*flat, None, None, None, None)[:4]
    if west is None or south is None or east is None or north is None or len(edges) not in (4, 6):
        raise DataError(
            f"{where}: neither a geometry nor a bbox says where it is. Report it to the catalogue's operator"
        )
    return shapely.box(west, south, east, north)


def _on_one_side(
    footprint: shapely.Geometry, crs: str | None, extent: tuple[float, float, float, float] | None
) -> shapely.Geometry:
    """A footprint that does not go round the world, as those of images on the 180th meridian do in some catalogues.

    It is that of the pixels, if the item states their position. Otherwise it follows from the corners, where corners on
    both sides of the meridian are near each other.
    """
    west, _, east, _ = footprint.bounds
    if east - west <= 180 or not _crosses(footprint):
        return footprint
    if crs is not None and extent is not None:
        try:
            return in_degrees(shapely.box(*extent), crs)
        except (RasterioError, ValueError):
            return footprint
    return cut_at_180(shapely.make_valid(unwrapped(footprint))) if west > -180 or east < 180 else footprint


def _crosses(footprint: shapely.Geometry) -> bool:
    """Whether a part of it is wider than half the world. Parts on both sides of the meridian are each narrow."""
    return any(part.bounds[2] - part.bounds[0] > 180 for part in shapely.get_parts(footprint))


def _crs(fields: Mapping[str, Any]) -> str | None:
    """EPSG:N, of the projection extension before or since 2.0."""
    code, number = fields.get("proj:code"), fields.get("proj:epsg")
    if isinstance(code, str) and re.fullmatch(r"EPSG:\d{4,6}", code, re.ASCII):
        return code
    return f"EPSG:{number}" if isinstance(number, int) and 1000 <= number < 1_000_000 else None


def _shape(value: Any) -> tuple[int, int] | None:
    numbers = value if isinstance(value, list) and len(value) == 2 else []
    if all(isinstance(number, int) and 0 < number < 2**31 for number in numbers) and numbers:
        return int(numbers[0]), int(numbers[1])
    return None


def _transform(value: Any) -> Affine | None:
    """North up. Any other is left to the file itself, which is asked in its place."""
    numbers = (
        [finite_number(number) for number in value[:6]] if isinstance(value, list) and len(value) in (6, 9) else []
    )
    known = [number for number in numbers if number is not None]
    if len(known) != 6:
        return None
    transform = Affine(*known)
    return transform if transform.a > 0 > transform.e and transform.b == transform.d == 0 else None


def _extent(fields: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """Left, bottom, right, top by shape and transform, of an item or of one of its files."""
    shape, transform = _shape(fields.get("proj:shape")), _transform(fields.get("proj:transform"))
    if shape is None or transform is None:
        return None
    left, top = transform.c, transform.f
    return left, top + transform.e * shape[0], left + transform.a * shape[1], top


def finite_number(value: Any) -> float | None:
    """A value of metadata as a number. None where it is none."""
    try:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _folder(name: str) -> str:
    """A name that is a folder's on any system. A changed one gets a checksum, so that no two become one."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:100]
    if safe == name and name != "labels":
        return name
    return f"{safe or 'item'}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
