"""Sources by address: a local or remote source as a folder of this disk.

    season:PATH                     a folder, as it is
    season:s3://bucket/prefix       a folder in a store: what is new or has changed there is fetched
    season:s3://….json              a published folder, by its pointer (`exact store put`, or this stage)
    stac:https://…?collection=…     a catalogue: images are searched and read (exact_core.data.stac)

Folders are in EXACT_CACHE_DIR/sources, one for each address and season. A second call fetches only new files, and a
killed one continues. EXACT_CACHE_GB limits them like the cache: new folders evict the least recently used that no
process uses. With EXACT_STORE, files from a catalogue are also stored there, under their digests, so that no other
machine and no later season reads them again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from exact_core.artifacts.stage_files import STORE_VARIABLE
from exact_core.config import RunConfig
from exact_core.data.season.folder import survey_season
from exact_core.data.season.labels import USUAL, find_labels
from exact_core.data.season.outlines import VECTORS
from exact_core.data.season.rasters import RASTERS
from exact_core.data.sources import Survey, parse_source, source_of, with_season
from exact_core.data.stac.address import StacAddress, parse_address, parse_labels
from exact_core.data.stac.fetch import Fetch, FetchedFile, fetch_cells, fetch_season
from exact_core.data.stac.grid import area_of, cells
from exact_core.data.stac.plan import Plan, make_plan
from exact_core.data.stac.search import Wanted, open_source
from exact_core.data.stac.web import Token, Web, without_secrets
from exact_core.environment import variable
from exact_core.errors import ConfigError, CorruptError, DataError, ServiceError
from exact_core.files import link_or_copy, sha256_of
from exact_core.locks import exclusive
from exact_core.scratch import scratch_folder
from exact_core.stages.plan import Fetched
from exact_core.stages.run import Run, read_run
from exact_core.stages.stage import Stage
from exact_core.storage import (
    Store,
    content_key,
    default_cache,
    fetch_folder,
    mirror,
    open_object,
    open_store,
    publish_folder,
    read_pointer,
)
from exact_core.storage.base import check_key, digest_file, in_parallel
from exact_core.storage.kept import KeptFolders
from exact_core.storage.presign import presigned
from exact_core.tracking.runs import Tracker

__all__ = [
    "STAGE",
    "Arrived",
    "SourceState",
    "fetch_for_run",
    "fetch_source",
    "local_file",
    "local_place",
    "source_state",
    "survey_source",
]

STAGE = Stage(name="fetch", size="data", minutes=240, image="data", reads_source=True, settings=("data",))

log = logging.getLogger(__name__)

MANIFESTS = ("collection.json", "cells.json")
"""Manifests of folders of fetched images: of one scene, or of cells."""
CATALOGUES = ("collection.json", "catalog.json")
SETTINGS = "season.yaml"


@dataclass
class Arrived:
    """What a fetch did."""

    folder: Path | str
    """Where the data is now. Empty for a source without a place."""
    source: str
    """The source that later steps read: one that is no longer changed by what happens elsewhere, where there is one."""
    images: int = 0
    files_read: int = 0
    """Files fetched now."""
    files_kept: int = 0
    """Files that were here, or in the store."""
    bytes: int = 0
    """Fetched now."""
    missing: int = 0
    """Images that failed and were left out."""
    labelled: bool = False
    """Whether labels were named and are there."""
    notes: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Numbers of images and files."""
        return {
            "images": float(self.images),
            "files_fetched": float(self.files_read),
            "files_unchanged": float(self.files_kept),
            "images_missing": float(self.missing),
        }


