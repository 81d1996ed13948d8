"""Tables that users wrote; files under their name once they are whole, so that nobody reads half; copies; checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from exact_core.errors import DataError

__all__ = ["copy_file", "link_or_copy", "publish_text", "read_table_text", "sha256_of"]


def read_table_text(path: Path) -> str:
    """Text of a table as spreadsheets write it: UTF-8, with or without a mark of it.

    Raises:
        DataError: another encoding.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8: byte {error.object[error.start]:#x} at position {error.start}; save it as UTF-8"
        ) from error


def publish_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, all of it or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to a place whose folder need not be there yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file that is not changed any more another name: a hard link, or a copy where there can be none."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
