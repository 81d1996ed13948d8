"""A map with one crop a field: from rows by hand, whatever rows come together."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

from exact_core.data.windows.dataset import VOID
from exact_core.errors import DataError
from exact_core.mapping.calibration import NOT_FITTED
from exact_core.mapping.cogs import MapRecord
from exact_core.mapping.field_rows import FIELDS, one_crop_a_field
from exact_core.mapping.finished_rows import FinishedRows

LABEL = np.array(
    [
        [1, 1, 2, 0, 2, 1],
        [1, 1, 1, 0, 1, 2],
        [0, 2, VOID, 0, 2, 1],
        [0, 0, 0, 0, 1, 2],
    ],
    np.uint8,
)
CONFIDENCE = np.where(LABEL == VOID, VOID, np.where(LABEL == 1, 80, 60)).astype(np.uint8)


def record(probabilities: bool = False) -> MapRecord:
    return MapRecord(
        source="season:t",
        name="t",
        season_start=dt.date(2018, 1, 1),
        season_days=300,
        bands=("B02",),
        dates=(dt.date(2018, 1, 1),),
        inputs="",
        crs=rasterio.crs.CRS.from_epsg(32631).to_wkt(version="WKT2_2019"),
        transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_600_000.0),
        height=4,
        width=6,
        window=2,
        classes=("wheat", "maize"),
        colours=("#000000", "#111111", "#222222"),
        probabilities=probabilities,
        calibration=NOT_FITTED,
        model_weights_sha256="",
        code_version="",
        notes=("before",),
    )


def outlines(folder: Path, *boxes: tuple[int, int, int, int]) -> Path:
    """Rectangles by their pixels: left, top, right, bottom."""
    areas = [
        shapely.box(500_000 + 10 * left, 5_600_000 - 10 * bottom, 500_000 + 10 * right, 5_600_000 - 10 * top)
        for left, top, right, bottom in boxes
    ]
    path = folder / "fields.gpkg"
    geometry = np.array([shapely.to_wkb(each) for each in areas], object)
    pyogrio.raw.write(path, geometry, field_data=[], fields=[], geometry_type="Polygon", crs="EPSG:32631")
    return path


def parts(step: int, planes: np.ndarray | None = None) -> Iterable[FinishedRows]:
    for first in range(0, 4, step):
        here = np.s_[first : first + step]
        given = None if planes is None else planes[:, here]
        yield FinishedRows(first, LABEL[here], CONFIDENCE[here], given)


def together(rows: Iterable[FinishedRows]) -> tuple[list[list[int]], list[list[int]]]:
    found = list(rows)
    return tuple(np.concatenate([getattr(each, name) for each in found]).tolist() for name in ("label", "confidence"))


@pytest.mark.parametrize("step", [1, 2, 4])
def test_fields_by_hand(tmp_path: Path, step: int) -> None:
    """The left field has 5 of 8 pixels of wheat; the right one, an outline of two crops, has 4 of 8 and keeps them."""
    layer = outlines(tmp_path, (0, 0, 3, 3), (4, 0, 6, 4))
    changed, rows = one_crop_a_field(lambda: parts(step), record(), layer, tmp_path)
    label, confidence = together(rows)
    expected = LABEL.copy()
    expected[:3, :3] = 1
    expected[2, 2] = VOID
    assert label == expected.tolist()
    # Five pixels at 80 %, three that speak of other classes.
    assert confidence[0][:3] == [50, 50, 50]
    assert confidence[2][2] == VOID
    assert confidence[3] == CONFIDENCE[3].tolist()
    assert changed.notes[0] == "before"
    assert changed.notes[1].startswith("one crop a field by fields.gpkg: 2 fields; 1 are mixed")
    with (tmp_path / FIELDS).open() as file:
        table = list(csv.DictReader(file))
    assert [(each["class"], each["share"], each["confidence"], each["pixels"], each["remark"]) for each in table] == [
        ("wheat", "0.625", "50.0", "8", ""),
        ("wheat", "0.500", "40.0", "8", "mixed"),
    ]
    assert len({each["field"] for each in table}) == 2


def test_probabilities_are_pooled(tmp_path: Path) -> None:
    """Most pixels lean to wheat a little, the others to maize by much: maize, by the mean over the field."""
    planes = np.zeros((3, 4, 6), np.uint8)
    planes[1], planes[2] = np.where(LABEL == 1, 52, 0), np.where(LABEL == 1, 48, 100)
    layer = outlines(tmp_path, (0, 0, 3, 2))
    _, rows = one_crop_a_field(lambda: parts(4, planes), record(True), layer, tmp_path)
    (found,) = rows
    # (5 * 48 + 100) / 6 = 56.7 % of maize: below MIXED, the pixels keep theirs.
    assert found.label.tolist() == LABEL.tolist()
    planes[2] = np.where(LABEL == 1, 60, 100)
    _, rows = one_crop_a_field(lambda: parts(4, planes), record(True), layer, tmp_path)
    (found,) = rows
    assert found.label[:2, :3].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert found.confidence[0, 0] == round((5 * 60 + 100) / 6)


def test_outlines_of_other_land_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fields\.gpkg: none of its outlines holds the centre of a mapped pixel"):
        one_crop_a_field(lambda: parts(4), record(), outlines(tmp_path, (100, 0, 103, 3)), tmp_path)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_pixels_outside_of_all_outlines(tmp_path: Path, step: int) -> None:
    """As they are, background beside a field, also across the edge of what is read at a time, or all background."""
    layer = outlines(tmp_path, (0, 0, 3, 2))
    found = {}
    for outside in ("pixels", "borders", "background"):
        changed, rows = one_crop_a_field(lambda: parts(step), record(), layer, tmp_path, outside=outside)
        label, confidence = together(rows)
        found[outside] = np.array(label)
        assert np.array(label)[:2, :3].tolist() == [[1, 1, 1], [1, 1, 1]]
        assert confidence[3] == CONFIDENCE[3].tolist()
        assert ("background" in changed.notes[1]) == (outside != "pixels")
    assert found["pixels"][2:].tolist() == LABEL[2:].tolist()
    # Below the field 2 becomes 0, and void stays; right of it is background already.
    assert found["borders"][2].tolist() == [0, 0, VOID, 0, 2, 1]
    assert (found["borders"][:, 3:] == LABEL[:, 3:]).all()
    assert (found["borders"][3] == LABEL[3]).all()
    assert found["background"][2].tolist() == [0, 0, VOID, 0, 0, 0]
    assert not found["background"][:, 3:].any()