def fetch_for_run(
    config: RunConfig, run: Run, parts: Sequence[dict[str, Any]], *, tracker: Tracker
) -> tuple[Fetched, dict[str, float]]:
    """Fetch the images of a run's catalogue into EXACT_STORE, so that no step after it waits for a catalogue.

    Later steps read one state of it: an image that comes or goes meanwhile, or that could not be read, is the same for
    all of them. Any other source, and a catalogue where there is no store, is left to the steps that read it.

    Args:
        config: the run's.
        run: what the first step decided.
        parts: the run for each further part of its map.
        tracker: as `fetch_source`.

    Returns:
        What later steps are given, and numbers of images and files. None where nothing was fetched.

    Raises:
        ConfigError, DataError, ServiceError: as `fetch_source`.
    """
    kind, place = parse_source(run.source)
    if _scheme(place) not in ("http", "https") or not variable(STORE_VARIABLE):
        log.info("fetch: nothing to fetch: %s is read by the steps that need it", without_secrets(run.source))
        return Fetched(run.given(), list(parts)), {}
    found = fetch_source(with_season(config, run.season, kind=kind), source=run.source, tracker=tracker)
    change = {"source": found.source, "origin": run.source}
    later = [each.model_copy(update=change).given() for each in (run, *map(read_run, parts))]
    return Fetched(later[0], later[1:]), found.figures()


def fetch_source(config: RunConfig, *, source: str, tracker: Tracker) -> Arrived:
    """Fetch what a source names, and say by what source later steps read just that.

    Images of a catalogue go to EXACT_STORE, if it is set, as a folder under its digest, and later steps read
    `season:POINTER` from there. Without a store, and for a folder in a store, they read the same source as given.

    Args:
        config: `data.season` says days and bands. See `with_season`.
        source: one of `exact_core.data.sources`.
        tracker: gets numbers of images and files.

    Raises:
        ConfigError: an address that is none, or a season that is not known.
        DataError: nothing there, or more images failed than the address allows. What was read by then stays.
        ServiceError: a server failed for good.
    """
    found = _arrive(config, source)
    store, place = variable(STORE_VARIABLE), parse_source(source)[1]
    if store and _scheme(place) in ("http", "https"):
        folder = Path(found.folder)
        manifest = next(name for name in MANIFESTS if (folder / name).is_file())
        found.source = f"season:{publish_folder(folder, manifest, store).uri}"
    for note in found.notes:
        log.info("fetch: note: %s", note)
    log.info(
        "fetch: %s: %d images, %d files fetched (%.1f MB), %d unchanged, %d images missing. It is read as %s",
        without_secrets(source),
        *(found.images, found.files_read, found.bytes / 1e6, found.files_kept, found.missing, found.source),
    )
    tracker.log_summary(found.figures())
    tracker.set_tags({"exact.source": found.source})
    return found


def local_place(config: RunConfig, source: str) -> Path | str:
    """The file or folder of this disk that holds what a source names, fetched if need be. Errors as `fetch_source`."""
    found = _arrive(config, source)
    for note in found.notes:
        log.info("fetch: note: %s", note)
    return found.folder


def local_file(address: str) -> Path:
    """A file of this disk with what a path, s3:// or https:// names, fetched if need be.

    `|layername=NAME` behind it stays. A file that has not changed is not sent again.

    Raises:
        DataError: it is not there. ServiceError: its server fails.
    """
    file, bar, layer = address.partition("|")
    if not _scheme(file):
        return Path(address)
    target = _folder_of("file", file) / PurePosixPath(file.partition("?")[0]).name
    target.parent.mkdir(parents=True, exist_ok=True)
    _copy(file, target)
    return target.with_name(f"{target.name}{bar}{layer}")


def survey_source(config: RunConfig, source: str) -> Survey:
    """The content of a source, without reading an image: a catalogue by a search, a folder in a store by names.

    What only images show, such as two that do not fit together, is reported when they are read. A folder with archives
    is fetched whole: what is in them is known from themselves. Errors as `fetch_source`.

    Where a schedule will name the season, a catalogue is asked for the last 365 days.
    """
    kind, place = parse_source(source)
    scheme = _scheme(place)
    if scheme in ("s3", "file") and (names := _names_of(place)) is not None:
        return Survey(*survey_season(names, config.data, names=True))
    if scheme not in ("http", "https"):
        return source_of(kind).survey(local_place(config, source), config.data)
    season = config.data.season
    if season.start is None:
        last = season.model_copy(update={"start": dt.datetime.now(dt.UTC).date() - dt.timedelta(days=364), "days": 365})
        config = config.model_copy(update={"data": config.data.model_copy(update={"season": last})})
    asked = parse_address(place)
    fetch = _asked(asked, config, _folder_of(place))
    cut = () if asked.cell is None else tuple(each.crs for each in cells(fetch.wanted.geometry, asked.cell, asked.crs))
    return Survey(len({item.moment.date() for item in _planned(fetch).items}), len(fetch.bands), cells=cut)


