"""Items of public catalogues, from the answer of a search to what is taken off their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exact_core.data.season.files import find_acquisitions
from exact_core.data.stac.catalogue import write_catalogue
from exact_core.data.stac.items import parse_item
from exact_core.errors import DataError
from tests.data.stac.catalogue_items import BANDS, data_space, earth_africa, earth_search, eopf, planetary_computer
from tests.fakes import write_raster

URL = "https://stac.example.org/v1/"


@pytest.mark.parametrize(
    ("item", "offset", "by", "tile", "key"),
    [
        (planetary_computer, 1000, "processing baseline 05.09", "33PVQ", "B02"),
        (earth_search, 0, "earthsearch:boa_offset_applied", "MGRS-33PVQ", "blue"),
        (data_space, 1000, "scale 0.0001 and offset -0.1", "MGRS-33PVQ", "B02_10m"),
        (earth_africa, 0, "sentinel:boa_offset_applied", None, "B02"),
    ],
)
def test_bands_and_offset_of_an_item(
    tmp_path: Path, item: Callable[[], dict[str, Any]], offset: int, by: str, tile: str | None, key: str
) -> None:
    parsed = parse_item(item(), base=URL, bands=BANDS)
    assert set(parsed.assets) == {*BANDS, "SCL"}
    assert parsed.assets["B02"].key == key
    assert all(asset.href.startswith("https://") for asset in parsed.assets.values())
    # The finest of each band, and where it lies.
    sides = {band: asset.shape for band, asset in parsed.assets.items()}
    assert (sides["B02"], sides["B11"], sides["SCL"]) == ((10_980, 10_980), (5_490, 5_490), (5_490, 5_490))
    assert parsed.extent == (399_960, 1_490_220, 509_760, 1_600_020)
    assert parsed.crs == "EPSG:32633"
    if tile is not None:
        assert parsed.tile == tile
    # As it is written beside the files and read again.
    for band in parsed.assets:
        file = tmp_path / parsed.folder / f"{band}.tif"
        write_raster(file, _square(), crs="EPSG:32633", left=399_960, top=1_600_020)
    write_catalogue(tmp_path, name="c", collection={"id": "c"}, items=[parsed])
    _, (found,) = find_acquisitions(tmp_path, BANDS)
    assert set(found.files) == {*BANDS, "SCL"}
    assert (found.stated.offset, found.stated.by) == (offset, by)
    assert found.stated.factor in (None, 1.0)


def _square() -> Any:
    return np.full((4, 4), 1500, np.uint16)


def test_zarr_is_refused_with_what_there_is() -> None:
    with pytest.raises(DataError, match=r"its images are Zarr \(media type application/vnd\+zarr\)"):
        parse_item(eopf(), base=URL, bands=BANDS)
