"""Outlines on the 180th meridian, by hand and as RFC 7946 has them."""

import pytest
import rasterio
import shapely
from rasterio.warp import transform

from exact_core.data.lonlat import box_of, cut_at_180, in_degrees, unwrapped

ACROSS = shapely.Polygon([(179.5, -40), (-179.5, -40), (-179.5, -39), (179.5, -39)])
PARTS = shapely.union_all([shapely.box(179.5, -40, 180, -39), shapely.box(-180, -40, -179.5, -39)])


def test_by_hand():
    assert unwrapped(ACROSS).bounds == (179.5, -40, 180.5, -39)
    assert shapely.equals(cut_at_180(unwrapped(ACROSS)), PARTS)
    assert box_of(ACROSS) == [179.5, -40, -179.5, -39]
    plain = shapely.box(3, 50, 4, 51)
    assert cut_at_180(plain) is plain
    assert box_of(plain) == [3, 50, 4, 51]


def test_west_of_the_meridian_first():
    turned = shapely.Polygon([(-179.5, -40), (179.5, -40), (179.5, -39), (-179.5, -39)])
    assert shapely.equals(cut_at_180(unwrapped(turned)), PARTS)
    assert box_of(turned) == [179.5, -40, -179.5, -39]


@pytest.mark.parametrize("zone", [32760, 32701])
def test_a_square_of_utm_keeps_its_size(zone):
    """200 km at 40 degrees south: 1 degree is 85.4 km there."""
    crs = rasterio.crs.CRS.from_epsg(zone)
    (x,), (y,) = transform("EPSG:4326", crs, [180.0], [-40.0])
    found = in_degrees(shapely.box(x - 1e5, y - 1e5, x + 1e5, y + 1e5), crs)
    assert found.geom_type == "MultiPolygon"
    assert [part.bounds[0] >= -180 and part.bounds[2] <= 180 for part in found.geoms] == [True, True]
    width = sum(part.bounds[2] - part.bounds[0] for part in found.geoms)
    assert width == pytest.approx(200 / 85.4, rel=0.05)
