"""The picture of the README: images, map and declared crops of a season, side by side.

    python -m benchmarks.picture season:FOLDER MAP [--fields MAP] --date 2018-06-28 --out docs/images/flanders.png

MAP is the folder of `exact map`, the second one of a run with outlines of fields. The parcels are those of
FOLDER/labels/parcels.geojson, with `crop_name`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.patches as shapes
import numpy as np
import pyogrio
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.plot import plotting_extent
from rasterio.warp import transform_geom

from exact_core.evaluation.chart_style import new_figure
from exact_core.evaluation.palette import paint, true_colour


def main() -> None:
    """Draw it, and print how much of the map is as declared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source")
    parser.add_argument("map", type=Path)
    parser.add_argument("--fields", type=Path)
    parser.add_argument("--date", default="2018-06-28")
    parser.add_argument("--out", type=Path, default=Path("docs/images/flanders.png"))
    given = parser.parse_args()
    folder = Path(given.source.removeprefix("season:"))
    colours = json.loads((given.map / "map.json").read_text())["classes"]
    names = list(colours)
    with rasterio.open(given.map / "class.tif") as file:
        labels, crs, transform, extent = file.read(1), file.crs, file.transform, plotting_extent(file)
    (images,) = folder.glob(f"*{given.date.replace('-', '')}*")
    bands = ("B04", "B03", "B02")
    pixels = np.stack([rasterio.open(images / f"{band}.tif").read(1) for band in bands])
    info, _, wkb, (crops,) = pyogrio.raw.read(folder / "labels/parcels.geojson", columns=["crop_name"])
    outlines = [
        shapely.geometry.shape(transform_geom(info["crs"], crs, shapely.geometry.mapping(each)))
        for each in shapely.from_wkb(wkb)
    ]
    burnt = [(outline, names.index(crop)) for outline, crop in zip(outlines, crops, strict=True) if crop in names]
    declared = rasterize(burnt, labels.shape, transform=transform, dtype="uint8")
    print(f"as declared: {(labels == declared).mean():.1%} of the pixels")

    panels = {
        f"Sentinel-2, {given.date}": true_colour(pixels, bands),
        "Crop map from tags": paint(labels, list(colours.values())),
    }
    if given.fields is not None:
        with rasterio.open(given.fields / "class.tif") as file:
            panels["From tags and field outlines"] = paint(file.read(1), list(colours.values()))
    panels["Declared crops"] = paint(declared, list(colours.values()))
    figure = new_figure(4.0 * len(panels), 4.9)
    for axes, (title, image) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(image, extent=extent, interpolation="nearest")
        for outline in outlines:
            for part in getattr(outline, "geoms", [outline]):
                axes.plot(*part.exterior.xy, color="#222222", linewidth=0.8)
        axes.set(title=title, xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    first = figure.axes[0]
    left, bottom = extent[0] + 30, extent[2] + 30
    first.plot([left, left + 200], [bottom, bottom], color="white", linewidth=4, solid_capstyle="butt")
    first.text(left + 100, bottom + 15, "200 m", color="white", ha="center", weight="bold")
    first.annotate("N", (0.95, 0.97), (0.95, 0.82), "axes fraction", color="white", ha="center", weight="bold",
                   arrowprops={"arrowstyle": "->", "color": "white", "linewidth": 2})  # fmt: skip
    handles = [shapes.Patch(facecolor=colour, edgecolor="#666666", label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(given.out, dpi=110)


if __name__ == "__main__":
    main()
