"""A local folder kept equal to the objects under a prefix of a store, which others write.

The names of such objects contain no digest, so the store's ETag says whether the local copy is current. The fetched
files are listed with their SHA-256 in FOLDER.mirror.json, beside the folder. Files in transit are in FOLDER.fetching,
and a killed call continues from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from exact_core.config import Settings
from exact_core.errors import DataError, ServiceError
from exact_core.files import DISK_FULL, publish_text, sha256_of
from exact_core.locks import exclusive
from exact_core.storage.base import Listed, Store, check_key, in_parallel
from exact_core.storage.download import fetch_ranges, journal_of

__all__ = ["Mirrored", "mirror"]

log = logging.getLogger(__name__)

FILES_AT_ONCE = 4


class MirroredFile(Settings):
    """One file that is here."""

    etag: str = Field(description="of the object, as its store said")
    size: int = Field(description="bytes")
    sha256: str


class Record(Settings):
    """`FOLDER.mirror.json`."""

    schema_version: int = 1
    uri: str
    files: dict[str, MirroredFile] = Field({}, description="by key")


@dataclass
class Mirrored:
    """What a call did: files there, files and bytes fetched now, files removed."""

    files: int = 0
    fetched: int = 0
    bytes: int = 0
    removed: int = 0


def mirror(store: Store, folder: Path, *, prefix: str = "", wanted: Callable[[str], bool] = lambda _: True) -> Mirrored:
    """Fetch what is new or has changed, and remove what is no longer there.

    Args:
        store: whose objects are fetched, all but those being written.
        folder: gets a file for each, named by its key, and has no other file of these names.
        prefix: beginning of the keys.
        wanted: selects names. Files of other names in the folder are left alone.

    Raises:
        DataError: nothing is there, or an object changes while it is read.
        ServiceError: the store cannot be used, or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.with_name(f"{folder.name}.lock")):
            return _mirror(store, folder, prefix, wanted)
    except OSError as error:
        helps = "make room there" if error.errno in DISK_FULL else "check its permissions"
        raise ServiceError(
            f"{folder}: cannot keep {store.uri} there: {error}; {helps}, or set EXACT_CACHE_DIR"
        ) from error


def _mirror(store: Store, folder: Path, prefix: str, wanted: Callable[[str], bool]) -> Mirrored:
    listed = [each for each in store.listed(prefix) if wanted(each.key)]
    if not listed:
        where = store.uri_of(prefix) if prefix else store.uri
        raise DataError(f"{where}: there are no objects. Check the address, or put the files there")
    path = folder.with_name(f"{folder.name}.mirror.json")
    record = _read(path, store.uri)
    files, done = dict(record.files), Mirrored(files=len(listed))
    known = {each.key for each in listed}
    for stray in [each for each in folder.rglob("*") if each.is_file()]:
        key = stray.relative_to(folder).as_posix()
        if key not in known and wanted(key):
            stray.unlink()
            files.pop(key, None)
            done.removed += 1
    fetching = folder.with_name(f"{folder.name}.fetching")

    def fetch(each: Listed) -> tuple[str, MirroredFile, bool]:
        target = folder / check_key(each.key)
        have = files.get(each.key)
        if have and (have.etag, have.size) == (each.etag, each.size) and _is_whole(target, have):
            return each.key, have, False
        sha256 = _fetch(store, each, target, fetching)
        return each.key, MirroredFile(etag=each.etag, size=each.size, sha256=sha256), True

    batch = 32
    for first in range(0, len(listed), batch):
        for each, (key, file, is_new) in zip(
            listed[first : first + batch],
            in_parallel(fetch, listed[first : first + batch], workers=FILES_AT_ONCE),
            strict=True,
        ):
            files[key] = file
            done.fetched += is_new
            done.bytes += each.size if is_new else 0
        # After each batch, so that a killed call loses little.
        publish_text(path, Record(uri=store.uri, files=files).model_dump_json())
    publish_text(path, Record(uri=store.uri, files={key: files[key] for key in sorted(known)}).model_dump_json())
    shutil.rmtree(fetching, ignore_errors=True)
    return done


def _fetch(store: Store, each: Listed, target: Path, fetching: Path) -> str:
    """Fetch one object. Returns its SHA-256."""
    fetching.mkdir(exist_ok=True)
    # Named by content as far as the store says, so that parts of two versions never meet.
    partial = fetching / hashlib.sha256(json.dumps([each.key, each.size, each.etag]).encode()).hexdigest()
    with partial.open("ab") as file:
        if each.size:
            os.posix_fallocate(file.fileno(), 0, each.size)
        file.truncate(each.size)
    fetch_ranges(store, each.key, partial, each.size, lambda _: None)
    if each.size > store.options.part_bytes and each not in store.listed(each.key):
        journal_of(partial).unlink(missing_ok=True)
        raise DataError(f"{store.uri_of(each.key)}: changed while it was read. Repeat when nothing writes there")
    sha256 = sha256_of(partial)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, target)
    journal_of(partial).unlink(missing_ok=True)
    return sha256


def _is_whole(path: Path, file: MirroredFile) -> bool:
    with suppress(OSError):
        return path.stat().st_size == file.size and sha256_of(path) == file.sha256
    return False


def _read(path: Path, uri: str) -> Record:
    with suppress(OSError, ValidationError):
        record = Record.model_validate_json(path.read_bytes())
        if record.uri == uri:
            return record
    return Record(uri=uri)
