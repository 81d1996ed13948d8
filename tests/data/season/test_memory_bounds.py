"""Rasters that are small on disk and larger than memory once they are unpacked."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from exact_core.data.season.rasters import Grid, open_raster, read_raster
from exact_core.errors import DataError


def sparse(path, size, **options):
    """A raster without a stored pixel."""
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "uint16", "crs": "EPSG:32631"}
    transform = Affine(10, 0, 500_000, 0, -10, 5_600_000)
    with rasterio.open(path, "w", **profile, transform=transform, SPARSE_OK="TRUE", BIGTIFF="YES", **options):
        pass
    assert path.stat().st_size < 4e6
    return path


def test_a_raster_larger_than_memory_is_refused_whole_and_read_in_part(tmp_path):
    path = sparse(tmp_path / "large.tif", 400_000, tiled=True, blockxsize=1024, blockysize=1024)
    with pytest.raises(DataError, match=r"large\.tif: 400,000 x 400,000 pixels unpack to 320\.0 GB, .*Cut it"):
        read_raster(path)
    with open_raster(path) as file:
        around = Grid(file.crs, file.transform, 64, 64, path)
    assert not np.any(read_raster(path, around=around)[0])


def test_a_block_larger_than_memory_is_refused_before_any_of_it_is_read(tmp_path, monkeypatch):
    path = sparse(tmp_path / "strip.tif", 20_000, tiled=True, blockxsize=20_000, blockysize=20_000)
    with open_raster(path):
        pass
    monkeypatch.setattr("exact_core.data.season.rasters.memory_free", lambda: 5 * 10**8)
    with pytest.raises(DataError, match=r"strip\.tif: 20,000 x 20,000 pixels unpack to 0\.8 GB, .* Write it again"):
        open_raster(path)
