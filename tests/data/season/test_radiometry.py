"""Scales and offsets: what metadata state, what pixels show, and which of them holds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from exact_core.config import DataConfig, SeasonConfig
from exact_core.data.season.folder import ingest_season, open_season
from exact_core.data.season.radiometry import VISIBLE, Look, Stated, check_scales, dark_level, settle, stated_offset
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import DataError
from tests.fakes import BANDS, write_season

NOTHING = Stated(None, "nothing")
NONE = Stated(0, "processing baseline 02.14")
DATES = ("20220110", "20220120", "20220130", "20220209", "20220219", "20220301")


@pytest.mark.parametrize(
    ("properties", "bands", "names", "offset"),
    [
        ({}, [], [], None),
        ({"s2:processing_baseline": "02.14"}, [], [], 0),
        ({"s2:processing_baseline": "04.00"}, [], [], 1000),
        ({"s2:processing_baseline": "05.09"}, [], [], 1000),
        ({"processing:version": "05.00"}, [], [], 1000),
        ({"processing:version": "unknown"}, [], [], None),
        # Earth Search says that it took the offset off, and still lists it.
        ({"earthsearch:boa_offset_applied": True}, [{"scale": 0.0001, "offset": -0.1}], [], 0),
        ({"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.00"}, [], [], 1000),
        ({"s2:processing_baseline": "05.00"}, [{"scale": 0.0001, "offset": 0}], [], 0),
        ({}, [{"scale": 0.0001, "offset": -0.1}], [], 1000),
        ({}, [{"scale": 1.0, "offset": 0.0}], [], None),
        ({"BOA_ADD_OFFSET": "-1000"}, [], [], 1000),
        ({"BOA_ADD_OFFSET": "0"}, [], [], 0),
        ({}, [], ["S2A_MSIL2A_20220301T105211_N0400_R051_T31UDS_20220301T1"], 1000),
        ({}, [], ["S2A_MSIL2A_20200301T105211_N0214_R051_T31UDS_20200301T1"], 0),
        ({}, [], ["S2A_MSIL2A_20200301T105211_N9999_R051_T31UDS_20200301T1"], None),
        ({}, [], ["HLS.S30.T31UFS.2022199T105031.v2.0.B02.tif"], 0),
        ({}, [], ["SENTINEL2A_20220718-105022-462_L2A_T31UFS_C_V3-0_FRE_B2.tif"], 0),
        ({"s2:processing_baseline": float("nan")}, [{"scale": "x"}], ["S2"], None),
    ],
)
def test_what_metadata_state(properties: Any, bands: Any, names: Any, offset: int | None) -> None:
    assert stated_offset(properties, bands, names).offset == offset


def look(
    day: int,
    dark: float,
    *,
    stated: Stated = NOTHING,
    clear: int = 200,
    growth: float = 0.0,
    swir: float | None = None,
) -> Look:
    """200 places from `dark` to dark + 1990 in every visible band, the same places on every day."""
    values = np.tile(dark + 10 * np.arange(200, dtype=np.float32), (3, 1))
    values += growth * np.random.default_rng(day).normal(size=values.shape).astype(np.float32)
    values[:, clear:] = np.nan
    shortwave = values[:2] + 1000 if swir is None else values[:2] * 0 + swir
    return Look(f"S{day}", dt.date(2022, 1, 1) + dt.timedelta(days=day), stated, values, shortwave, values[0] + 1500)


def offsets(looks: list[Look], rule: Any = "correct") -> tuple[list[int], list[str]]:
    notes: list[str] = []
    return settle(looks, rule, source="season:x", notes=notes), notes


def test_dark_level_by_hand() -> None:
    # 1 % of 200 places in steps of 10: between the second and the third.
    assert dark_level(look(0, 300).visible) == pytest.approx(319.9)
    assert dark_level(look(0, 300, clear=49).visible) is None
    assert dark_level(None) is None


def test_metadata_that_agree_with_the_pixels_hold() -> None:
    yes, no = Stated(1000, "baseline"), Stated(0, "baseline")
    found, notes = offsets([look(0, 200, stated=no), look(10, 1250, stated=yes), look(20, 1230, stated=yes)])
    assert found == [0, 1000, 1000]
    assert notes == ["an offset of 1000 was taken off 2 of 3 dates"]


def test_an_offset_that_was_taken_off_already_is_not_taken_off_again() -> None:
    yes = Stated(1000, "processing baseline 04.00")
    looks = [look(0, 200, stated=Stated(0, "x")), look(10, 230, stated=yes), look(20, 210, stated=yes)]
    found, notes = offsets(looks)
    assert found == [0, 0, 0]
    assert "2 dates, the first S10 (2022-01-11), state an offset of 1000 (by processing baseline 04.00)" in notes[0]
    assert "read as their pixels show" in notes[0]
    with pytest.raises(DataError, match=r"S10 .* but their pixels show 0.*data\.season\.offset"):
        offsets(looks, "refuse")
    assert offsets(looks, "stated") == ([0, 1000, 1000], [])


@pytest.mark.parametrize("stated", [NOTHING, Stated(0, "processing baseline 02.14")])
def test_an_offset_that_nothing_states_is_seen_beside_a_near_date(stated: Stated) -> None:
    looks = [look(0, 200), look(20, 1210, stated=stated, growth=50), look(40, 230)]
    found, notes = offsets(looks)
    assert found == [0, 1000, 0]
    assert "their pixels show 1000" in notes[0]
    with pytest.raises(DataError, match="S20"):
        offsets(looks, "refuse")


def test_haze_and_bright_fields_are_no_offset() -> None:
    # Brighter by 1000 on average, but not alike all over; or alike, and by far less or more.
    assert offsets([look(0, 200), look(20, 1300, growth=800)])[0] == [0, 0]
    assert offsets([look(0, 600), look(20, 1000)])[0] == [0, 0]
    assert offsets([look(0, 200), look(20, 2500)])[0] == [0, 0]
    # Haze lies over visible light alone.
    assert offsets([look(0, 200, swir=1500), look(20, 1200, swir=1550)])[0] == [0, 0]
    # Too far apart in time to be compared.
    assert offsets([look(0, 200, stated=NONE), look(60, 1210, stated=NONE)])[0] == [0, 0]


def test_what_was_shown_of_one_date_shows_the_next() -> None:
    # 60 days from the last date without it, but 30 from one that is known to hold it.
    assert offsets([look(0, 200), look(30, 1230), look(60, 1260), look(90, 1100)])[0] == [0, 1000, 1000, 1000]


def test_a_season_in_which_nothing_is_dark_and_nothing_is_stated() -> None:
    assert offsets([look(30, 1200), look(40, 1220), look(50, 1240)])[0] == [1000, 1000, 1000]
    # Before the baseline's first day, 2022-01-25, none is presumed.
    assert offsets([look(0, 1200), look(10, 1220), look(20, 1240)])[0] == [0, 0, 0]


def test_a_clouded_date_follows_its_neighbour() -> None:
    yes = Stated(1000, "baseline")
    looks = [look(0, 200), look(10, 0, clear=0), look(25, 1210, stated=yes), look(30, 0, clear=0)]
    found, notes = offsets(looks)
    assert found == [0, 0, 1000, 1000]
    assert any("1 of 4 dates, the first S10 (2022-01-11), neither state an offset" in note for note in notes)


def test_the_order_of_places_does_not_matter() -> None:
    looks = [look(0, 200), look(20, 1210), look(40, 900)]
    order = np.random.default_rng(0).permutation(200)
    shuffled = [
        Look(each.name, each.date, each.stated, each.visible[:, order], each.shortwave[:, order], None)
        for each in looks
        if each.visible is not None and each.shortwave is not None
    ]
    assert offsets(looks) == offsets(shuffled)


def test_a_date_of_another_scale_is_named() -> None:
    looks = [look(day, 300) for day in (0, 10, 20, 30)]
    check_scales(looks, source="season:x")
    wrong = look(40, 300)
    assert wrong.infrared is not None
    wrong = Look(wrong.name, wrong.date, wrong.stated, wrong.visible, None, wrong.infrared / 10)
    with pytest.raises(DataError, match=r"season:x: S40 \(2022-02-10\) has another scale"):
        check_scales([*looks, wrong], source="season:x")


# On files


def dark(_date: int, band: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The generated season 900 lower in visible light, so that its darkest pixels are at 100."""
    return np.asarray(values - 900, np.uint16) if band in VISIBLE else values


