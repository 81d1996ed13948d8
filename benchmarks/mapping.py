"""Mapping a wide strip, as it grows: memory that does not follow it, and time beside the model's own.

    python -m benchmarks.mapping [--width 10980] [--rows 128 256 512] [--dates 8] [--workdir DIR]

A generated season of the width of a Sentinel-2 tile is mapped by an untrained segmenter of the recipe `season`, each
height in a process of its own. Every row says peak resident memory, and seconds in all and in the model; the rest is
reading, blending and writing.
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

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.transform import Affine

from exact_core.config import RunConfig
from exact_core.data.dataset import Statistics
from exact_core.data.season import open_season
from exact_core.evaluation.figures import class_colours
from exact_core.mapping.season_map import map_season, season_predictor
from exact_core.models.segmenter import build_segmenter
from exact_core.recipes import season

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
CROPS = tuple(f"crop {number}" for number in range(1, 7))
SIDE = 24


def configuration() -> RunConfig:
    """The recipe `season` with windows of 24 pixels."""
    config = season()
    return config.model_copy(update={"data": config.data.model_copy(update={"window": SIDE})})


def generate(folder: Path, *, width: int, rows: int, dates: int) -> None:
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
            tiles = {"tiled": True, "compress": "deflate", "zlevel": 1, "blockxsize": 512, "blockysize": 512}
            with rasterio.open(
                path, "w", **profile, **tiles, dtype="uint16", crs="EPSG:32631", transform=transform, nodata=0
            ) as file:
                file.write(values, 1)


def measure(folder: Path, out: Path) -> dict[str, float]:
    """Map it in this process; seconds in all and in the model, and peak memory."""
    config = configuration()
    images = open_season(folder, config.data)
    torch.manual_seed(0)
    model = build_segmenter(config.segmenter, bands=len(BANDS), classes=len(CROPS), window=SIDE).eval()
    statistics = Statistics(mean=(2600.0,) * 10, std=(1400.0,) * 10, origin="made up", pixels=0)
    predict = season_predictor(
        model, images, statistics=statistics, encoder=config.segmenter.reading, device=torch.device("cpu")
    )
    inside = 0.0

    def timed(pixels: list[NDArray[np.int16]], clear: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        nonlocal inside
        began = time.perf_counter()
        found = predict(pixels, clear)
        inside += time.perf_counter() - began
        return found

    started = time.perf_counter()
    result = map_season(
        images,
        timed,
        out,
        side=SIDE,
        classes=CROPS,
        colours=class_colours(len(CROPS)),
        batch=config.mapping.batch,
        chunk=config.mapping.rows,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert result.unmapped == 0
    return {"seconds": time.perf_counter() - started, "model": inside, "peak_gib": peak}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=10_980)
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--dates", type=int, default=8)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    print("| rows | megapixels | peak memory | seconds | in the model | beside the model |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="exact-mapping-", dir=options.workdir) as name:
            folder = Path(name)
            generate(folder / "source", width=options.width, rows=rows, dates=options.dates)
            (folder / "map").mkdir()
            command = [sys.executable, "-m", "benchmarks.mapping", "--measure", folder / "source", folder / "map"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        found = json.loads(done.stdout.splitlines()[-1])
        rest = (found["seconds"] - found["model"]) / found["model"]
        print(
            f"| {rows} | {rows * options.width / 1e6:.1f} | {found['peak_gib']:.2f} GiB | {found['seconds']:.0f} | "
            f"{found['model']:.0f} | {100 * rest:.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
