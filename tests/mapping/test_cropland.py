"""A cropland mask: a raster, one of classes, or polygons; outside of it the map says nothing."""

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

from exact_core.errors import ConfigError, DataError
from exact_core.mapping.cropland import CroplandMask
from exact_core.stages.map_layers import Layers
from tests.mapping.maps import VOID
from tests.mapping.test_field_rows import CONFIDENCE, LABEL, parts, record

INSIDE = np.zeros((4, 6), bool)
INSIDE[1:3, 2:5] = True


def raster(path, values, *, left=500_000, crs="EPSG:32631", nodata=None, side=10):
    values = np.asarray(values, np.uint8)
    height, width = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8", "nodata": nodata}
    with rasterio.open(
        path, "w", **profile, crs=crs, transform=rasterio.transform.from_origin(left, 5_600_000, side, side)
    ) as file:
        file.write(values, 1)
    return path


def polygon(path):
    outline = shapely.box(500_020, 5_599_970, 500_050, 5_599_990)
    geometry = np.array([shapely.to_wkb(outline)], object)
    pyogrio.raw.write(path, geometry, field_data=[], fields=[], geometry_type="Polygon", crs="EPSG:32631")
    return path


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("kind", ["ones", "classes", "nodata", "wider", "polygon"])
def test_outside_of_the_mask_nothing_is_mapped(tmp_path, kind, step):
    path, values = tmp_path / "mask.tif", ()
    if kind == "polygon":
        path = polygon(tmp_path / "mask.gpkg")
    elif kind == "classes":
        raster(path, np.where(INSIDE, 40, 10))
        values = (40,)
    elif kind == "nodata":
        raster(path, np.where(INSIDE, 1, 9), nodata=9)
    elif kind == "wider":
        raster(path, np.pad(INSIDE, ((0, 3), (5, 2))), left=500_000 - 50)
    else:
        raster(path, INSIDE)
    planes = np.tile(np.arange(24, dtype=np.uint8).reshape(4, 6), (3, 1, 1))
    mask = CroplandMask(path, values, record(True))
    found = list(mask.rows(parts(step, planes)))
    np.testing.assert_array_equal(np.concatenate([each.label for each in found]), np.where(INSIDE, LABEL, VOID))
    np.testing.assert_array_equal(
        np.concatenate([each.confidence for each in found]), np.where(INSIDE, CONFIDENCE, VOID)
    )
    np.testing.assert_array_equal(
        np.concatenate([each.probabilities for each in found], 1), np.where(INSIDE, planes, VOID)
    )
    assert mask.masked == ((LABEL != VOID) & ~INSIDE).sum()


def test_masks_that_say_nothing_are_refused(tmp_path):
    classes = raster(tmp_path / "classes.tif", np.where(INSIDE, 40, 10))
    with pytest.raises(ConfigError, match=r"several values \(10, 40\). Name those that are cropland, as --cropland-v"):
        list(CroplandMask(classes, (), record()).rows(parts(4)))
    away = raster(tmp_path / "away.tif", INSIDE, left=600_000)
    with pytest.raises(DataError, match="away.tif: no mapped pixel is cropland by this mask"):
        list(CroplandMask(away, (), record()).rows(parts(4)))
    with pytest.raises(DataError, match="none.tif: no such file. Give a raster or a vector layer"):
        CroplandMask(tmp_path / "none.tif", (), record())
    with pytest.raises(ConfigError, match="is a vector layer, and has no values"):
        CroplandMask(polygon(tmp_path / "a.gpkg"), (1,), record())


def test_values_that_lie_apart_are_several_however_rows_are_cut(tmp_path):
    """Each block of rows has one value, the raster two."""
    where = np.zeros(LABEL.shape, np.uint8)
    where[: len(where) // 2], where[len(where) // 2 :] = 10, 40
    classes = raster(tmp_path / "classes.tif", where)
    for rows in (1, 2, len(where)):
        with pytest.raises(ConfigError, match=r"several values \(10, 40\)"):
            list(CroplandMask(classes, (), record()).rows(parts(rows)))


def test_a_raster_of_several_bands_is_refused_before_anything_is_mapped(tmp_path):
    path = raster(tmp_path / "one.tif", INSIDE)
    with rasterio.open(path) as file:
        profile, values = file.profile | {"count": 2}, file.read(1)
    with rasterio.open(tmp_path / "two.tif", "w", **profile) as file:
        file.write(np.stack([values, values]))
    with pytest.raises(DataError, match=r"two\.tif: 2 bands, CRS EPSG:32631, expected one band with a CRS"):
        Layers(cropland=str(tmp_path / "two.tif")).here(record().season_start)
    with pytest.raises(DataError, match="none.gpkg"):
        Layers(outlines=str(tmp_path / "none.gpkg")).here(record().season_start)
