"""A map by today's mapping, by plain windows, and by the models that others map with: time and memory in one run.

    python -m benchmarks.peers [--recipe season|pastis24] [--dates 30] [--rows 168] [--columns 240] [--cloud 0]
                               [--runs 5] [--threads 1] [--ask 64] [--sides SIDE ...]

A generated strip lies in memory (ten bands, fields of 8 pixels). Each side maps all of it, in a process of its own;
the sides take turns. Seconds are the processor's, of all threads, medians; peak memory is that of the whole process.

- plain: windows as of 44aab5d: they overlap by half, and each is encoded whole, by today's layers
  (`plain.map_windows`).
- half: today's mapping with the same overlap. The run says whether both maps are equal to the last bit.
- float32: today's mapping with the overlap of a map where nothing is said.
- bfloat16: the same in bfloat16, which is the default where the processor has it.
- pixels: the same with the regression of single pixels that the recipe's segmenter has.
- utae: U-TAE of the recipe's sizes, mapped the same way as `float32`.
- trees: scikit-learn's gradient-boosted trees, 100 rounds of a tree a class, on each pixel's series.
- presto: an encoder of Presto's architecture and published size (0.4 million parameters, random) on each pixel's
  series, with a linear head; months: the same on twelve dates, which is what it was made for.

The last two are asked about one pixel in `--ask`, and their seconds multiplied; pixels do not depend on each other.
Models are untrained but for the trees, whose depth depends on what they learned. Under cloud (`--cloud`, a share of the
looks) trees see a missing value; presto computes what is under cloud as well.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.plain import map_windows
from benchmarks.sides import answer, interleaved
from exact_core.config import Precision, SegmenterConfig
from exact_core.data.season.folder import SeasonImages
from exact_core.data.windows.batches import Series, clear_patches, make_series, model_dates
from exact_core.data.windows.dataset import Statistics
from exact_core.mapping.predict import season_mapper
from exact_core.mapping.rows import map_rows, usual_stride
from exact_core.models.precision import for_inference
from exact_core.models.segmenter import AnySegmenter, build_segmenter
from exact_core.models.threads import side_by_side
from exact_core.recipes import RECIPES

SIDE = 24
BANDS = 10
CROPS = {"season": 6, "pastis24": 18}
BATCH = 16
"""Windows a call."""
CHUNK = 64
"""Rows read at a time."""
FIELD = 8
TAUGHT = 4000
"""Pixels that the trees learn from."""
PIXELS = 128
"""Of the Presto-sized encoder at a time: from 8 to 256, none was a tenth faster."""
GROUPS = ((0, 1, 2), (3, 4, 5), (6,), (7,), (8, 9))
"""Presto's groups among the ten bands: visible, red edge, near infrared of 10 m and of 20 m, short-wave infrared."""
RED, INFRARED = 2, 6
CPU = torch.device("cpu")
STATISTICS = Statistics(mean=(2600.0,) * BANDS, std=(1400.0,) * BANDS, origin="made up", pixels=0)
NAMES = {
    "plain": "plain windows, stride half (44aab5d)",
    "half": "here, stride half",
    "float32": "here, stride three quarters",
    "bfloat16": "here, stride three quarters, bfloat16",
    "pixels": "**the same, with the regression of single pixels**",
    "utae": "U-TAE, stride three quarters",
    "trees": "boosted trees, a pixel at a time",
    "presto": "encoder of Presto's size, all dates",
    "months": "encoder of Presto's size, 12 dates",
}


@dataclass(frozen=True)
class Strip:
    """Generated land.

    pixels int16 (T, C, H, W). clear (T, H/2, W/2). crops (H, W), 0..K. days (T,), of the year.
    """

    pixels: NDArray[np.int16]
    clear: NDArray[np.bool_]
    crops: NDArray[np.int64]
    days: NDArray[np.int64]