def with_offset(*dates: int) -> Callable[[int, str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    def change(date: int, band: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if band == "SCL":
            return values
        values = dark(date, band, values)
        return np.asarray(values + 1000 * (date in dates), np.uint16)

    return change


def images(root: Path, **season: Any) -> tuple[np.ndarray[Any, Any], list[str]]:
    found = open_season(root, DataConfig(season=SeasonConfig(**season)))
    return found.read(0, found.grid.height)[0], found.notes


@pytest.mark.parametrize("layout", ["folders", "flat", "stac"])
def test_a_season_across_the_change_of_baseline_is_on_one_scale(tmp_path: Path, layout: str) -> None:
    plain, notes = images(write_season(tmp_path / "a", dates=DATES, layout=layout, change=dark))
    assert not any("offset" in note for note in notes)
    mixed, notes = images(write_season(tmp_path / "b", dates=DATES, layout=layout, change=with_offset(3, 4, 5)))
    np.testing.assert_array_equal(mixed, plain)
    assert any("an offset of 1000 was taken off 3 of 6 dates" in note for note in notes)


def test_tags_of_a_raster_state_the_offset(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", dates=DATES[:2], change=with_offset(0, 1))
    for path in root.glob("S2_*/B*.tif"):
        with rasterio.open(path, "r+") as file:
            file.update_tags(BOA_ADD_OFFSET="-1000")
    pixels, _ = images(root)
    plain, _ = images(write_season(tmp_path / "plain", dates=DATES[:2], change=dark))
    np.testing.assert_array_equal(pixels, plain)


def test_the_baseline_in_the_name_of_a_product(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", dates=DATES[:2], change=with_offset(0, 1))
    for path in root.glob("S2_*"):
        path.rename(root / f"S2A_MSIL2A_{path.name[3:]}T105211_N0400_R051_T31UDS_{path.name[3:]}T120000")
    pixels, _ = images(root)
    plain, _ = images(write_season(tmp_path / "plain", dates=DATES[:2], change=dark))
    np.testing.assert_array_equal(pixels, plain)


def test_values_by_hand(tmp_path: Path) -> None:
    def change(_date: int, band: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values = values.astype(np.int32)
        if band == "B02":
            values[0, :6] = [1000, 990, 65535, 40000, 0, 1001]
        return values.astype(np.uint16)

    root = write_season(tmp_path / "s", dates=DATES, change=change, scl=lambda _: np.full((16, 16), 4))
    for path in root.glob("S2_*/B*.tif"):
        with rasterio.open(path, "r+") as file:
            file.update_tags(BOA_ADD_OFFSET="-1000")
    config = DataConfig(validation_share=0, test_share=0, season=SeasonConfig(offset="stated"))
    ingest_season(root, config, tmp_path / "out", seed=0)
    dataset = WindowDataset(tmp_path / "out")
    window = dataset.window(0)
    # A measured pixel never becomes 0, which says that it was not measured; negative reflectance is noise, and stays.
    assert window.pixels[0, 0, 0, :6].tolist() == [1, -10, 32767, 32767, 0, 1]
    assert window.clear is not None
    # The pixel without data in B02 has none in any band, and its patch is not clear.
    assert window.pixels[0, :, 0, 4].tolist() == [0] * 10
    assert window.clear[0, 0, :4].tolist() == [1, 0, 0, 1]
    assert any("12 values are saturated or above 32767" in note for note in dataset.manifest.notes)


def test_marks_of_missing_data_that_no_header_declares(tmp_path: Path) -> None:
    def change(_date: int, band: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values = values.astype(np.int16)
        if band == "B02":
            values[0, :2] = -9999
        return values

    pixels, _ = images(write_season(tmp_path / "s", change=change))
    assert (pixels[:, 0, 0, :3] == [0, 0, 1002]).all(0).tolist() == [True, True, False]
    assert pixels[:, 0, 0, 2].tolist() == [1002, 1052, 1102, 1152]


def test_pictures_are_refused(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", change=lambda _d, _b, values: (values % 250).astype(np.uint8))
    with pytest.raises(DataError, match=r"B02\.tif: 8-bit values are a picture"):
        images(root)


def test_fractions_beside_integers(tmp_path: Path) -> None:
    """One band of one date as floats in 0..1, the rest x 10,000."""

    def change(date: int, band: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return (values / 10_000).astype(np.float32) if (date, band) == (1, "B03") else values

    pixels, _ = images(write_season(tmp_path / "s", change=change))
    plain, _ = images(write_season(tmp_path / "plain"))
    np.testing.assert_array_equal(pixels, plain)


def test_a_season_of_two_scales_is_refused(tmp_path: Path) -> None:
    def change(date: int, _band: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return (values // 10).astype(np.uint16) if date == 2 else values

    with pytest.raises(DataError, match=r"S2_20180421 \(2018-04-21\) has another scale than the season"):
        images(write_season(tmp_path / "s", change=change))


def test_the_real_scene_has_no_offset(flanders: Path) -> None:
    found = open_season(flanders, DataConfig(max_dates=500))
    assert {each.offset for each in found.acquisitions} == {0}
    assert not any("offset" in note for note in found.notes)


def test_an_offset_put_into_the_real_scene_is_found(flanders: Path, tmp_path: Path) -> None:
    """1000 added to every date from 2018-07-01 on; a static catalogue still says that none is in."""
    import shutil

    root = tmp_path / "s"
    shutil.copytree(flanders, root)
    late = [path for path in sorted(root.glob("S2_*")) if path.name[-8:] >= "20180701"]
    for path in (band for folder in late for band in folder.glob("B*.tif")):
        with rasterio.open(path, "r+") as file:
            values = file.read(1)
            file.write(np.where(values > 0, np.minimum(values.astype(np.int64) + 1000, 65535), 0).astype(np.uint16), 1)
    found = open_season(root, DataConfig(max_dates=500))
    right = [each.offset == (1000 if f"{each.date:%Y%m%d}" >= "20180701" else 0) for each in found.acquisitions]
    clear = np.array(found.shares) > 0.5
    assert np.array(right)[clear].mean() > 0.95


assert BANDS[:3] == ("B02", "B03", "B04")
