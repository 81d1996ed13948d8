"""Filling a file from a store: by ranges in parallel, going on where a killed process stopped, checked at the end."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from exact_core.errors import CorruptError, DataError
from exact_core.files import sha256_of
from exact_core.storage.base import Progress, Store, in_parallel, one_at_a_time

__all__ = ["fetch_ranges", "fill", "journal_of"]

log = logging.getLogger(__name__)


def journal_of(partial: Path) -> Path:
    """Where the finished ranges of a partial file are noted."""
    return partial.with_name(f"{partial.name}.ranges")


def fill(store: Store, key: str, partial: Path, *, sha256: str, size: int, progress: Progress | None = None) -> int:
    """Fill `partial`, which already has its full size, with an object.

    Bytes that an earlier, interrupted call fetched are kept. If the SHA-256 is wrong in the end, the file is fetched
    once more from its first byte, because the local copy may have been at fault.

    Args:
        store: the store with the object.
        key: its key.
        partial: the file, held by this thread alone.
        sha256: required SHA-256 of the content.
        size: required bytes.
        progress: called with the bytes fetched or already there.

    Returns:
        Bytes fetched.

    Raises:
        CorruptError: the object in the store does not have this SHA-256.
        DataError, ServiceError: there is no such object, or the store cannot be used.
        OSError: the file cannot be written.
    """
    told = one_at_a_time(progress)
    info = store.head(key)
    if info is None:
        raise DataError(f"{store.uri_of(key)}: no such object. Check the URI, or publish it again")
    if info.size != size:
        raise CorruptError(
            f"{store.uri_of(key)}: corrupt: it has {info.size} bytes, its pointer says {size}. Publish it again"
        )
    fetched, found = 0, ""
    for _ in range(2):
        fetched += fetch_ranges(store, key, partial, size, told)
        found = sha256_of(partial)
        if found == sha256:
            return fetched
        log.warning("%s: the local copy has a wrong checksum. Fetching it again", store.uri_of(key))
        journal_of(partial).unlink(missing_ok=True)
        told(-size)
    raise CorruptError(
        f"{store.uri_of(key)}: corrupt: its SHA-256 is {found[:12]}…, its pointer says {sha256[:12]}…. "
        f"Delete this object and publish it again"
    )


def fetch_ranges(store: Store, key: str, partial: Path, size: int, told: Progress) -> int:
    """Fetch the ranges of an object that are not noted as finished, into a file of its size. Returns their bytes."""
    step = store.options.part_bytes
    starts = range(0, size, step)
    sizes = [min(step, size - start) for start in starts]
    head = b"%d %d\n" % (step, size)
    done = _finished(journal_of(partial), head) & set(range(len(sizes)))
    told(sum(sizes[i] for i in done))
    missing = [i for i in range(len(sizes)) if i not in done]
    # Unbuffered: each note is one write, also from several threads.
    with partial.open("r+b") as file, journal_of(partial).open("wb", buffering=0) as journal:
        journal.write(head + b"".join(b"%d\n" % i for i in sorted(done)))

        def fetch(i: int) -> None:
            content = store.read_range(key, starts[i], sizes[i])
            view = memoryview(content)
            while view:
                view = view[os.pwrite(file.fileno(), view, starts[i] + sizes[i] - len(view)) :]
            # After the bytes: a range is noted only when it is there.
            journal.write(b"%d\n" % i)
            told(sizes[i])

        in_parallel(fetch, missing, workers=store.options.workers)
    return sum(sizes[i] for i in missing)


def _finished(journal: Path, head: bytes) -> set[int]:
    """Ranges noted as finished by a process that used the same ranges."""
    try:
        lines = journal.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return set()
    if not lines or lines[0] != head:
        return set()
    # A process that was killed may have left half a line.
    return {int(line) for line in lines[1:] if line.endswith(b"\n") and line[:-1].isdigit()}
