"""What is stated of scale and offset against what the pixels show, on files as catalogues and archives have them.

The generated scene: soil in the left half, under a growing canopy in the right half, with noise of 30 (x 10,000).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exact_core.config import DataConfig, SeasonConfig
from exact_core.data.season.files import Acquisition
from exact_core.data.season.folder import SeasonImages, ingest_season, open_season
from exact_core.data.season.images import merge_days
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import DataError
from tests.fakes import BANDS, SEASON_LEFT, SEASON_TOP, write_raster

SIZE = 64
SOIL = np.array([0.6, 0.8, 1, 1.1, 1.15, 1.2, 1.25, 1.3, 1.6, 1.5])[:, None, None]
LEAF = np.array([350.0, 600, 400, 1000, 2600, 3200, 3500, 3700, 1800, 900])[:, None, None]
Change = Callable[[int, np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def reflectance(number: int, soil: float = 1500) -> np.ndarray[Any, Any]:
    """(10, 64, 64)"""
    green = np.zeros((SIZE, SIZE))
    green[:, SIZE // 2 :] = 0.2 + 0.13 * number
    noise = np.random.default_rng(number).normal(0, 30, (10, SIZE, SIZE))
    return np.asarray(soil * SOIL * (1 - green) + LEAF * green + noise)


def plain(_number: int, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values


def with_offset(_number: int, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values + 1000


def season(
    root: Path,
    change: Change = plain,
    *,
    name: str = "S2_{date}",
    first: str = "2023-04-10",
    soil: float = 1500,
    dtype: Any = np.uint16,
    properties: dict[str, Any] | None = None,
    asset: dict[str, Any] | None = None,
) -> Path:
    """Six dates, 15 days apart; a catalogue beside them if the properties of its items are given."""
    items = []
    for number in range(6):
        date = dt.date.fromisoformat(first) + dt.timedelta(days=15 * number)
        folder = root / name.format(date=f"{date:%Y%m%d}")
        values = change(number, reflectance(number, soil))
        if np.dtype(dtype).kind == "u":
            values = np.clip(values, 0, 65535).round()
        for band, each in zip(BANDS, values.astype(dtype), strict=True):
            write_raster(folder / f"{band}.tif", each)
        write_raster(folder / "SCL.tif", np.full((SIZE // 2, SIZE // 2), 4, np.uint8), pixel=20.0)
        if properties is None:
            continue
        identity = folder.name
        fields = {band: {"href": f"./{band}.tif", **(asset or {})} for band in BANDS}
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": identity,
            "geometry": None,
            "properties": {"datetime": f"{date}T10:00:00Z", **properties},
            "assets": {**fields, "SCL": {"href": "./SCL.tif"}},
            "links": [],
        }
        (folder / f"{identity}.json").write_text(json.dumps(item), encoding="utf-8")
        items.append(f"./{identity}/{identity}.json")
    if items:
        collection = {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": "c",
            "description": "c",
            "license": "other",
            "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [[None, None]]}},
            "links": [{"rel": "item", "href": item} for item in items],
        }
        (root / "collection.json").write_text(json.dumps(collection), encoding="utf-8")
    return root


def opened(root: Path, **settings: Any) -> SeasonImages:
    return open_season(root, DataConfig(season=SeasonConfig(**settings)))


def taken_off(images: SeasonImages) -> list[int]:
    return [each.offset for each in images.acquisitions]


PRODUCT = "S2B_MSIL2A_{date}T105629_N0509_R094_T31UDS_{date}T154000.SAFE"


def strip(band: int, width: int) -> Change:
    """A strip along the right edge where a detector left nothing, of two dates."""

    def change(number: int, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values = values + 1000
        if number in (2, 4):
            values[band if band >= 0 else slice(None), :, SIZE - width :] = 3
        return values

    return change


@pytest.mark.parametrize(("band", "width"), [(1, 2), (1, 12), (-1, 2), (-1, 12)])
def test_artifacts_do_not_overturn_a_stated_offset(tmp_path: Path, band: int, width: int) -> None:
    """One band or all, narrow or wide: the offset is in, and what is far below it was not measured."""
    images = opened(season(tmp_path / "s", strip(band, width), name=PRODUCT))
    assert taken_off(images) == [1000] * 6
    assert not any("pixels show" in note for note in images.notes)
    pixels, clear, counts = images.read_counted(0, SIZE)
    assert (pixels[[2, 4], :, :, SIZE - width :] == 0).all()
    assert not clear[[2, 4], :, (SIZE - width) // 2 :].any()
    assert clear[[0, 1, 3, 5]].all()
    bands = 1 if band >= 0 else len(BANDS)
    assert counts["missing"] == 2 * SIZE * width * bands
    assert abs(np.median(pixels[2, 0, :, : SIZE // 2]) - 900) < 20


def test_many_dark_pixels_of_one_date_beside_dates_with_the_offset(tmp_path: Path) -> None:
    """A tenth of a date in deep noise, in all bands: the rest is as bright as on the dates around it."""

    def change(number: int, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values = values + 1000
        if number == 3:
            values[:, 20:26] = np.random.default_rng(0).uniform(150, 450, (10, 6, SIZE))
        return values

    images = opened(season(tmp_path / "s", change, name=PRODUCT))
    assert taken_off(images) == [1000] * 6


def test_an_archive_that_took_the_offset_off_without_saying_so(tmp_path: Path) -> None:
    """All dates are dark in several bands: the product's name is no longer true."""
    images = opened(season(tmp_path / "s", name=PRODUCT, soil=800))
    assert taken_off(images) == [0] * 6
    assert any("6 dates" in note and "their pixels show 0" in note for note in images.notes)


