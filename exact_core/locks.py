"""File locks that travel with a file through a rename."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["exclusive", "open_locked"]


def open_locked(path: Path, *, lock: int, create: bool = False) -> int | None:
    """Open a file and lock it. The lock ends when the descriptor is closed, at the latest with the process.

    During the wait for a lock, the file may be renamed or deleted. The result is the file that has the name now. A lock
    belongs to the file, not to its name, so a renamed file stays locked.

    Args:
        path: the file.
        lock: `fcntl.LOCK_SH` or `LOCK_EX`. With `LOCK_NB`, a file that another process holds raises BlockingIOError.
        create: make an empty file where there is none.

    Returns:
        The descriptor. None where there is no such file.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o644)
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            fcntl.flock(descriptor, lock)
            if same_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def same_file(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


@contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Hold a file, made if there is none, against every other process and thread."""
    descriptor = open_locked(path, lock=fcntl.LOCK_EX, create=True)
    assert descriptor is not None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
