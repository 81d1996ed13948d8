"""Images of a STAC API -> a season folder on this disk, which `season:FOLDER` then names.

fetched.json               what was read, with sizes and checksums: what a second run need not read
ITEM/BAND.tif, ITEM.json   the window of each image, and its item
collection.json            written last: without it, the folder is unfinished and nothing takes it for a season

cells.json                 of a large area: one such folder a cell, named by the cell
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import rasterio
from pydantic import Field, ValidationError

from exact_core.config import Settings, describe
from exact_core.data.season.files import Acquisition, check_files
from exact_core.data.stac import WORKERS
from exact_core.data.stac.catalogue import write_catalogue
from exact_core.data.stac.grid import Bounds, Cell, cells
from exact_core.data.stac.items import RemoteAsset, RemoteItem
from exact_core.data.stac.plan import NothingFoundError, Plan, make_plan
from exact_core.data.stac.search import Source, Wanted
from exact_core.data.stac.web import Web, without_secrets
from exact_core.data.stac.window_copy import CACHE, copy_window
from exact_core.errors import DataError, ExactError, ServiceError
from exact_core.files import publish_text, sha256_of

__all__ = ["FETCHED", "Fetch", "FetchedFile", "Summary", "fetch_cells", "fetch_season"]

log = logging.getLogger(__name__)

FETCHED = "fetched.json"
MOST_FAILED = 5
"""Number of failed images after which the rest is not tried, because the server is down or the collection broken."""
CELLS_AT_ONCE = 4
"""Cells side by side: while one is searched, files of others are read. Together they read `workers` files at once."""
WRITTEN_EVERY = 2.0
"""Seconds between two versions of fetched.json: what a killed run loses at most."""

Progress = Callable[[int], None]


class FetchedFile(Settings):
    """One file that was read."""

    item: str
    band: str
    file: str = Field(description="relative to fetched.json")
    bytes: int
    sha256: str
    href: str = Field(description="where it was read from, without query")
    etag: str = Field("", description="of the original, as its server said")
    modified: str = ""
    source_bytes: int | None = None
    said: str = Field(description="SHA-256 of what the item said")
    updated: str = Field("", description="`updated` of the item")
    crs: str
    bounds: tuple[float, float, float, float] = Field(description="of the window: left, bottom, right, top")


class Fetched(Settings):
    """`fetched.json`."""

    schema_version: int = 1
    url: str
    collection: str
    files: tuple[FetchedFile, ...] = ()
    notes: tuple[str, ...] = ()


class Shelf(Protocol):
    """Store of files from earlier fetches of the same catalogue, by any machine."""

    def load(self) -> str:
        """`fetched.json` of all of them. Empty where there is none."""

    def save(self, text: str) -> None:
        """Keep `fetched.json`."""

    def take(self, file: FetchedFile, target: Path) -> bool:
        """Copy a file from the store. Whether it was there and complete."""

    def put(self, path: Path, file: FetchedFile) -> None:
        """Keep a file."""

    def below(self, name: str) -> Shelf:
        """The shelf of one cell."""


@dataclass(frozen=True)
class Fetch:
    """What is asked for. crs: If None, that which covers most of the area. skip: identities of items."""

    source: Source
    wanted: Wanted
    bands: tuple[str, ...]
    crs: str | None = None
    bounds: Bounds | None = None
    name: str | None = None
    skip: frozenset[str] = frozenset()
    workers: int = WORKERS
    missing: int = 0
    """Images that may fail and are then left out, named in a note."""
    shelf: Shelf | None = None
    """Keeps files for later fetches, also on other machines."""
    turn: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """Held while a file is read: what fetches side by side share."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set where the fetch is to end early: no further file is begun."""

    @property
    def web(self) -> Web:
        """How requests are made."""
        return self.source.web


@dataclass
class Summary:
    """What a fetch did. bytes: read and written now. If empty, cells without an image. missing: left out, failed."""

    images: int = 0
    missing: int = 0
    files_read: int = 0
    files_kept: int = 0
    bytes: int = 0
    cells: int = 0
    empty: int = 0
    notes: list[str] = field(default_factory=list)


