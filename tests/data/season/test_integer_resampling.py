"""Rasters that nest in a grid: values by hand, and those of GDAL's warper to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

from exact_core.data.season import rasters
from exact_core.data.season.integer_resampling import resample_in_integers
from exact_core.data.season.rasters import Grid, fit_to_grid

UTM = CRS.from_epsg(32631)
X, Y = 499_980, 5_600_040


def place(size: float, *, row: float = 0, col: float = 0) -> Affine:
    """Pixels of a size, the first one `row` and `col` pixels of 10 m from the tile's corner."""
    return Affine(size, 0, X + 10 * col, 0, -size, Y - 10 * row)


def warped(
    values: NDArray[Any], transform: Affine, onto: Affine, shape: tuple[int, int], *, nearest: bool, fill: int
) -> NDArray[Any]:
    """The oracle: GDAL's warper."""
    found = np.full(shape, fill, values.dtype)
    reproject(
        values,
        found,
        src_crs=UTM,
        src_transform=transform,
        src_nodata=fill,
        dst_crs=UTM,
        dst_transform=onto,
        dst_nodata=fill,
        resampling=Resampling.nearest if nearest else Resampling.bilinear,
    )
    return found


def nested(
    values: NDArray[Any], transform: Affine, onto: Affine, shape: tuple[int, int], *, nearest: bool, fill: int
) -> NDArray[Any] | None:
    found = np.full(shape, fill, values.dtype)
    return found if resample_in_integers(values, transform, onto, found, nearest=nearest, fill=fill) else None


def scattered(rng: np.random.Generator, shape: tuple[int, int], fill: int) -> NDArray[np.int16]:
    """Values of a range, with holes here and there, everywhere, or along an edge."""
    low, high = [(1, 9000), (-40, 40), (-32768, 32768), (0, 3)][rng.integers(4)]
    values = rng.integers(low, high, shape).astype(np.int16)
    values[rng.random(shape) < rng.choice([0, 0.02, 0.3, 0.9])] = fill
    if rng.random() < 0.3:
        values[:, : rng.integers(shape[1] + 1)] = fill
    return values


def test_hand_worked() -> None:
    values = np.array([[16, 32], [48, 80]], np.int16)
    # (9, 3, 3, 1) / 16 inside; at the edges (3, 1) / 4, and in the corners the value itself.
    expected = [[16, 20, 28, 32], [24, 29, 39, 44], [40, 47, 61, 68], [48, 56, 72, 80]]
    found = nested(values, place(20), place(10), (4, 4), nearest=False, fill=0)
    assert found is not None
    assert found.tolist() == expected


def test_hand_worked_beside_missing_values() -> None:
    values = np.array([[16, 0], [48, 80]], np.int16)
    found = nested(values, place(20), place(10), (4, 4), nearest=False, fill=0)
    assert found is not None
    # The hole is one in all its four pixels. Around it, left to right and down: (9 x 16 + 3 x 48 + 80) / 13 = 28.3,
    # (9 x 48 + 3 x 16 + 3 x 80) / 15 = 48, (9 x 80 + 3 x 48 + 16) / 13 = 67.7.
    assert found.tolist() == [[16, 16, 0, 0], [24, 28, 0, 0], [40, 48, 68, 80], [48, 56, 72, 80]]


def test_halves_are_rounded_up_and_no_measured_value_becomes_a_missing_one() -> None:
    up = np.array([[1, 3], [1, 3]], np.int16)
    found = nested(up, place(20), place(10), (4, 4), nearest=False, fill=0)
    assert found is not None
    assert found[0].tolist() == [1, 2, 3, 3]
    around = np.array([[-1, 3], [-1, 3]], np.int16)
    found = nested(around, place(20), place(10), (4, 4), nearest=False, fill=0)
    assert found is not None
    assert found[0].tolist() == [-1, -1, 2, 3]


