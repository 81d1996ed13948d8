"""Artifact folders in a store: their files as objects under their digests, and one small pointer, written last.

A stage passes on the pointer, a JSON file of names, sizes, checksums and URIs. Its key in the store is
`folders/<digest>.json`, with the digest of the folder's content. Equal folders have one pointer.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from exact_core.config import Settings
from exact_core.errors import CorruptError, DataError, ServiceError
from exact_core.files import sha256_of
from exact_core.manifest import Manifest
from exact_core.storage.base import (
    PARTIAL,
    FileDigest,
    Progress,
    Store,
    StoreOptions,
    content_key,
    digest_file,
    in_parallel,
    one_at_a_time,
)
from exact_core.storage.cache import Cache, default_cache
from exact_core.storage.opening import open_object, open_store

__all__ = ["Pointer", "StoredFile", "fetch_folder", "manifest_of", "publish_folder", "read_pointer"]

FILES_AT_ONCE = 4
NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES})
"""Why there can be no hard link where there can be a copy: another file system, one without links, a foreign file."""


class StoredFile(Settings):
    """One file of a folder."""

    name: str = Field(description="path below the folder, with slashes")
    size: int = Field(ge=0, lt=2**63, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    uri: str = Field(description="the object that holds its content")

    @field_validator("name")
    @classmethod
    def _inside(cls, name: str) -> str:
        """A name that leads out of the folder would let a pointer write anywhere."""
        if "\0" in name or "\\" in name or {"", ".", ".."} & set(name.split("/")):
            raise ValueError("must be a path inside the folder")
        return name


class Pointer(Manifest):
    """Where the files of a published folder are."""

    schema_version: Literal[1] = 1
    digest: str = Field(description="SHA-256 over names, sizes and checksums: equal folders, equal digest")
    uri: str = Field(description="URI of this pointer")
    manifest: StoredFile = Field(description="the file that makes the folder complete")
    files: tuple[StoredFile, ...] = Field(description="all others, by name")

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in (*self.files, self.manifest))

    def save(self, path: Path) -> None:
        """Write the pointer to a file, all of it or nothing."""
        self.write(path)


def manifest_of(folder: Path, names: Iterable[str]) -> str:
    """Name of the manifest that a folder holds: the first of these names that it has.

    Raises:
        DataError: none.
    """
    for name in names:
        if (folder / name).is_file():
            return name
    raise DataError(f"{folder}: holds none of {', '.join(names)}, so it is unfinished or none of our folders")


def publish_folder(
    folder: Path,
    manifest_name: str,
    store_uri: str,
    *,
    options: StoreOptions | None = None,
    progress: Progress | None = None,
) -> Pointer:
    """Upload a finished folder: its files, then its manifest, then the pointer to them.

    The same call continues after a kill, and does not send again what is already there. Until the pointer is written,
    nothing in the store refers to the folder.

    Args:
        folder: the folder. Every file in it belongs to it.
        manifest_name: the file that makes it complete.
        store_uri: `s3://bucket/prefix`, `file:///folder` or a path.
        options: how to move bytes.
        progress: called with the bytes sent or already there, `Pointer.size` in all.

    Raises:
        DataError: the folder is not finished, or changes during the upload.
        ServiceError, ConfigError: the store cannot be used.
    """
    if not (folder / manifest_name).is_file():
        raise DataError(f"{folder / manifest_name}: missing, so this folder is unfinished. Finish its stage first")
    store, told = open_store(store_uri, options=options), one_at_a_time(progress)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names = [name for name in names if not name.endswith(PARTIAL) and name != manifest_name]

    def publish(name: str) -> StoredFile:
        digest = digest_file(folder / name, store.options.part_bytes)
        store.upload(folder / name, content_key(digest.sha256), digest=digest, progress=told)
        return _stored(name, digest, store)

    files = tuple(in_parallel(publish, names, workers=FILES_AT_ONCE))
    manifest = publish(manifest_name)
    digest = _digest(manifest, files)
    key = f"folders/{digest}.json"
    pointer = Pointer(digest=digest, uri=store.uri_of(key), manifest=manifest, files=files)
    store.write(key, pointer.text().encode())
    return pointer


def read_pointer(source: str | Path, *, options: StoreOptions | None = None) -> Pointer:
    """The pointer in a file or at a URI.

    Raises:
        DataError: there is none, or it is not one of ours.
        CorruptError: it was altered.
        ServiceError: the store cannot be used.
    """
    store, key = open_object(str(source), options=options)
    content, where = store.read(key), str(source)
    try:
        pointer = Pointer.parse(content, where=where)
    except CorruptError:
        raise
    except DataError as error:
        raise DataError(
            f"{error}\n{where}: this is not a pointer to a published folder. "
            f"Give the URI that `exact store put` printed"
        ) from error
    if pointer.digest != _digest(pointer.manifest, pointer.files):
        raise CorruptError(f"{where}: corrupt: its digest does not fit its files. Publish the folder again")
    return pointer


def fetch_folder(
    pointer: Pointer | str | Path,
    folder: Path,
    *,
    cache: Cache | None = None,
    options: StoreOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Copy the files of a published folder into a local one, through the cache, and its manifest last.

    Where possible, files are hard links to the cache's, and read-only. Do not change them. Files that the folder
    already has are kept, so a killed call continues.

    Args:
        pointer: a pointer, or the file or URI that contains one.
        folder: the target of the files. Created if needed.
        cache: local copies. If None, that of `default_cache`.
        options: how to move bytes.
        progress: called with the bytes copied, `Pointer.size` in all.

    Returns:
        The folder.

    Raises:
        DataError: the folder holds another finished result.
        CorruptError: an object of the store is altered or truncated.
        ServiceError: the store cannot be used, or the disk is full.
    """
    if not isinstance(pointer, Pointer):
        pointer = read_pointer(pointer, options=options)
    cache, told = cache or default_cache(), one_at_a_time(progress)
    manifest = folder / pointer.manifest.name
    if manifest.is_file() and sha256_of(manifest) != pointer.manifest.sha256:
        raise DataError(
            f"{folder} already holds another finished result ({pointer.manifest.name}). "
            f"Choose another folder or delete this one"
        )
    stores: dict[str, Store] = {}
    for file in (*pointer.files, pointer.manifest):
        base = file.uri.removesuffix(f"/{content_key(file.sha256)}")
        if base == file.uri:
            raise DataError(f"{pointer.uri}: {file.uri} does not end in {content_key(file.sha256)}. Publish it again")
        if base not in stores:
            stores[base] = open_store(base, options=options)

    def fetch(file: StoredFile) -> None:
        target = folder / file.name
        if target.is_file() and target.stat().st_size == file.size and sha256_of(target) == file.sha256:
            told(file.size)
            return
        key = content_key(file.sha256)
        store = stores[file.uri.removesuffix(f"/{key}")]
        with cache.use(store, key, sha256=file.sha256, size=file.size, progress=told) as copy:
            _place(copy, target)

    in_parallel(fetch, pointer.files, workers=FILES_AT_ONCE)
    fetch(pointer.manifest)
    return folder


def _stored(name: str, digest: FileDigest, store: Store) -> StoredFile:
    uri = store.uri_of(content_key(digest.sha256))
    return StoredFile(name=name, size=digest.size, sha256=digest.sha256, uri=uri)


def _digest(manifest: StoredFile, files: tuple[StoredFile, ...]) -> str:
    """Digest of a folder's content, independent of its location."""
    content = [[file.name, file.size, file.sha256] for file in (manifest, *files)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _place(copy: Path, target: Path) -> None:
    """A file of the cache under another name: a link, or a copy where there can be none."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        try:
            os.link(copy, partial)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            shutil.copyfile(copy, partial)
        os.replace(partial, target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ServiceError(
            f"{target}: cannot be written: {error}. Make room or choose another folder, then repeat"
        ) from error
