"""A window of a file on a web server -> a small tiled GeoTIFF: read by range requests, piece by piece.

The window has the file's own pixels, and nodata beyond the file. So all images of an area share one grid.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window

from exact_core.data.stac.grid import Bounds
from exact_core.data.stac.items import RemoteAsset
from exact_core.data.stac.web import Head, Web, without_secrets
from exact_core.errors import DataError
from exact_core.files import sha256_of

__all__ = ["CACHE", "Copied", "Place", "copy_window", "place_of"]

log = logging.getLogger(__name__)

PIECE = 1024
"""Side of what is read at once, pixels: 2 MB of a band."""
BLOCK = 256
"""Side of the blocks that are written."""
CACHE = 64
"""MB of blocks that GDAL keeps for all files together. By itself it would take a part of the machine's memory."""
READS = 3
"""Tries of a file whose reading breaks off, beside those of each request."""
FORMATS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}
"""First bytes of a file and the driver that opens it. No others: a VRT could name files of this machine."""
OWN_TAGS = {"AREA_OR_POINT", "TIFFTAG_SOFTWARE"}
Result = TypeVar("Result")


@dataclass(frozen=True)
class Copied:
    """A window that was written. size and sha256: of the file. remote: what its server said of the original."""

    size: int
    sha256: str
    remote: Head


@dataclass(frozen=True)
class Place:
    """Position of a file. crs: as EPSG:N where it has such a code."""

    crs: str
    extent: Bounds


def place_of(web: Web, asset: RemoteAsset, *, where: str) -> Place:
    """CRS and extent of a file, by its head.

    Raises:
        DataError, ServiceError: as `copy_window`.
    """

    def read(file: Any) -> Place:
        return Place(crs=file.crs.to_string(), extent=tuple(file.bounds))

    return _reading(web, asset, where, read)[0]


def copy_window(web: Web, asset: RemoteAsset, out: Path, *, crs: str, bounds: Bounds, where: str) -> Copied:
    """Read a window and write it to `out`, all of it or nothing.

    Args:
        web: how requests are made.
        asset: the file.
        out: the GeoTIFF to write.
        crs: that the file must have.
        bounds: of the window in this CRS. Pixels that they cut belong to it.
        where: names item and asset in messages.

    Raises:
        DataError: the file is not there, is none of its kind, is damaged, or is not what the item says.
        ServiceError: its server fails.
    """
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)

    def read(file: Any) -> None:
        if file.crs != CRS.from_string(crs):
            raise DataError(
                f"{where}: {_show(asset)}: its CRS is {file.crs.to_string()}, not {crs} as the item says or as the "
                f"others have. Report it to the catalogue's operator, or leave the item out by --skip"
            )
        _write(file, partial, window_of(file, bounds))

    try:
        _, head = _reading(web, asset, where, read)
        copied = Copied(size=partial.stat().st_size, sha256=sha256_of(partial), remote=head)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return copied


def window_of(file: Any, bounds: Bounds) -> Window:
    """The pixels that bounds touch. Those beyond the file's edges have offsets below 0 or above its size."""
    left, bottom, right, top = bounds
    step = file.transform
    col0, col1 = (left - step.c) / step.a, (right - step.c) / step.a
    row0, row1 = (top - step.f) / step.e, (bottom - step.f) / step.e
    first = [math.floor(value + 1e-4) for value in (col0, row0)]
    last = [math.ceil(value - 1e-4) for value in (col1, row1)]
    return Window(first[0], first[1], last[0] - first[0], last[1] - first[1])


def _reading(web: Web, asset: RemoteAsset, where: str, read: Callable[[Any], Result]) -> tuple[Result, Head]:
    """Open the file, check it against the item, and read. Again after a pause where the reading breaks off."""
    shown = f"{where}: {_show(asset)}"
    for attempt in range(1, READS + 1):
        head, driver = _checked(web, asset, shown)
        try:
            # The parts of a file are not kept after it is closed: another try must not read the broken ones again.
            # Signed anew at each try: what signs may have been what failed.
            href = web.signed(asset.href)
            with (
                web.reading(asset.href),
                _environment(web, asset, href),
                rasterio.open(f"/vsicurl/{href}", driver=driver) as file,
            ):
                _check_file(file, asset, shown)
                return read(file), head
        except RasterioError as error:
            said = str(error.__cause__ or error).replace(href, _show(asset))
            if attempt == READS:
                raise DataError(
                    f"{shown}: cannot be read: {said}. The file is damaged or truncated on the server, or the "
                    f"connection broke. Repeat the command later, or leave the item out by --skip"
                ) from error
            log.warning("%s: %s. Reading it again", shown, said)
            web.pause(attempt)
    raise AssertionError("a file is tried once at least")


