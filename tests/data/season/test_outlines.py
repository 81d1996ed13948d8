"""Outlines of fields on the pixels of a season. No crop is read from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine

from exact_core.data.season.outlines import field_numbers, open_outlines
from exact_core.data.season.rasters import Grid
from exact_core.errors import DataError

CRS = rasterio.crs.CRS.from_epsg(32631)
GRID = Grid(CRS, Affine(10, 0, 500_000, 0, -10, 5_600_000), 6, 8, Path("grid.tif"))


def box(left: int, top: int, right: int, bottom: int) -> shapely.Polygon:
    """A rectangle by pixels of the grid."""
    return shapely.box(500_000 + 10 * left, 5_600_000 - 10 * bottom, 500_000 + 10 * right, 5_600_000 - 10 * top)


def write(path: Path, outlines: list[shapely.Geometry], crs: str = "EPSG:32631") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    geometry = np.array([shapely.to_wkb(each) for each in outlines], object)
    pyogrio.raw.write(path, geometry, field_data=[], fields=[], geometry_type="Polygon", crs=crs)
    return path


def numbers(path: Path, notes: list[str] | None = None) -> NDArray[np.int32]:
    layer = open_outlines(path.parent, path.name)
    assert layer is not None
    return field_numbers(layer, GRID, [] if notes is None else notes)


def test_pixels_by_hand(tmp_path: Path) -> None:
    """Two fields apart, and a field inside a block, which keeps what is around it."""
    path = write(tmp_path / "f.gpkg", [box(0, 0, 3, 2), box(4, 0, 8, 6), box(5, 1, 7, 3)])
    notes: list[str] = []
    found = numbers(path, notes)
    names = np.unique(found).tolist()
    assert len(names) == 4
    assert names[0] == 0
    first, block, inner = names[1:]
    expected = np.zeros((6, 8), np.int32)
    expected[:2, :3], expected[:, 4:], expected[1:3, 5:7] = first, block, inner
    assert found.tolist() == expected.tolist()
    assert notes == [
        "3 field outlines of f.gpkg cover 62% of 6 x 8 pixels. No crop is read from them. If they cover every field, "
        "set masks.outside to background"
    ]


def test_a_part_of_the_area_has_the_numbers_of_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "f.gpkg", [box(0, 0, 3, 2), box(4, 0, 8, 6), box(5, 1, 7, 3)])
    layer = open_outlines(tmp_path, path.name)
    assert layer is not None
    parts = [field_numbers(layer, GRID.rows(first, first + 2), []) for first in (0, 2, 4)]
    assert np.concatenate(parts).tolist() == numbers(path).tolist()


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb", ".shp"])
def test_any_vector_file_in_any_crs(tmp_path: Path, suffix: str) -> None:
    """The same pixels whatever the format; in degrees too."""
    from rasterio.warp import transform

    def degrees(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(transform(CRS, "EPSG:4326", points[:, 0], points[:, 1]), 1)

    outlines = [box(0, 0, 3, 2), box(4, 0, 8, 6)]
    moved = [shapely.transform(each, degrees) for each in outlines]
    expected = numbers(write(tmp_path / "m.gpkg", outlines)) > 0
    found = numbers(write(tmp_path / f"d{suffix}", moved, "EPSG:4326"))
    assert (found > 0).tolist() == expected.tolist()
    assert len(np.unique(found)) == 3


def test_a_season_without_outlines_has_none_and_a_named_file_must_be_there(tmp_path: Path) -> None:
    assert open_outlines(tmp_path, None) is None
    write(tmp_path / "labels" / "outlines.gpkg", [box(0, 0, 3, 2)])
    layer = open_outlines(tmp_path, None)
    assert layer is not None
    assert layer.path.name == "outlines.gpkg"
    with pytest.raises(DataError, match=r"nowhere\.gpkg: no such file. Give a layer of field outlines"):
        open_outlines(tmp_path, "nowhere.gpkg")
