"""Where a map is: grids that none is made of, and the item of one on the 180th meridian."""

import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import rasterio
import shapely
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from exact_core.config import MappingConfig
from exact_core.data.season.rasters import Grid
from exact_core.errors import DataError
from exact_core.mapping.cogs import MapRecord
from exact_core.mapping.item import write_item
from exact_core.mapping.season_map import map_record


@pytest.mark.parametrize("onto", [Affine(10, 0, 0, 0, 10, 0), Affine(-10, 0, 0, 0, -10, 0), Affine(7, 7, 0, 7, -7, 0)])
def test_rotated_and_south_up_images_are_refused(onto):
    grid = Grid(rasterio.crs.CRS.from_epsg(32631), onto, 64, 64, Path("B02.tif"))
    with pytest.raises(DataError, match="B02.tif: its pixels do not run from north-west to south-east"):
        map_record(
            SimpleNamespace(grid=grid),
            source="season:x",
            side=24,
            stride=18,
            classes=("wheat",),
            colours=["#000000", "#111111"],
            mapping=MappingConfig(),
            calibration=None,
            weights_sha256="",
            code_version="",
        )


def test_the_item_of_a_map_across_the_180th_meridian(tmp_path):
    crs = rasterio.crs.CRS.from_epsg(32760)
    (x,), (y,) = transform("EPSG:4326", crs, [180.0], [-40.0])
    record = MapRecord.model_construct(
        name="x",
        season_start=dt.date(2024, 1, 1),
        season_days=30,
        crs=crs.to_wkt(version="WKT2_2019"),
        transform=tuple(from_origin(x - 1000, y, 10, 10))[:6],
        height=200,
        width=200,
        classes=("wheat",),
        colours=("#000000", "#111111"),
        probabilities=False,
        calibration=SimpleNamespace(temperature=None),
    )
    for name in ("class.tif", "confidence.tif", "quicklook.png"):
        (tmp_path / name).write_bytes(b"")
    write_item(record, tmp_path)
    item = json.loads((tmp_path / "item.json").read_text())
    west, south, east, north = item["bbox"]
    assert 179.98 < west < 180
    assert -180 < east < -179.98
    assert -40.1 < south < north < -39.9
    outline = shapely.geometry.shape(item["geometry"])
    assert outline.geom_type == "MultiPolygon"
    assert outline.area < 0.001