@pytest.mark.parametrize("seed", range(8))
def test_values_are_the_warpers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    used = 0
    for _ in range(120):
        factor, nearest = [(1, False), (2, False), (2, False), (2, True), (4, True)][rng.integers(5)]
        fill = int(rng.choice([0, 0, 0, 1, -5]))
        values = scattered(rng, (int(rng.integers(2, 40)), int(rng.integers(2, 40))), fill)
        shape = (int(rng.integers(1, 80)), int(rng.integers(1, 80)))
        transform = place(10 * factor, row=2 * int(rng.integers(10_980)), col=2 * int(rng.integers(10_980)))
        # In the raster, across its edges or beside it; also where a row of coarse pixels is cut in halves.
        onto = transform @ Affine.translation(*rng.integers(-50, 60, 2) / factor) @ Affine.scale(1 / factor)
        found = nested(values, transform, onto, shape, nearest=nearest, fill=fill)
        assert found is not None
        np.testing.assert_array_equal(found, warped(values, transform, onto, shape, nearest=nearest, fill=fill))
        used += bool((found != fill).any())
    assert used > 30


def test_many_rows_with_holes_are_the_warpers() -> None:
    """More than are worked on at a time, and more than the warper works on at a time."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 9000, (2400, 2600)).astype(np.int16)
    values[rng.random(values.shape) < 0.001] = 0
    shape = (4800, 5200)
    found = nested(values, place(20), place(10), shape, nearest=False, fill=0)
    assert found is not None
    assert np.array_equal(found, warped(values, place(20), place(10), shape, nearest=False, fill=0))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_classes_of_any_type_are_repeated_as_the_warper_does(dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, 12, (30, 20)).astype(dtype)
    options: dict[str, Any] = {"nearest": True, "fill": 0}
    onto = place(10, row=-3, col=5)
    found = nested(values, place(20), onto, (40, 50), **options)
    assert found is not None
    np.testing.assert_array_equal(found, warped(values, place(20), onto, (40, 50), **options))


def test_parts_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    values = scattered(rng, (40, 30), 0)
    whole = nested(values, place(20), place(10), (80, 60), nearest=False, fill=0)
    assert whole is not None
    for first, last in [(0, 2), (17, 50), (66, 80)]:
        part = nested(values, place(20), place(10, row=first), (last - first, 60), nearest=False, fill=0)
        assert part is not None
        assert np.array_equal(part, whole[first:last])


@pytest.mark.parametrize(
    ("transform", "onto"),
    [
        (place(20, col=0.5), place(10)),
        (place(30), place(10)),
        (place(40), place(10)),
        (place(10), place(20)),
        (Affine(20, 1, X, 1, -20, Y), place(10)),
        (Affine(20, 0, X, 0, 20, Y), place(10)),
        (Affine(20, 0, X + 1e-6, 0, -20, Y), place(10)),
        (Affine(0.3, 0, 0.1, 0, -0.3, 0.1), Affine(0.15, 0, 0.1, 0, -0.15, 0.1)),
        (Affine(20, 0, X, 0, -30, Y), place(10)),
    ],
)
def test_what_does_not_nest_to_the_last_bit_is_left_to_the_warper(transform: Affine, onto: Affine) -> None:
    values = np.ones((8, 8), np.int16)
    found = np.zeros((8, 8), np.int16)
    assert not resample_in_integers(values, transform, onto, found, nearest=False, fill=0)
    assert not found.any()


@pytest.mark.parametrize("shape", [(1, 9), (9, 1)])
def test_a_raster_one_pixel_wide_is_left_to_the_warper(shape: tuple[int, int]) -> None:
    assert nested(np.ones(shape, np.int16), place(20), place(10), (18, 18), nearest=False, fill=0) is None


def test_a_20_m_band_needs_no_warper(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*_args: Any, **_options: Any) -> None:
        raise AssertionError("the warper was asked")

    monkeypatch.setattr(rasters, "reproject", unwanted)
    grid = Grid(UTM, place(10), 64, 32, Path("B02.tif"))
    values = np.full((32, 16), 7, np.int16)
    assert (fit_to_grid(values, UTM, place(20), grid, nearest=False, fill=0) == 7).all()
    with pytest.raises(AssertionError):
        fit_to_grid(values, CRS.from_epsg(32632), place(20), grid, nearest=False, fill=0)
