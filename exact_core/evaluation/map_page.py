"""A finished map as one HTML page that needs no network: classes, confidence, outlines and tags, each to be faded.

Rasters go in thinned to PAGE pixels, as grey pictures whose values are labels and percents. The page colours them, and
reads them back under the pointer. So its size does not follow that of the map.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.warp import transform

from exact_core.data.season.folder import window_side
from exact_core.data.season.outlines import outlines_on
from exact_core.data.season.rasters import Grid, pixel_metres
from exact_core.data.season.tag_tables import read_tag_layer, read_tag_table
from exact_core.data.vectors import open_layer
from exact_core.errors import CorruptError, DataError
from exact_core.evaluation.html_page import data_uri, render
from exact_core.files import publish_text
from exact_core.manifest import read_record
from exact_core.mapping.cogs import CLASS, CONFIDENCE
from exact_core.mapping.expected import quality_words
from exact_core.mapping.item import TRUE_COLOUR

__all__ = ["write_map_page"]

PAGE = 1600
"""Longest side of the rasters of the page, pixels."""
MOST_OUTLINES = 20_000
"""Outlines that are drawn: more would make the page slow and larger than its rasters."""
SQUARE_METRES = 120
"""Side of a tagged square without a size, that of the recipe `season`."""


def write_map_page(folder: Path, out: Path, *, outlines: Path | None = None, tags: Path | None = None) -> list[str]:
    """Write the page of a map.

    Args:
        folder: that `exact map` wrote.
        out: HTML file.
        outlines: vector layer to be drawn. If None, none.
        tags: table or vector layer of tagged squares to be drawn. If None, none.

    Returns:
        What the page leaves out, a sentence each.

    Raises:
        CorruptError: the map cannot be read.
        DataError: no map there, or a layer that cannot be read or does not reach it.
        ServiceError: the page cannot be written.
    """
    manifest = folder / "map.json"
    if not manifest.is_file():
        raise DataError(f"{folder}: no map here, map.json is missing. Make one with `exact map`")
    record, notes = read_record(manifest), list[str]()
    try:
        with rasterio.open(folder / CLASS) as file:
            grid = Grid(file.crs, file.transform, file.height, file.width, folder / CLASS)
        pictures = {
            "label": _thinned(folder / CLASS, grid, Resampling.mode),
            "percent": _thinned(folder / CONFIDENCE, grid, Resampling.average),
        }
    except RasterioError as error:
        raise CorruptError(f"{folder}: cannot be read: {error}. Make the map again with `exact map`") from error
    height, width = pictures["label"].shape
    if missing := [name for name in ("source", "season_start", "dates", "classes", "areas") if name not in record]:
        raise CorruptError(f"{manifest}: holds no {', '.join(missing)}. Make the map again with `exact map`")
    scale = width / grid.width, height / grid.height
    mapped = sum(each["pixels"] for each in record["areas"].values())
    content: dict[str, Any] = {
        "width": width,
        "height": height,
        "metres": pixel_metres(grid) / scale[0],
        "corners": _corners(grid),
        "classes": [
            {
                "name": name,
                "colour": colour,
                "hectares": record["areas"][name]["hectares"],
                "share": record["areas"][name]["pixels"] / max(1, mapped),
            }
            for name, colour in record["classes"].items()
        ],
        "outlines": [] if outlines is None else _paths(outlines, grid, scale, notes),
        "squares": [] if tags is None else _squares(tags, grid, scale, notes),
        **{name: data_uri(_grey_png(values)) for name, values in pictures.items()},
    }
    # In a script, `</` would end it, whatever it stands in.
    data = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")
    shown = {"title": record["source"], "start": record["season_start"], "dates": len(record["dates"])}
    said = quality_words(record.get("quality", {}))
    shown["quality"] = f"{said[0].upper()}{said[1:]}."
    images = data_uri((folder / TRUE_COLOUR).read_bytes()) if (folder / TRUE_COLOUR).is_file() else ""
    page = render("map_page.html.j2", {**shown, "data": data, "notes": notes, "images": images})
    publish_text(out, page)
    return notes


def _thinned(path: Path, grid: Grid, how: Resampling) -> NDArray[np.uint8]:
    """The raster in at most PAGE pixels a side, from its overviews where it has them."""
    step = grid.step(PAGE)
    shape = (max(1, round(grid.height / step)), max(1, round(grid.width / step)))
    with rasterio.open(path) as file:
        values: NDArray[np.uint8] = file.read(1, out_shape=shape, resampling=how)
    return values


def _grey_png(values: NDArray[np.uint8]) -> bytes:
    height, width = values.shape
    with MemoryFile() as memory, warnings.catch_warnings():
        # The page has the corners, so the picture needs none.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(driver="PNG", height=height, width=width, count=1, dtype="uint8") as file:
            file.write(values, 1)
        return bytes(memory.read())


def _corners(grid: Grid) -> list[list[float]]:
    """Longitude and latitude of the upper left, upper right, lower left and lower right corner."""
    places = [
        grid.transform @ place for place in ((0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height))
    ]
    longitude, latitude = transform(grid.crs, "EPSG:4326", *zip(*places, strict=True))
    return [[round(lon, 6), round(lat, 6)] for lon, lat in zip(longitude, latitude, strict=True)]


def _paths(path: Path, grid: Grid, scale: tuple[float, float], notes: list[str]) -> list[str]:
    """Outlines as SVG paths in pixels of the page, the largest ones if there are more than the page holds."""
    found = [each.area for each in outlines_on(open_layer(path, what="layer of outlines"), grid, (), Counter())]
    area = shapely.box(*rasterio.transform.array_bounds(grid.height, grid.width, grid.transform))
    found = [each for each in found if each.intersects(area)]
    if not found:
        raise DataError(f"{path}: none of its outlines lies on the map. Give outlines of the area mapped")
    if len(found) > MOST_OUTLINES:
        found = sorted(found, key=lambda each: -float(each.area))[:MOST_OUTLINES]
        notes.append(f"only the largest {MOST_OUTLINES:,} outlines of {path.name} are drawn")
    onto = ~grid.transform
    moved = shapely.transform(np.array(found, object), lambda xy: np.stack(onto @ tuple(xy.T), 1) * scale)
    return [_svg(each) for each in shapely.simplify(moved, 0.3) if not each.is_empty]


def _svg(outline: Any) -> str:
    rings = [ring for part in shapely.get_parts(outline) for ring in (part.exterior, *part.interiors)]
    return "".join("M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in ring.coords[:-1]) + "Z" for ring in rings)


def _squares(path: Path, grid: Grid, scale: tuple[float, float], notes: list[str]) -> list[dict[str, Any]]:
    """Tagged squares in pixels of the page: left, top, width, height, and the crops."""
    if path.suffix.lower() in (".csv", ".txt", ".tsv"):
        table = read_tag_table(path, None)
    else:
        table = read_tag_layer(open_layer(path, what="layer of tags"), None)
    found = []
    for square in table.squares(grid, window=window_side(SQUARE_METRES, pixel_metres(grid))):
        left, top, right, bottom = square.box
        if not (right > 0 and bottom > 0 and left < grid.width and top < grid.height):
            continue
        box = [left * scale[0], top * scale[1], (right - left) * scale[0], (bottom - top) * scale[1]]
        found.append({"box": [round(each, 1) for each in box], "crops": list(square.tag.crops)})
    if not found:
        raise DataError(f"{path}: none of its squares lies on the map. Give the tags of the area mapped")
    if len(found) < len(table.rows):
        notes.append(f"{len(table.rows) - len(found)} of {len(table.rows)} rows of {path.name} lie beside the map")
    return found
