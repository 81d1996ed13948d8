"""Parcels on pixels: overlaps, outlines that cross themselves, and what is no parcel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from exact_core.config import SeasonConfig
from exact_core.data.season.labels import LabelLayer, open_labels
from exact_core.data.season.rasters import Grid
from exact_core.data.windows.dataset import VOID
from exact_core.errors import DataError

LEFT, TOP = 500_000, 5_600_000
GRID = Grid(rasterio.crs.CRS.from_epsg(32631), from_origin(LEFT, TOP, 10, 10), 20, 20, Path("B02.tif"))


def box(col0: float, row0: float, col1: float, row1: float) -> Any:
    return shapely.box(LEFT + 10 * col0, TOP - 10 * row1, LEFT + 10 * col1, TOP - 10 * row0)


def labels(folder: Path, outlines: list[Any], columns: dict[str, Any], **settings: Any) -> tuple[Any, list[str]]:
    """Labels on GRID, and notes; crops 1 wheat, 2 mustard, 3 wheat too."""
    (folder / "labels").mkdir(parents=True)
    pyogrio.raw.write(
        folder / "labels/parcels.gpkg",
        shapely.to_wkb(np.array(outlines, object)),
        list(columns.values()),
        list(columns),
        crs="EPSG:32631",
        geometry_type="Unknown",
    )
    (folder / "labels/legend.csv").write_text("code,name\n1,wheat\n2,mustard\n3,wheat\n")
    layer = open_labels(folder, SeasonConfig(**settings), [])
    assert isinstance(layer, LabelLayer)
    notes: list[str] = []
    classes = layer.classes(layer.present(GRID), [])
    return layer.labels(classes, GRID, notes), notes


@pytest.mark.parametrize("turned", [False, True])
def test_parcels_of_different_crops_that_overlap_are_void(tmp_path: Path, turned: bool) -> None:
    """Two crops on rows 0 to 9, of which columns 5 to 9 are both: whatever their order in the file."""
    rows = [(box(0, 0, 10, 10), 1), (box(5, 0, 15, 10), 2)]
    outlines, codes = zip(*(rows[::-1] if turned else rows), strict=True)
    found, notes = labels(tmp_path, list(outlines), {"crop_code": np.array(codes)})
    expected = np.zeros((20, 20), np.uint8)
    expected[:10, :5], expected[:10, 5:10], expected[:10, 10:15] = 1, VOID, 2
    np.testing.assert_array_equal(found, expected)
    assert any("2 parcels of different crops overlap on 50 pixels (0.5 ha): void there" in note for note in notes)


def test_three_layers_of_parcels_are_void_whichever_lies_between(tmp_path: Path) -> None:
    found, notes = labels(
        tmp_path, [box(0, 0, 10, 10)] * 3 + [box(10, 0, 20, 20)], {"crop_code": np.array([1, 2, 3, 1])}
    )
    assert (found[:10, :10] == VOID).all()
    assert (found[:, 10:] == 1).all()
    assert "on 100 pixels (1.0 ha)" in notes[0]


def test_parcels_of_one_crop_may_overlap(tmp_path: Path) -> None:
    found, notes = labels(tmp_path, [box(0, 0, 10, 20), box(5, 0, 15, 20)], {"crop_code": np.array([1, 3])})
    assert (found[:, :15] == 1).all()
    assert not any("overlap" in note for note in notes)


def test_an_attribute_that_orders_overlapping_parcels(tmp_path: Path) -> None:
    """The lowest value holds, a missing one comes last, equal ones are void."""
    outlines = [box(0, 0, 20, 5), box(0, 0, 10, 5), box(10, 0, 15, 5), box(0, 5, 20, 10), box(0, 5, 20, 10)]
    columns = {"crop_code": np.array([1, 2, 2, 1, 2]), "rank": np.array([2.0, 1.0, np.nan, 1.0, 1.0])}
    found, notes = labels(tmp_path / "a", outlines, columns, overlap_order="rank")
    assert (found[:5, :10] == 2).all()
    assert (found[:5, 10:] == 1).all()
    assert (found[5:10] == VOID).all()
    assert any("2 parcels of different crops of one rank overlap on 100 pixels" in note for note in notes)
    with pytest.raises(DataError, match="no attribute 'order', it has crop_code, rank"):
        labels(tmp_path / "b", outlines, columns, overlap_order="order")


def test_crops_that_overlap_everywhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"2 parcels .* overlap on 400 pixels \(4\.0 ha\).* data\.season\.overlap_order"
    ):
        labels(tmp_path, [box(0, 0, 20, 20)] * 2, {"crop_code": np.array([1, 2])})


def test_a_hole_that_sticks_out_and_parts_that_overlap(tmp_path: Path) -> None:
    """A hole takes away what of the parcel lies in it; parts that overlap are together one area."""
    shell = shapely.get_coordinates(box(0, 0, 10, 10))
    hole = shapely.get_coordinates(box(8, 2, 14, 8))
    outlines = [shapely.Polygon(shell, [hole]), shapely.MultiPolygon([box(0, 10, 10, 16), box(5, 12, 15, 20)])]
    found, _ = labels(tmp_path, outlines, {"crop_code": np.array([1, 2])})
    assert (found == 1).sum() == 100 - 12
    assert (found == 2).sum() == 60 + 80 - 20
    assert (found[2:8, 8:14] == 0).all()


def test_points_and_lines_are_no_parcels(tmp_path: Path) -> None:
    line = shapely.LineString([(LEFT, TOP - 150), (LEFT + 200, TOP - 150)])
    point = shapely.Point(LEFT + 25, TOP - 175)
    found, notes = labels(tmp_path / "a", [box(0, 0, 20, 10), line, point], {"crop_code": np.array([1, 2, 2])})
    assert (found[:10] == 1).all()
    assert (found[10:] == 0).all()
    assert any("2 outlines of parcels.gpkg are points or lines" in note for note in notes)
    with pytest.raises(DataError, match="2 points or lines over the images and not one polygon"):
        labels(tmp_path / "b", [line, point], {"crop_code": np.array([1, 2])})


@pytest.mark.parametrize("codes", [[1, 2], [3301010000, 3301060000], ["b", "a"]], ids=["short", "long", "text"])
def test_land_without_a_parcel_is_unknown_where_0_is_a_void_code(tmp_path: Path, codes: list[Any]) -> None:
    """Whatever the codes of the layer are. Without 0 it is background."""
    (tmp_path / "map.csv").write_text("code,name\n" + "".join(f"{code},crop {code}\n" for code in codes))
    parcels = [box(0, 0, 10, 10), box(10, 0, 20, 10)], {"crop_code": np.array(codes)}
    for void, expected in (((), 0), ((0,), VOID)):
        folder = tmp_path / str(expected)
        found, notes = labels(folder, *parcels, void_codes=void, legend=str(tmp_path / "map.csv"))
        assert sorted(np.unique(found[:10])) == [1, 2]
        assert (found[10:] == expected).all()
        assert any("beyond the extent" in note for note in notes) == (not void)


def test_land_beyond_the_layer_is_background_with_a_word(tmp_path: Path) -> None:
    _, notes = labels(tmp_path / "a", [box(0, 0, 20, 15)], {"crop_code": np.array([1])})
    assert any(
        "25% of the scene is beyond the extent of parcels.gpkg and counts as background" in note for note in notes
    )
    # The extent is that of all parcels, those beside the scene too.
    _, notes = labels(tmp_path / "b", [box(0, 0, 20, 15), box(0, 50, 5, 60)], {"crop_code": np.array([1, 1])})
    assert not any("beyond the extent" in note for note in notes)
