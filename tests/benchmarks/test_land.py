"""The benchmarks of real land: squares that are drawn, and outlines that are spoilt, as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from benchmarks.outlines import merged, missing, shifted, split
from benchmarks.tags import draw_squares
from exact_core.data.season.rasters import Grid
from exact_core.data.windows.dataset import VOID
from exact_core.recipes import resolve

AREAS = [shapely.box(100 * place, 0, 100 * place + 90, 60) for place in range(8)]


@pytest.mark.parametrize("seed", range(3))
def test_outlines_are_spoilt_as_it_is_said(seed: int) -> None:
    rng = np.random.default_rng(seed)
    moved = shifted(AREAS, rng, 10.0, pixels=2)
    steps = {
        tuple(np.round(np.array(after.bounds) - before.bounds, 6)[:2])
        for before, after in zip(AREAS, moved, strict=True)
    }
    assert len(steps) == 1
    assert np.hypot(*steps.pop()) == pytest.approx(20)
    assert len(merged(AREAS, rng, 10.0, share=0.25)) in (6, 7)
    halves = split(AREAS, rng, 10.0, share=0.25)
    assert len(halves) == 10
    assert sum(each.area for each in halves) == pytest.approx(sum(each.area for each in AREAS))
    assert sorted(each.area for each in halves)[:4] == [2700] * 4
    kept = missing(AREAS, rng, 10.0, share=0.25)
    assert len(kept) == 6
    assert all(each in AREAS for each in kept)


def test_squares_say_what_grows_in_them() -> None:
    """Wheat on the left, maize on the right, void below: no square is all void, and each says what lies in it."""
    labels = np.ones((40, 40), np.uint8)
    labels[:, 20:], labels[20:] = 2, VOID
    grid = Grid(
        rasterio.crs.CRS.from_epsg(32631), Affine(10, 0, 500_000, 0, -10, 5_600_000), *labels.shape, Path("g.tif")
    )
    table = draw_squares(labels, ("wheat", "maize"), grid, resolve("season"), count=30, size=120, draw=1)
    header, *rows = table.splitlines()
    assert header == "x,y,size,crops"
    assert len(rows) == 30
    for line in rows:
        x, y, size, crops = line.split(",")
        col, row = ~grid.transform @ (float(x), float(y))
        part = labels[round(row) - 6 : round(row) + 6, round(col) - 6 : round(col) + 6]
        assert part.shape == (12, 12)
        assert size == "120"
        assert (part != VOID).any()
        assert crops.split(";") == [
            name for label, name in ((1, "wheat"), (2, "maize")) if (part == label).mean() > 0.01
        ]
    assert table != draw_squares(labels, ("wheat", "maize"), grid, resolve("season"), count=30, size=120, draw=2)
