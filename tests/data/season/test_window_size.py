"""Windows in metres: as many pixels as the images' grid has for them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from exact_core.config import DataConfig, SeasonConfig, override
from exact_core.data.season.folder import ingest_season, survey_tags
from exact_core.data.season.rasters import Grid, pixel_metres
from exact_core.data.windows.dataset import WindowDataset
from exact_core.recipes import resolve
from tests.fakes import COARSE, write_season


def grid(epsg: int, pixel: float, left: float, top: float) -> Grid:
    crs = rasterio.crs.CRS.from_epsg(epsg)
    return Grid(crs, Affine(pixel, 0, left, 0, -pixel, top), 10, 10, Path("g.tif"))


def test_pixels_in_metres_by_hand() -> None:
    assert pixel_metres(grid(32631, 20, 500_000, 5_600_000)) == 20
    # US survey feet: 1200 / 3937 m.
    assert pixel_metres(grid(2227, 30, 6_000_000, 2_000_000)) == pytest.approx(30 * 1200 / 3937)
    # At 60 degrees a degree of longitude is half of one of latitude.
    assert pixel_metres(grid(4326, 0.001, 3, 60.005)) == pytest.approx(111.195 * math.sqrt(0.5), rel=1e-4)


@pytest.mark.parametrize(
    ("bands", "metres", "side", "noted"),
    [
        (("B02", "B05"), 80, 8, False),
        (tuple(COARSE[:2]), 80, 4, False),
        (("B02", "B05"), 100, 10, False),
        (tuple(COARSE[:2]), 40, 4, True),
    ],
)
def test_windows_of_a_season_have_the_pixels_of_its_grid(
    tmp_path: Path, bands: tuple[str, ...], metres: float, side: int, noted: bool
) -> None:
    root = write_season(tmp_path / "s", size=(64, 64))
    config = DataConfig(window=24, window_metres=metres, season=SeasonConfig(bands=bands))
    ingest_season(root, config, tmp_path / "out", seed=0)
    manifest = WindowDataset(tmp_path / "out").manifest
    assert manifest.window == side
    assert any("nearest to data.window_metres = 40" in note for note in manifest.notes) == noted


def test_pixels_that_are_set_go_before_metres() -> None:
    config = resolve("season")
    assert (config.data.window, config.data.window_metres) == (12, 120)
    assert override(config, ["data.window=8"]).data.window_metres is None
    assert override(config, ["data.window=8", "data.window_metres=90"]).data.window_metres == 90
    assert resolve('{"recipe": "season", "data": {"window": 8}}').data.window_metres is None


def test_tags_are_looked_at_before_an_image_is_read(tmp_path: Path) -> None:
    """Wheat in every second pixel pair: in all windows of 8 pixels, in half of those of 4."""
    codes = np.zeros((64, 64), np.int32)
    codes[:4].reshape(4, 16, 4)[:, ::2] = 100
    codes[4:] = np.tile(codes[:4], (15, 1))
    root = write_season(tmp_path / "s", size=(64, 64), codes=codes, legend="code,name\n100,wheat\n")
    config = DataConfig(window=8, season=SeasonConfig(bands=("B02",)))
    always, advice = survey_tags(root, config)
    assert always.startswith("Nearly every window is tagged with wheat (100 %)")
    assert advice.startswith("Windows of 4 pixels, 40 m (data.window_metres=40), are the largest")
    assert survey_tags(root, config.model_copy(update={"window": 4})) == []
    (root / "labels/crop_type.tif").unlink()
    assert survey_tags(root, config) == []