def _planned(fetch: Fetch) -> Plan:
    """The images of a search."""
    return make_plan(
        fetch.web,
        fetch.source.items(fetch.wanted),
        fetch.wanted,
        bands=fetch.bands,
        crs=fetch.crs,
        skip=fetch.skip,
        missing=fetch.missing,
        workers=fetch.workers,
    )


def _arrive(config: RunConfig, source: str) -> Arrived:
    """By what an address begins with."""
    place = parse_source(source)[1]
    ways: dict[str, Callable[[RunConfig, str, str], Arrived]] = {
        "": lambda _, source, place: Arrived(place and Path(place), source),
        "s3": _from_store,
        "file": _from_store,
        "http": _from_catalogue,
        "https": _from_catalogue,
    }
    found = ways[_scheme(place)](config, source, place)
    if _scheme(place):
        _kept().evict()
    return found


def _scheme(place: str) -> str:
    """What stands before `:/`. One slash may be lost on a command line."""
    match = re.match(r"(https?|s3|file):/", place)
    return match[1] if match else ""


def _folder_of(*parts: object) -> Path:
    """Folder of an address and everything else that determines its content. It stays while this process lives."""
    name = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:20]
    return _kept().use(name)


def _kept() -> KeptFolders:
    cache = default_cache()
    return KeptFolders(cache.root / "sources", bound=cache.bound)


def _year(config: RunConfig) -> int | None:
    start = config.data.season.start
    return None if start is None else start.year


# A folder in a store


def _from_store(config: RunConfig, source: str, place: str) -> Arrived:
    address, labels = parse_labels(place)
    folder = _folder_of(address, labels, _year(config) if labels else None)
    found = Arrived(folder, source)
    name = PurePosixPath(address).name
    if name.endswith(".json") and name not in CATALOGUES:
        pointer = read_pointer(address)
        fetch_folder(pointer, folder)
        found.files_kept = len(pointer.files) + 1
    else:
        base = address.removesuffix(f"/{name}") if name in CATALOGUES else address.rstrip("/")
        done = mirror(open_store(base), folder, wanted=lambda key: not (labels and key.startswith("labels/")))
        found.files_read, found.bytes = done.fetched, done.bytes
        found.files_kept = done.files - done.fetched
    if labels:
        _place_labels(labels, folder, _year(config), found)
    return found


def _names_of(place: str) -> Path | None:
    """A folder in a store without its labels and with its images as empty files. None where it has archives."""
    address, _ = parse_labels(place)
    folder = _folder_of(address, "names")
    name = PurePosixPath(address).name
    if name.endswith(".json") and name not in CATALOGUES:
        pointer = read_pointer(address)
        images = [file.name for file in pointer.files if _is_image(file.name)]
        if any(map(_is_archive, images)):
            return None
        others = tuple(file for file in pointer.files if not _is_image(file.name))
        fetch_folder(pointer.model_copy(update={"files": others}), folder)
    else:
        store = open_store(address.removesuffix(f"/{name}") if name in CATALOGUES else address.rstrip("/"))
        keys = [each.key for each in store.listed("") if not each.key.startswith("labels/")]
        images = [key for key in keys if _is_image(key)]
        if any(map(_is_archive, images)):
            return None
        if len(images) < len(keys) or not keys:
            mirror(store, folder, wanted=lambda key: not key.startswith("labels/") and not _is_image(key))
    for left in [path for path in folder.rglob("*") if _is_image(path.name) and path.is_file()]:
        left.unlink()
    for image in images:
        (folder / check_key(image)).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).touch()
    return folder


def _is_image(name: str) -> bool:
    return name.lower().endswith((*RASTERS, ".zip"))


def _is_archive(name: str) -> bool:
    return name.lower().endswith(".zip")


# A catalogue


