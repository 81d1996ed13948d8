"""Regions of a map as polygons: by hand, against GDAL's of the whole, and wherever a strip ends."""

import numpy as np
import pyogrio
import pytest
import rasterio.features
import shapely

from exact_core.errors import ConfigError, DataError
from exact_core.map_statistics.map_folder import open_map
from exact_core.map_statistics.polygons import write_polygons
from tests.mapping.maps import CLASSES, TRANSFORM, VOID, write_map


def read(path):
    _, table = pyogrio.read_arrow(path)
    columns = table.to_pydict()
    return columns, shapely.from_wkb(columns.get("geom", columns.get("geometry")))


def test_regions_by_hand(tmp_path):
    """A ring of wheat around maize, and two maize pixels that meet at a corner: three polygons of maize."""
    label = np.array([[1, 1, 1, 0], [1, 2, 1, VOID], [1, 1, 1, 2], [0, 0, 2, VOID]])
    confidence = np.where(label == VOID, VOID, 60)
    confidence[1, 1] = 90
    crop_map = open_map(write_map(tmp_path / "map", label, confidence=confidence))
    out = tmp_path / "fields.gpkg"
    summary = write_polygons(crop_map, out)
    assert summary.polygons == {"wheat": 1, "maize": 3}
    columns, outlines = read(out)
    assert pyogrio.read_info(out)["layer_name"] == "fields"
    assert sorted(zip(columns["crop"], columns["hectares"], columns["confidence"], columns["pixels"], strict=True)) == [
        ("maize", pytest.approx(0.01), 60, 1),
        ("maize", pytest.approx(0.01), 60, 1),
        ("maize", pytest.approx(0.01), 90, 1),
        ("wheat", pytest.approx(0.08), 60, 8),
    ]
    wheat = outlines[columns["crop"].index("wheat")]
    left, top = TRANSFORM.c, TRANSFORM.f
    hole = shapely.box(left + 10, top - 20, left + 20, top - 10)
    assert wheat.equals(shapely.box(left, top - 30, left + 30, top).difference(hole))
    summary = write_polygons(crop_map, tmp_path / "large.parquet", minimum_hectares=0.02)
    assert (summary.polygons, summary.small, summary.small_pixels) == ({"wheat": 1}, 3, 3)
    with pytest.raises(DataError, match="no region of a crop of 1 ha or more. Lower the minimum"):
        write_polygons(crop_map, tmp_path / "none.gpkg", minimum_hectares=1)
    assert not (tmp_path / "none.gpkg").exists()
    with pytest.raises(ConfigError, match="is there already"):
        write_polygons(crop_map, out)


@pytest.mark.parametrize("rows", [1, 3, 7, 50])
def test_no_seam_wherever_a_strip_ends(tmp_path, rows):
    rng = np.random.default_rng(3)
    label = np.kron(rng.integers(0, 3, (10, 9)), np.ones((4, 3), int)).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = VOID
    confidence = np.where(label == VOID, VOID, rng.integers(0, 100, label.shape))
    crop_map = open_map(write_map(tmp_path / "map", label, confidence=confidence))
    write_polygons(crop_map, tmp_path / "fields.gpkg", pixels=rows * label.shape[1])
    columns, outlines = read(tmp_path / "fields.gpkg")
    whole = [
        (CLASSES[int(value)], shapely.geometry.shape(shape))
        for shape, value in rasterio.features.shapes(label, mask=(label != VOID) & (label > 0), transform=TRANSFORM)
    ]
    assert len(outlines) == len(whole)
    found = {(name, shapely.normalize(each).wkb) for name, each in zip(columns["crop"], outlines, strict=True)}
    assert found == {(name, shapely.normalize(each.simplify(0)).wkb) for name, each in whole} or all(
        any(crop == name and each.equals(outline) for crop, each in zip(columns["crop"], outlines, strict=True))
        for name, outline in whole
    )
    for each, pixels, percent in zip(outlines, columns["pixels"], columns["confidence"], strict=True):
        assert each.geom_type == "Polygon"
        assert each.area == pytest.approx(100 * pixels)
        inside = rasterio.features.geometry_mask([each], label.shape, TRANSFORM, invert=True)
        assert percent == pytest.approx(confidence[inside].mean())