def _checked(web: Web, asset: RemoteAsset, shown: str) -> tuple[Head, str]:
    """What its server says of the file, and its driver: that it is there, an image, and as long as the item says."""
    head = web.head(asset.href, where=shown)
    driver = next((name for magic, name in FORMATS.items() if head.first.startswith(magic)), None)
    if driver is None:
        start = head.first[:40].decode("ascii", "replace").strip()
        kind = (
            "an HTML page" if b"<html" in head.first.lower() or b"<!doctype" in head.first.lower() else f"{start!r}..."
        )
        raise DataError(
            f"{shown}: expected a TIFF or JPEG 2000, got {kind}. If that is a login page, set EXACT_STAC_TOKEN and "
            f"name the host by --token-host. Else report it to the operator, or leave the item out by --skip"
        )
    if asset.size is not None and head.size is not None and asset.size != head.size:
        raise DataError(
            f"{shown}: {head.size} bytes where the item says {asset.size}: truncated or replaced. Repeat the command "
            f"later, or leave the item out by --skip"
        )
    return head, driver


def _check_file(file: Any, asset: RemoteAsset, shown: str) -> None:
    help_ = "report it to the catalogue's operator, or leave the item out by --skip"
    if file.count != 1:
        raise DataError(f"{shown}: {file.count} bands in one file, expected a file for each band; {help_}")
    if file.crs is None or file.transform.b or file.transform.d or file.transform.a <= 0 or file.transform.e >= 0:
        raise DataError(f"{shown}: it has no geotransform, or is not north up; {help_}")
    if asset.shape is not None and asset.shape != (file.height, file.width):
        raise DataError(f"{shown}: {(file.height, file.width)} pixels where the item says {asset.shape}; {help_}")
    if asset.transform is not None and not asset.transform.almost_equals(file.transform, precision=1e-3):
        raise DataError(f"{shown}: its position differs from the item's (proj:transform); {help_}")
    if file.dtypes[0].startswith("complex"):
        raise DataError(f"{shown}: its values are {file.dtypes[0]}, expected reflectance; {help_}")


def _write(file: Any, out: Path, window: Window) -> None:
    """The window, a piece at a time. What nothing is known of takes no space."""
    inside = window.col_off >= 0 and window.row_off >= 0
    inside &= window.col_off + window.width <= file.width and window.row_off + window.height <= file.height
    nodata = file.nodata if file.nodata is not None or inside else 0
    with rasterio.open(
        out,
        "w",
        driver="GTiff",
        dtype=file.dtypes[0],
        count=1,
        width=window.width,
        height=window.height,
        crs=file.crs,
        transform=file.window_transform(window),
        nodata=nodata,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="deflate",
        predictor=3 if file.dtypes[0].startswith("float") else 2,
        sparse_ok=True,
        bigtiff="if_safer",
    ) as target:
        target.scales, target.offsets = file.scales, file.offsets
        target.update_tags(**{key: value for key, value in file.tags().items() if key not in OWN_TAGS})
        target.update_tags(1, **file.tags(1))
        for source, place in _pieces(file, window):
            target.write(file.read(1, window=source), 1, window=place)


def _pieces(file: Any, window: Window) -> Iterator[tuple[Window, Window]]:
    """Pieces of the window that the file has: their position in the file, and in the window."""
    for row in range(0, window.height, PIECE):
        for col in range(0, window.width, PIECE):
            edges = []
            for start, size, offset, limit in (
                (row, window.height, window.row_off, file.height),
                (col, window.width, window.col_off, file.width),
            ):
                first = min(max(start + offset, 0), limit)
                edges.append((first, min(max(min(start + PIECE, size) + offset, 0), limit) - first, offset))
            (y, height, dy), (x, width, dx) = edges
            if height > 0 and width > 0:
                yield Window(x, y, width, height), Window(x - dx, y - dy, width, height)


@contextmanager
def _environment(web: Web, asset: RemoteAsset, href: str) -> Iterator[None]:
    """GDAL's settings for one file, of this thread alone. href: the asset's, signed where it needs to be."""
    parts = urlsplit(href)
    token = web.token_for(asset.href)
    with rasterio.Env(
        GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR",
        GDAL_HTTP_MAX_RETRY=web.options.attempts - 1,
        GDAL_HTTP_RETRY_DELAY=web.options.first_pause,
        GDAL_HTTP_CONNECTTIMEOUT=math.ceil(web.options.connect_timeout),
        GDAL_HTTP_LOW_SPEED_TIME=math.ceil(web.options.read_timeout),
        GDAL_HTTP_LOW_SPEED_LIMIT=1,
        GDAL_INGESTED_BYTES_AT_OPEN=32768,
        CPL_VSIL_CURL_NON_CACHED=f"/vsicurl/{parts.scheme}://{parts.netloc}",
        # A signature for GET is none for HEAD.
        CPL_VSIL_CURL_USE_HEAD="YES" if href == asset.href else "NO",
        GDAL_HTTP_HEADERS=f"Authorization: Bearer {token}" if token else "",
    ):
        yield


def _show(asset: RemoteAsset) -> str:
    return without_secrets(asset.href)