def _from_catalogue(config: RunConfig, source: str, place: str) -> Arrived:
    asked = parse_address(place)
    start, end = _days(asked, config)
    folder = _folder_of(place, start, end, config.data.season.bands)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name(f"{folder.name}.lock")):
        fetch = _asked(asked, config, folder)
        done = fetch_season(fetch, folder) if asked.cell is None else fetch_cells(fetch, folder, asked.cell)
        found = Arrived(
            folder,
            source,
            images=done.images,
            files_read=done.files_read,
            files_kept=done.files_kept,
            bytes=done.bytes,
            missing=done.missing,
            notes=done.notes,
        )
        _place_labels(asked.labels, folder, start.year, found)
    return found


def _days(asked: StacAddress, config: RunConfig) -> tuple[dt.date, dt.date]:
    """First and last day: those of the address, else of the season, and none after `data.season.until`."""
    season = config.data.season
    start, end = asked.start, asked.end
    if start is None or end is None:
        start, end = season.start, season.until
        if start is not None and season.days is not None:
            end = start + dt.timedelta(days=season.days - 1)
    if start is None or end is None:
        raise ConfigError(
            "which days are to be fetched is not known: give the season (2021 or 2021-09-01/300), or start= and end= "
            "in the address"
        )
    if season.until is not None and season.until < start:
        raise ConfigError(
            f"data.season.until {season.until} is before the first day of the season, {start}. Name a later day"
        )
    return start, min(end, season.until or end)


def _asked(asked: StacAddress, config: RunConfig, folder: Path) -> Fetch:
    """The fetch that an address asks for."""
    outline = None
    if asked.area:
        outline = folder.with_name(f"{folder.name}.area.geojson")
        outline.parent.mkdir(parents=True, exist_ok=True)
        _copy(asked.area, outline)
    web = Web(asked.url, token_hosts=asked.token_host, sign=asked.sign, s3=presigned)
    start, end = _days(asked, config)
    store = variable(STORE_VARIABLE)
    # One for all seasons: they may overlap.
    said = [asked.url, asked.collection, asked.bbox, asked.area, asked.crs, asked.cell]
    shelf_name = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:20]
    return Fetch(
        open_source(web, asked.url, asked.collection),
        Wanted(area_of(bbox=asked.bbox, file=outline), start, end, asked.cloud),
        asked.bands or config.data.season.bands,
        crs=asked.crs,
        skip=frozenset(asked.skip),
        missing=asked.missing,
        workers=asked.workers,
        shelf=StoreShelf(open_store(store), open_store(store).below("sources"), shelf_name) if store else None,
    )


@dataclass(frozen=True)
class StoreShelf:
    """Fetched files in a store under their digests. What they are is in `records`, under NAME/fetched.json."""

    store: Store
    records: Store
    name: str

    def load(self) -> str:
        """See `Shelf`."""
        key = f"{self.name}/fetched.json"
        return self.records.read(key).decode() if self.records.head(key) is not None else ""

    def save(self, text: str) -> None:
        """See `Shelf`."""
        self.records.write(f"{self.name}/fetched.json", text.encode())

    def take(self, file: FetchedFile, target: Path) -> bool:
        """See `Shelf`. A file that the store has lost, or altered, is read from its source again."""
        key = content_key(file.sha256)
        try:
            with default_cache().use(self.store, key, sha256=file.sha256, size=file.bytes) as copy:
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f".{target.name}.partial")
                link_or_copy(copy, partial)
                os.replace(partial, target)
        except (CorruptError, DataError) as error:
            log.warning("%s. Reading it from its source again", error)
            return False
        return True

    def put(self, path: Path, file: FetchedFile) -> None:
        """See `Shelf`."""
        digest = digest_file(path, self.store.options.part_bytes)
        self.store.upload(path, content_key(file.sha256), digest=digest)

    def below(self, name: str) -> StoreShelf:
        """See `Shelf`."""
        return StoreShelf(self.store, self.records, f"{self.name}/{name}")


# Labels


def _place_labels(addresses: tuple[str, ...], folder: Path, year: int | None, found: Arrived) -> None:
    """Copy labels into the season's folder. Labels of an address with {year} may not exist yet."""
    fetched = folder.with_name(f"{folder.name}.labels")
    target = folder / "labels"
    shutil.rmtree(target, ignore_errors=True)
    for number, address in enumerate(addresses):
        if "{year}" in address and year is None:
            raise ConfigError(f"{address}: which year is not known. Give the season (2021 or 2021-09-01/300)")
        named = address.replace("{year}", str(year))
        try:
            for path in _labels_at(named, fetched / str(number)):
                target.mkdir(parents=True, exist_ok=True)
                # A folder's names are right; a single file gets the name that is looked for.
                link_or_copy(path, target / (path.name if named.endswith("/") else _label_name(named, path.name)))
        except DataError as error:
            if named == address:
                raise
            found.notes.append(f"no labels of {year} yet: {error}")
    found.labelled = target.is_dir()


