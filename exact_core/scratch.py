"""Temporary folders that do not pile up: what a killed process left, the next one of ours deletes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exact_core.errors import ServiceError
from exact_core.locks import exclusive

__all__ = ["held_folder", "scratch_folder"]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder where temporary files go (TMPDIR), gone with the `with` block; as `held_folder`.

    Raises:
        ServiceError: another user has made the folder that holds these.
    """
    root = Path(tempfile.gettempdir()) / f"exact-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    # Everybody may write where temporary files go: what others can change is not used.
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise ServiceError(f"{root} belongs to another user. Delete it, or set TMPDIR to a folder of your own")
    with held_folder(root) as folder:
        yield folder


@contextmanager
def held_folder(root: Path) -> Iterator[Path]:
    """An empty folder in `root`, locked by this process and gone with the `with` block.

    Those that killed processes left in there are deleted.
    """
    root.mkdir(exist_ok=True)
    with exclusive(root / ".lock"):
        for left in root.glob("*/"):
            _remove_unheld(left)
        folder = Path(tempfile.mkdtemp(dir=root))
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_unheld(folder: Path) -> None:
    """Delete a folder unless a process holds it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # its process has just ended
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)
