"""Windows a second from shards: enough for the fastest model, and the same for 1,000 and for 100,000 windows.

    python -m benchmarks.loader [--quick]

Two questions. Does the loader feed the fastest model, the segmenter of the demo at inference, several times over? And
does a window cost the same in a large dataset: three generated datasets of tiny windows are read in random order, the
large one 10 and 100 times the others, with resident memory looked at before and after.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from exact_core.config import EncoderConfig
from exact_core.data.windows.batches import Augmentation, BatchLoader
from exact_core.data.windows.dataset import Window, WindowDataset, WindowRecord
from exact_core.data.windows.writer import DatasetWriter
from exact_core.models.segmenter import Segmenter
from exact_core.recipes import demo

CPU = torch.device("cpu")
BANDS = tuple(f"B{number:02d}" for number in range(10))
CROPS = tuple(f"crop {number}" for number in range(6))


def generate(out: Path, *, windows: int, side: int, dates: int) -> WindowDataset:
    """A dataset of random windows; one in sixteen is made, the others repeat it with other tags."""
    rng = np.random.default_rng(0)
    pool = [rng.integers(1, 8000, (dates, len(BANDS), side, side)).astype(np.int16) for _ in range(16)]
    days = np.arange(0, 10 * dates, 10, dtype=np.int16)
    writer = DatasetWriter(
        out,
        name="generated",
        source="benchmarks.loader",
        bands=BANDS,
        classes=CROPS,
        window=side,
        season_start=dt.date(2021, 1, 1),
        season_days=365,
        shard_windows=64,
    )
    with writer:
        for number in range(windows):
            tags = (np.arange(len(CROPS)) == number % len(CROPS)).astype(np.uint8)
            record = WindowRecord(
                id=f"s/{number}",
                scene=f"s{number // 1000}",
                row=0,
                col=number * side,
                crs="EPSG:32631",
                transform=(10.0, 0.0, 10.0 * number * side, 0.0, -10.0, 0.0),
                split="train" if number < 16 else "validation",
                fold=0,
                dates=dates,
                tags=tuple(tags.tolist()),
            )
            writer.add(record, Window(pool[number % 16], days, tags, None, None), origin="benchmarks.loader")
    return WindowDataset(out)


def resident() -> float:
    """Resident memory of this process, MB, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def rate(loader: BatchLoader, windows: int, *, seed: int) -> float:
    """Windows a second over the first `windows` of a shuffled epoch."""
    started, read = time.perf_counter(), 0
    for batch in loader.epoch(0, seed=seed, augmentation=Augmentation()):
        read += len(batch.index)
        if read >= windows:
            break
    return read / (time.perf_counter() - started)


def feeding_rows(folder: Path, repeats: int) -> None:
    """Windows a second of the loader and of the fastest model."""
    config = demo()
    dataset = generate(folder / "demo", windows=512, side=24, dates=20)
    loader = BatchLoader(dataset, np.arange(512), batch=32, encoder=config.segmenter.encoder, device=CPU)
    model = Segmenter(config.segmenter, bands=len(BANDS), classes=len(CROPS), window=24).eval()
    series = next(iter(loader)).series
    loading, computing = [], []
    for repeat in range(repeats + 1):
        loading.append(rate(loader, 512, seed=repeat))
        with torch.inference_mode():
            started = time.perf_counter()
            model(series)
        computing.append(32 / (time.perf_counter() - started))
    feeds, eats = statistics.median(loading[1:]), statistics.median(computing[1:])
    print(f"| loader against the fastest model, windows a second | {eats:.0f} | {feeds:.0f} | {feeds / eats:.1f} | 5 |")


def scaling_rows(folder: Path, large: int, repeats: int) -> None:
    """Windows a second and memory for small datasets and one 10 and 100 times as large.

    The smallest stays in the processor's cache, the others do not.
    """
    small = large // 100
    found: dict[int, list[float]] = {small: [], 10 * small: [], large: []}
    loaders = {}
    for windows in found:
        dataset = generate(folder / str(windows), windows=windows, side=8, dates=8)
        encoder = EncoderConfig(dates="season_day")
        loaders[windows] = BatchLoader(dataset, np.arange(windows), batch=64, encoder=encoder, device=CPU)
    for loader in loaders.values():
        # Every shard is checked once, when first read; what follows is the cost of reading.
        rate(loader, large, seed=0)
    before = resident()
    for repeat in range(repeats):
        for windows, loader in loaders.items():
            # The same number of windows from both, so that fixed costs weigh the same.
            rounds = [rate(loader, small, seed=100 * repeat + number) for number in range(5)]
            found[windows].append(statistics.median(rounds))
    rate(loaders[large], large, seed=1)
    other = statistics.median(found[large])
    for windows in (small, 10 * small):
        one = statistics.median(found[windows])
        name = f"loader, windows a second of {windows:,} and of {large:,}"
        print(f"| {name} | {one:.0f} | {other:.0f} | {other / one:.2f} | about 1 |")
    size = sum(path.stat().st_size for path in (folder / str(large)).rglob("*") if path.is_file()) / 2**20
    print(
        f"| resident memory before and after one epoch of {size:.0f} MB | {before:.0f} MB | {resident():.0f} MB | | |"
    )


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 windows instead of 100,000, one repetition")
    options = parser.parse_args()
    print("| | reference | ours | ratio | aim |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="exact-loader-") as folder:
        feeding_rows(Path(folder), 1 if options.quick else 5)
        scaling_rows(Path(folder), 20_000 if options.quick else 100_000, 1 if options.quick else 3)


if __name__ == "__main__":
    main()
