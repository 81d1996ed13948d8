"""A store in a folder: a laptop's disk or a volume that several machines mount."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

from exact_core.errors import DataError, ServiceError
from exact_core.files import DISK_FULL, files_below, sha256_of
from exact_core.locks import exclusive
from exact_core.storage.base import (
    MIB,
    PARTIAL,
    FileDigest,
    Listed,
    ObjectInfo,
    Progress,
    Store,
    StoreOptions,
    check_key,
    one_at_a_time,
)

__all__ = ["FileStore"]


class FileStore(Store):
    """Objects are files below `root`, which is made when the first is written."""

    def __init__(self, root: Path, *, options: StoreOptions) -> None:
        super().__init__(root.as_uri(), options)
        self.root = root

    def uri_of(self, key: str) -> str:
        """See `Store`."""
        return self._path(key).as_uri()

    def below(self, name: str) -> FileStore:
        """See `Store`."""
        folder = self._path(name)
        with _explained(f"make {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        return FileStore(folder, options=self.options)

    def head(self, key: str) -> ObjectInfo | None:
        """See `Store`. The SHA-256 is computed: the file is at hand."""
        path = self._path(key)
        with _explained(f"read {path}"):
            if not path.is_file():
                self._check_root()
                return None
            return ObjectInfo(key, path.stat().st_size, sha256_of(path))

    def listed(self, prefix: str = "") -> list[Listed]:
        """See `Store`."""
        with _explained(f"list {self.root}"):
            self._check_root()
            found = []
            for path in files_below(self.root):
                key = path.relative_to(self.root).as_posix()
                if not key.startswith(prefix) or key.endswith(PARTIAL):
                    continue
                with suppress(FileNotFoundError):  # deleted since it was listed
                    stat = path.stat()
                    if not S_ISREG(stat.st_mode):
                        continue
                    found.append(Listed(key, stat.st_size, f"{stat.st_mtime_ns:x}-{stat.st_ino:x}"))
        return sorted(found, key=lambda each: each.key)

    def read(self, key: str) -> bytes:
        """See `Store`."""
        with self._reading(key) as path:
            return path.read_bytes()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """See `Store`."""
        with self._reading(key) as path, path.open("rb") as file:
            file.seek(start)
            content = file.read(length)
        if len(content) != length:
            raise DataError(f"{path}: ends before byte {start + length}: truncated. Publish it again")
        return content

    def write(self, key: str, content: bytes) -> None:
        """See `Store`."""
        path = self._path(key)
        with _explained(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + PARTIAL)
            with exclusive(partial) as descriptor:
                os.truncate(descriptor, 0)
                with os.fdopen(os.dup(descriptor), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(descriptor)
                os.replace(partial, path)

    def upload(self, path: Path, key: str, *, digest: FileDigest, progress: Progress | None = None) -> int:
        """See `Store`. An interrupted copy starts again, over its remains."""
        target, told = self._path(key), one_at_a_time(progress)
        with _explained(f"write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + PARTIAL)
            # Under the lock: of two that upload the same, the second finds the work of the first.
            with exclusive(partial) as descriptor:
                if self.head(key) == ObjectInfo(key, digest.size, digest.sha256):
                    partial.unlink()
                    told(digest.size)
                    return 0
                os.truncate(descriptor, 0)
                try:
                    self._copy(path, descriptor, digest, told)
                except BaseException:
                    partial.unlink()
                    raise
                os.replace(partial, target)
        return digest.size

    def delete(self, key: str) -> None:
        """See `Store`."""
        path = self._path(key)
        with _explained(f"delete {path}"):
            path.unlink(missing_ok=True)

    def _copy(self, path: Path, descriptor: int, digest: FileDigest, told: Progress) -> None:
        whole = hashlib.sha256()
        with path.open("rb") as source, os.fdopen(os.dup(descriptor), "wb") as file:
            while chunk := source.read(min(self.options.part_bytes, 8 * MIB)):
                whole.update(chunk)
                file.write(chunk)
                told(len(chunk))
            file.flush()
            os.fsync(descriptor)
        if whole.hexdigest() != digest.sha256:
            raise DataError(
                f"{path}: changed while it was being uploaded. Upload it when nothing writes to it any more"
            )

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        """The file of an object, which another process may delete at any moment."""
        path = self._path(key)
        with _explained(f"read {path}"):
            try:
                yield path
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                self._check_root()
                raise DataError(f"{path}: no such object. Check the URI, or publish it again") from error

    def _check_root(self) -> None:
        if not self.root.is_dir():
            raise ServiceError(f"{self.root}: no such folder, so no store. Check the URI, or mount the volume")


@contextmanager
def _explained(action: str) -> Iterator[None]:
    """An OSError as a ServiceError that says what could not be done and what helps."""
    try:
        yield
    except OSError as error:
        helps = "make room there" if error.errno in DISK_FULL else "check the path and its permissions"
        raise ServiceError(f"cannot {action}: {error}; {helps}, then repeat") from error
