"""Ingesting a labelled scene, as it grows: memory that does not follow it.

    python -m benchmarks.ingest [--width 2048] [--rows 512 1024 2048] [--dates 12] [--block 512] [--workdir DIR]

A generated season is written as windows, each height in a process of its own. Every row says the peak resident memory,
and seconds a megapixel of the clock and of the processor; the clock's are fewer where a second core reads ahead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.seasons import generate, label, peak_gib
from exact_core.data.season.folder import ingest_season, open_season
from exact_core.data.windows.dataset import WindowDataset
from exact_core.recipes import season

__all__ = ["measure"]


def measure(source: Path, out: Path) -> dict[str, float]:
    """Ingest it in this process; seconds of the clock and of the processor, peaks of memory, and what came of it."""
    data = season().data
    open_season(source, data)
    opening = peak_gib()
    clock, processor = time.perf_counter(), time.process_time()
    ingest_season(source, data, out, seed=0)
    seconds = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
    return {**seconds, "opening": opening, "peak": peak_gib(), "windows": len(WindowDataset(out))}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--dates", type=int, default=12)
    parser.add_argument("--block", type=int, default=512, help="side of the images' compressed blocks, pixels")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    print("| rows, dates | megapixels | windows | peak memory after opening, ingesting, GiB |", end=" ")
    print("clock, s a megapixel | processor, s a megapixel |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="exact-ingest-", dir=options.workdir) as name:
            folder = Path(name)
            generate(folder / "source", width=options.width, rows=rows, dates=options.dates, block=options.block)
            label(folder / "source", width=options.width, rows=rows)
            command = [sys.executable, "-m", "benchmarks.ingest"]
            command += ["--measure", str(folder / "source"), str(folder / "out")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        found = json.loads(done.stdout.splitlines()[-1])
        megapixels = rows * options.width / 1e6
        each = " | ".join(f"{found[part] / megapixels:.1f}" for part in ("clock", "processor"))
        peaks = f"{found['opening']:.2f}, {found['peak']:.2f}"
        print(f"| {rows}, {options.dates} | {megapixels:.1f} | {found['windows']} | {peaks} | {each} |", flush=True)


if __name__ == "__main__":
    main()
