"""The picture of a finished map: what it says of scale, north, place, areas and shares."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from exact_core.evaluation.map_picture import map_picture, nice_length
from exact_core.mapping.calibration import NOT_FITTED
from exact_core.mapping.cogs import MapRecord


def make_record(crs: int, affine: Affine, *, height: int = 100, width: int = 200) -> MapRecord:
    return MapRecord(
        source="season:north",
        name="north",
        season_start=dt.date(2024, 4, 1),
        season_days=30,
        bands=("B02",),
        dates=(dt.date(2024, 4, 2), dt.date(2024, 4, 12)),
        inputs="0",
        crs=CRS.from_epsg(crs).to_wkt(version="WKT2_2019"),
        transform=tuple(affine)[:6],
        height=height,
        width=width,
        window=8,
        classes=("maize", "$x$"),
        colours=("#000000", "#112233", "#445566"),
        probabilities=False,
        calibration=NOT_FITTED,
        model_weights_sha256="0",
        code_version="0",
        notes=(),
    )


def drawn(record: MapRecord, pixels: tuple[int, ...] = (5000, 15000, 0), unmapped: int = 0):
    """All texts of the figure, its scale bar as a share of the map's width, and the direction of its arrow."""
    label = np.zeros((record.height, record.width), np.uint8)
    figure = map_picture(record, label, np.array(pixels), unmapped)
    figure.canvas.draw()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    foot = next(axes for axes in figure.axes if any(text.get_text() == "N" for text in axes.texts))
    pieces = [patch for patch in foot.patches if isinstance(patch, Rectangle)]
    bar = sum(piece.get_width() for piece in pieces) / foot.get_xlim()[1]
    (arrow,) = [text for text in foot.texts if text.get_text() == ""]
    (right, up), (tail_right, tail_up) = arrow.xy, arrow.xyann
    return texts, bar, (right - tail_right, up - tail_up)


def test_it_says_areas_shares_place_season_and_whose_images():
    texts, bar, (right, up) = drawn(make_record(32631, from_origin(500_000, 5_600_000, 10, 10)), unmapped=5000)
    for said in ("Crop map: north", "Sentinel-2, 2 dates, 2024-04-01 to 2024-04-30", "$x$"):
        assert said in texts
    order = [text for text in texts if text in ("background", "maize", "$x$", "not mapped")]
    assert order == ["maize", "background", "$x$", "not mapped"]
    for area, share in (("150.0 ha", "75.0 %"), ("50.0 ha", "25.0 %"), ("0.0 ha", "0.0 %"), ("50.0 ha", "20.0 %")):
        assert area in texts
        assert share in texts
    assert any("Contains modified Copernicus" in text and "2024" in text for text in texts)
    assert any(text.startswith("50.5") and "N, 3.0" in text for text in texts)
    # 500 m of 2,000 m, on a sphere instead of the ellipsoid; on the central meridian north is up.
    assert "500 m" in texts
    assert bar == pytest.approx(0.25, rel=5e-3)
    assert right == pytest.approx(0, abs=1e-3 * up)
    assert up > 0


def test_scale_and_north_are_those_of_the_ground_in_any_projection():
    """In Web Mercator at 60 degrees a metre of the map is half a metre; a raster upside down has north below."""
    (x,), (y,) = transform("EPSG:4326", "EPSG:3857", [10.0], [60.0])
    texts, bar, (_, up) = drawn(make_record(3857, Affine(10, 0, x - 1000, 0, 10, y - 500)))
    assert "200 m" in texts
    assert bar == pytest.approx(0.2, rel=5e-3)
    assert up < 0
    # In degrees, and with columns that run to the north.
    texts, bar, (right, up) = drawn(make_record(4326, Affine(0, 1e-4, 10.0, 1e-4, 0, 60.0)), pixels=(1, 3, 0))
    assert "15,000 px" not in texts
    assert "3 px" in texts
    width = 200 * 1e-4 * math.radians(1) * 6_371_008.8
    assert bar == pytest.approx(500 / width, rel=1e-2)
    assert abs(up) < 1e-3 * right


@pytest.mark.parametrize(
    ("most", "length"), [(1, 1), (1.99, 1), (2, 2), (499, 200), (500, 500), (0.7, 0.5), (12_345, 10_000), (99, 50)]
)
def test_a_bar_has_a_round_length(most, length):
    assert nice_length(most) == pytest.approx(length)


@pytest.mark.parametrize(("height", "width"), [(1000, 4), (4, 1000)])
def test_an_area_of_any_shape_has_a_picture(height, width):
    texts, _, _ = drawn(make_record(32631, from_origin(500_000, 5_600_000, 10, 10), height=height, width=width))
    assert "maize" in texts