def fetch_season(fetch: Fetch, out: Path, *, progress: Progress | None = None) -> Summary:
    """Read the images of one area. Unchanged files of an earlier run are kept.

    Args:
        fetch: the request.
        out: the folder.
        progress: gets the number of files dealt with.

    Raises:
        DataError: no image, a broken item or file, a folder with other content. Files read by then stay.
        ServiceError: a server failed for good.
    """
    plan = make_plan(
        fetch.web,
        fetch.source.items(fetch.wanted),
        fetch.wanted,
        bands=fetch.bands,
        crs=fetch.crs,
        bounds=fetch.bounds,
        skip=fetch.skip,
        missing=fetch.missing,
        workers=fetch.workers,
    )
    files = {item.id: {band: out / item.folder / f"{band}.tif" for band in item.assets} for item in plan.items}
    # What `season:` would refuse is refused before anything is read.
    check_files([Acquisition(item.id, item.moment.date(), files[item.id]) for item in plan.items], fetch.bands)
    ledger = _Ledger(out, fetch)
    summary = Summary(images=len(plan.items), notes=list(plan.notes))
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        failed = _read_all(fetch, plan, ledger, summary, progress)
    items = [item for item in plan.items if item.id not in failed]
    if not items:
        raise _failure(failed, plan)
    summary.missing, summary.images = len(failed) + len(plan.missing), len(items)
    summary.notes += [f"image {name} is missing: {error}" for name, error in {**plan.missing, **failed}.items()]
    ledger.publish(tuple(summary.notes))
    write_catalogue(
        out,
        name=fetch.name or fetch.source.name,
        collection=fetch.source.collection,
        items=items,
    )
    return summary


def _read_all(
    fetch: Fetch, plan: Plan, ledger: _Ledger, summary: Summary, progress: Progress | None
) -> dict[str, ExactError]:
    """Every file, several at once. A broken one does not stop the others. Returns the images that may be missing."""
    failed: dict[str, ExactError] = {}
    allowed = fetch.missing - len(plan.missing)
    most = MOST_FAILED + allowed
    jobs = ((item, asset) for item in plan.items for asset in item.assets.values())
    running: dict[Future[tuple[FetchedFile, bool]], RemoteItem] = {}
    pool = ThreadPoolExecutor(fetch.workers)
    try:
        while True:
            more = len(failed) < most and not fetch.ended.is_set()
            while more and len(running) < fetch.workers and (job := next(jobs, None)):
                running[pool.submit(_read_one, fetch, plan, ledger, *job)] = job[0]
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(done)
                try:
                    file, is_new = done.result()
                except CancelledError:
                    continue
                except (DataError, ServiceError) as error:
                    failed.setdefault(item.id, error)
                    log.warning("%s", error)
                else:
                    ledger.add(file, is_new=is_new)
                    summary.files_read += is_new
                    summary.files_kept += not is_new
                    summary.bytes += file.bytes if is_new else 0
                if progress:
                    progress(1)
    finally:
        pool.shutdown(cancel_futures=True)
        ledger.publish(plan.notes)
    if len(failed) > allowed:
        raise _failure(failed, plan)
    if fetch.ended.is_set():
        raise ServiceError("stopped before all files were read. Repeat the command to continue")
    return failed


def _failure(failed: dict[str, ExactError], plan: Plan) -> ExactError:
    first = next(iter(failed.values()))
    kind = DataError if isinstance(first, DataError) else ServiceError
    if len(failed) == 1:
        return kind(f"{first}. The other images are kept. Repeat the command to continue")
    names = ", ".join(list(failed)[:MOST_FAILED])
    given_up = ". The rest was not tried" if len(failed) >= MOST_FAILED else ""
    return kind(
        f"{len(failed)} of {len(plan.items)} images could not be read ({names}){given_up}. What was read is kept: the "
        f"same command goes on from here. The first of them: {first}"
    )


def _read_one(
    fetch: Fetch, plan: Plan, ledger: _Ledger, item: RemoteItem, asset: RemoteAsset
) -> tuple[FetchedFile, bool]:
    """The record of a file, and whether it was read now.

    Raises:
        CancelledError: the fetch ended before the file's turn came.
    """
    # Who waits for a file that another cell reads takes nobody's turn.
    with fetch.web.reading(asset.href), fetch.turn:
        if fetch.ended.is_set():
            raise CancelledError
        return _read(fetch, plan, ledger, item, asset)


def _read(fetch: Fetch, plan: Plan, ledger: _Ledger, item: RemoteItem, asset: RemoteAsset) -> tuple[FetchedFile, bool]:
    where = f"item {item.id}, asset {asset.key}"
    name = f"{item.folder}/{asset.band}.tif"
    asked = {
        "item": item.id,
        "band": asset.band,
        "file": name,
        "href": without_secrets(asset.href),
        "said": item.digest,
        "updated": item.updated,
        "crs": plan.crs,
        "bounds": plan.bounds,
    }
    known = ledger.known(name)
    if known is not None and known == known.model_copy(update=asked) and ledger.has(known):
        # An item that tells when it was updated needs no look at its files.
        if item.updated or not (known.etag or known.modified):
            return known, False
        head = fetch.web.head(asset.href, where=f"{where}: {without_secrets(asset.href)}")
        if (head.etag, head.modified, head.size) == (known.etag, known.modified, known.source_bytes):
            return known, False
    ledger.reopen()
    copied = copy_window(fetch.web, asset, ledger.folder / name, crs=plan.crs, bounds=plan.bounds, where=where)
    remote = {"etag": copied.remote.etag, "modified": copied.remote.modified, "source_bytes": copied.remote.size}
    file = FetchedFile.model_validate({**asked, **remote, "bytes": copied.size, "sha256": copied.sha256})
    if fetch.shelf is not None:
        fetch.shelf.put(ledger.folder / name, file)
    return file, True


class _Ledger:
    """`fetched.json` of a folder, kept up while files are read.

    Raises:
        DataError: the folder holds something else, or another fetch.
    """

    def __init__(self, folder: Path, fetch: Fetch) -> None:
        self.folder = folder
        self._path = folder / FETCHED
        self._lock = threading.Lock()
        url, name = without_secrets(fetch.source.url), fetch.source.name
        found = _load(self._path) if self._path.exists() else Fetched(url=url, collection=name)
        self._shelf = fetch.shelf
        shelved = _shelved(fetch.shelf, url, name)
        if (found.url, found.collection) != (url, name):
            raise DataError(f"{folder} holds images of {found.collection} from {found.url}. Choose another folder")
        if not self._path.exists() and any(folder.glob("*.json")):
            raise DataError(f"{folder} holds a catalogue that was not fetched. Choose another folder")
        self._found, self._written = found, 0.0
        self._files = {file.file: file for file in (*shelved, *found.files)}
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*/.*.partial"):
            leftover.unlink()

    def known(self, name: str) -> FetchedFile | None:
        """The record of a file."""
        return self._files.get(name)

    def has(self, file: FetchedFile) -> bool:
        """Whether the file is here and unchanged, or was copied from the store now."""
        path = self.folder / file.file
        if path.is_file() and path.stat().st_size == file.bytes and sha256_of(path) == file.sha256:
            return True
        return self._shelf is not None and self._shelf.take(file, path)

    def reopen(self) -> None:
        """From here on the folder is unfinished: files of it change."""
        with self._lock:
            catalogue = self.folder / "collection.json"
            if catalogue.exists() or not self._path.exists():
                self._write(self._found.notes)
                catalogue.unlink(missing_ok=True)

    def add(self, file: FetchedFile, *, is_new: bool) -> None:
        """Record a file."""
        with self._lock:
            self._files[file.file] = file
            if is_new and time.monotonic() - self._written > WRITTEN_EVERY:
                self._write(self._found.notes)

    def publish(self, notes: tuple[str, ...]) -> None:
        """Write all records."""
        with self._lock:
            self._write(notes)

    def _write(self, notes: tuple[str, ...]) -> None:
        files = tuple(self._files[name] for name in sorted(self._files))
        text = self._found.model_copy(update={"files": files, "notes": notes}).model_dump_json(indent=1)
        publish_text(self._path, text)
        if self._shelf is not None:
            self._shelf.save(text)
        self._written = time.monotonic()


def _shelved(shelf: Shelf | None, url: str, name: str) -> tuple[FetchedFile, ...]:
    """Records of what the shelf holds. None that it may have of another catalogue or of another version."""
    try:
        found = Fetched.model_validate_json(shelf.load() if shelf is not None else "")
    except ValidationError:
        return ()
    return found.files if (found.url, found.collection) == (url, name) else ()


