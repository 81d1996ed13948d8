"""What another process does in these tests: `python -m tests.services.children ACTION ...`.

publish FOLDER URI KILL        publish a folder
fetch POINTER FOLDER CACHE KILL   fetch one, and print the bytes that were read from the store
use CACHE POINTER              keep the pointer's manifest in use until standard input ends

The process kills itself once KILL bytes are told to be in place; 0: never.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exact_core.storage import Cache, StoreOptions, content_key, fetch_folder, manifest_of, publish_folder, read_pointer
from exact_core.storage.base import Store
from exact_core.storage.filestore import FileStore
from exact_core.storage.opening import open_store
from exact_core.storage.s3 import S3Store

OPTIONS = StoreOptions(part_bytes=5 * 2**20, workers=2)
BOUND = 10**9


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start an action in a process of its own."""
    command = [sys.executable, "-m", "tests.services.children", *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*arguments: object) -> tuple[int, str]:
    """Its exit code and what it printed."""
    child = start(*arguments)
    said, errors = child.communicate(timeout=200)
    assert child.returncode in (0, -signal.SIGKILL), errors
    return child.returncode, said


def killer(after: int):
    """A progress callback that ends the process as a cluster does."""
    told = 0

    def progress(count: int) -> None:
        nonlocal told
        told += count
        if after and told >= after:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


@contextmanager
def counted_reads() -> Iterator[list[int]]:
    """Lengths of all ranges that this process reads from stores meanwhile."""
    lengths: list[int] = []
    originals = {kind: kind.read_range for kind in (S3Store, FileStore)}
    for kind, original in originals.items():

        def counted(self: Store, key: str, start: int, length: int, original=original) -> bytes:
            lengths.append(length)
            return original(self, key, start, length)

        kind.read_range = counted
    try:
        yield lengths
    finally:
        for kind, original in originals.items():
            kind.read_range = original


def main(action: str, *arguments: str) -> None:
    if action == "publish":
        folder, uri, kill = arguments
        publish_folder(Path(folder), manifest_of(Path(folder)), uri, options=OPTIONS, progress=killer(int(kill)))
    elif action == "fetch":
        pointer, folder, cache, kill = arguments
        local = Cache(Path(cache), bound=BOUND)
        with counted_reads() as lengths:
            fetch_folder(pointer, Path(folder), cache=local, options=OPTIONS, progress=killer(int(kill)))
        sys.stdout.write(f"{sum(lengths)}")
    elif action == "use":
        cache, pointer = arguments
        file = read_pointer(pointer).manifest
        key = content_key(file.sha256)
        store = open_store(file.uri.removesuffix(f"/{key}"))
        with Cache(Path(cache), bound=BOUND).use(store, key, sha256=file.sha256, size=file.size):
            sys.stdout.write("using\n")
            sys.stdout.flush()
            sys.stdin.read()
    else:
        raise SystemExit(f"unknown action {action}")


if __name__ == "__main__":
    main(*sys.argv[1:])