def strip(*, dates: int, rows: int, columns: int, classes: int, cloud: float) -> Strip:
    """Fields with a course of their own over the year, like that of others of their crop, and noise in every pixel.

    Noisy enough that trees need most of the leaves that they may have.
    """
    rng = np.random.default_rng(0)
    shape = rows // FIELD + 1, columns // FIELD + 1

    def fields(values: NDArray[Any]) -> NDArray[Any]:
        return values.repeat(FIELD, -2).repeat(FIELD, -1)[..., :rows, :columns]

    crops = rng.integers(0, classes + 1, shape)
    pixels = np.empty((dates, BANDS, rows, columns), np.int16)
    for image in pixels:
        level = rng.integers(1500, 2500, (BANDS, classes + 1))[:, crops] + rng.integers(-600, 600, (BANDS, *shape))
        image[:] = fields(level) + rng.integers(-700, 700, image.shape)
    pixels.clip(1, out=pixels)
    looks = rng.random((dates, rows // 8 + 1, columns // 8 + 1)) >= cloud
    clear = looks.repeat(4, 1).repeat(4, 2)[:, : rows // 2, : columns // 2]
    return Strip(pixels, clear, fields(crops), np.arange(dates) * (330 // dates) + 1)


class PrestoSized(nn.Module):
    """Encoder of Presto's architecture for Sentinel-2, with a linear head (Tseng et al., arXiv 2304.14065).

    A token for each date and group of bands, the vegetation index being one, and one for the location, through a
    transformer of two blocks: width 128, 8 heads, MLP ratio 4. To each token are added its position among the dates
    (sines, half of the width), its month and its group (a quarter each). The mean of the tokens is a pixel's embedding.
    """

    DIM, HEADS, DEPTH, RATIO = 128, 8, 2, 4

    def __init__(self, days: NDArray[np.int64], *, classes: int) -> None:
        super().__init__()
        width, dates = self.DIM, len(days)
        sizes = [*(len(group) for group in GROUPS), 1]
        self.embed = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.group = nn.Embedding(len(sizes), width // 4)
        self.location = nn.Linear(3, width)
        self.blocks = nn.ModuleList(_Block(width, self.HEADS, self.RATIO) for _ in range(self.DEPTH))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes + 1)
        rate = 1000.0 ** (-torch.arange(0, width // 2, 2) / (width // 2))
        angle = torch.arange(dates)[:, None] * rate
        month = torch.from_numpy(days)[:, None] / 365 * 2 * np.pi
        quarter = torch.ones(width // 8)
        self.when: Tensor
        when = [(month * quarter).sin(), (month * quarter).cos(), angle.sin(), angle.cos()]
        self.register_buffer("when", torch.cat(when, 1).float())

    def parameters_of_encoder(self) -> int:
        """How many numbers are learned, but for the head."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith("head"))

    def forward(self, x_NTC: Tensor) -> Tensor:
        """Reflectances / 10,000 of pixels -> logits (N, K + 1)."""
        red, infrared = x_NTC[..., RED : RED + 1], x_NTC[..., INFRARED : INFRARED + 1]
        parts = [*(x_NTC[..., list(group)] for group in GROUPS), (infrared - red) / (infrared + red)]
        quarter = self.DIM // 4
        tokens = [
            embed(part)
            + torch.cat([self.when[:, :quarter], group.expand(len(self.when), -1), self.when[:, quarter:]], 1)
            for part, embed, group in zip(parts, self.embed, self.group.weight, strict=True)
        ]
        here = self.location(x_NTC.new_tensor([[0.6, 0.1, 0.8]])).expand(len(x_NTC), 1, -1)
        x = torch.cat([here, *tokens], 1)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x.mean(1)))
        return logits


class _Block(nn.Module):
    """Attention and MLP, each after its norm."""

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.one, self.other = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        qkv = self.qkv(self.one(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2))
        found: Tensor = x + self.mlp(self.other(x))
        return found


def segmenter_of(recipe: str, model: str, *, pixels: bool = False) -> tuple[AnySegmenter, SegmenterConfig]:
    """An untrained segmenter of the recipe's sizes, tsvit or utae, for windows of 24 pixels.

    pixels: with the regression of single pixels, where the recipe has one.
    """
    config = RECIPES[recipe]().segmenter
    config = SegmenterConfig.model_validate({**config.model_dump(), "model": model})
    torch.manual_seed(0)
    days = (365,) if pixels and config.pixel_weight else ()
    return build_segmenter(config, bands=BANDS, classes=CROPS[recipe], window=SIDE, pixel_days=days).eval(), config


def by_windows(land: Strip, recipe: str) -> Callable[[], dict[str, Any]]:
    """The plain side."""
    model, config = segmenter_of(recipe, "tsvit")
    encoder, images = config.reading, _images(land)
    dates = torch.from_numpy(model_dates(images.days, encoder, images.start, images.length))
    mean, std = torch.tensor(STATISTICS.mean), torch.tensor(STATISTICS.std)

    def series(pixels: NDArray[np.int16], clear: NDArray[np.bool_]) -> Series:
        batch = torch.from_numpy(pixels)
        valid = (batch != 0).flatten(2).any(2)
        seen = clear_patches(torch.from_numpy(clear), encoder) if encoder.mask_clouds else None
        return make_series(
            batch, dates.expand(len(batch), -1) * valid, valid, clear=seen, mean=mean, std=std, encoder=encoder
        )

    def work() -> dict[str, Any]:
        found = map_windows(model, series, land.pixels, land.clear, side=SIDE, classes=CROPS[recipe], batch=BATCH)
        return {"sha256": _digest(*found)}

    return work


def by_rows(
    land: Strip, recipe: str, *, model: str, stride: int, precision: Precision = "fp32", pixels: bool = False
) -> Callable[[], dict[str, Any]]:
    """Today's mapping."""
    segmenter, config = segmenter_of(recipe, model, pixels=pixels)
    for_inference(segmenter, CPU, precision)
    mapper = season_mapper(segmenter, _images(land), statistics=STATISTICS, encoder=config.reading, device=CPU)
    height, width = land.pixels.shape[2:]

    def read(first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        return land.pixels[:, :, first:last], land.clear[:, first // 2 : last // 2]

    def work() -> dict[str, Any]:
        with side_by_side(CPU, segmenter):
            rows = list(
                map_rows(
                    read,
                    mapper,
                    height=height,
                    width=width,
                    side=SIDE,
                    stride=stride,
                    classes=CROPS[recipe],
                    batch=BATCH,
                    chunk=CHUNK,
                )
            )
        probabilities = np.concatenate([each.probabilities for each in rows], 1)
        return {"sha256": _digest(probabilities, np.concatenate([each.label for each in rows]))}

    return work


def by_trees(land: Strip) -> Callable[[], dict[str, Any]]:
    """Gradient-boosted trees, which learn here, before they are asked."""
    values = land.pixels.astype(np.float32)
    values = np.where(land.clear.repeat(2, 1).repeat(2, 2)[:, None], values, np.nan)
    chosen = np.random.default_rng(1).choice(land.crops.size, min(TAUGHT, land.crops.size // 2), replace=False)
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)
    trees.fit(_series(values).reshape(land.crops.size, -1)[chosen], land.crops.ravel()[chosen])
    # What a tree holds says how much it costs; scikit-learn has no public name for it.
    every = [tree for round_ in trees._predictors for tree in round_]
    leaves = sum(tree.get_n_leaf_nodes() for tree in every)

    def work() -> dict[str, Any]:
        label = trees.predict_proba(_series(values).reshape(land.crops.size, -1)).argmax(1)
        return {"note": f"{len(every)} trees, {leaves / len(every):.0f} leaves each", "labels": len(label)}

    return work


def by_presto(land: Strip, recipe: str, *, dates: int, ask: int) -> Callable[[], dict[str, Any]]:
    """The encoder of Presto's size on `dates` of the dates, asked about one pixel in `ask`."""
    chosen = np.linspace(0, len(land.days) - 1, min(dates, len(land.days))).round().astype(int)
    torch.manual_seed(0)
    model = PrestoSized(land.days[chosen], classes=CROPS[recipe]).eval()
    pixels = torch.from_numpy(_series(land.pixels[chosen]).reshape(land.crops.size, len(chosen), BANDS)[::ask])
    scale = land.crops.size / len(pixels)

    def work() -> dict[str, Any]:
        cpu, wall = time.process_time(), time.perf_counter()
        with torch.inference_mode():
            for part in pixels.split(PIXELS):
                model(part.float() / 10_000).softmax(1).argmax(1)
        return {
            "cpu": scale * (time.process_time() - cpu),
            "wall": scale * (time.perf_counter() - wall),
            "note": f"{model.parameters_of_encoder() / 1e6:.2f} M parameters, {1 + 6 * len(chosen)} tokens",
        }

    return work


def side_of(name: str, land: Strip, options: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """What a side does."""
    recipe = options.recipe
    makers: dict[str, Callable[[], Callable[[], dict[str, Any]]]] = {
        "plain": lambda: by_windows(land, recipe),
        "half": lambda: by_rows(land, recipe, model="tsvit", stride=SIDE // 2),
        "float32": lambda: by_rows(land, recipe, model="tsvit", stride=usual_stride(SIDE)),
        "bfloat16": lambda: by_rows(land, recipe, model="tsvit", stride=usual_stride(SIDE), precision="bf16"),
        "pixels": lambda: by_rows(
            land, recipe, model="tsvit", stride=usual_stride(SIDE), precision="bf16", pixels=True
        ),
        "utae": lambda: by_rows(land, recipe, model="utae", stride=usual_stride(SIDE)),
        "trees": lambda: by_trees(land),
        "presto": lambda: by_presto(land, recipe, dates=len(land.days), ask=options.ask),
        "months": lambda: by_presto(land, recipe, dates=12, ask=options.ask),
    }
    return makers[name]()


def _images(land: Strip) -> SeasonImages:
    # Of a season of images mapping by a segmenter needs the dates.
    return cast(SeasonImages, SimpleNamespace(days=land.days, start=dt.date(2021, 1, 1), length=365, seen_days=None))


def _series(values_TCHW: NDArray[Any]) -> NDArray[Any]:
    """(H, W, T, C), in memory in that order."""
    return np.ascontiguousarray(values_TCHW.transpose(2, 3, 0, 1))


def _digest(probabilities: NDArray[np.float32], label: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(probabilities).tobytes() + label.tobytes()).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=sorted(CROPS), default="season")
    parser.add_argument("--dates", type=int, default=30)
    parser.add_argument("--rows", type=int, default=168, help="even, at least 24")
    parser.add_argument("--columns", type=int, default=240, help="even, at least 24")
    parser.add_argument("--cloud", type=float, default=0.0, help="share of the looks at 8 x 8 pixels")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ask", type=int, default=64, help="ask the Presto-sized encoder about one pixel in so many")
    parser.add_argument("--sides", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--side", choices=list(NAMES), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        torch.set_num_threads(options.threads)
        size = {"dates": options.dates, "rows": options.rows, "columns": options.columns}
        answer(side_of(options.side, strip(**size, classes=CROPS[options.recipe], cloud=options.cloud), options))
        return
    given = [f"--{name}={getattr(options, name)}" for name in ("recipe", "dates", "rows", "columns", "cloud")]
    given += [f"--{name}={getattr(options, name)}" for name in ("threads", "ask")]
    commands = {name: ["benchmarks.peers", *given, "--side", name] for name in options.sides}
    found = interleaved(commands, runs=options.runs, threads=options.threads)
    megapixels = options.rows * options.columns / 1e6
    base = options.sides[0]
    print(f"| {options.recipe}, {options.dates} dates | processor, s a megapixel | km² an hour of it |", end=" ")
    print(f"times as fast as {base} | clock, s a megapixel | peak memory, MB | |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, side in found.items():
        seconds = side.cpu / megapixels
        # A megapixel of 10 m is 100 km2.
        print(f"| {NAMES[name]} | {seconds:.1f} | {100 * 3600 / seconds:,.0f} |", end=" ")
        print(f"{found[base].ratio(side):.2f} | {side.wall / megapixels:.1f} | {side.peak:.0f} |", end=" ")
        print(f"{side.found.get('note', '')} |", flush=True)
    if {"plain", "half"} <= found.keys():
        same = found["plain"].found["sha256"] == found["half"].found["sha256"]
        print(f"\nprobabilities and labels of both at stride half equal to the last bit: {'yes' if same else 'NO'}")


if __name__ == "__main__":
    main()
