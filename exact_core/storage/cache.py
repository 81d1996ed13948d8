"""Verified local copies of objects, shared by all processes of a machine, bounded in size.

    sha256/ab/abcdef…                  an object, read-only. Its access time is that of its last use
    sha256/ab/abcdef….partial          one that is being fetched, or whose fetch was interrupted
    sha256/ab/abcdef….partial.ranges   which of its ranges have arrived
    .lock                              held by the process that frees space
    scratch/xxxx                       folders of running stages, each locked by its process

Locks are on the files themselves and end with the process that holds them: shared by readers of an object, exclusive
for the one that fetches or evicts it. So an object in use is never evicted, and an object that two processes need is
fetched once. A killed process leaves nothing to clean up.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from exact_core.environment import number, variable
from exact_core.errors import ConfigError, ServiceError
from exact_core.files import DISK_FULL, sha256_of
from exact_core.locks import exclusive, open_locked, same_file
from exact_core.scratch import held_folder
from exact_core.storage.base import PARTIAL, Progress, Store, content_key, free_bytes
from exact_core.storage.download import fill, journal_of

__all__ = ["Cache", "default_cache"]

log = logging.getLogger(__name__)

GB = 10**9


class Cache:
    """A folder of objects by their SHA-256.

    Args:
        root: the folder, on a disk of this machine. Made if it is not there.
        bound: bytes that it may hold. Objects that a folder links to (see `fetch_folder`) do not count: evicting them
            would free nothing. The bound is exceeded only by what is in use at the moment, with a warning.

    Raises:
        ServiceError: the folder cannot be used.
    """

    def __init__(self, root: Path, *, bound: int) -> None:
        if bound < 0:
            raise ConfigError(f"a cache of {bound} bytes: the bound must be 0 or more")
        self.root, self.bound = root.absolute(), bound
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with exclusive(self.root / ".lock"):
                pass
        except OSError as error:
            raise ServiceError(f"{root}: cannot keep the cache there: {error}. Set EXACT_CACHE_DIR") from error

    @contextmanager
    def use(
        self, store: Store, key: str, *, sha256: str, size: int, progress: Progress | None = None
    ) -> Iterator[Path]:
        """A verified copy of an object, which stays there until the `with` block is left.

        Its SHA-256 is computed each time. An altered copy is fetched again.

        Args:
            store: the store with the object, if it is not here yet.
            key: its key there.
            sha256: its SHA-256.
            size: its bytes.
            progress: called with the bytes of this object, fetched or already here.

        Raises:
            CorruptError: the object in the store is altered or truncated.
            DataError, ServiceError: it is not there, the store does not answer, or the disk is full.
        """
        path = self.root / content_key(sha256)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = None
            while descriptor is None:
                descriptor = self._open(path, sha256, size)
                if descriptor is None:
                    descriptor = self._fetch(path, store, key, sha256, size, progress)
                elif progress is not None:
                    progress(size)
        except OSError as error:
            raise ServiceError(
                f"cannot keep a copy in the cache: {error}. Set EXACT_CACHE_DIR to another folder"
            ) from error
        try:
            yield path
        finally:
            os.close(descriptor)
            if self.held() > self.bound:
                with exclusive(self.root / ".lock"):
                    self._evict(self.bound)

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty folder on the cache's own disk, so that it may hold links to objects. Gone with the `with` block.

        What killed processes left is cleared away.
        """
        return held_folder(self.root / "scratch")

    def held(self) -> int:
        """Bytes that count towards the limit: objects that only the cache has, and those being fetched."""
        return sum(stat.st_size for _, stat in self._files())

    def _open(self, path: Path, sha256: str, size: int) -> int | None:
        """The object, open under a shared lock. None where it is not here."""
        descriptor = open_locked(path, lock=fcntl.LOCK_SH)
        if descriptor is None:
            return None
        stat = os.fstat(descriptor)
        if stat.st_size == size and sha256_of(path) == sha256:
            # Set by hand: file systems are often mounted without access times.
            with suppress(PermissionError):  # another user's copy
                os.utime(path, ns=(time.time_ns(), stat.st_mtime_ns))
            return descriptor
        os.close(descriptor)
        log.warning("%s: altered since it was fetched. Fetching it again", path)
        self._discard(path, fcntl.LOCK_EX)
        return None

    def _fetch(
        self, path: Path, store: Store, key: str, sha256: str, size: int, progress: Progress | None
    ) -> int | None:
        """Fetch an object. Returns it open under a shared lock, or None where somebody else has fetched it."""
        partial = path.with_name(path.name + PARTIAL)
        descriptor = open_locked(partial, lock=fcntl.LOCK_EX, create=True)
        assert descriptor is not None
        try:
            if path.exists():
                partial.unlink()
                os.close(descriptor)
                return None
            self._reserve(descriptor, size)
            fill(store, key, partial, sha256=sha256, size=size, progress=progress)
            journal_of(partial).unlink(missing_ok=True)
            os.fchmod(descriptor, 0o444)
            os.replace(partial, path)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            # The change of lock is not atomic: in between, somebody may have evicted it.
            if same_file(descriptor, path):
                return descriptor
        except OSError as error:
            self._give_up(descriptor, partial)
            if error.errno not in DISK_FULL:
                raise
            raise ServiceError(
                f"{partial}: {error.strerror}: {store.uri_of(key)} has {size / 1e6:,.1f} MB, the disk has "
                f"{free_bytes(self.root) / 1e6:,.1f} MB free. Make room there, or set EXACT_CACHE_DIR to another"
            ) from error
        except BaseException:
            # What was fetched stays, for the next try to go on from.
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _give_up(self, descriptor: int, partial: Path) -> None:
        """Leave a full disk as it was before."""
        journal_of(partial).unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
        os.close(descriptor)

    def _reserve(self, descriptor: int, size: int) -> None:
        """Make room for an open file and give it its size.

        Raises:
            OSError: the disk is full, even without what can be evicted.
        """
        # Under one lock, and with the file's size set under it: two that fetch do not both count on the same room.
        with exclusive(self.root / ".lock"):
            self._evict(self.bound - size, but=descriptor)
            try:
                _allocate(descriptor, size)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                # Fuller than the bound knows: what the cache alone holds goes first.
                self._evict(0, but=descriptor)
                _allocate(descriptor, size)

    def _evict(self, bound: int, *, but: int | None = None) -> None:
        """Delete what was used longest ago until the rest, without the file open as `but`, is within a bound."""
        files = self._files()
        if but is not None:
            own = os.fstat(but)
            files = [(path, stat) for path, stat in files if not os.path.samestat(stat, own)]
        held = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda item: item[1].st_atime_ns):
            if held <= bound:
                return
            if self._discard(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                held -= stat.st_size
        if held > max(bound, 0):
            log.warning(
                "%s: %.1f MB are in use, more than the bound of %.1f MB leaves room for",
                self.root,
                held / 1e6,
                self.bound / 1e6,
            )

    def _discard(self, path: Path, lock: int) -> bool:
        """Delete a file unless it is in use. Whether it is gone."""
        try:
            descriptor = open_locked(path, lock=lock)
        except BlockingIOError:
            return False
        if descriptor is not None:
            journal_of(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            os.close(descriptor)
        return True

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self.root.glob("sha256/*/*"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                # More than one link: a folder holds it too, and evicting it would free nothing.
                if stat.st_nlink == 1 and path.suffix != ".ranges":
                    found.append((path, stat))
        return found


def default_cache() -> Cache:
    """The cache that EXACT_CACHE_DIR (unset: ~/.cache/exact) and EXACT_CACHE_GB (unset: 20) describe.

    Raises:
        ConfigError: the bound is no number.
        ServiceError: the folder cannot be used.
    """
    bound = int(number("EXACT_CACHE_GB", 20.0, unit="gigabytes") * GB)
    return Cache(Path(variable("EXACT_CACHE_DIR", "~/.cache/exact")).expanduser(), bound=bound)


def _allocate(descriptor: int, size: int) -> None:
    """Give a file its full size on disk, so that a full disk shows before anything is fetched."""
    if size:
        os.posix_fallocate(descriptor, 0, size)
    os.truncate(descriptor, size)