def _labels_at(address: str, folder: Path) -> list[Path]:
    """The files at an address, on this disk."""
    scheme = _scheme(address)
    if address.endswith("/") and scheme in ("s3", "file"):
        mirror(open_store(address.rstrip("/")), folder)
        return sorted(path for path in folder.iterdir() if path.is_file())
    if not scheme and Path(address).is_dir():
        return sorted(path for path in Path(address).iterdir() if path.is_file())
    target = folder / PurePosixPath(address.partition("?")[0]).name
    folder.mkdir(parents=True, exist_ok=True)
    _copy(address, target)
    return [target]


def _label_name(address: str, name: str) -> str:
    """The name by which ingest finds a file of labels.

    Raises:
        ConfigError: a file of another kind.
    """
    suffix = Path(name).suffix.lower()
    if name in ("legend.csv", "season.yaml"):
        return name
    if suffix in VECTORS:
        return f"{Path(name).stem if Path(name).stem in ('tags', 'outlines') else 'parcels'}{suffix}"
    if suffix in RASTERS:
        return "crop_type.tif"
    if suffix == ".csv":
        return "tags.csv"
    raise ConfigError(
        f"labels = {address!r}: {suffix or 'no ending'} is no kind of labels, expected {', '.join(VECTORS)}, .tif "
        f"or .csv"
    )


def _copy(address: str, target: Path) -> None:
    """One file from a path, a store or the web, all of it or nothing. Only if it has changed, where that can be known.

    Raises:
        DataError: it is not there. ServiceError: its server fails.
    """
    scheme = _scheme(address)
    if scheme in ("http", "https"):
        _download(address, target)
        return
    if scheme:
        store, key = open_object(address)
        copies = target.with_name(f".{target.name}.object")
        mirror(store, copies, prefix=key, wanted=lambda each: each == key)
        link_or_copy(copies / key, target)
        return
    try:
        link_or_copy(Path(address).resolve(strict=True), target)
    except OSError as error:
        raise DataError(f"{address}: {error.strerror}. Give a file that this machine has, s3:// or https://") from error


def _download(url: str, target: Path) -> None:
    """A file of a web server. One that has not changed is not sent again."""
    # Another host than the catalogue's: it gets no token.
    web = Web(url, token=Token())
    record, shown = target.with_name(f"{target.name}.etag"), without_secrets(url)
    have = record.read_text(encoding="utf-8") if record.is_file() and target.is_file() else ""
    partial = target.with_name(f"{target.name}.partial")
    try:
        with web.session.get(
            url, headers={"If-None-Match": have} if have else {}, timeout=web.timeout, stream=True
        ) as answer:
            if answer.status_code == 304:
                return
            if answer.status_code in (404, 410):
                raise DataError(f"{shown}: no such file (HTTP {answer.status_code}). Check the address")
            if answer.status_code != 200:
                raise ServiceError(f"{shown}: HTTP {answer.status_code}. Check the address, or give a signed one")
            with partial.open("wb") as file:
                for chunk in answer.iter_content(2**20):
                    file.write(chunk)
            etag = answer.headers.get("ETag", "")
    except OSError as error:  # requests' own are, too
        raise ServiceError(
            f"{shown}: cannot be read: {type(error).__name__}. Check the address and the network"
        ) from error
    os.replace(partial, target)
    record.write_text(etag, encoding="utf-8")


# What a source is now


@dataclass(frozen=True)
class SourceState:
    """What a source holds at a moment: two of its states are equal if nothing in it has changed."""

    images: str
    """Digest of the images, and of all else but labels."""
    labels: str
    """Digest of the labels."""
    labelled: bool
    """Whether there are labels to learn from."""