STATED_OFF = [
    {"sentinel:boa_offset_applied": True, "sentinel:processing_baseline": "04.00"},
    {"sentinel2:boa_offset_applied": True, "sentinel2:processing_baseline": "04.00"},
    {"s2:boa_offset_applied": "true", "s2:processing_baseline": "05.09"},
    {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.11"},
]


@pytest.mark.parametrize("properties", STATED_OFF)
def test_bright_land_whose_items_say_that_the_offset_is_off(tmp_path: Path, properties: dict[str, Any]) -> None:
    images = opened(season(tmp_path / "s", soil=2600, first="2022-06-10", properties=properties))
    assert taken_off(images) == [0] * 6
    assert images.notes == []


@pytest.mark.parametrize(
    ("properties", "asset", "offset"),
    [
        # STAC 1.1 has scale and offset on the asset, on its bands, or on the item for all of them.
        ({"processing:version": "05.11"}, {"raster:scale": 0.0001, "raster:offset": 0}, 0),
        ({}, {"raster:scale": 0.0001, "raster:offset": 0}, 0),
        ({}, {"raster:scale": 0.0001, "raster:offset": -0.1}, 1000),
        ({}, {"bands": [{"name": "x", "raster:scale": 0.0001, "raster:offset": -0.1}]}, 1000),
        ({"raster:scale": 0.0001, "raster:offset": -0.1}, {}, 1000),
        ({}, {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}, 1000),
        ({"s2:processing_baseline": "05.11"}, {"raster:bands": [{"scale": 0.0001, "offset": 0}]}, 0),
        ({"sentinel:processing_baseline": "04.00"}, {}, 1000),
        ({"s2:product_uri": PRODUCT.format(date="20230610")}, {}, 1000),
        ({"sentinel:product_id": PRODUCT.format(date="20230610")}, {}, 1000),
        ({"BOA_ADD_OFFSET_B2": -1000}, {}, 1000),
    ],
)
def test_bright_land_is_read_as_stated(
    tmp_path: Path, properties: dict[str, Any], asset: dict[str, Any], offset: int
) -> None:
    change = with_offset if offset else plain
    root = season(tmp_path / "s", change, soil=2600, properties=properties or {"x": 1}, asset=asset)
    images = opened(root)
    assert taken_off(images) == [offset] * 6
    assert not any("guess" in note for note in images.notes)
    pixels, _ = images.read(0, SIZE)
    assert abs(np.median(pixels[0, 0, :, : SIZE // 2]) - 0.6 * 2600) < 10


def test_bands_that_state_different_offsets_are_refused(tmp_path: Path) -> None:
    root = season(tmp_path / "s", properties={"x": 1}, asset={"raster:scale": 0.0001, "raster:offset": 0})
    path = next(root.glob("S2_*/*.json"))
    item = json.loads(path.read_text())
    item["assets"]["B11"]["raster:offset"] = -0.1
    path.write_text(json.dumps(item))
    with pytest.raises(DataError, match=r"scale 0\.0001 and offset -0\.1; scale 0\.0001 and offset 0"):
        opened(root)


def test_an_offset_that_is_a_guess_says_so(tmp_path: Path) -> None:
    """Bright land, nothing stated: by the day, unless a person says which."""
    root = season(tmp_path / "s", with_offset, soil=2600)
    images = opened(root)
    assert taken_off(images) == [1000] * 6
    assert any("1000 is guessed, as they are from 2022-01-25 on" in note for note in images.notes)
    with pytest.raises(DataError, match=r"nothing dark shows .* state it by data\.season\.offset, 0 or 1000"):
        opened(root, offset="refuse")
    assert taken_off(opened(root, offset=0)) == [0] * 6
    assert taken_off(opened(root, offset=1000)) == [1000] * 6
    assert any("state no offset: none was taken off" in note for note in opened(root, offset="stated").notes)
    (root / "season.yaml").write_text("offset: 0\n")
    assert taken_off(opened(root)) == [0] * 6


def test_of_two_processings_of_a_product_the_later_comes_first_and_a_test_last() -> None:
    """N9999 marks a test: its name would come first."""
    names = [
        f"S2A_MSIL2A_20220311T105211_N{baseline}_R051_T31UDS_20220311T120000" for baseline in ("0400", "9999", "0510")
    ]
    found = [Acquisition(name, dt.date(2022, 3, 11), {}) for name in names]
    (merged,) = merge_days(found, [])
    assert [merged.name, *(each.name for each in merged.others)] == [names[2], names[0], names[1]]


def test_the_first_day_of_the_baseline_separates_dates(tmp_path: Path) -> None:
    """Bright land, 16 days before that day and 14 and more after it: no neighbour speaks across it."""
    early = [
        number for number in range(6) if dt.date(2022, 1, 9) + dt.timedelta(days=15 * number) < dt.date(2022, 1, 25)
    ]

    def change(number: int, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return values if number in early else values + 1000

    images = opened(season(tmp_path / "s", change, soil=2600, first="2022-01-09"))
    assert taken_off(images) == [0, 0, 1000, 1000, 1000, 1000]
    assert sum("guessed" in note for note in images.notes) == 2


@pytest.mark.parametrize(
    ("factor", "dtype"), [(6.5535, np.uint16), (0.01, np.float32), (0.1, np.uint16), (0.01, np.uint16)]
)
def test_a_wrong_scale_of_all_dates_is_refused(tmp_path: Path, factor: float, dtype: Any) -> None:
    root = season(tmp_path / "s", lambda _number, values: values * factor, dtype=dtype)
    with pytest.raises(DataError, match=r"near-infrared median .* between 500 and 9,000.*data\.season\.scale"):
        opened(root)


@pytest.mark.parametrize(("factor", "dtype"), [(6.5535, np.uint16), (0.01, np.float32)])
@pytest.mark.parametrize("where", ["item", "settings"])
def test_a_stated_scale_is_applied(tmp_path: Path, factor: float, dtype: Any, where: str) -> None:
    scale = 0.0001 / factor
    asset = {"raster:scale": scale, "raster:offset": 0} if where == "item" else {}
    root = season(tmp_path / "s", lambda _n, values: values * factor, dtype=dtype, properties={"x": 1}, asset=asset)
    settings: dict[str, Any] = {} if where == "item" else {"scale": scale, "offset": 0}
    images = opened(root, **settings)
    pixels, clear = images.read(0, SIZE)
    right = np.clip(np.rint(np.stack([reflectance(number) for number in range(6)])), 1, None)
    assert np.abs(pixels - right).max() <= 1
    assert clear.all()
    assert any("6 of 6 dates were brought to reflectance x 10,000" in note for note in images.notes)


def test_nodata_in_one_band_is_no_look(tmp_path: Path) -> None:
    """Columns 48 on have no B11 on two dates: nothing of those looks counts, and a note says how many there were."""

    def change(number: int, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if number in (1, 3):
            values[8, :, 48:] = 0
        return values

    root = season(tmp_path / "s", change, name=PRODUCT.replace("N0509", "N0214"))
    write_raster(root / "labels/crop_type.tif", np.where(np.arange(SIZE) < 32, 1, 2) + np.zeros((SIZE, SIZE), np.uint8))
    (root / "labels/legend.csv").write_text("code,name\n1,fallow\n2,crop\n")
    ingest_season(root, DataConfig(window=16, validation_share=0, test_share=0), tmp_path / "d", seed=0)
    dataset = WindowDataset(tmp_path / "d")
    windows = {(each.row, each.col): index for index, each in enumerate(dataset.records)}
    assert "2048 looks at a pixel have no data in some of the bands" in " ".join(dataset.manifest.notes)
    # A window without one measured pixel on a date does not have the date.
    assert len(dataset.window(windows[0, 48]).days) == 4
    assert len(dataset.window(windows[0, 0]).days) == 6


def test_images_of_unequal_size_are_one_season(tmp_path: Path) -> None:
    """The first date shows the left half: the others are not cut to it."""
    root = season(tmp_path / "s", name=PRODUCT.replace("N0509", "N0214"))
    first = min(root.glob("S2B*"))
    for band in BANDS:
        write_raster(
            first / f"{band}.tif",
            np.clip(reflectance(0)[BANDS.index(band), 10:, :32], 1, None).astype(np.uint16),
            top=SEASON_TOP - 100,
        )
    images = opened(root)
    assert (images.grid.height, images.grid.width) == (SIZE, SIZE)
    assert (images.grid.transform.c, images.grid.transform.f) == (SEASON_LEFT, SEASON_TOP)
    pixels, clear = images.read(0, SIZE)
    assert (pixels[0, :, :10] == 0).all()
    assert (pixels[0, :, :, 32:] == 0).all()
    assert (pixels[0, :, 10:, :32] > 0).all()
    assert clear[1:].all()


def test_images_apart_from_each_other_are_no_season(tmp_path: Path) -> None:
    root = season(tmp_path / "s", name=PRODUCT)
    last = max(root.glob("S2B*"))
    for band in BANDS:
        write_raster(last / f"{band}.tif", np.full((SIZE, SIZE), 1500, np.uint16), left=SEASON_LEFT + 20_000)
    with pytest.raises(DataError, match=r"S2B_MSIL2A_20230624.*B02\.tif and .*20230410.* show separate land"):
        opened(root)
