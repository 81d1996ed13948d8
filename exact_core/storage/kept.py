"""Folders of sources that were fetched to this disk, kept for the next run and bounded in size.

    NAME                 the folder. What is of it lies beside it as NAME.mirror.json, NAME.labels and the like
    NAME.use             held by every process that has asked for it. Its time is that of its last use

A process holds what it has asked for until it ends, so what is in use is never removed, and a killed process leaves
nothing to clean up.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from pathlib import Path

from exact_core.locks import open_locked

__all__ = ["KeptFolders"]

log = logging.getLogger(__name__)

USE = ".use"
_held: dict[Path, int] = {}
"""Descriptors of the locks of this process, by their file."""


class KeptFolders:
    """Folders below a root, each with a name without dots.

    Args:
        root: the folder that holds them.
        bound: bytes of all of them together. More is kept only where it is in use.
    """

    def __init__(self, root: Path, *, bound: int) -> None:
        self.root, self.bound = root, bound

    def use(self, name: str) -> Path:
        """The folder of that name, which is not made here, and stays while this process lives."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = self.root / f"{name}{USE}"
        if lock not in _held or not lock.exists():
            descriptor = open_locked(lock, lock=fcntl.LOCK_SH, create=True)
            assert descriptor is not None
            _held[lock] = descriptor
        os.utime(lock)
        return self.root / name

    def evict(self) -> None:
        """Remove what was used longest ago, and is not in use, until the rest is within the bound."""
        sizes: dict[str, int] = {}
        for path in self.root.iterdir():
            name = path.name.partition(".")[0]
            sizes[name] = sizes.get(name, 0) + _size(path)
        held = sum(sizes.values())
        for name in sorted(sizes, key=self._last_used):
            if held <= self.bound:
                return
            if self._remove(name):
                log.info("%s: removed, %.1f MB, as the least recently used", self.root / name, sizes[name] / 1e6)
                held -= sizes[name]
        if held > self.bound:
            log.warning(
                "%s: %.1f MB are in use, more than the bound of %.1f MB (EXACT_CACHE_GB)",
                *(self.root, held / 1e6, self.bound / 1e6),
            )

    def _last_used(self, name: str) -> float:
        try:
            return (self.root / f"{name}{USE}").stat().st_mtime
        except FileNotFoundError:
            # Of an earlier version, which noted no use.
            return 0.0

    def _remove(self, name: str) -> bool:
        """Remove a folder and the files beside it, unless it is in use. Whether it is gone."""
        lock = self.root / f"{name}{USE}"
        try:
            descriptor = open_locked(lock, lock=fcntl.LOCK_EX | fcntl.LOCK_NB, create=True)
        except BlockingIOError:
            return False
        assert descriptor is not None
        try:
            # What tells that the folder is whole goes first: a killed removal leaves nothing that looks finished.
            for path in sorted(self.root.glob(f"{name}.*"), reverse=True):
                if path != lock:
                    _delete(path)
            _delete(self.root / name)
            lock.unlink()
        finally:
            os.close(descriptor)
        return True


def _size(path: Path) -> int:
    if not path.is_dir():
        return _bytes(path)
    return sum(_bytes(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
