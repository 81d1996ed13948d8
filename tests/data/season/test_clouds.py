"""Masks of clouds of several makers: which file is one, and what its numbers hide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exact_core.config import DataConfig
from exact_core.data.season.files import check_files, cloud_mask, find_acquisitions
from exact_core.data.season.folder import ingest_season
from exact_core.data.stac.items import parse_item
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import DataError
from tests.fakes import SEASON_DATES, write_raster, write_season

THEIA = "SENTINEL2A_20180718-105022-462_L2A_T31UFS_C_V2-2"
HLS = "HLS.S30.T31UFS.2018199T105031.v2.0"


@pytest.mark.parametrize(
    ("names", "mask"),
    [
        ((f"{THEIA}/{THEIA}_FRE_B2.tif", f"{THEIA}/MASKS/{THEIA}_CLM_R2.tif"), ("CLM", 1)),
        ((f"{THEIA}_FRE_B2.tif", f"{THEIA}_CLM_R2.tif", f"{THEIA}_CLM_R1.tif"), ("CLM", 2)),
        ((f"{THEIA}_FRE_B2.tif", f"{THEIA}_MG2_R1.tif"), ("MG2", 1)),
        ((f"{THEIA}_SRE_B2.tif", f"{THEIA}_MG2_R1.tif", f"{THEIA}_CLM_R1.tif"), ("CLM", 2)),
        ((f"{HLS}.B02.tif", f"{HLS}.Fmask.tif"), ("FMASK", 1)),
        (("S2_20180718/B02.tif", "S2_20180718/CLM.tif", "S2_20180718/SCL.tif"), ("SCL", 2)),
        # Another classification of the same name, and masks that say nothing of clouds.
        (("S2_20180718/B02.tif", "S2_20180718/oa_fmask.tif"), None),
        ((f"{THEIA}_FRE_B2.tif", f"{THEIA}_EDG_R1.tif", f"{THEIA}_SAT_R1.tif"), None),
    ],
)
def test_which_file_is_the_mask(tmp_path: Path, names: tuple[str, ...], mask: tuple[str, int] | None) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    _, (found,) = find_acquisitions(tmp_path, ("B02",))
    assert "B02" in found.files
    known = cloud_mask(found.files)
    assert (known and (known[0], known[1])) == (mask and (mask[0], tmp_path / names[mask[1]]))


@pytest.mark.parametrize(
    ("name", "hidden", "shown"),
    [
        # Whatever bit of CLM: clouds by several tests, their shadows, thin ones; 0 is ground.
        ("CLM", (1, 2, 3, 16, 32, 128), (0,)),
        # MG2: cloud, shadow of a cloud; water, snow and the shadows of mountains are ground.
        ("MG2", (2, 8, 2 | 4), (0, 1, 4, 16)),
        # Fmask: cloud, beside one, shadow, fill; cirrus is reserved, then snow, water and aerosol 0..3.
        ("FMASK", (2, 4, 8, 255, 192 | 2), (0, 1, 16, 32, 64, 128, 192)),
        ("SCL", (0, 1, 3, 8, 9, 10), (4, 5, 6, 7, 11)),
    ],
)
def test_what_a_mask_hides(tmp_path: Path, name: str, hidden: tuple[int, ...], shown: tuple[int, ...]) -> None:
    """One value a patch of 20 m along the first row of patches; ground below."""
    values = [*hidden, *shown]
    root = write_season(tmp_path / "season")
    for number, date in enumerate(SEASON_DATES):
        mask = np.full((16, 16), shown[0], np.uint8)
        mask[0, : len(values)] = values if number == 0 else shown[0]
        write_raster(root / f"S2_{date}/{name}.tif", mask, pixel=20.0, nodata=None)
    config = DataConfig(window=32, validation_share=0, test_share=0)
    ingest_season(root, config, tmp_path / "dataset", seed=0)
    clear = WindowDataset(tmp_path / "dataset").window(0).clear
    assert clear is not None
    assert clear[0, 0, : len(values)].tolist() == [0] * len(hidden) + [1] * len(shown)
    assert clear[1:].all()
    assert clear[0, 1:].all()


def test_a_mask_of_some_dates_is_refused(tmp_path: Path) -> None:
    root = write_season(tmp_path)
    write_raster(root / f"S2_{SEASON_DATES[1]}/CLM.tif", np.zeros((16, 16), np.uint8), pixel=20.0)
    _, found = find_acquisitions(root, ("B02",))
    with pytest.raises(DataError, match=rf"S2_{SEASON_DATES[0]} .*: CLM is missing \(on 3 of 4 dates\)\. Add it"):
        check_files(found, ("B02",))


@pytest.mark.parametrize(
    ("keys", "mask"), [(("B02", "Fmask"), "FMASK"), (("B02", "CLM", "SCL"), "SCL"), (("B02", "oa_fmask"), None)]
)
def test_masks_of_a_catalogue(keys: tuple[str, ...], mask: str | None) -> None:
    raw = {
        "id": "a",
        "properties": {"datetime": "2018-07-18T10:50:31Z"},
        "geometry": {"type": "Polygon", "coordinates": [[[3, 50], [4, 50], [4, 51], [3, 51], [3, 50]]]},
        "assets": {key: {"href": f"https://127.0.0.1/{key}.tif"} for key in keys},
    }
    found = parse_item(raw, base="https://127.0.0.1/", bands=("B02",)).assets
    assert list(found) == ["B02", *([mask] if mask else [])]