def source_state(config: RunConfig, source: str) -> SourceState:
    """What a source holds now, by names, sizes and times or ETags. No image is read. Errors as `fetch_source`."""
    place = parse_source(source)[1]
    if _scheme(place) in ("http", "https"):
        return _state_of_catalogue(config, parse_address(place), _folder_of(place))
    if not source_of(source).opens:
        return SourceState(_digest(_files(Path(place))) if place else "", "", labelled=True)
    address, labels = parse_labels(place) if _scheme(place) else (place, ())
    if _scheme(place):
        files, named = _stored_files(address, config, source)
        labelled = any(name in files for name in ([named] if named else USUAL))
    else:
        folder = Path(address).parent if Path(address).is_file() else Path(address)
        files = _files(folder)
        named = source_of(source).settings(folder, config.data).season.labels
        labelled = find_labels(folder, named) is not None
    images = {name: facts for name, facts in files.items() if not name.startswith("labels/") and name != named}
    of_labels: list[object] = [[name, facts] for name, facts in files.items() if name not in images]
    if labels:
        of_labels, labelled = _state_of_labels(labels, config, _folder_of(address))
    return SourceState(_digest(images), _digest(of_labels), labelled)


def _state_of_catalogue(config: RunConfig, asked: StacAddress, folder: Path) -> SourceState:
    fetch = _asked(asked, config, folder)
    plan = _planned(fetch)
    # Where images may be missing, one that is there again is another state: its season is worth making anew.
    gone = _unreadable(fetch, plan) if fetch.missing else set()
    images = [[item.id, item.digest] for item in plan.items if item.id not in gone]
    labels, labelled = _state_of_labels(asked.labels, config, folder)
    return SourceState(_digest([images, plan.crs, plan.bounds, fetch.bands]), _digest(labels), labelled)


def _unreadable(fetch: Fetch, plan: Plan) -> set[str]:
    """Images of which a file does not answer."""
    gone = set()
    assets = [(item, asset) for item in plan.items for asset in item.assets.values()]

    def answers(href: str, where: str) -> bool:
        try:
            fetch.web.head(href, where=where)
        except (DataError, ServiceError):
            return False
        return True

    told = in_parallel(lambda each: answers(each[1].href, each[0].id), assets, workers=fetch.workers)
    for (item, _), there in zip(assets, told, strict=True):
        gone |= set() if there else {item.id}
    return gone


def _state_of_labels(addresses: tuple[str, ...], config: RunConfig, folder: Path) -> tuple[list[object], bool]:
    """Digests of the files at the addresses of labels, and whether they can be learned from."""
    aside = folder.with_name(f"{folder.name}.looked")
    aside.mkdir(parents=True, exist_ok=True)
    with exclusive(aside.with_name(f"{aside.name}.lock")):
        _place_labels(addresses, aside, _year(config), Arrived(aside, ""))
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        found: list[object] = [[path.relative_to(aside).as_posix(), sha256_of(path)] for path in files]
        return found, find_labels(aside, config.data.season.labels) is not None


def _files(folder: Path) -> dict[str, list[object]]:
    """Sizes and times of all files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise DataError(f"{folder}: no files here. Check the path of the source")
    facts = {path.relative_to(folder).as_posix(): path.stat() for path in paths}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in facts.items()}


def _stored_files(address: str, config: RunConfig, source: str) -> tuple[dict[str, list[object]], str | None]:
    """Sizes and ETags, or digests, of the objects under an address in a store, and the labels of its settings."""
    name = PurePosixPath(address).name
    if name.endswith(".json") and name not in CATALOGUES:
        pointer = read_pointer(address)
        files = (*pointer.files, pointer.manifest)
        return {each.name: [each.size, each.sha256] for each in files}, config.data.season.labels
    base = address.removesuffix(f"/{name}") if name in CATALOGUES else address.rstrip("/")
    store = open_store(base)
    found: dict[str, list[object]] = {each.key: [each.size, each.etag] for each in store.listed()}
    if not found:
        raise DataError(f"{base}: there are no objects. Check the address, or put the files there")
    with scratch_folder() as aside:
        if SETTINGS in found:
            (aside / SETTINGS).write_bytes(store.read(SETTINGS))
        return found, source_of(source).settings(aside, config.data).season.labels


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
