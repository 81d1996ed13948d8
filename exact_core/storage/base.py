"""What a store is: objects, named by keys, under one URI."""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from exact_core.errors import ConfigError, DataError

__all__ = [
    "FileDigest",
    "Listed",
    "ObjectInfo",
    "Progress",
    "Store",
    "StoreOptions",
    "content_key",
    "digest_file",
    "in_parallel",
    "one_at_a_time",
    "read_part",
]

Progress = Callable[[int], None]
"""Called with the number of bytes that newly arrived or were already there. Never by two threads at once."""

PARTIAL = ".partial"
"""Suffix of files that are being written. No object is named like that."""
MIB = 2**20
MOST_PARTS = 10_000
"""Parts that S3 allows in one upload."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class StoreOptions:
    """How a store moves bytes. Memory in flight is at most `workers` x `part_bytes`."""

    part_bytes: int = 8 * MIB
    """Size of the parts of an upload and of the ranges of a download. S3 requires at least 5 MiB."""
    workers: int = 8
    """Requests under way at once."""
    attempts: int = 8
    """Tries of a request that fails for a passing reason. With the pauses below, a server may be gone for some 20 s."""
    first_pause: float = 0.25
    """Seconds before the second try. Each further pause is twice as long, and shortened by chance by up to half."""
    longest_pause: float = 10.0
    """Seconds that no pause exceeds."""
    patience: float = 0.0
    """Seconds for which such a request is tried at least, however many tries that takes."""
    timeout: float = 60.0
    """Seconds without a byte after which a request has failed."""


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says about an object."""

    key: str
    size: int
    """Bytes."""
    sha256: str
    """As recorded when it was uploaded. Empty where something else than this package has put the object there."""


@dataclass(frozen=True)
class FileDigest:
    """A file's size and checksums."""

    size: int
    """Bytes."""
    sha256: str
    part_bytes: int
    """Size of each part but the last."""
    md5: tuple[bytes, ...]
    """Checksum of each part, as S3 verifies it. At least one part."""


@dataclass(frozen=True)
class Listed:
    """An object in a listing."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """Another one means another content."""


class Store(ABC):
    """Objects under one URI.

    Every method but the constructor may be called by several threads at once.

    Raises:
        ServiceError: the store cannot be used. The message names it, the key, the tries made and the way out.
        DataError: there is no such object.
    """

    def __init__(self, uri: str, options: StoreOptions) -> None:
        self.uri, self.options = uri, options

    def uri_of(self, key: str) -> str:
        """The URI of an object."""
        return f"{self.uri}/{key}"

    @abstractmethod
    def below(self, name: str) -> Store:
        """The store of what is under a name of this one. A folder is made."""

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object, None where there is none."""

    @abstractmethod
    def listed(self, prefix: str = "") -> list[Listed]:
        """The finished objects whose keys begin with `prefix`, sorted by key."""

    def list_keys(self, prefix: str = "") -> list[str]:
        """Keys of the finished objects that begin with `prefix`, sorted."""
        return [each.key for each in self.listed(prefix)]

    @abstractmethod
    def read(self, key: str) -> bytes:
        """A small object whole."""

    @abstractmethod
    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes of an object."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Write a small object, whole or not at all, over an existing one."""

    @abstractmethod
    def upload(self, path: Path, key: str, *, digest: FileDigest, progress: Progress | None = None) -> int:
        """Upload a file, unless the store has it already with the right size and SHA-256.

        An upload that was cut off is continued by the next of the same key, which is right for keys that name their
        content only.

        Returns:
            Bytes that had to be sent. 0 where everything was there.

        Raises:
            DataError: the file has changed since `digest` was taken.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object if it is there."""


def content_key(sha256: str) -> str:
    """Key of the object with this content: `sha256/ab/abcdef…`."""
    return f"sha256/{sha256[:2]}/{sha256}"


def check_key(key: str) -> str:
    """The key, if it can name an object in every kind of store.

    Raises:
        ConfigError: it cannot.
    """
    if {"", ".", ".."} & set(key.split("/")) or key.endswith(PARTIAL) or "\0" in key:
        raise ConfigError(
            f"{key!r} cannot name an object. Use names parted by single slashes, none '.' or '..', the last not ending "
            f"in {PARTIAL}"
        )
    return key


def digest_file(path: Path, part_bytes: int) -> FileDigest:
    """Size, SHA-256 and the MD5 of each part of a file, in one pass."""
    whole = hashlib.sha256()
    parts: list[bytes] = []
    size = path.stat().st_size
    part_bytes = max(part_bytes, -(-size // MOST_PARTS))
    with path.open("rb") as file:
        while (part := file.read(part_bytes)) or not parts:
            whole.update(part)
            parts.append(hashlib.md5(part, usedforsecurity=False).digest())
            if not part:
                break
        size = file.tell()
    return FileDigest(size=size, sha256=whole.hexdigest(), part_bytes=part_bytes, md5=tuple(parts))


def read_part(path: Path, number: int, digest: FileDigest) -> bytes:
    """A part of a file, counted from 0.

    Raises:
        DataError: it is not what the digest was taken of.
    """
    with path.open("rb") as file:
        file.seek(number * digest.part_bytes)
        part = file.read(digest.part_bytes)
    if hashlib.md5(part, usedforsecurity=False).digest() != digest.md5[number]:
        raise DataError(f"{path}: changed while it was being uploaded. Upload it when nothing writes to it any more")
    return part


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> list[Result]:
    """The results of a function for each item, in order. The first failure ends what has not begun."""
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def one_at_a_time(progress: Progress | None) -> Progress:
    """A progress callback that several threads may call."""
    lock = threading.Lock()

    def locked(count: int) -> None:
        if progress is not None and count:
            with lock:
                progress(count)

    return locked


def free_bytes(path: Path) -> int:
    """Bytes free on the file system of an existing path."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize
