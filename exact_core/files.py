"""Tables that users wrote. Files under their name once they are whole, so that nobody reads half. Copies. Checksums.

No command replaces what another made: `check_output` says the rule.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import ne
from pathlib import Path
from typing import Any

from exact_core.errors import ConfigError, CorruptError, DataError, ServiceError

__all__ = [
    "DISK_FULL",
    "check_output",
    "checked",
    "checked_text",
    "copy_file",
    "file_facts",
    "files_below",
    "full_disk",
    "link_or_copy",
    "publish_checked",
    "publish_text",
    "publishing",
    "publishing_tensors",
    "read_table_text",
    "room",
    "sha256_of",
    "with_checksum",
]

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a full disk, a used-up quota and a limit on file sizes say."""
CHECKSUM = re.compile(rb'"checksum":\s*"([0-9a-f]{64})"')
DAMAGED_CHECKSUM = re.compile(rb'"([^"]{8})":\s*"[^"]{64}"')
"""What may be left of it: a file whose checksum cannot be found must not pass for an older one, which had none."""
ZEROS = 64 * "0"


def files_below(folder: Path) -> Iterator[Path]:
    """Files in a folder and in the folders below it, those that are links included. In no order.

    Raises:
        DataError: a link leads to a folder that it is in.
        OSError: a folder cannot be listed.
    """

    def unlisted(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # deleted since it was seen
            raise error

    for root, folders, names in os.walk(folder, onerror=unlisted, followlinks=True):
        for name in folders:
            path = Path(root, name)
            if path.is_symlink() and Path(root).resolve().is_relative_to(path.resolve()):
                raise DataError(f"{path}: a link to a folder that it is in. Delete it")
        yield from (Path(root, name) for name in names)


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
            f"{path}: not UTF-8: byte {error.object[error.start]:#x} at position {error.start}. Save it as UTF-8"
        ) from error


def check_output(
    path: Path, *, suffixes: Sequence[str] = (), inputs: Iterable[Path | str] = (), force: bool = False
) -> None:
    """Refuse a file to be written whose name promises another format, or that would cost a file that is there.

    Args:
        path: the file.
        suffixes: those that say a format which can be written. If empty, any.
        inputs: files and folders that are read: never written to, whatever `force` says.
        force: replace a file that is there.

    Raises:
        ConfigError: another suffix, an input, or a file that is there and not to be replaced.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        *first, last = suffixes
        raise ConfigError(f"{path}: expected a name that ends in {', '.join(first)}{' or ' * bool(first)}{last}")
    if not path.exists():
        return
    if path.is_dir():
        raise ConfigError(f"{path}: a folder. Name a file")
    whole = path.resolve()
    for each in inputs:
        given = Path(each).resolve()
        if whole == given or given in whole.parents:
            raise ConfigError(f"{path}: is read by this command, and would be lost. Choose another name")
    if not force:
        raise ConfigError(f"{path}: is there already. Choose another name, or replace it by --force")


@contextmanager
def publishing(path: Path, *, size: int) -> Iterator[Path]:
    """A name to write a file under, which becomes `path` when all is there. After a failure nothing stays.

    Args:
        path: the file.
        size: bytes that it will have, about.

    Raises:
        ServiceError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if full := full_disk(error, path, size=size):
            raise full from error
        raise ServiceError(f"{path}: cannot be written: {error}. Choose another folder, then repeat") from error


@contextmanager
def publishing_tensors(path: Path, *, size: int) -> Iterator[Path]:
    """As `publishing`, for safetensors, which gives the number of the system's error as text alone."""
    from safetensors import SafetensorError  # not needed by commands that write none

    with publishing(path, size=size) as partial:
        try:
            yield partial
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def full_disk(error: BaseException, path: Path | None = None, *, size: int = 0) -> ServiceError | None:
    """What a full disk, a used-up quota or a limit on file sizes is to the user. None for any other error.

    Args:
        error: the error.
        path: what was written. If None, what the error names, or the working folder.
        size: bytes that it was to have. If 0, unknown.
    """
    if not isinstance(error, OSError) or error.errno not in DISK_FULL:
        return None
    path = path or Path(error.filename if isinstance(error.filename, str) else ".")
    return ServiceError(f"{path}: the disk is full: {room(path, size=size)}. Make room, then repeat")


def room(path: Path, *, size: int = 0) -> str:
    """The bytes that a file needs, unless they are unknown (0), and those that its disk has, in words."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    needed = f"{size / 1e6:,.1f} MB are needed, " if size else ""
    return f"{needed}{shutil.disk_usage(there).free / 1e6:,.1f} MB are free"


def publish_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, all of it or nothing.

    Raises:
        ServiceError: it cannot be written.
    """
    content = text.encode()
    with publishing(path, size=len(content)) as partial:
        partial.write_bytes(content)


def publish_checked(path: Path, text: str) -> None:
    """Write JSON that has a key `checksum` in its outermost object, with an empty value, which gets its SHA-256.

    The sum is that of the file with 64 zeros in its place.
    """
    publish_text(path, with_checksum(text))


def with_checksum(text: str) -> str:
    """The text that `publish_checked` writes."""
    empty, zeros = '"checksum": ""', f'"checksum": "{ZEROS}"'
    # The last one: what a record holds may have a key of this name, too, and the file's own is written after it.
    before, found, after = text.rpartition(empty)
    assert found, "no checksum to be filled in"
    digest = hashlib.sha256(f"{before}{zeros}{after}".encode()).hexdigest()
    return f'{before}"checksum": "{digest}"{after}'


def checked_text(path: Path) -> str:
    """The text of such a file. A file of an older version, without a checksum, is returned as it is.

    Raises:
        CorruptError: it is not what was written.
        OSError: it cannot be read.
    """
    return checked(path.read_bytes(), where=str(path))


def checked(content: bytes, *, where: str) -> str:
    """The text in what `with_checksum` made. See `checked_text`."""
    found = next(reversed(list(CHECKSUM.finditer(content))), None)
    if found:
        start, end = found.span(1)
        if hashlib.sha256(content[:start] + ZEROS.encode() + content[end:]).hexdigest().encode() != found[1]:
            raise CorruptError(f"{where}: corrupt: it is not what was written. Put a copy back, or make it again")
    elif any(sum(map(ne, key, b"checksum")) <= 1 for key in DAMAGED_CHECKSUM.findall(content)):
        raise CorruptError(f"{where}: corrupt: its checksum is damaged. Put a copy back, or make it again")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise CorruptError(f"{where}: corrupt: {error}. Put a copy back, or make it again") from error


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


def file_facts(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as records of ours keep them."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
