"""A season's images and a segmenter -> a crop map as cloud-optimised GeoTIFFs, with a STAC item beside it.

    class.tif         uint8, 0 background, 1..K crops, 255 nothing measured; palette and names inside
    confidence.tif    uint8, the class's probability in percent, 255 nothing measured
    item.json         STAC item: projection, classes, both files
    quicklook.png     the map, small

All on the pixels of the images, to the last digit.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import rasterio.shutil
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import transform_geom
from rasterio.windows import Window

from exact_core.config import EncoderConfig
from exact_core.data.batches import clear_patches, make_series, model_dates
from exact_core.data.dataset import VOID, Statistics
from exact_core.data.season import SeasonImages
from exact_core.errors import DataError, ServiceError
from exact_core.files import publish_text
from exact_core.mapping.rows import Predict, Seams, map_rows
from exact_core.models.segmenter import AnySegmenter

__all__ = ["MapResult", "map_season", "season_predictor"]

CLASS, CONFIDENCE = "class.tif", "confidence.tif"
QUICKLOOK = 1024
"""Longest side of the quick-look, pixels."""
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


@dataclass(frozen=True)
class MapResult:
    """What became of a map.

    pixels: of each label 0..K. unmapped: pixels without a series. seams: see `Seams`. hectares_per_pixel: None where
    the CRS has no metres.
    """

    pixels: NDArray[np.int64]
    unmapped: int
    seams: float | None
    hectares_per_pixel: float | None


def season_predictor(
    model: AnySegmenter, images: SeasonImages, *, statistics: Statistics, encoder: EncoderConfig, device: torch.device
) -> Predict:
    """The segmenter as a function of a window's pixels and clear patches.

    Args:
        model: on the device, for evaluation.
        images: the season; its dates apply.
        statistics: those that the model was trained with.
        encoder: how the model wants its batches.
        device: where it computes.
    """
    mean = torch.tensor(statistics.mean, device=device)
    std = torch.tensor(statistics.std, device=device)
    dates = torch.from_numpy(model_dates(images.days, encoder, images.start, images.length)).to(device)

    def predict(pixels: list[NDArray[np.int16]], clear: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.stack(pixels)).to(device)
        known = [each for each in clear if each is not None] if encoder.mask_clouds else []
        # As windows are cut for training: a date that measured nothing of a window is none of its dates.
        valid = (batch != 0).flatten(2).any(2)
        series = make_series(
            batch,
            dates.expand(len(batch), -1) * valid,
            valid,
            clear=clear_patches(torch.from_numpy(np.stack(known)).to(device), encoder) if known else None,
            mean=mean,
            std=std,
            encoder=encoder,
        )
        with torch.inference_mode():
            return np.asarray(model(series).float().softmax(1).cpu().numpy(), np.float32)

    return predict


def map_season(
    images: SeasonImages,
    predict: Predict,
    out: Path,
    *,
    side: int,
    classes: tuple[str, ...],
    colours: list[str],
    batch: int,
    chunk: int,
    progress: Callable[[int], None] | None = None,
) -> MapResult:
    """Map all of a season's grid.

    Args:
        images: the season.
        predict: the segmenter.
        out: folder for the files; the item is written last.
        side: window side, pixels.
        classes: names of crops 1..K.
        colours: of labels 0..K, #rrggbb.
        batch: windows a call.
        chunk: rows of images read at a time.
        progress: told of finished rows.

    Raises:
        DataError: the images are smaller than a window.
        ServiceError: the files cannot be written.
    """
    grid = images.grid
    if min(grid.height, grid.width) < side:
        raise DataError(
            f"{grid.file}: {grid.height} x {grid.width} pixels, smaller than the model's window of {side}; "
            f"give a larger area, or a model of smaller windows"
        )
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": 1,
        "dtype": "uint8",
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": VOID,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "bigtiff": "if_safer",
    }
    seams = Seams(side)
    pixels = np.zeros(VOID + 1, np.int64)
    partial = {name: out / f"{name}.partial" for name in (CLASS, CONFIDENCE)}
    try:
        with rasterio.open(partial[CLASS], "w", **profile) as label_file:
            label_file.write_colormap(1, _palette(colours))
            label_file.update_tags(1, **{f"CLASS_{number}": name for number, name in enumerate(_names(classes))})
            with rasterio.open(partial[CONFIDENCE], "w", **profile) as confidence_file:
                confidence_file.update_tags(1, unit="percent")
                for rows in map_rows(
                    images.read,
                    predict,
                    height=grid.height,
                    width=grid.width,
                    side=side,
                    classes=len(classes),
                    batch=batch,
                    chunk=chunk,
                ):
                    window = Window(0, rows.first, grid.width, len(rows.label))
                    label_file.write(rows.label, 1, window=window)
                    percent = np.rint(100 * rows.probabilities.max(0)).astype(np.uint8)
                    confidence_file.write(
                        np.where(rows.label == VOID, VOID, percent).astype(np.uint8), 1, window=window
                    )
                    seams.add(rows)
                    pixels += np.bincount(rows.label.ravel(), minlength=VOID + 1)
                    if progress is not None:
                        progress(len(rows.label))
        for name, overviews in ((CLASS, "mode"), (CONFIDENCE, "average")):
            _optimise(partial[name], out / name, overviews=overviews)
            partial[name].unlink()
    except (RasterioError, OSError) as error:
        raise ServiceError(f"{out}: the map cannot be written: {error}; make room, and repeat") from error
    _write_quicklook(out / CLASS, out / "quicklook.png")
    _write_item(images, out, classes=classes, colours=colours)
    metres = grid.crs.is_projected and grid.crs.linear_units_factor[1]
    area = abs(grid.transform.determinant) * metres**2 / 10_000 if metres else None
    return MapResult(pixels[: len(classes) + 1], int(pixels[VOID]), seams.ratio(), area)


def _names(classes: tuple[str, ...]) -> tuple[str, ...]:
    return ("background", *classes)


def _palette(colours: list[str]) -> dict[int, tuple[int, int, int, int]]:
    found = {}
    for number, colour in enumerate(colours):
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        found[number] = (red, green, blue, 255)
    return {**found, VOID: (0, 0, 0, 0)}


def _optimise(source: Path, target: Path, *, overviews: str) -> None:
    """Copy to a cloud-optimised GeoTIFF: tiles, overviews, the directory first."""
    unfinished = target.with_name(f"{target.name}.cog")
    rasterio.shutil.copy(
        source, unfinished, driver="COG", compress="deflate", overview_resampling=overviews, blocksize=512
    )
    unfinished.replace(target)


def _write_quicklook(source: Path, target: Path) -> None:
    """The map in its palette, thinned to QUICKLOOK pixels."""
    with rasterio.open(source) as file:
        factor = max(1, math.ceil(max(file.height, file.width) / QUICKLOOK))
        shape = (max(1, file.height // factor), max(1, file.width // factor))
        label = file.read(1, out_shape=shape, resampling=Resampling.nearest)
        palette = file.colormap(1)
    profile = {"driver": "PNG", "height": shape[0], "width": shape[1], "count": 1, "dtype": "uint8", "nodata": VOID}
    with rasterio.open(target, "w", **profile) as file:
        file.write(label, 1)
        file.write_colormap(1, palette)
    target.with_name(f"{target.name}.aux.xml").unlink(missing_ok=True)


def _write_item(images: SeasonImages, out: Path, *, classes: tuple[str, ...], colours: list[str]) -> None:
    grid = images.grid
    corners = [
        grid.transform @ place for place in ((0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height))
    ]
    ring = [[x, y] for x, y in (*corners, corners[0])]
    geometry = transform_geom(grid.crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]}, precision=7)
    places = np.array(geometry["coordinates"][0])
    first = dt.datetime.combine(images.start, dt.time(), dt.UTC)
    item = pystac.Item(
        id=f"crop-map-{images.name}-{images.start}",
        geometry=geometry,
        bbox=[*places.min(0).tolist(), *places.max(0).tolist()],
        datetime=None,
        start_datetime=first,
        end_datetime=first + dt.timedelta(days=images.length),
        properties={
            "proj:code": grid.crs.to_string() if grid.crs.to_epsg() else None,
            "proj:wkt2": None if grid.crs.to_epsg() else grid.crs.to_wkt(),
            "proj:shape": [grid.height, grid.width],
            "proj:transform": list(grid.transform)[:9],
        },
        stac_extensions=[PROJECTION, CLASSIFICATION],
    )
    described = [
        {"value": number, "name": _slug(name), "title": name, "color_hint": colours[number].lstrip("#").upper()}
        for number, name in enumerate(_names(classes))
    ]
    cog = pystac.MediaType.COG
    for name, title, extra in (
        (CLASS, "Crop class", {"classification:classes": described, "nodata": VOID}),
        (CONFIDENCE, "Probability of the class, percent", {"nodata": VOID}),
    ):
        item.add_asset(
            name.removesuffix(".tif"),
            pystac.Asset(f"./{name}", title=title, media_type=cog, roles=["data"], extra_fields=extra),
        )
    item.add_asset("thumbnail", pystac.Asset("./quicklook.png", media_type=pystac.MediaType.PNG, roles=["thumbnail"]))
    content: dict[str, Any] = item.to_dict(include_self_link=False)
    publish_text(out / "item.json", json.dumps(content, indent=2))


def _slug(name: str) -> str:
    """A name as the classification extension wants it: letters, digits, _ and -."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
