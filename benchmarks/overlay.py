"""A crop map under the outlines of declared parcels, and its figures against them.

    python -m benchmarks.overlay MAP SOURCE [--out overlay.png]

MAP is a folder of `exact map` or `exact run` (crop_map), SOURCE the season folder that it was made from, with labels.
Both are read by their own georeference: outlines that do not lie on the fields would show a map in the wrong place.
Prints OA and mIoU of the map's pixels against the declared crops; classes are matched by name.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from rasterio.warp import transform as transform_points

from exact_core.config import DataConfig, SeasonConfig
from exact_core.data.season.folder import open_season
from exact_core.data.season.labels import LabelLayer, open_labels
from exact_core.data.windows.dataset import VOID
from exact_core.evaluation.palette import paint, true_colour
from exact_core.metrics import Scores, confusion_matrix


def declared(source: Path, images: Any, names: list[str]) -> NDArray[np.uint8]:
    """Declared crops on the images' grid (H, W), numbered as the map's classes."""
    layer = open_labels(source, images.settings, [])
    if not isinstance(layer, LabelLayer):
        sys.exit(f"{source}: a table of tags says nothing of single pixels")
    codes = layer.codes(images.grid, [])
    classes = layer.classes(np.unique(codes).tolist(), [])
    label = classes.label(codes)
    numbers = np.full(VOID + 1, VOID, np.uint8)
    numbers[0] = 0
    for number, name in enumerate(classes.classes, 1):
        numbers[number] = names.index(name) if name in names else VOID
    return numbers[label]


def outlines(path: Path, crs: Any) -> list[NDArray[np.float64]]:
    """Rings of a parcel layer in a CRS, each (N, 2)."""
    info, _, geometries, _ = pyogrio.raw.read(path, columns=[])
    rings = []
    for polygon in shapely.get_parts(shapely.from_wkb(geometries)):
        xy = shapely.get_coordinates(shapely.get_exterior_ring(polygon))
        rings.append(np.column_stack(transform_points(info["crs"], crs, *xy.T)))
    return rings


def draw(
    images: Any, label: NDArray[np.uint8], truth: NDArray[np.uint8], rings: Any, classes: dict[str, str]
) -> Figure:
    """Image, map and declared crops side by side, each under the outlines, on the coordinates of the map."""
    grid = images.grid
    pixels = images.read(0, grid.height)[0]
    # Clear, and in the middle of summer.
    dated = zip(images.shares, images.acquisitions, strict=True)
    worth = [share - abs(each.date.timetuple().tm_yday - 180) / 1000 for share, each in dated]
    clearest = int(np.argmax(worth))
    left, top = grid.transform @ (0, 0)
    right, bottom = grid.transform @ (grid.width, grid.height)
    figure = Figure(figsize=(12, 4.9), dpi=110, layout="constrained", facecolor="white")
    colours = list(classes.values())
    panels = (
        (f"Sentinel-2, {images.acquisitions[clearest].date}", true_colour(pixels[clearest], images.bands)),
        ("Crop map from tags", paint(label, colours)),
        ("Declared crops", paint(truth, colours)),
    )
    for axes, (title, image) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.imshow(image, extent=(left, right, bottom, top), interpolation="nearest")
        for ring in rings:
            axes.plot(*ring.T, color="black", linewidth=0.7)
        axes.set(title=title, xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    handles = [Patch(facecolor=to_rgb(colour), edgecolor="0.4", label=name) for name, colour in classes.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def main() -> None:
    """Draw and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("map", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--parcels", type=Path, default=None, help="outlines; default: SOURCE/labels/parcels.geojson")
    parser.add_argument("--out", type=Path, default=Path("overlay.png"))
    options = parser.parse_args()
    classes: dict[str, str] = json.loads((options.map / "map.json").read_text())["classes"]
    images = open_season(options.source, DataConfig(max_dates=30, season=SeasonConfig()))
    with rasterio.open(options.map / "class.tif") as file:
        if file.crs != images.grid.crs or file.transform != images.grid.transform:
            sys.exit("the map is not on the pixels of the images")
        label = file.read(1)
    truth = declared(options.source, images, list(classes))
    scores = Scores(confusion_matrix(truth, label, classes=len(classes) - 1))
    sys.stdout.write(f"OA {100 * scores.oa_micro:.1f} %, mIoU {100 * scores.miou_macro:.1f} %\n")
    layer = options.parcels or options.source / "labels" / "parcels.geojson"
    rings = outlines(layer, images.grid.crs)
    draw(images, label, truth, rings, classes).savefig(options.out)


if __name__ == "__main__":
    main()
