"""Both clients of S3 side by side: a file up and down again, through the store as stages use it, on both servers.

    EXACT_JUICEFS=… EXACT_WEED=… python -m benchmarks.object_store [--megabytes 2000] [--runs 3]

A run sends a file of random bytes in parts with their checksums, reads it back by ranges and compares its SHA-256 (not
timed). The libraries take turns, so that both meet the same noise of the machine; medians over the runs. The servers
run on this machine and share its cores and disk: what differs is the client, not what a network would give.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from minio import Minio

from exact_core.files import sha256_of
from exact_core.storage import StoreOptions, content_key, open_store
from exact_core.storage.base import MIB, digest_file
from exact_core.storage.clients import CLIENT_VARIABLE, CLIENTS
from exact_core.storage.download import fetch_ranges, journal_of
from tests.services.servers import ACCESS_KEY, SECRET_KEY, JuiceFS, S3Server, SeaweedFS


def main() -> None:
    """Print a table of megabytes a second."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=2000, help="size of the file")
    parser.add_argument("--runs", type=int, default=3, help="runs of each library on each server")
    asked = parser.parse_args()
    print(f"{asked.megabytes} MB, {asked.runs} runs, medians in MB/s (CPU seconds of the client)", flush=True)
    print("| server | library | up | down |\n| --- | --- | --- | --- |", flush=True)
    for kind in (JuiceFS, SeaweedFS):
        with tempfile.TemporaryDirectory() as folder:
            server = kind(Path(folder) / "server")
            try:
                server.start()
                for library, (up, down) in measured(server, Path(folder), asked.megabytes, asked.runs).items():
                    print(f"| {kind.__name__} | {library} | {up} | {down} |", flush=True)
            finally:
                server.kill()


def measured(server: S3Server, folder: Path, megabytes: int, runs: int) -> dict[str, tuple[str, str]]:
    """Medians up and down of each library, as text."""
    os.environ.update(server.variables)
    Minio(f"127.0.0.1:{server.port}", ACCESS_KEY, SECRET_KEY, secure=False).make_bucket("exact")
    options = StoreOptions()
    path, back = folder / "file", folder / "back"
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in range(runs):
        with path.open("wb") as file:
            for start in range(0, megabytes * 10**6, MIB):
                file.write(os.urandom(min(MIB, megabytes * 10**6 - start)))
        digest = digest_file(path, options.part_bytes)
        key = content_key(digest.sha256)
        # Whichever goes first meets a server that is still writing the last of the other: in turns.
        for library in list(CLIENTS)[:: 1 if run % 2 == 0 else -1]:
            os.environ[CLIENT_VARIABLE] = library
            store = open_store(f"s3://exact/{library}", options=options)
            store.list_keys()  # the look for the bucket is not timed
            with Clock() as up:
                store.upload(path, key, digest=digest)
            with back.open("wb") as file:
                file.truncate(digest.size)
            with Clock() as down:
                fetch_ranges(store, key, back, digest.size, lambda _: None)
            if sha256_of(back) != digest.sha256:
                raise SystemExit(f"{library}: what came back is not what was sent")
            journal_of(back).unlink()
            store.delete(key)
            for name, clock in (("up", up), ("down", down)):
                times.setdefault((library, name), []).append((megabytes / clock.wall, clock.cpu))
    return {library: (_median(times[library, "up"]), _median(times[library, "down"])) for library in CLIENTS}


class Clock:
    """Seconds between its beginning and its end, and those that this process computed meanwhile."""

    def __enter__(self) -> Clock:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


def _median(pairs: list[tuple[float, float]]) -> str:
    rate, cpu = (statistics.median(each) for each in zip(*pairs, strict=True))
    return f"{rate:.0f} ({cpu:.1f})"


if __name__ == "__main__":
    main()
