"""Seasons on disk: every expected number follows from the formulas in tests/fakes.py, or is worked out beside it."""

from __future__ import annotations

import datetime as dt
import json
import tracemalloc
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from exact_core.config import DataConfig, SeasonConfig
from exact_core.data.season import images as season_images, scene as season_scene
from exact_core.data.season.files import Acquisition
from exact_core.data.season.folder import ingest_season, open_season
from exact_core.data.season.radiometry import NO_REFLECTANCE
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.errors import ConfigError, DataError, ExactError
from exact_core.recipes import resolve
from tests.fakes import (
    BANDS,
    COARSE,
    SEASON_DATES,
    SEASON_LEFT,
    SEASON_TOP,
    halves,
    season_pixel,
    write_parcels,
    write_raster,
    write_season,
)

CLEAR, CLOUD = 4, 9
WHOLE = (SEASON_LEFT, SEASON_TOP - 320, SEASON_LEFT + 320, SEASON_TOP)


def ingest(root: Path, config: DataConfig | None = None, *, seed: int = 0) -> WindowDataset:
    out = root.parent / f"{root.name}-out"
    ingest_season(root, config or DataConfig(), out, seed=seed)
    return WindowDataset(out)


def refused(root: Path, config: DataConfig | None = None, *, kind: type[ExactError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        ingest_season(root, config or DataConfig(), root.parent / "out", seed=0)
    assert not (root.parent / "out" / "dataset.json").exists()
    return str(caught.value)


def scl_all(value: int) -> Any:
    return lambda _date: np.full((16, 16), value)


def expected_image(date: int, size: tuple[int, int] = (32, 32)) -> np.ndarray[Any, Any]:
    return np.stack([season_pixel(date, band, *size) for band in BANDS])


@pytest.mark.parametrize("layout", ["folders", "flat", "stac"])
def test_values_and_20_m_bands_in_every_layout(tmp_path: Path, layout: str) -> None:
    dataset = ingest(write_season(tmp_path / "s", layout=layout, scl=scl_all(CLEAR)))
    assert dataset.manifest.bands == BANDS
    for index, record in enumerate(dataset.records):
        window = dataset.window(index)
        for date in range(4):
            here = np.s_[:, record.row : record.row + 24, record.col : record.col + 24]
            np.testing.assert_array_equal(window.pixels[date], expected_image(date)[here])
        assert window.clear is not None
        assert window.clear.all()
        np.testing.assert_array_equal(dataset.labels(index), np.array([0, 1, 2])[halves(32, 32) // 100][here[1:]])
    assert dataset.manifest.classes == ("wheat", "maize")
    assert dataset.manifest.season_start == dt.date(2018, 4, 1)
    assert dataset.window(0).days.tolist() == [0, 10, 20, 30]
    assert dataset.manifest.season_days == 31
    assert dataset.manifest.source == f"season:{tmp_path / 's'}"


def test_20_m_bands_hand_worked(tmp_path: Path) -> None:
    # 20 m pixels 0 and 1 hold 100 and 500. Their centres lie at 10 m and 30 m, those of the fine pixels at 5, 15, 25
    # and 35 m: the first is left of the first centre (100), then 3/4 and 1/4 of the way (200, 400), then 500 on.
    def step(_date: int, band: str, values: np.ndarray) -> np.ndarray:
        if band == "B05":
            values = np.full_like(values, 500)
            values[:, 0] = 100
        return values

    pixels = ingest(write_season(tmp_path / "s", change=step)).window(0).pixels
    assert pixels[0, BANDS.index("B05"), 0, :5].tolist() == [100, 200, 400, 500, 500]


def test_nodata_does_not_bleed_into_a_20_m_band(tmp_path: Path) -> None:
    def hole(_date: int, band: str, values: np.ndarray) -> np.ndarray:
        if band == "B05":
            values = np.full_like(values, 500)
            values[0, 0] = 0
        return values

    pixels = ingest(write_season(tmp_path / "s", change=hole)).window(0).pixels[0, BANDS.index("B05")]
    # The hole covers 2 x 2 fine pixels; those around it take the neighbours that were measured.
    assert set(pixels[:2, :2].ravel().tolist()) <= {0, 500}
    assert (pixels[2:] == 500).all()
    assert (pixels[:2, 2:] == 500).all()


def test_a_date_on_a_shifted_grid_is_brought_to_the_first(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    shifted = np.arange(32)[None, :] * np.ones((32, 1)) * 10 + 1000
    # One pixel further left: its column j + 1 lies on column j of the grid.
    write_raster(root / "S2_20180411/B02.tif", shifted.astype(np.uint16), left=SEASON_LEFT - 10)
    pixels = ingest(root).window(0).pixels
    assert pixels[1, 0, 5, :4].tolist() == [1010, 1020, 1030, 1040]


def test_place_of_a_window(tmp_path: Path) -> None:
    dataset = ingest(write_season(tmp_path / "s"), DataConfig(stride=4))
    record = next(r for r in dataset.records if (r.row, r.col) == (4, 8))
    assert record.crs == "EPSG:32631"
    assert record.transform == (10.0, 0.0, SEASON_LEFT + 80, 0.0, -10.0, SEASON_TOP - 40)


def test_bands_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    config = DataConfig(season=SeasonConfig(bands=("B8A", "B03")))
    pixels = ingest(write_season(tmp_path / "s"), config).window(0).pixels
    # B8A alone is at 20 m; B03 sets the grid.
    np.testing.assert_array_equal(pixels[0, 0], season_pixel(0, "B8A", 32, 32)[:24, :24])
    np.testing.assert_array_equal(pixels[0, 1], season_pixel(0, "B03", 32, 32)[:24, :24])


def test_odd_sizes_are_cut_to_even(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", size=(26, 26))
    for date in SEASON_DATES:
        for band in ("B02", "B03", "B04", "B08"):
            write_raster(root / f"S2_{date}/{band}.tif", np.full((25, 27), 700, np.uint16))
    dataset = ingest(root, DataConfig(window=8, stride=2, validation_share=0, test_share=0))
    assert max(record.row for record in dataset.records) == 24 - 8
    assert max(record.col for record in dataset.records) == 26 - 8


def test_until_a_day_dates_are_as_dense_as_in_the_whole_season(tmp_path: Path) -> None:
    """Four dates in 31 days; of three a season, two until the 21st, and a model of twice the days has them in half."""
    write_season(tmp_path)
    three = DataConfig(max_dates=3)
    until = DataConfig(max_dates=3, season=SeasonConfig(until=dt.date(2018, 4, 21)))
    assert len(open_season(tmp_path, three).acquisitions) == 3
    found = open_season(tmp_path, until)
    assert [str(each.date) for each in found.acquisitions][-1] <= "2018-04-21"
    assert (found.start, found.length) == (dt.date(2018, 4, 1), 21)
    assert len(found.acquisitions) == 3  # no length is given, so that the season ends there
    known = DataConfig(max_dates=3, season=SeasonConfig(until=dt.date(2018, 4, 21), days=31))
    assert len(open_season(tmp_path, known).acquisitions) == 2
    assert open_season(tmp_path, known).length == 31
    assert len(open_season(tmp_path, until, trained=(dt.date(2017, 4, 1), 31)).acquisitions) == 2


def test_the_season_clips_dates(tmp_path: Path) -> None:
    config = DataConfig(season=SeasonConfig(start=dt.date(2018, 4, 6), days=20))
    dataset = ingest(write_season(tmp_path / "s"), config)
    # 11 and 21 April lie in the 20 days from 6 April; 1 May is day 25.
    assert dataset.window(0).days.tolist() == [5, 15]
    assert dataset.manifest.season_start == dt.date(2018, 4, 6)
    assert dataset.manifest.season_days == 20
    assert dataset.manifest.notes[0] == "2 of 4 dates are outside the season and were left out"


def test_the_order_is_that_of_the_calendar(tmp_path: Path) -> None:
    dates = ("20190102", "20181230", "20181105")
    window = ingest(write_season(tmp_path / "s", dates=dates)).window(0)
    # Days count from 1 October, the first day of the quarter.
    assert window.days.tolist() == [35, 90, 93]
    assert window.pixels[:, 0, 0, 0].tolist() == [1100, 1050, 1000]


def test_clear_patches(tmp_path: Path) -> None:
    def scl(date: int) -> np.ndarray:
        classes = np.full((16, 16), 5)
        classes[1, 2] = 8 if date == 0 else 6
        return classes

    clear = ingest(write_season(tmp_path / "s", scl=scl)).window(0).clear
    assert clear is not None
    # A 20 m pixel is one patch of 2 x 2.
    assert np.argwhere(clear == 0).tolist() == [[0, 1, 2]]


def test_thinning_takes_the_clearest_date_of_a_run(tmp_path: Path) -> None:
    def scl(date: int) -> np.ndarray:
        classes = np.full((16, 16), CLOUD)
        classes[: {0: 2, 1: 9, 2: 12, 3: 3}[date]] = CLEAR
        return classes

    dataset = ingest(write_season(tmp_path / "s", scl=scl), DataConfig(max_dates=2))
    assert dataset.window(0).days.tolist() == [10, 20]
    assert dataset.window(0).pixels[:, 0, 0, 0].tolist() == [1050, 1100]
    assert any("4 dates were thinned to 2" in note for note in dataset.manifest.notes)


def test_an_empty_date_is_dropped(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", change=lambda date, _band, values: values * (date != 1))
    dataset = ingest(root)
    assert dataset.window(0).days.tolist() == [0, 20, 30]
    assert "S2_20180411 (2018-04-11) is 0 (nodata) everywhere and was dropped" in dataset.manifest.notes


@pytest.mark.parametrize("band", ["B02", "B06", "B11"])
def test_a_date_with_an_empty_band_is_dropped_and_one_with_half_of_it_counts_half(tmp_path: Path, band: str) -> None:
    """Without a band, nothing of a date is measured: it is no look, whichever band it is."""

    def change(date: int, name: str, values: np.ndarray) -> np.ndarray:
        rows = {1: len(values), 2: len(values) // 2}.get(date, 0)
        values[: rows if name == band else 0] = 0
        return values

    dataset = ingest(write_season(tmp_path / "s", change=change))
    assert dataset.window(0).days.tolist() == [0, 20, 30]
    notes = " ".join(dataset.manifest.notes)
    assert f"S2_20180411 (2018-04-11) has no place that all bands measured ({band} lacks data) and was dropped" in notes
    images = open_season(tmp_path / "s", DataConfig())
    assert images.shares == (1.0, 0.5, 1.0)


def test_float_reflectance_and_nan(tmp_path: Path) -> None:
    def fraction(_date: int, band: str, values: np.ndarray) -> np.ndarray:
        values = (values / 10_000).astype(np.float32)
        if band == "B02":
            values[3, 4] = np.nan
        return values

    dataset = ingest(write_season(tmp_path / "s", change=fraction))
    pixels = dataset.window(0).pixels
    expected = expected_image(0)[:, :24, :24]
    # A look without one of its bands is none.
    expected[:, 3, 4] = 0
    np.testing.assert_array_equal(pixels[0], expected)
    assert "40 rasters hold reflectance as fractions and were multiplied by 10,000" in dataset.manifest.notes


def test_declared_nodata_is_0(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    values = np.full((32, 32), 900, np.int16)
    values[0, 0] = -9999
    write_raster(root / "S2_20180401/B02.tif", values, nodata=-9999)
    assert ingest(root).window(0).pixels[0, 0, 0, :2].tolist() == [0, 900]


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
def test_parcels_and_raster_give_equal_labels(tmp_path: Path, crs: str) -> None:
    by_raster = ingest(write_season(tmp_path / "raster"))
    root = write_season(tmp_path / "parcels", labels=False)
    left, bottom, right, top = WHOLE
    middle = left + 160
    write_parcels(
        root / "labels/parcels.geojson",
        [(100, (left, bottom, middle, top - 80)), (200, (middle, bottom, right, top - 80))],
        crs=crs,
    )
    by_parcels = ingest(root)
    assert len(by_parcels) == len(by_raster)
    for index in range(len(by_raster)):
        np.testing.assert_array_equal(by_parcels.labels(index), by_raster.labels(index))


def test_labels_on_another_grid_are_taken_nearest_and_void_where_they_end(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", labels=False)
    # 20 m codes over the upper 24 rows of the scene only.
    codes = np.full((12, 16), 100, np.uint16)
    codes[:, 3] = 200
    write_raster(root / "labels/crop_type.tif", codes, pixel=20)
    dataset = ingest(root)
    labels = np.zeros((32, 32), np.uint8)
    for index, record in enumerate(dataset.records):
        labels[record.row : record.row + 24, record.col : record.col + 24] = dataset.labels(index)
    assert (labels[:24, 6:8] == 2).all()
    assert (labels[:24, :6] == 1).all()
    assert (labels[:24, 8:] == 1).all()
    assert (labels[24:] == VOID).all()
    assert "crop_type.tif does not cover 25.0% of the scene: void there" in dataset.manifest.notes


def test_void_codes_and_codes_of_one_name(tmp_path: Path) -> None:
    codes = halves(32, 32)
    codes[20], codes[21] = 300, 400
    legend = "code,name\n400,wheat\n200,maize\n100,wheat\n300,unknown\n"
    root = write_season(tmp_path / "s", codes=codes, legend=legend)
    dataset = ingest(root, DataConfig(season=SeasonConfig(void_codes=(300,))))
    assert dataset.manifest.classes == ("wheat", "maize")
    assert (dataset.labels(0)[20] == VOID).all()
    assert (dataset.labels(0)[21] == 1).all()


def test_a_small_scene_is_used_whole(tmp_path: Path) -> None:
    dataset = ingest(write_season(tmp_path / "s"))
    # Stride 24 // 3 = 8: corners 0 and 8 in 32 pixels.
    assert [(r.row, r.col) for r in dataset.records] == [(i, j) for i in (0, 8) for j in (0, 8)]
    assert dataset.manifest.self_scored
    assert dataset.manifest.evaluation_split == "train"
    assert dataset.manifest.splits == {"train": 4, "validation": 0, "test": 0}
    assert any("too small for a spatial split" in note for note in dataset.manifest.notes)


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_share_no_pixel_with_overlapping_windows(tmp_path: Path, seed: int) -> None:
    root = write_season(tmp_path / "s", size=(70, 106), scl=lambda _: np.full((35, 53), CLEAR))
    dataset = ingest(root, DataConfig(window=8, stride=2), seed=seed)
    assert not dataset.manifest.self_scored
    covered = {}
    for split in ("train", "validation", "test"):
        mask = np.zeros((70, 106), bool)
        for index in dataset.indices(split):
            record = dataset.records[index]
            mask[record.row : record.row + 8, record.col : record.col + 8] = True
        assert mask.any()
        covered[split] = mask
    for first, second in combinations(covered.values(), 2):
        assert not (first & second).any()
    # Blocks of even sides, so a stride of 2 leaves nothing out.
    assert sum(int(mask.sum()) for mask in covered.values()) == 70 * 106


def test_splits_repeat_and_follow_the_seed(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", size=(70, 106))
    splits = []
    for number, seed in enumerate((0, 0, 1)):
        ingest_season(root, DataConfig(window=8), tmp_path / str(number), seed=seed)
        dataset = WindowDataset(tmp_path / str(number))
        splits.append((dataset.manifest.digest, [record.split for record in dataset.records]))
    assert splits[0] == splits[1]
    assert splits[0][1] != splits[2][1]


def beyond(left: int, top: int = 0, *, from_date: int = 0) -> Any:
    """A swath whose edge leaves out the columns from `left` (in 10 m pixels) in the rows from `top`."""

    def change(date: int, band: str, values: np.ndarray) -> np.ndarray:
        scale = 2 if band in COARSE else 1
        if date >= from_date:
            values[top // scale :, left // scale :] = 0
        return values

    return change


@pytest.mark.parametrize("from_date", [0, 1])
def test_an_empty_corner_is_left_out_of_a_scene_that_is_used_whole(tmp_path: Path, from_date: int) -> None:
    # 2 x 2 windows of 8 in the lower right corner; one date that sees it is not enough.
    root = write_season(tmp_path / "s", change=beyond(16, 16, from_date=from_date), scl=scl_all(CLEAR))
    dataset = ingest(root, DataConfig(window=8, stride=8, validation_share=0, test_share=0))
    assert {(r.row, r.col) for r in dataset.records} == {
        (i, j) for i in (0, 8, 16, 24) for j in (0, 8, 16, 24) if i < 16 or j < 16
    }
    assert "4 windows without at least 2 measured dates were left out" in dataset.manifest.notes


@pytest.mark.parametrize("seed", range(4))
def test_blocks_beyond_the_edge_of_a_swath_serve_no_split(tmp_path: Path, seed: int) -> None:
    # Blocks of 2 windows: 4 x 6. The right third is unseen but for its first 10 columns: 2 of its 4 windows a row.
    root = write_season(tmp_path / "s", size=(64, 96), change=beyond(74))
    dataset = ingest(root, DataConfig(window=8), seed=seed)
    assert not dataset.manifest.self_scored
    assert all(dataset.manifest.splits.values())
    assert len(dataset) == 8 * 12 - 8 * 2
    # The lower right four blocks are unseen: twenty are left for the splits.
    root = write_season(tmp_path / "t", size=(64, 96), change=beyond(64, 32))
    dataset = ingest(root, DataConfig(window=8), seed=seed)
    assert all(dataset.manifest.splits.values())
    assert len(dataset) == 8 * 12 - 4 * 4
    assert any(note.startswith("the scene was split by 20 blocks: ") for note in dataset.manifest.notes)
    assert "16 windows without at least 2 measured dates were left out" in dataset.manifest.notes


def test_a_scene_with_too_few_measured_blocks_is_used_whole(tmp_path: Path) -> None:
    # Blocks of 2 windows: 2 x 2, of which the right ones are unseen.
    root = write_season(tmp_path / "s", change=beyond(16))
    dataset = ingest(root, DataConfig(window=8, stride=8))
    assert dataset.manifest.self_scored
    assert dataset.manifest.splits == {"train": 8, "validation": 0, "test": 0}
    reason = "the measured part of the scene of 32 x 32 pixels is too small for a spatial split"
    assert any(note.startswith(reason) for note in dataset.manifest.notes)


def test_dates_that_share_no_ground(tmp_path: Path) -> None:
    def apart(date: int, _band: str, values: np.ndarray) -> np.ndarray:
        # Of 32 x 32 pixels, each date sees one of four strips of 8 rows.
        strip = len(values) // 4
        seen = np.zeros_like(values)
        seen[strip * date : strip * (date + 1)] = values[strip * date : strip * (date + 1)]
        return seen

    message = refused(write_season(tmp_path / "s", change=apart), DataConfig(window=8, stride=8))
    assert "none of 16 windows of 8 pixels is measured on at least 2 dates" in message
    assert "Add acquisitions" in message


def test_both_shares_at_0_train_and_score_on_everything(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", size=(64, 96))
    dataset = ingest(root, DataConfig(window=8, stride=8, validation_share=0, test_share=0))
    assert dataset.manifest.self_scored
    assert dataset.manifest.splits == {"train": 96, "validation": 0, "test": 0}
    assert any(
        note.startswith("data.validation_share and data.test_share are 0: every window is")
        for note in dataset.manifest.notes
    )


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_a_validation_share_needs_a_test_share(tmp_path: Path, size: tuple[int, int]) -> None:
    root = write_season(tmp_path / "s", size=size)
    message = refused(root, DataConfig(window=8, test_share=0), kind=ConfigError)
    assert "Set data.test_share above 0, or both to 0 to train and score on everything" in message


def test_season_yaml_under_the_run(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", legend=None)
    (root / "season.yaml").write_text(
        "start: 2018-04-05\ndays: 40\nbands: [B02, B05]\nstride: 2\nclasses: {100: rye, 200: oats}\n"
    )
    config = DataConfig(season=SeasonConfig(days=25))
    dataset = ingest(root, config)
    assert dataset.manifest.season_start == dt.date(2018, 4, 5)
    assert dataset.manifest.season_days == 25
    assert dataset.manifest.bands == ("B02", "B05")
    assert dataset.manifest.classes == ("rye", "oats")
    assert dataset.window(0).days.tolist() == [6, 16]
    assert dataset.records[1].col == 2
    (tmp_path / "again").mkdir()
    ingest_season(root, DataConfig(stride=8), tmp_path / "again/out", seed=0)
    assert WindowDataset(tmp_path / "again/out").records[1].col == 8


def test_product_folders_with_two_resolutions(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    for date in SEASON_DATES:
        # Sensing and processing date in the product's name; B02 at 10 and at 20 m: the finer one is read.
        product = root / f"S2A_MSIL2A_{date}T105031_N0207_R051_T31UDS_20180601T142132.SAFE"
        for path in sorted((root / f"S2_{date}").iterdir()):
            target = product / "IMG_DATA" / "R10m" / f"T31UDS_{date}T105031_{path.stem}_10m.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        (root / f"S2_{date}").rmdir()
        coarse = product / "IMG_DATA" / "R20m" / f"T31UDS_{date}T105031_B02_20m.tif"
        write_raster(coarse, np.full((16, 16), 9, np.uint16), pixel=20)
    window = ingest(root).window(0)
    assert window.days.tolist() == [0, 10, 20, 30]
    np.testing.assert_array_equal(window.pixels[0], expected_image(0)[:, :24, :24])


def test_products_that_are_links_are_read(tmp_path: Path) -> None:
    """As where images are kept once for several regions."""
    before = ingest(write_season(tmp_path / "whole")).window(0)
    root = write_season(tmp_path / "s")
    (tmp_path / "archive").mkdir()
    for date in SEASON_DATES[:2]:
        (root / f"S2_{date}").rename(tmp_path / "archive" / f"S2_{date}")
        (root / f"S2_{date}").symlink_to(tmp_path / "archive" / f"S2_{date}")
    window = ingest(root).window(0)
    assert window.days.tolist() == before.days.tolist()
    np.testing.assert_array_equal(window.pixels, before.pixels)


def test_a_link_to_a_folder_that_it_is_in_is_refused(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    (root / "again").symlink_to(root)
    with pytest.raises(DataError, match=r"again: a link to a folder that it is in\. Delete it"):
        ingest(root)


def test_the_collection_file_may_be_named(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", layout="stac")
    ingest_season(root / "collection.json", DataConfig(), tmp_path / "out", seed=0)
    assert WindowDataset(tmp_path / "out").records[0].scene == "fake"


# Bad input


@pytest.mark.parametrize("text", ["strat: 2018-04-01", "window: 12"])
def test_unknown_key_in_season_yaml(tmp_path: Path, text: str) -> None:
    root = write_season(tmp_path / "s")
    (root / "season.yaml").write_text(text)
    message = refused(root, kind=ConfigError)
    assert f"{root / 'season.yaml'}: unknown key {text.split(':')[0]!r}" in message
    if text.startswith("strat"):
        assert "did you mean" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("days: 0", "days = 0"),
        ("- a", "expected a mapping"),
        ("a: [", "not valid YAML"),
        ("start: 2018-13-01", "season.yaml: not valid YAML: no such value: month must be in 1..12; dates are days"),
        ("start: 2018-02-30", "season.yaml: not valid YAML: no such value: day is out of range for month; dates"),
    ],
)
def test_wrong_season_yaml(tmp_path: Path, text: str, expected: str) -> None:
    root = write_season(tmp_path / "s")
    (root / "season.yaml").write_text(text)
    assert expected in refused(root, kind=ConfigError)


def test_season_yaml_that_is_a_folder(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    (root / "season.yaml").mkdir()
    assert "season.yaml: not a readable file: Is a directory" in refused(root, kind=ConfigError)


@pytest.mark.parametrize("layout", ["folders", "stac"])
def test_missing_band(tmp_path: Path, layout: str) -> None:
    root = write_season(tmp_path / "s")
    if layout == "stac":
        root = write_season(tmp_path / "stac", layout="stac")
        path = root / "S2_20180411/S2_20180411.json"
        path.write_text(path.read_text().replace('"B8A"', '"preview"'))
    else:
        (root / "S2_20180411/B8A.tif").unlink()
    message = refused(root)
    assert "S2_20180411 (2018-04-11): band B8A is missing. It has B02, B03" in message
    assert "data.season.bands" in message


def test_missing_scl_on_one_date(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", scl=scl_all(CLEAR))
    (root / "S2_20180411/SCL.tif").unlink()
    assert "S2_20180411 (2018-04-11): SCL is missing (on 1 of 4 dates)" in refused(root)


def test_two_acquisitions_on_one_date(tmp_path: Path) -> None:
    """A swath that ends, with a cloud, and another that begins: each pixel is of the first that shows it."""

    def change(date: int, band: str, values: np.ndarray) -> np.ndarray:
        scale = 2 if band in COARSE else 1
        values = values.copy()
        if date == 0:
            values[:, 16 // scale :] = 0
        if date == 1:
            values[: 8 // scale] = 0
        return values

    def scl(date: int) -> np.ndarray:
        classes = np.full((16, 16), CLEAR)
        if date == 0:
            classes[8:] = CLOUD
        return classes

    root = write_season(tmp_path / "s", change=change, scl=scl)
    (root / "S2_20180411").rename(root / "A2_20180401")
    dataset = ingest(root, DataConfig(window=32, validation_share=0, test_share=0))
    window = dataset.window(0)
    assert window.days.tolist() == [0, 20, 30]
    first, second = expected_image(0), expected_image(1)
    # B02 alone: at 20 m, pixels beside an edge are drawn on by their neighbours.
    b02 = window.pixels[0, 0]
    np.testing.assert_array_equal(b02[:8, :16], first[0, :8, :16])
    np.testing.assert_array_equal(b02[8:16, :16], first[0, 8:16, :16])
    np.testing.assert_array_equal(b02[16:, :], second[0, 16:, :])
    np.testing.assert_array_equal(b02[8:, 16:], second[0, 8:, 16:])
    assert not b02[:8, 16:].any()
    assert window.clear is not None
    # Patches of the second date; the coarse bands of the first reach half a pixel of theirs over its edge.
    assert window.clear[0, 8:].all()
    assert window.clear[0, 4:, :7].all()
    assert not window.clear[0, :4, 8:].any()
    assert any("1 days have more than one acquisition (the first 2018-04-01" in n for n in dataset.manifest.notes)


def test_dates_that_show_too_little_are_left_out_if_asked_for(tmp_path: Path) -> None:
    def scl(date: int) -> np.ndarray:
        classes = np.full((16, 16), CLOUD)
        classes[: 4 * date] = CLEAR
        return classes

    root = write_season(tmp_path / "s", scl=scl)
    dataset = ingest(root, DataConfig(season=SeasonConfig(min_clear=0.5)))
    assert dataset.window(0).days.tolist() == [20, 30]
    assert "2 dates are clear on less than 50% of the scene and were dropped" in dataset.manifest.notes
    message = refused(root, DataConfig(season=SeasonConfig(min_clear=0.7)))
    assert "is clear enough (data.season.min_clear 0.7)" in message


def test_a_season_with_too_long_a_gap(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", dates=("20210901", "20211001", "20220301", "20220401"))
    message = refused(root)
    assert "from 2021-10-02 to 2022-02-28, 150 days" in message
    assert "2021-12    0 dates    0.0 clear observations" in message
    assert len(ingest(root, DataConfig(season=SeasonConfig(longest_gap=150)))) == 4


def test_clouds_grow_alike_whatever_rows_are_read(tmp_path: Path) -> None:
    def scl(date: int) -> np.ndarray:
        return np.random.default_rng(date).choice([CLEAR, CLOUD], (16, 16), p=[0.9, 0.1])

    root = write_season(tmp_path / "s", scl=scl)
    plain = open_season(root, DataConfig())
    for season in (SeasonConfig(cloud_dilation=3), SeasonConfig(cloud_erosion=1, cloud_dilation=1)):
        images = open_season(root, DataConfig(season=season))
        whole = images.read(0, 32)[1]
        parts = [images.read(first, first + 2)[1] for first in range(0, 32, 2)]
        np.testing.assert_array_equal(np.concatenate(parts, 1), whole)
        if not season.cloud_erosion:
            assert not (whole & ~plain.read(0, 32)[1]).any()
            assert whole.mean() < plain.read(0, 32)[1].mean()


@pytest.mark.parametrize("rows", [2, 6, 14])
@pytest.mark.parametrize("first_band", ["B02", "B05"])
def test_clear_shares_do_not_depend_on_the_rows_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, first_band: str
) -> None:
    """Clouds that grow over the edges of what is looked at, a day of two acquisitions, a date without the first band.

    The expected share is the mean of `_read_date`'s whole band, counted in one go.
    """

    def scl(date: int) -> np.ndarray:
        return np.random.default_rng(date).choice([CLEAR, CLOUD], (16, 16), p=[0.8, 0.2])

    def change(date: int, band: str, values: np.ndarray) -> np.ndarray:
        values = values.copy()
        # Half a swath beyond the scene; and a date whose first band was not measured, which is no look.
        values[: 5 if band in COARSE else 10] *= date != 1
        values *= not (date == 3 and band == first_band)
        return values

    root = write_season(tmp_path / "s", scl=scl, change=change)
    (root / "S2_20180411").rename(root / "A2_20180401")
    others = [band for band in BANDS if band != first_band]
    season = SeasonConfig(bands=(first_band, *others), cloud_erosion=1, cloud_dilation=2, longest_gap=400)
    config = DataConfig(season=season)
    whole = open_season(root, config)
    assert [acquisition.date.day for acquisition in whole.acquisitions] == [1, 21]
    assert len(set(whole.shares)) > 1
    for acquisition, share in zip(whole.acquisitions, whole.shares, strict=True):
        pixels = np.empty((1, 32, 32), np.int16)
        part = (acquisition, (first_band,), whole.grid, 0, 32, season, Counter())
        ground = season_images._read_date(*part, out=pixels)
        seen = (pixels[0] != 0) & ground
        assert share == seen.reshape(16, 2, 16, 2).all((1, 3)).mean()
    monkeypatch.setattr(season_images, "ROWS_LOOKED_AT", rows)
    assert open_season(root, config).shares == whole.shares


def test_no_more_rows_than_these_are_in_memory_when_a_season_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each file; with the neighbours that growing clouds and bilinear values draw on."""
    root = write_season(tmp_path / "s", size=(96, 32), scl=lambda _date: np.full((48, 16), CLEAR))
    tallest = 0
    read = season_images.read_raster

    def spied(path: Path, **options: Any) -> Any:
        nonlocal tallest
        found = read(path, **options)
        tallest = max(tallest, len(found[0]) * (2 if path.stem in (*COARSE, "SCL") else 1))
        return found

    monkeypatch.setattr(season_images, "read_raster", spied)
    monkeypatch.setattr(season_images, "ROWS_LOOKED_AT", 16)
    assert open_season(root, DataConfig()).shares == (1.0,) * 4
    assert 16 <= tallest <= 16 + 2 * 2 * 2


@pytest.mark.parametrize("nodata", [None, 0.0, 300.0, 65535.0, 0.5, float("nan")])
@pytest.mark.parametrize("offset", [0, 1000, -1000, -33000, 40000])
@pytest.mark.parametrize("brightest", [700, 32766, 32767, 34000, 65535])
def test_whole_values_are_scaled_by_fewer_steps_to_the_same(nodata: float | None, offset: int, brightest: int) -> None:
    values = np.random.default_rng(0).integers(0, 1500, (20, 20)).astype(np.uint16)
    values[0, :4] = 0, 300, 1000, brightest
    counts: Counter[str] = Counter()
    of = Acquisition("S2", dt.date(2022, 5, 1), {}, offset=offset)
    expected = season_images._checked(values, nodata, of, Path("B02.tif"), counts, slice(None))
    found = season_images._plain(values, nodata, offset)
    if found is None:
        impossible = (values[values > 0].astype(np.int64) - offset <= NO_REFLECTANCE).any()
        assert brightest >= 32766 or abs(offset) > 32767 or impossible
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        assert not sum(counts.values())


@pytest.mark.parametrize(
    "config", [DataConfig(window=8), DataConfig(window=8, stride=4, validation_share=0, test_share=0)]
)
def test_strips_of_any_height_give_one_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: DataConfig
) -> None:
    """With what its notes count: blocks and windows that lie across strips, a swath's edge, and few rows below."""

    def spoil(date: int, band: str, values: np.ndarray) -> np.ndarray:
        values = beyond(74, 40)(date, band, values.astype(np.int32))
        values[::5, ::3] = -3000 if band == "B05" else 40_000 if band == "B04" else values[::5, ::3]
        return values

    root = write_season(tmp_path / "s", size=(86, 96), change=spoil, scl=lambda _date: np.full((43, 48), CLEAR))
    found = []
    for rows in (8, 24, 256):
        monkeypatch.setattr(season_scene, "FEWEST_ROWS", rows)
        ingest_season(root, config, tmp_path / str(rows), seed=0)
        found.append((tmp_path / str(rows) / "dataset.json").read_text())
    assert found[0] == found[1] == found[2]
    assert "values are saturated" in found[0]


def test_memory_does_not_follow_the_area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times the rows take as much; as a whole, their pixels would take 3.9 MB more."""
    monkeypatch.setattr(season_scene, "FEWEST_ROWS", 64)
    peaks = []
    for rows in (192, 576):
        root = write_season(tmp_path / str(rows), size=(rows, 128))
        tracemalloc.start()
        ingest(root)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1.3e6, peaks


def test_a_single_date(tmp_path: Path) -> None:
    message = refused(write_season(tmp_path / "s", dates=SEASON_DATES[:1]))
    assert "1 date in the season" in message
    assert "Add acquisitions" in message


def test_all_dates_empty(tmp_path: Path) -> None:
    message = refused(write_season(tmp_path / "s", change=lambda _date, _band, values: values * 0))
    assert "0 of 4 dates has a measured pixel" in message


def test_unknown_codes(tmp_path: Path) -> None:
    codes = halves(32, 32)
    codes[20, 3], codes[21, 4] = 777, 888
    message = refused(write_season(tmp_path / "s", codes=codes))
    assert "crop_type.tif: crop codes 777, 888 are in neither" in message
    assert "legend.csv" in message
    assert "data.season.void_codes" in message


def test_no_crop_anywhere(tmp_path: Path) -> None:
    message = refused(write_season(tmp_path / "s", codes=np.zeros((32, 32), np.uint16)))
    assert "the tag set is empty" in message


@pytest.mark.parametrize(
    ("legend", "expected"),
    [
        (None, "legend.csv: missing. Write code,name lines there"),
        ("id,label\n1,a\n", "legend.csv, line 1: columns ['id', 'label'], expected the header code,name"),
        ("code,name\n100,wheat\nx2,maize\n", "legend.csv: code 'x2' is not a whole number, and"),
        ("code,name\n100,\n", "legend.csv, line 2: code 100 has no name"),
        ("code,name\n100,wheat\n100,maize\n", "legend.csv, line 3: code 100 stands here a second time"),
        ("code,name\n", "legend.csv: no class"),
        ("code,name\n100,background\n200,maize\n", "legend.csv: crop code 100 has the name 'background'"),
    ],
)
def test_wrong_legend(tmp_path: Path, legend: str | None, expected: str) -> None:
    assert expected in refused(write_season(tmp_path / "s", legend=legend))


def test_a_legend_that_is_not_utf8(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    (root / "labels/legend.csv").write_bytes("code,name\n100,wheat\n200,maïs\n".encode("latin-1"))
    assert "legend.csv: not UTF-8: byte 0xef at position 26. Save it as UTF-8" in refused(root)


@pytest.mark.parametrize("name", ["", " ", "background"])
def test_classes_without_a_name_of_their_own(tmp_path: Path, name: str) -> None:
    config = DataConfig(season=SeasonConfig(classes={100: name, 200: "maize"}))
    message = refused(write_season(tmp_path / "s"), config)
    assert f"data.season.classes: crop code 100 has the name {name!r}" in message
    assert "Rename it" in message


def test_background_may_name_code_0(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", legend="code,name\n0,background\n100,wheat\n200,maize\n")
    assert ingest(root).manifest.classes == ("wheat", "maize")


def test_no_labels(tmp_path: Path) -> None:
    message = refused(write_season(tmp_path / "s", labels=False))
    assert "looked for labels/crop_type.tif, labels/parcels.geojson" in message
    assert "data.season.labels" in message


def test_parcels_without_the_attribute(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", labels=False)
    write_parcels(root / "labels/parcels.geojson", [(100, WHOLE)])
    message = refused(root, DataConfig(season=SeasonConfig(attribute="kultur")))
    assert "parcels.geojson: no attribute 'kultur', it has crop_code" in message
    assert "data.season.attribute" in message


def test_a_layer_without_parcels(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", labels=False)
    write_parcels(root / "labels/parcels.geojson", [])
    assert "parcels.geojson: the layer is empty. Add parcels" in refused(root)


def change_ring(path: Path, change: Any, *, parcel: int = 1) -> None:
    data = json.loads(path.read_text())
    rings = data["features"][parcel]["geometry"]["coordinates"]
    rings[0] = change(rings[0])
    path.write_text(json.dumps(data))


PARCELS = [
    (number, (WHOLE[0] + left, WHOLE[1], WHOLE[0] + left + 80, WHOLE[3]))
    for number, left in ((100, 0), (200, 80), (200, 160))
]


@pytest.mark.filterwarnings("ignore:Non closed ring")
@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
@pytest.mark.parametrize("points", [2, 4])
def test_a_parcel_with_an_unclosed_ring(tmp_path: Path, crs: str, points: int) -> None:
    root = write_season(tmp_path / "s", labels=False)
    path = root / "labels/parcels.geojson"
    write_parcels(path, PARCELS, crs=crs)
    change_ring(path, lambda ring: ring[:points])
    message = refused(root)
    assert "parcels.geojson, parcel 1: invalid outline" in message
    assert "Close its rings" in message


@pytest.mark.filterwarnings("ignore:Non closed ring")
@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
@pytest.mark.parametrize("place", [slice(2, 3), slice(0, 5)])
def test_parcels_without_finite_coordinates_are_counted(tmp_path: Path, crs: str, place: slice) -> None:
    root = write_season(tmp_path / "s", labels=False)
    path = root / "labels/parcels.geojson"
    write_parcels(path, PARCELS, crs=crs)

    def spoil(ring: list[list[float]]) -> list[list[float]]:
        for point in ring[place]:
            point[:] = [float("nan")] * 2
        return ring

    change_ring(path, spoil)
    dataset = ingest(root)
    # An outline of nothing else is near no scene: it is not even read.
    said = "1 parcels of parcels.geojson have NaN or infinite coordinates and were left out" in dataset.manifest.notes
    assert said == (place != slice(0, 5))
    assert dataset.labels(0)[10, [4, 12, 20]].tolist() == [1, 0, 2]


def test_a_parcel_that_no_projection_reaches(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", labels=False)
    path = root / "labels/parcels.geojson"
    write_parcels(path, PARCELS, crs="EPSG:4326")
    change_ring(path, lambda ring: [ring[0], [1e300, 50], *ring[2:]])
    assert "parcels.geojson, parcel 1: its coordinates" in refused(root)


def test_another_crs(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    write_raster(root / "S2_20180421/B03.tif", np.full((32, 32), 5, np.uint16), crs="EPSG:32632")
    message = refused(root)
    assert str(root / "S2_20180421/B03.tif") in message
    assert "its CRS is EPSG:32632, that of" in message


def test_damaged_raster(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    (root / "S2_20180421/B03.tif").write_bytes(b"no raster")
    assert "S2_20180421/B03.tif: not a readable raster" in refused(root)


def test_a_file_without_a_date(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    write_raster(root / "extra/B02.tif", np.ones((2, 2), np.uint16))
    assert "extra/B02.tif: neither the file's name nor a folder's has a date" in refused(root)


def test_two_files_of_one_band(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    write_raster(root / "S2_20180401/copy_B02.tif", np.ones((32, 32), np.uint16))
    assert "are both band B02. Keep one" in refused(root)


def test_nothing_there(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no acquisition with bands, expected a STAC collection.json" in refused(tmp_path / "empty")


def test_broken_catalogue(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", layout="stac")
    (root / "S2_20180421/S2_20180421.json").unlink()
    assert "collection.json: not a readable STAC catalogue" in refused(root)


@pytest.mark.parametrize("text", ["[]", "{}", "1", '{"type": "Collection"}', '{"type": "FeatureCollection"}'])
def test_a_json_file_that_is_no_catalogue(tmp_path: Path, text: str) -> None:
    root = write_season(tmp_path / "s")
    (root / "collection.json").write_text(text)
    assert "collection.json: not a readable STAC catalogue" in refused(root)


def test_odd_stride_with_clouds(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s", scl=scl_all(CLEAR))
    assert "data.stride is 3" in refused(root, DataConfig(stride=3), kind=ConfigError)


# The real scene


def test_the_real_scene_needs_no_option(flanders: Path, tmp_path: Path) -> None:
    ingest_season(flanders, resolve("season").data, tmp_path / "out", seed=0)
    dataset = WindowDataset(tmp_path / "out")
    manifest = dataset.manifest
    assert manifest.classes == ("maize", "cabbages", "potatoes", "other leguminous", "permanent grass")
    assert (manifest.season_start, manifest.season_days) == (dt.date(2017, 7, 1), 515)
    assert manifest.self_scored
    assert len(dataset) == 14 * 14
    labels = np.zeros((64, 64), np.uint8)
    for index, record in enumerate(dataset.records):
        labels[record.row : record.row + 12, record.col : record.col + 12] = dataset.labels(index)
    shares = np.bincount(labels.ravel(), minlength=6) / labels.size
    # The shares that the scene's README states.
    np.testing.assert_allclose(shares, [0.454, 0.305, 0.008, 0.006, 0.023, 0.204], atol=6e-4)
    window = dataset.window(0)
    assert len(window.days) == 30
    assert window.clear is not None
    assert window.clear.mean() > 0.8
    date = manifest.season_start + dt.timedelta(days=int(window.days[3]))
    with rasterio.open(flanders / f"S2_flanders_2018_{date:%Y%m%d}" / "B08.tif") as file:
        np.testing.assert_array_equal(window.pixels[3, 6], file.read(1)[:12, :12])
    # A typical season's near infrared is brighter than its red.
    assert manifest.statistics.mean[6] > 2 * manifest.statistics.mean[2]


def test_the_real_parcels_equal_the_real_raster(flanders: Path, tmp_path: Path) -> None:
    for name, labels in (("raster", None), ("parcels", "labels/parcels.geojson")):
        season = SeasonConfig(bands=("B02",), labels=labels)
        config = DataConfig(max_dates=2, stride=20, season=season)
        ingest_season(flanders, config, tmp_path / name, seed=0)
    raster, parcels = WindowDataset(tmp_path / "raster"), WindowDataset(tmp_path / "parcels")
    for index in range(len(raster)):
        np.testing.assert_array_equal(raster.labels(index), parcels.labels(index))


def test_dates_are_left_out_by_name(tmp_path: Path) -> None:
    """A date whose clouds nobody has marked is not read; a slip in its name is no silence."""
    root = write_season(tmp_path / "s", dates=("20210301", "20210311", "20210321"))
    season = SeasonConfig(leave_out=(dt.date(2021, 3, 11),))
    images = open_season(root, DataConfig(season=season))
    assert [each.date.day for each in images.acquisitions] == [1, 21]
    assert "left out by data.season.leave_out: 2021-03-11" in images.notes
    wrong = DataConfig(season=SeasonConfig(leave_out=(dt.date(2021, 3, 12),)))
    with pytest.raises(
        DataError, match="no image of 2021-03-12, .* nearest dates are 2021-03-11, 2021-03-21, 2021-03-01"
    ):
        open_season(root, wrong)
