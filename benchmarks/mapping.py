"""Mapping a wide strip, as it grows: memory that does not follow it, and time beside the model's own.

    python -m benchmarks.mapping [--width 10980] [--rows 96 192 384] [--dates 12] [--block 512] [--workdir DIR]

A generated season of the width of a Sentinel-2 tile is mapped by an untrained segmenter of the recipe `season`, each
height in a process of its own, by one thread of torch's. Every row says peak resident memory, seconds in the model, and
what the rest adds to them: opening the season (a look at a band of every date), reading (which a second thread does
meanwhile), blending, writing. Seconds are those of the processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.transform import Affine

from exact_core.config import RunConfig
from exact_core.data.dataset import Statistics
from exact_core.data.season import SeasonImages, open_season
from exact_core.evaluation.figures import class_colours
from exact_core.mapping.calibration import NOT_FITTED
from exact_core.mapping.capacity import choose_batch, window_bytes
from exact_core.mapping.cogs import write_files
from exact_core.mapping.pieces import Pieces, read_rows
from exact_core.mapping.predict import season_predictor
from exact_core.mapping.season_map import map_part, map_record
from exact_core.models.segmenter import build_segmenter
from exact_core.recipes import season
from exact_core.training.memory import available_bytes

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
CROPS = tuple(f"crop {number}" for number in range(1, 7))
SIDE = 24


def configuration() -> RunConfig:
    """The recipe `season` with windows of 24 pixels."""
    config = season()
    return config.model_copy(update={"data": config.data.model_copy(update={"window": SIDE})})


def generate(folder: Path, *, width: int, rows: int, dates: int, block: int) -> None:
    """Rasters of fields of 32 pixels, each with a course of its own over the year."""
    rng = np.random.default_rng(0)
    for number in range(dates):
        for band in BANDS:
            pixel = 2 if band in COARSE else 1
            fields = rng.integers(200, 5000, (rows // 32 + 1, width // 32 + 1))
            values = fields.repeat(32 // pixel, 0).repeat(32 // pixel, 1)[: rows // pixel, : width // pixel]
            values = (values + rng.integers(0, 50, values.shape)).astype(np.uint16)
            path = folder / f"S2_2021{4 + number // 4:02d}{1 + 7 * (number % 4):02d}" / f"{band}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            profile = {"driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": 1}
            transform = Affine(10 * pixel, 0, 500_000, 0, -10 * pixel, 5_600_000)
            tiles = {"tiled": True, "compress": "deflate", "zlevel": 1, "blockxsize": block, "blockysize": block}
            with rasterio.open(
                path, "w", **profile, **tiles, dtype="uint16", crs="EPSG:32631", transform=transform, nodata=0
            ) as file:
                file.write(values, 1)


def measure(folder: Path, out: Path) -> dict[str, float]:
    """Map it in this process; seconds in all and in parts, and peak memory."""
    config = configuration()
    torch.set_num_threads(1)
    started = time.process_time()
    images = open_season(folder, config.data)
    spent = {"opening": time.process_time() - started, "reading": 0.0, "model": 0.0}
    torch.manual_seed(0)
    model = build_segmenter(config.segmenter, bands=len(BANDS), classes=len(CROPS), window=SIDE).eval()
    statistics = Statistics(mean=(2600.0,) * 10, std=(1400.0,) * 10, origin="made up", pixels=0)
    device = torch.device("cpu")
    encoder = config.segmenter.reading
    predict = season_predictor(model, images, statistics=statistics, encoder=encoder, device=device)
    record = map_record(
        images,
        source=str(folder),
        side=SIDE,
        classes=CROPS,
        colours=class_colours(len(CROPS)),
        probabilities=False,
        calibration=NOT_FITTED.model_copy(update={"temperature": 1.3}),
        weights_sha256="",
        code_version="",
    )
    size = window_bytes(predict, dates=len(images.days), bands=len(BANDS), side=SIDE, clear=True, device=device)
    batch = choose_batch(size, available_bytes(device), device)

    def timed(pixels: list[NDArray[np.int16]], clear: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        began = time.thread_time()
        found = predict(pixels, clear)
        spent["model"] += time.thread_time() - began
        return found

    pieces = Pieces(out / "rows", first=0, key="", batch=batch)
    map_part(_Timed(**vars(images)), timed, record, pieces, end=record.height, chunk=config.mapping.rows)
    spent["reading"] = sum(_Timed.seconds)
    began = time.process_time()
    result = write_files(record, read_rows(out / "rows", first=0, end=record.height), out)
    ended = time.process_time()
    assert result.unmapped == 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**spent, "writing": ended - began, "seconds": ended - started, "peak_gib": peak, "batch": batch}


class _Timed(SeasonImages):
    """A season that counts the seconds in which it is read, by whatever thread."""

    seconds: ClassVar[list[float]] = []

    def read(self, first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        began = time.thread_time()
        found = super().read(first, last)
        self.seconds.append(time.thread_time() - began)
        return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=10_980)
    parser.add_argument("--rows", type=int, nargs="+", default=[96, 192, 384])
    parser.add_argument("--dates", type=int, default=12)
    parser.add_argument("--block", type=int, default=512, help="side of the images' compressed blocks, pixels")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    columns = ("opening", "reading", "blending", "writing")
    print(
        "| rows | megapixels | peak memory | model, s | s a megapixel | beside it | of which " + ", ".join(columns), "|"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="exact-mapping-", dir=options.workdir) as name:
            folder = Path(name)
            generate(folder / "source", width=options.width, rows=rows, dates=options.dates, block=options.block)
            (folder / "map").mkdir()
            command = [sys.executable, "-m", "benchmarks.mapping", "--measure", folder / "source", folder / "map"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        found = json.loads(done.stdout.splitlines()[-1])
        megapixels, inside = rows * options.width / 1e6, found["model"]
        found["blending"] = found["seconds"] - inside - sum(found[name] for name in columns if name in found)
        shares = ", ".join(f"{100 * found[name] / inside:.1f}" for name in columns)
        print(
            f"| {rows} | {megapixels:.1f} | {found['peak_gib']:.2f} GiB | {inside:.0f} | "
            f"{found['seconds'] / megapixels:.1f} | {100 * (found['seconds'] - inside) / inside:.1f} % | {shares} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
