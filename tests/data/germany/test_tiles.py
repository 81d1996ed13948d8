"""Germany (MTLCC): every expected number follows from the formula in tests/fake_germany.py."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from exact_core.config import DataConfig, GermanyConfig
from exact_core.data.germany.files import BANDS
from exact_core.data.germany.tiles import enlarge, ingest_germany, survey_germany
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.errors import DataError
from tests.fake_germany import DOY, FINE, HALF, SIXTH, SPLITS, germany_pixel, ids, write_germany

CHRONOLOGICAL = (1, 0, 2, 3)
"""Positions of DOY in the order of the calendar."""


def ingest(tmp_path: Path, config: DataConfig | None = None, **fake: Any) -> WindowDataset:
    root = write_germany(tmp_path / "germany", **fake)
    ingest_germany(root, config or DataConfig(), tmp_path / "out")
    return WindowDataset(tmp_path / "out")


def place(dataset: WindowDataset, scene: str) -> int:
    return next(position for position, record in enumerate(dataset.records) if record.scene == scene)


def refused(root: Path, config: DataConfig | None = None) -> str:
    out = root.parent / "refused"
    with pytest.raises(DataError) as caught:
        ingest_germany(root, config or DataConfig(), out)
    assert not (out / "dataset.json").exists()
    return str(caught.value)


def refused_with(tmp_path: Path, change: object) -> str:
    return refused(write_germany(tmp_path / "germany", change=change))  # type: ignore[arg-type]


# What is read


def test_values_of_every_band(tmp_path: Path) -> None:
    dataset = ingest(tmp_path)
    assert dataset.manifest.bands == FINE + HALF + SIXTH == sum(BANDS.values(), ())
    window = dataset.window(place(dataset, "2017-10"))
    j = np.arange(24)
    # A ramp of 40 a coarse pixel, from its first centre to its last; in whole numbers, half up.
    ramps = {
        2: np.floor(np.clip(20 * j - 10, 0, 40 * 11) + 0.5),
        6: np.floor(np.clip((2 * j + 1 - 6) * 40 / 12, 0, 40 * 3) + 0.5),
    }
    for date, position in enumerate(CHRONOLOGICAL):
        for number, band in enumerate(dataset.manifest.bands):
            stored = germany_pixel(10, 1, position, band, 24)
            if band not in FINE:
                stored = np.broadcast_to(stored[0, 0] + ramps[2 if band in HALF else 6], (24, 24))
            np.testing.assert_array_equal(window.pixels[date, number], stored)
    assert window.clear is None


def test_days_count_from_new_year_of_the_tiles_own_season_and_padding_is_gone(tmp_path: Path) -> None:
    dataset = ingest(tmp_path)
    assert (dataset.manifest.season_start, dataset.manifest.season_days) == (dt.date(2016, 1, 1), 366)
    for scene in ("2016-1", "2017-1"):
        assert dataset.window(place(dataset, scene)).days.tolist() == sorted(day - 1 for day in DOY)


def test_one_season(tmp_path: Path) -> None:
    dataset = ingest(tmp_path, DataConfig(germany=GermanyConfig(years=(2017,))), years=(2017,))
    assert (dataset.manifest.season_start, dataset.manifest.season_days) == (dt.date(2017, 1, 1), 365)
    assert {record.scene for record in dataset.records} == {f"2017-{tile}" for tile in ("1", "2", "10", "3", "4")}


def test_the_lists_become_splits(tmp_path: Path) -> None:
    dataset = ingest(tmp_path)
    splits = {record.scene.partition("-")[2]: record.split for record in dataset.records}
    assert splits == {"1": "train", "2": "train", "10": "train", "3": "validation", "4": "test"}
    assert [record.scene for record in dataset.records][:3] == ["2016-1", "2016-2", "2016-10"]
    assert dataset.manifest.splits == {"train": 6, "validation": 2, "test": 2}
    assert not dataset.manifest.self_scored
    assert not dataset.manifest.notes


def test_another_fold(tmp_path: Path) -> None:
    splits = {"train_fold7": ("3",), "test_fold7": ("1",), "eval": ("4",)}
    dataset = ingest(tmp_path, DataConfig(germany=GermanyConfig(fold=7)), splits=splits)
    assert {record.split for record in dataset.records if record.scene == "2016-3"} == {"train"}
    assert {record.fold for record in dataset.records} == {7}


def test_classes_labels_and_tags(tmp_path: Path) -> None:
    labels = ids(24)
    labels[8:, 16:] = 3
    dataset = ingest(tmp_path, labels=labels)
    assert dataset.manifest.classes == ("sugar beet", "meadow", "winter wheat")
    expected = np.zeros((24, 24), np.uint8)
    expected[8:, :8], expected[8:, 8:] = 1, 2
    np.testing.assert_array_equal(dataset.labels(0), expected)
    assert dataset.tags[0].tolist() == [1, 1, 0]


def test_unknown_may_be_void(tmp_path: Path) -> None:
    dataset = ingest(tmp_path, DataConfig(germany=GermanyConfig(unknown="void")))
    assert (dataset.labels(0)[:8] == VOID).all()
    assert dataset.tags[0].tolist() == [1, 1, 1]


def test_a_label_without_a_name_is_unknown_and_noted(tmp_path: Path) -> None:
    labels = ids(24)
    labels[20, :5] = 6
    dataset = ingest(tmp_path, labels=labels)
    assert (dataset.labels(0)[20, :5] == 0).all()
    assert dataset.manifest.notes == (
        "50 pixels have a label that classes.txt does not name. They are read as unknown",
    )


def test_place(tmp_path: Path) -> None:
    dataset = ingest(tmp_path, DataConfig(window=12))
    record = next(r for r in dataset.records if (r.scene, r.row, r.col) == ("2016-3", 12, 12))
    assert record.crs == "EPSG:32632"
    # Left: 600000 + 3 * 240 + 12 * 10; top: 5400000 - 12 * 10.
    assert record.transform == (10.0, 0.0, 600_840.0, 0.0, -10.0, 5_399_880.0)


def test_tiles_of_480_m_are_cut(tmp_path: Path) -> None:
    dataset = ingest(tmp_path, side=48, years=(2016,), config=DataConfig(germany=GermanyConfig(years=(2016,))))
    assert [(r.row, r.col) for r in dataset.records[:4]] == [(0, 0), (0, 24), (24, 0), (24, 24)]
    np.testing.assert_array_equal(
        dataset.window(3).pixels[0, 0], germany_pixel(1, 0, CHRONOLOGICAL[0], "B04", 48)[24:, 24:]
    )


def test_bands_in_the_order_asked_for(tmp_path: Path) -> None:
    every = ingest(tmp_path / "every")
    some = ingest(tmp_path / "some", DataConfig(germany=GermanyConfig(bands=("B10", "B02", "B8A"))))
    assert some.manifest.bands == ("B10", "B02", "B8A")
    np.testing.assert_array_equal(some.window(0).pixels, every.window(0).pixels[:, [12, 2, 7]])
    with pytest.raises(ValidationError, match="name one twice"):
        GermanyConfig(bands=("B02", "B02"))


def test_long_series_are_thinned_over_the_season(tmp_path: Path) -> None:
    dataset = ingest(tmp_path, DataConfig(max_dates=2))
    assert dataset.window(0).days.tolist() == [4, 129]
    assert "10 tiles have more than data.max_dates dates and were thinned to these" in dataset.manifest.notes


def test_tiles_that_are_not_here_are_noted(tmp_path: Path) -> None:
    root = write_germany(tmp_path / "germany")
    (root / "data16/3.tfrecord.gz").unlink()
    for year in (16, 17):
        (root / f"data{year}/4.tfrecord.gz").unlink()
    ingest_germany(root, DataConfig(), tmp_path / "out")
    manifest = WindowDataset(tmp_path / "out").manifest
    assert manifest.self_scored
    assert manifest.notes[0].startswith("no tile of eval.tileids is here: every window is used for training")
    assert manifest.notes[1] == "3 tiles of the lists are not in the folder and were left out"


def test_unpacked_tiles_are_the_same(tmp_path: Path) -> None:
    import gzip

    packed = ingest(tmp_path).manifest.digest
    for path in (tmp_path / "germany").glob("data*/*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    ingest_germany(tmp_path / "germany", DataConfig(), tmp_path / "again")
    assert WindowDataset(tmp_path / "again").manifest.digest == packed


def test_saturated_values_and_dates_without_a_measured_pixel(tmp_path: Path) -> None:
    def change(name: str, arrays: dict[str, Any]) -> dict[str, Any]:
        if name == "2016/1":
            arrays["x10"][0, 3, 4, 0] = 40_000
            for band in ("x10", "x20", "x60"):
                arrays[band][2] = 0
        if name == "2016/2":
            for band in ("x10", "x20", "x60"):
                arrays[band][1:] = 0
        return arrays

    dataset = ingest(tmp_path, change=change)
    window = dataset.window(place(dataset, "2016-1"))
    assert window.days.tolist() == [4, 32, 249]
    assert window.pixels[1, 0, 3, 4] == 32_767
    assert "2016-2" not in {record.scene for record in dataset.records}
    assert dataset.manifest.notes == (
        "1 windows are measured on fewer than two dates and were left out",
        "1 values above 32767 are read as 32767",
    )


def test_repeats_bit_for_bit_and_wherever_it_lies(tmp_path: Path) -> None:
    root = write_germany(tmp_path / "germany")
    ingest_germany(root, DataConfig(), tmp_path / "a")
    shutil.move(root, tmp_path / "moved")
    ingest_germany(tmp_path / "moved", DataConfig(), tmp_path / "b")
    first, second = (WindowDataset(tmp_path / out).manifest.digest for out in ("a", "b"))
    assert first == second


def test_survey(tmp_path: Path) -> None:
    root = write_germany(tmp_path / "germany")
    assert survey_germany(root, DataConfig()) == (4, 13)
    assert survey_germany(root, DataConfig(germany=GermanyConfig(bands=("B02", "B08")))) == (4, 2)
    for path in root.glob("data*/*"):
        path.unlink()
    with pytest.raises(DataError, match="no tile of the lists"):
        survey_germany(root, DataConfig())


# Coarser bands


def test_enlarging_by_hand() -> None:
    # Centres at a quarter and three quarters of the way; the outermost values hold.
    assert enlarge(np.array([[10, 20]]), 2).tolist() == [[10, 13, 18, 20]] * 2
    # A neighbour that was not measured is left out; where nothing was, nothing is.
    assert enlarge(np.array([[10, 0, 0]]), 2)[0].tolist() == [10, 10, 10, 0, 0, 0]


@pytest.mark.parametrize("factor", [1, 2, 6])
def test_enlarging_as_torch_does(factor: int) -> None:
    values = np.random.default_rng(factor).integers(1, 10_000, (3, 5, 4, 7))
    expected = torch.nn.functional.interpolate(
        torch.tensor(values, dtype=torch.float64), scale_factor=factor, mode="bilinear", align_corners=False
    )
    assert np.abs(enlarge(values, factor) - expected.numpy()).max() <= 0.5 + 1e-9


def test_enlarging_turns_with_the_image() -> None:
    values = np.random.default_rng(1).integers(0, 5, (2, 4, 4))
    np.testing.assert_array_equal(enlarge(np.rot90(values, axes=(1, 2)), 6), np.rot90(enlarge(values, 6), axes=(1, 2)))


# Bad input


@pytest.mark.parametrize("name", ["classes.txt", "geotransforms.csv", "tileids/train_fold0.tileids"])
def test_missing_tables(tmp_path: Path, name: str) -> None:
    root = write_germany(tmp_path / "germany")
    (root / name).unlink()
    assert f"{root / name}: missing. Give the folder that holds classes.txt" in refused(root)
    assert "full/240" in refused(root)


def test_the_folder_above_is_told_from_it(tmp_path: Path) -> None:
    root = write_germany(tmp_path / "full/240")
    assert f"as data_IJGI18/datasets/full/240: {root}, for example" in refused(root.parent)


def test_missing_season(tmp_path: Path) -> None:
    root = write_germany(tmp_path / "germany", years=(2016,))
    assert "data17: missing. Unpack the tiles of 2017, or name the seasons that are here in data.germany.years" in (
        refused(root)
    )
    ingest_germany(root, DataConfig(germany=GermanyConfig(years=(2016,))), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("classes.txt", "0|unknown\n", "no class, expected lines such as 1|sugar beet"),
        ("classes.txt", "a|beet\n", "line 1: 'a|beet', expected a whole number"),
        ("classes.txt", "1|beet\n1|oat\n", "line 2: class 1 stands twice"),
        ("geotransforms.csv", "1,600000,10,0\n", "line 1: 1,600000,10,0, expected tile, left, pixel"),
        ("geotransforms.csv", "1,6,10,0,5,0,10,32632\n", "expected tile, left, pixel, 0, top, 0, -pixel, EPSG code"),
        ("geotransforms.csv", "1,6,10,0,5,0,-10,999999\n", "EPSG code"),
        ("geotransforms.csv", "2,6,10,0,5,0,-10,32632\n", "no line for tile 1"),
        ("tileids/eval.tileids", "4\n1\n", "tile 1 is also in train_fold0.tileids: splits must not share pixels"),
    ],
)
def test_broken_tables(tmp_path: Path, name: str, text: str, expected: str) -> None:
    root = write_germany(tmp_path / "germany")
    (root / name).write_text(text)
    message = refused(root)
    assert expected in message
    assert Path(name).name in message


def set_(name: str, value: object) -> object:
    return lambda _, arrays: {**arrays, name: np.array(value(arrays[name])).astype("<i8")}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda _, a: {k: v for k, v in a.items() if k != "x20"}, "no x20/data with x20/shape. It has dates/doy"),
        (set_("x20", lambda v: v[:, :9]), "x20 has shape (6, 9, 12, 6), expected (6, 12, 12, 6)"),
        (set_("x60", lambda v: v[:-1]), "x60 has shape (5, 4, 4, 3), expected (6, 4, 4, 3)"),
        (set_("x10", lambda v: v[..., 0]), "x10/data has 27648 bytes, x10/shape says (6, 24, 24)"),
        (set_("x10", lambda v: v - 2000), "x10 has values from -900 to"),
        (set_("x10", lambda v: v + 65_535), "expected reflectance x 10,000 as Sentinel-2 counts it, 0 to 65535"),
        (set_("labels", lambda v: v[:, :20]), "labels have shape (6, 20, 24)"),
        (set_("dates/doy", lambda v: v + 200), "day 450 of the year, expected 1 to 366"),
    ],
)
def test_a_tile_of_another_kind(tmp_path: Path, change: object, expected: str) -> None:
    message = refused_with(tmp_path, change)
    assert "data16/1.tfrecord.gz" in message
    assert expected in message


def test_arrays_of_another_type(tmp_path: Path) -> None:
    message = refused_with(tmp_path, lambda _, arrays: {**arrays, "x10": arrays["x10"].astype("<u2")})
    assert "x10/data has 27648 bytes, x10/shape says (6, 24, 24, 4), expected 4 axes of int64" in message


def test_day_366_of_2017(tmp_path: Path) -> None:
    root = write_germany(tmp_path / "germany", doy=(1, 366))
    assert "data17/1.tfrecord.gz: day 366 of the year 2017" in refused(root)


def test_a_damaged_tile_is_named(tmp_path: Path) -> None:
    root = write_germany(tmp_path / "germany")
    path = root / "data17/10.tfrecord.gz"
    path.write_bytes(path.read_bytes()[:-30])
    assert f"{path}: damaged" in refused(root)


def test_no_training_tile(tmp_path: Path) -> None:
    root = write_germany(tmp_path / "germany")
    for tile in SPLITS["train_fold0"]:
        for year in (16, 17):
            (root / f"data{year}/{tile}.tfrecord.gz").unlink()
    assert "no training window" in refused(root)
