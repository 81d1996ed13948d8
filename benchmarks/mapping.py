"""Mapping a wide strip, as it grows: memory that does not follow it, and time beside the model's own.

    python -m benchmarks.mapping [--width 10980] [--rows 192] [--dates 12] [--block 512] [--workdir DIR]
    python -m benchmarks.mapping --rows 512 1024 2048 10980 --ask 64

A generated season of the width of a Sentinel-2 tile is mapped by an untrained segmenter of the recipe `season`, each
height in a process of its own, by one thread of torch's. Every row says peak resident memory, seconds in the model, and
what the rest adds to them: opening the season (a look at a band of every date), reading (which a second thread does
meanwhile), blending, writing. Seconds are those of the processor, so that other work on the machine counts little.

Memory does not depend on how often the model is asked, and time does: `--ask 64` asks it about one batch in 64 and
takes its last answer for the others. All else is done in full, so that a whole tile takes minutes. Two dates are
generated and all others are links to them: what is read and decompressed is as much.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.seasons import BANDS, generate, peak_gib
from exact_core.config import RunConfig
from exact_core.data.season.folder import SeasonImages, open_season
from exact_core.data.windows.dataset import Statistics
from exact_core.evaluation.palette import class_colours
from exact_core.mapping.calibration import NOT_FITTED
from exact_core.mapping.capacity import choose_batch, window_bytes
from exact_core.mapping.cogs import write_files
from exact_core.mapping.finished_rows import RowFiles, read_rows
from exact_core.mapping.predict import season_mapper
from exact_core.mapping.rows import Mapper, usual_stride
from exact_core.mapping.season_map import map_part, map_record
from exact_core.models.precision import for_inference
from exact_core.models.segmenter import build_segmenter
from exact_core.recipes import season
from exact_core.training.memory import available_bytes

CROPS = tuple(f"crop {number}" for number in range(1, 7))
SIDE = 24


def configuration() -> RunConfig:
    """The recipe `season` with windows of 24 pixels."""
    config = season()
    return config.model_copy(update={"data": config.data.model_copy(update={"window": SIDE})})


def measure(folder: Path, out: Path, *, ask: int) -> dict[str, float]:
    """Map it in this process; seconds in all and in parts, and peak memory after each part."""
    config = configuration()
    torch.set_num_threads(1)
    started = time.process_time()
    images = open_season(folder, config.data)
    spent = {"opening": time.process_time() - started, "reading": 0.0, "model": 0.0}
    peaks = {"peak_opening": peak_gib()}
    torch.manual_seed(0)
    device = torch.device("cpu")
    model = build_segmenter(config.segmenter, bands=len(BANDS), classes=len(CROPS), window=SIDE)
    for_inference(model, device, config.precision)
    statistics = Statistics(mean=(2600.0,) * 10, std=(1400.0,) * 10, origin="made up", pixels=0)
    encoder = config.segmenter.reading
    mapper = season_mapper(model, images, statistics=statistics, encoder=encoder, device=device)
    record = map_record(
        images,
        source=str(folder),
        side=SIDE,
        stride=usual_stride(SIDE),
        classes=CROPS,
        colours=class_colours(len(CROPS)),
        mapping=config.mapping,
        calibration=NOT_FITTED.model_copy(update={"temperature": 1.3}),
        weights_sha256="",
        code_version="",
    )
    size = window_bytes(mapper, dates=len(images.days), bands=len(BANDS), side=SIDE, clear=True, device=device)
    batch = choose_batch(size, available_bytes(device), device)

    asked = _Asked(mapper, ask)
    pieces = RowFiles(out / "rows", first=0, key="", batch=batch)
    map_part(_Timed(**vars(images)), asked, record, pieces, end=record.height, chunk=config.mapping.rows)
    spent["reading"], spent["model"] = sum(_Timed.seconds), asked.seconds
    peaks["peak_mapping"] = peak_gib()
    began = time.process_time()
    result = write_files(record, read_rows(out / "rows", first=0, end=record.height), out)
    ended = time.process_time()
    assert result.unmapped == 0
    seconds = {**spent, "writing": ended - began}
    seconds["blending"] = ended - started - sum(seconds.values())
    return {**seconds, **peaks, "peak_writing": peak_gib(), "batch": batch}


class _Asked:
    """A segmenter that is asked one time in so many, and counts the seconds it takes."""

    def __init__(self, mapper: Mapper, ask: int) -> None:
        self._mapper, self._ask = mapper, ask
        self.cell, self.agreement = mapper.cell, mapper.agreement
        self._calls = itertools.count()
        self._places: dict[tuple[int, ...], Tensor] = {}
        self._found = np.empty((0, 0, 0, 0), np.float32)
        self.seconds = 0.0

    def encode(self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None) -> Tensor:
        shape = pixels.shape
        if next(self._calls) % self._ask == 0 or shape not in self._places:
            began = time.thread_time()
            self._places = {shape: self._mapper.encode(pixels, clear)}
            self.seconds += time.thread_time() - began
        return self._places[shape]

    def decode(self, windows: list[Tensor]) -> NDArray[np.float32]:
        if next(self._calls) % self._ask == 0 or len(self._found) < len(windows):
            began = time.thread_time()
            self._found = self._mapper.decode(windows)
            self.seconds += time.thread_time() - began
        return self._found[: len(windows)]


class _Timed(SeasonImages):
    """A season that counts the seconds in which it is read, by whatever thread."""

    seconds: ClassVar[list[float]] = []

    def read_counted(self, first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.bool_], Counter[str]]:
        began = time.thread_time()
        found = super().read_counted(first, last)
        self.seconds.append(time.thread_time() - began)
        return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=10_980)
    parser.add_argument("--rows", type=int, nargs="+", default=[192])
    parser.add_argument("--dates", type=int, default=12)
    parser.add_argument("--block", type=int, default=512, help="side of the images' compressed blocks, pixels")
    parser.add_argument("--ask", type=int, default=1, help="ask the model about one batch in so many")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, ask=options.ask)))
        return
    parts = ("opening", "reading", "blending", "writing")
    print("| rows, dates | megapixels | peak memory after opening, mapping, writing, GiB |", end=" ")
    print(f"model, s a megapixel | {', '.join(parts)}, s a megapixel | beside the model |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="exact-mapping-", dir=options.workdir) as name:
            folder = Path(name)
            generate(folder / "source", width=options.width, rows=rows, dates=options.dates, block=options.block)
            (folder / "map").mkdir()
            command = [sys.executable, "-m", "benchmarks.mapping", "--ask", str(options.ask)]
            command += ["--measure", str(folder / "source"), str(folder / "map")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        found = json.loads(done.stdout.splitlines()[-1])
        megapixels = rows * options.width / 1e6
        peaks = ", ".join(f"{found[f'peak_{part}']:.2f}" for part in ("opening", "mapping", "writing"))
        each = ", ".join(f"{found[part] / megapixels:.2f}" for part in parts)
        model, beside = "–", "–"
        if options.ask == 1:
            model = f"{found['model'] / megapixels:.1f}"
            beside = f"{100 * sum(found[part] for part in parts) / found['model']:.1f} %"
        print(f"| {rows}, {options.dates} | {megapixels:.1f} | {peaks} | {model} | {each} | {beside} |", flush=True)


if __name__ == "__main__":
    main()