def _load(path: Path) -> Fetched:
    try:
        return Fetched.model_validate_json(path.read_bytes())
    except (ValidationError, ValueError, OSError) as error:
        said = describe(error, where=str(path), model=Fetched) if isinstance(error, ValidationError) else str(error)
        raise DataError(f"{path}: not readable: {said}. Delete it and collection.json to read all anew") from error


# Cells


def fetch_cells(fetch: Fetch, out: Path, size: int, *, progress: Progress | None = None) -> Summary:
    """Read a large area, some cells at a time, each into a folder of its own. `cells.json` lists them.

    Memory does not grow with the area, but for the list of its cells. A cell that fails does not affect the others.

    Args:
        fetch: the request. Its `missing` images may be missing of each cell.
        out: the folder.
        size: side of a cell, metres.
        progress: gets the number of files dealt with, from several threads.

    Raises:
        ConfigError: a size that pixels do not fit into. DataError, ServiceError: cells failed. The others are there.
    """
    total, listed = Summary(), dict[int, dict[str, Any]]()
    failed: list[ExactError] = []
    out.mkdir(parents=True, exist_ok=True)
    fetch = replace(fetch, turn=threading.Semaphore(fetch.workers), ended=threading.Event())
    waiting = enumerate(cells(fetch.wanted.geometry, size, fetch.crs))
    running: dict[Future[Summary], tuple[int, Cell]] = {}
    pool = ThreadPoolExecutor(CELLS_AT_ONCE)
    try:
        while True:
            while len(running) < CELLS_AT_ONCE and len(failed) < MOST_FAILED and (job := next(waiting, None)):
                cell = job[1]
                running[pool.submit(fetch_season, _of_cell(fetch, cell), out / cell.name, progress=progress)] = job
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                number, cell = running.pop(done)
                listed[number] = _entry(cell, done, total, failed)
                _write_cells(out, fetch, size, [listed[key] for key in sorted(listed)])
    finally:
        fetch.ended.set()
        pool.shutdown(cancel_futures=True)
    if failed:
        kind = DataError if isinstance(failed[0], DataError) else ServiceError
        raise kind(
            f"{len(failed)} of {total.cells} cells failed ({out / 'cells.json'} names them). The first: {failed[0]}"
        )
    return total


def _entry(cell: Cell, done: Future[Summary], total: Summary, failed: list[ExactError]) -> dict[str, Any]:
    """The entry of a finished cell in cells.json. Its counts are added to `total` and `failed`."""
    entry: dict[str, Any] = {"name": cell.name, "crs": cell.crs, "bounds": cell.bounds}
    total.cells += 1
    try:
        found = done.result()
    except NothingFoundError:
        total.empty += 1
        return entry | {"state": "empty", "images": 0}
    except (DataError, ServiceError) as error:
        failed.append(error)
        return entry | {"state": "failed", "error": str(error)}
    total.images, total.bytes = total.images + found.images, total.bytes + found.bytes
    total.missing += found.missing
    total.files_read, total.files_kept = total.files_read + found.files_read, total.files_kept + found.files_kept
    total.notes += [f"{cell.name}: {note}" for note in found.notes]
    return entry | {"state": "complete", "images": found.images}


def _of_cell(fetch: Fetch, cell: Cell) -> Fetch:
    wanted = replace(fetch.wanted, geometry=cell.geometry)
    name = f"{fetch.source.name}-{cell.name}"
    shelf = None if fetch.shelf is None else fetch.shelf.below(cell.name)
    return replace(fetch, wanted=wanted, crs=cell.crs, bounds=cell.bounds, name=name, shelf=shelf)


def _write_cells(out: Path, fetch: Fetch, size: int, listed: list[dict[str, Any]]) -> None:
    index = {
        "schema_version": 1,
        "url": without_secrets(fetch.source.url),
        "collection": fetch.source.name,
        "start": str(fetch.wanted.start),
        "end": str(fetch.wanted.end),
        "grid": {"cell": size, "unit": "metre", "rule": "edges at multiples of the cell's side in its CRS"},
        "cells": listed,
    }
    publish_text(out / "cells.json", json.dumps(index, indent=1))
