"""Files as others name them: what band and day each is, by the names that their makers document."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from exact_core.data.season.files import find_acquisitions
from exact_core.errors import DataError

NAMES = {
    "sits": ("SENTINEL-2_MSI_20LKP_{band}_2018-07-18.tif", "B02", "B8A"),
    "terrascope": ("S2A_20180718T105031_31UFS_TOC-{band}_10M_V200.tif", "B02", "B8A"),
    "theia": ("SENTINEL2A_20180718-105022-462_L2A_T31UFS_C_V2-2_FRE_{band}.tif", "B2", "B8A"),
    "earth_engine": ("20180718T105031_20180718T105027_T31UFS.{band}.tif", "B2", "B8A"),
    "hls": ("HLS.S30.T31UFS.2018199T105031.v2.0.{band}.tif", "B02", "B8A"),
}
BANDS = ("B02", "B8A")


@pytest.mark.parametrize("maker", NAMES)
def test_names(tmp_path: Path, maker: str) -> None:
    pattern, *bands = NAMES[maker]
    for band in bands:
        (tmp_path / pattern.format(band=band)).touch()
    _, (found,) = find_acquisitions(tmp_path, BANDS)
    assert found.date == dt.date(2018, 7, 18)
    assert {band: path.name for band, path in found.files.items()} == {
        name: pattern.format(band=band) for name, band in zip(BANDS, bands, strict=True)
    }


def test_scenes_of_terrascope(tmp_path: Path) -> None:
    names = (
        "S2A_20180718T105031_31UFS_TOC-B02_10M_V200.tif",
        "S2A_20180718T105031_31UFS_SCENECLASSIFICATION_20M_V200.tif",
    )
    for name in names:
        (tmp_path / "S2A_20180718T105031_31UFS_TOC_V200" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "S2A_20180718T105031_31UFS_TOC_V200" / name).touch()
    _, (found,) = find_acquisitions(tmp_path, BANDS)
    assert {band: path.name for band, path in found.files.items()} == dict(zip(("B02", "SCL"), names, strict=True))


def test_of_theia_the_reflectance_that_is_corrected_for_slopes(tmp_path: Path) -> None:
    for kind in ("SRE", "FRE"):
        (tmp_path / f"SENTINEL2A_20180718-105022-462_L2A_T31UFS_C_V2-2_{kind}_B2.tif").touch()
    _, (found,) = find_acquisitions(tmp_path, BANDS)
    assert "_FRE_" in found.files["B02"].name


def test_landsat_is_not_taken_for_sentinel(tmp_path: Path) -> None:
    (tmp_path / "HLS.L30.T31UFS.2018199T105031.v2.0.B05.tif").touch()
    with pytest.raises(DataError, match="Take the files HLS.L30 out"):
        find_acquisitions(tmp_path, BANDS)
