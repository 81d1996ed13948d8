"""PASTIS: every expected number follows from the formula in tests/fakes.py."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest

from exact_core.config import DataConfig, PastisConfig
from exact_core.data.pastis.patches import CLASSES, ingest_pastis
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.errors import ConfigError, DataError
from tests.fakes import PASTIS_DATES, pastis_pixel, stripes, write_pastis

CHRONOLOGICAL = (0, 2, 3, 1)
"""Positions of PASTIS_DATES in the order of the calendar."""


def ingest(tmp_path: Path, config: DataConfig | None = None, **fake: object) -> WindowDataset:
    root = write_pastis(tmp_path / "pastis", **fake)  # type: ignore[arg-type]
    ingest_pastis(root, config or DataConfig(), tmp_path / "out")
    return WindowDataset(tmp_path / "out")


def edit(root: Path, change: object) -> None:
    path = root / "metadata.geojson"
    data = json.loads(path.read_text())
    change(data)  # type: ignore[operator]
    path.write_text(json.dumps(data))


def refused(tmp_path: Path, config: DataConfig | None = None, *, change: object = None, **fake: object) -> str:
    root = write_pastis(tmp_path / "pastis", **fake)  # type: ignore[arg-type]
    if change:
        edit(root, change)
    with pytest.raises(DataError) as caught:
        ingest_pastis(root, config or DataConfig(), tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
    return str(caught.value)


def refused_with(tmp_path: Path, edit_images: object) -> str:
    root = write_pastis(tmp_path / "pastis", change=edit_images)  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        ingest_pastis(root, DataConfig(), tmp_path / "out")
    return str(caught.value)


def test_values_labels_and_classes(tmp_path: Path) -> None:
    dataset = ingest(tmp_path)
    assert dataset.manifest.classes == CLASSES
    assert dataset.manifest.source == f"pastis:{tmp_path / 'pastis'}"
    index = next(i for i, r in enumerate(dataset.records) if (r.scene, r.row, r.col) == ("10002", 24, 0))
    window = dataset.window(index)
    for place, position in enumerate(CHRONOLOGICAL):
        expected = pastis_pixel(2, position, 48)[:, 24:48, 0:24]
        np.testing.assert_array_equal(window.pixels[place], expected)
    np.testing.assert_array_equal(dataset.labels(index), stripes(48, 18)[24:48, 0:24])
    assert window.clear is None


def test_a_128_patch_gives_25_windows_row_major_without_the_remainder(tmp_path: Path) -> None:
    dataset = ingest(tmp_path, patches=1, folds=(1,), size=128)
    places = [(record.row, record.col) for record in dataset.records]
    assert places == [(24 * i, 24 * j) for i in range(5) for j in range(5)]


def test_tags_need_more_than_one_percent(tmp_path: Path) -> None:
    labels = np.zeros((24, 24), np.uint8)
    labels.flat[:6] = 3  # 6 / 576 = 1.04 %
    labels.flat[6:11] = 4  # 5 / 576 = 0.87 %
    dataset = ingest(tmp_path, patches=1, folds=(1,), size=24, labels=labels)
    assert np.flatnonzero(dataset.tags[0]).tolist() == [2]


def test_folds_become_splits(tmp_path: Path) -> None:
    config = DataConfig(pastis=PastisConfig(train_folds=(2, 4), validation_folds=(1,), test_folds=(3,)))
    dataset = ingest(tmp_path, config, patches=10)
    for record in dataset.records:
        assert record.fold == int(record.scene) % 5 + 1
        assert record.split == {2: "train", 4: "train", 1: "validation", 3: "test"}[record.fold]
    assert dataset.manifest.splits == {"train": 16, "validation": 8, "test": 8}
    assert dataset.manifest.notes[0] == "fold 5 serves no split (data.pastis): 2 patches left out"


def test_validation_folds_need_test_folds(tmp_path: Path) -> None:
    root = write_pastis(tmp_path / "pastis")
    with pytest.raises(ConfigError, match=r"data.pastis.test_folds is empty but data.pastis.validation_folds is \[4\]"):
        ingest_pastis(root, DataConfig(pastis=PastisConfig(test_folds=())), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_folds_alone_are_scored_on_themselves(tmp_path: Path) -> None:
    config = DataConfig(pastis=PastisConfig(train_folds=(1, 2, 3, 4, 5), validation_folds=(), test_folds=()))
    dataset = ingest(tmp_path, config)
    assert dataset.manifest.self_scored
    assert dataset.manifest.evaluation_split == "train"
    assert dataset.manifest.splits == {"train": 20, "validation": 0, "test": 0}
    assert dataset.manifest.notes[0].startswith("data.pastis names neither validation nor test folds: every window is")


def test_a_part_of_pastis_without_test_patches_is_scored_on_its_training_windows(tmp_path: Path) -> None:
    dataset = ingest(tmp_path, patches=3, folds=(1, 2, 4))
    assert dataset.manifest.self_scored
    assert dataset.manifest.splits == {"train": 8, "validation": 4, "test": 0}
    assert any("no patch here is of the test folds [5]" in note for note in dataset.manifest.notes)


def test_test_folds_without_validation_folds(tmp_path: Path) -> None:
    dataset = ingest(tmp_path, DataConfig(pastis=PastisConfig(validation_folds=())))
    assert not dataset.manifest.self_scored
    assert dataset.manifest.splits == {"train": 12, "validation": 0, "test": 4}


def test_crs_and_transform_of_a_window(tmp_path: Path) -> None:
    dataset = ingest(tmp_path)
    record = next(r for r in dataset.records if (r.scene, r.row, r.col) == ("10003", 24, 24))
    assert record.crs == "EPSG:2154"
    # Left: 600000 + 3 * 5000 + 24 * 10; top: 6800000 - 24 * 10.
    assert record.transform == (10.0, 0.0, 615_240.0, 0.0, -10.0, 6_799_760.0)


@pytest.mark.parametrize("as_text", [False, True])
def test_dates_across_new_year_are_in_order(tmp_path: Path, as_text: bool) -> None:
    dataset = ingest(tmp_path, dates_as_text=as_text)
    # From 2018-11-01: 5 November, 20 December, 2 January, 10 February.
    assert dataset.manifest.season_start == dt.date(2018, 11, 1)
    assert dataset.window(0).days.tolist() == [4, 49, 62, 101]
    assert dataset.manifest.season_days == 102


def test_more_than_nine_dates_keep_their_images(tmp_path: Path) -> None:
    dates = tuple(20190101 + position for position in range(12))
    window = ingest(tmp_path, dates=dates).window(0)
    # As text, "10" would come before "2".
    assert window.days.tolist() == list(range(12))
    assert window.pixels[:, 0, 0, 0].tolist() == [1000 + 20 * position for position in range(12)]


def test_long_series_are_thinned_over_the_whole_season(tmp_path: Path) -> None:
    dataset = ingest(tmp_path, DataConfig(max_dates=2))
    # Runs of two in the order of the calendar, the first of each: 5 November and 2 January.
    assert dataset.window(0).days.tolist() == [4, 62]
    assert dataset.window(0).pixels[:, 0, 0, 0].tolist() == [1000, 1060]
    assert "5 patches have more than 2 dates and were thinned to these" in dataset.manifest.notes


@pytest.mark.parametrize(("config", "void"), [(PastisConfig(), 19), (PastisConfig(void_label=99), 99)])
def test_void_is_neither_crop_nor_background(tmp_path: Path, config: PastisConfig, void: int) -> None:
    labels = stripes(48, 18)
    labels[20] = void
    dataset = ingest(tmp_path, DataConfig(pastis=config), labels=labels)
    assert (dataset.labels(0)[20] == VOID).all()
    assert (dataset.labels(0)[19] == stripes(48, 18)[19, :24]).all()


@pytest.mark.parametrize(("size", "classes"), [(30, 3), (50, 254)])
def test_other_sizes_and_class_counts(tmp_path: Path, size: int, classes: int) -> None:
    labels = stripes(size, classes)
    labels[10] = classes
    config = DataConfig(pastis=PastisConfig(classes=classes))
    dataset = ingest(tmp_path, config, size=size, classes=classes, labels=labels)
    assert len(dataset) == 5 * (size // 24) ** 2
    assert dataset.manifest.classes[-1] == f"class {classes}"
    assert (dataset.labels(0)[10] == classes).all()
    assert dataset.tags[0][classes - 1] == 1
    if size == 30:
        assert dataset.records[0].transform[:1] == (10.0,)


def test_void_beside_254_classes(tmp_path: Path) -> None:
    labels = stripes(24, 254)
    labels[10] = 255
    dataset = ingest(tmp_path, DataConfig(pastis=PastisConfig(classes=254)), size=24, classes=254, labels=labels)
    assert (dataset.labels(0)[10] == VOID).all()


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint16"])
def test_other_types_become_int16(tmp_path: Path, dtype: str) -> None:
    dataset = ingest(tmp_path, change=lambda _, images: images.astype(dtype))
    np.testing.assert_array_equal(dataset.window(0).pixels[0], pastis_pixel(0, 0, 48)[:, :24, :24])


def test_patches_smaller_than_a_window_are_noted(tmp_path: Path) -> None:
    root = write_pastis(tmp_path / "pastis")
    np.save(root / "DATA_S2/S2_10001.npy", np.ones((4, 10, 20, 20), np.int16))
    np.save(root / "ANNOTATIONS/TARGET_10001.npy", np.zeros((3, 20, 20), np.uint8))
    ingest_pastis(root, DataConfig(), tmp_path / "out")
    dataset = WindowDataset(tmp_path / "out")
    assert len(dataset) == 4 * 4
    assert "1 patches are smaller than a window of 24 pixels: left out" in dataset.manifest.notes
    (tmp_path / "small").mkdir()
    assert "no training window" in refused(tmp_path / "small", size=20)


def test_pastis_r_is_the_same_dataset(tmp_path: Path) -> None:
    """PASTIS-R: Sentinel-1 of both orbits beside it, dates of each, norms a fold, and the instances."""
    plain = ingest(tmp_path).manifest
    root = write_pastis(tmp_path / "PASTIS-R")
    for orbit, dates in (("S1A", [20180903, 20181002, 20190401]), ("S1D", [20180901, 20190130])):
        (root / f"DATA_{orbit}").mkdir()
        for patch in range(5):
            radar = np.full((len(dates), 3, 48, 48), -12.5, np.float32)
            np.save(root / f"DATA_{orbit}" / f"{orbit}_{10_000 + patch}.npy", radar)
        edit(root, lambda d, o=orbit, t=dates: [f["properties"].update({f"dates-{o}": t}) for f in d["features"]])
    for part in ("S1A", "S1D", "S2"):
        norms = {f"Fold_{fold}": {"mean": [0.0] * 3, "std": [1.0] * 3} for fold in range(1, 6)}
        (root / f"NORM_{part}_patch.json").write_text(json.dumps(norms))
    (root / "INSTANCE_ANNOTATIONS").mkdir()
    np.save(root / "INSTANCE_ANNOTATIONS/INSTANCES_10000.npy", np.zeros((48, 48), np.int64))
    more = {"N_Parcel": 90, "Parcel_Cover": 0.37, "TILE": "t30uxv"}
    edit(
        root,
        lambda d: [
            f.update(id=str(f["properties"]["ID_PATCH"])) or f["properties"].update(more) for f in d["features"]
        ],
    )
    ingest_pastis(root, DataConfig(), tmp_path / "r")
    radar_too = WindowDataset(tmp_path / "r").manifest
    assert radar_too.digest == plain.digest
    assert (radar_too.season_start, radar_too.notes) == (plain.season_start, plain.notes)


def test_repeats_bit_for_bit(tmp_path: Path) -> None:
    root = write_pastis(tmp_path / "pastis")
    for out in ("a", "b"):
        ingest_pastis(root, DataConfig(), tmp_path / out)
    first, second = (WindowDataset(tmp_path / out).manifest.digest for out in ("a", "b"))
    assert first == second


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metadata.geojson: missing. A PASTIS folder holds"):
        ingest_pastis(tmp_path, DataConfig(), tmp_path / "out")


def test_missing_array(tmp_path: Path) -> None:
    root = write_pastis(tmp_path / "pastis")
    (root / "DATA_S2/S2_10001.npy").unlink()
    with pytest.raises(DataError, match=r"S2_10001.npy: missing.*Download it"):
        ingest_pastis(root, DataConfig(), tmp_path / "out")


def test_pickled_array_is_never_loaded(tmp_path: Path) -> None:
    root = write_pastis(tmp_path / "pastis")
    np.save(root / "DATA_S2/S2_10000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"S2_10000.npy: not a readable array"):
        ingest_pastis(root, DataConfig(), tmp_path / "out")


def test_nan_patch(tmp_path: Path) -> None:
    def spoil(patch: int, images: np.ndarray) -> np.ndarray:
        images = images.astype(np.float32)
        images[0, 0, 0, :3] = np.nan if patch == 1 else 1
        return images

    message = refused_with(tmp_path, spoil)
    assert "S2_10001.npy: 3 of" in message
    assert "Set missing pixels to 0" in message


def test_all_zero_patch(tmp_path: Path) -> None:
    message = refused_with(tmp_path, lambda patch, images: images * (patch != 1))
    assert "S2_10001.npy" in message
    assert "0 (nodata) on all 4 dates" in message
    assert "Leave this area out" in message


def test_values_outside_int16(tmp_path: Path) -> None:
    message = refused_with(tmp_path, lambda _, images: images.astype(np.int32) * 40)
    assert "S2_10000.npy: values from 40000 to" in message
    assert "Store reflectance x 10,000" in message


def test_wrong_number_of_bands(tmp_path: Path) -> None:
    message = refused_with(tmp_path, lambda _, images: images[:, :9])
    assert "S2_10000.npy: shape (4, 9, 48, 48), expected (T, 10, H, W)" in message


def test_label_out_of_range(tmp_path: Path) -> None:
    labels = stripes(48, 18)
    labels[30, 30] = 23
    message = refused(tmp_path, labels=labels)
    assert "TARGET_10000.npy: label value 23 is out of range" in message
    assert "data.pastis.classes" in message


def test_labels_of_another_size(tmp_path: Path) -> None:
    root = write_pastis(tmp_path / "pastis")
    np.save(root / "ANNOTATIONS/TARGET_10000.npy", np.zeros((3, 24, 24), np.uint8))
    with pytest.raises(DataError, match=r"TARGET_10000.npy: labels have shape \(3, 24, 24\), expected \(layers, 48"):
        ingest_pastis(root, DataConfig(), tmp_path / "out")


def test_dates_that_disagree_with_the_array(tmp_path: Path) -> None:
    def drop(data: dict) -> None:
        del data["features"][2]["properties"]["dates-S2"]["3"]

    message = refused(tmp_path, change=drop)
    assert "S2_10002.npy: 4 images but 3 dates" in message
    assert "Repair the metadata or the array" in message


def test_a_single_date(tmp_path: Path) -> None:
    message = refused(tmp_path, dates=PASTIS_DATES[:1])
    assert "S2_10000.npy" in message
    assert "1 date. A time series needs at least 2" in message


def test_no_crop_anywhere(tmp_path: Path) -> None:
    message = refused(tmp_path, labels=np.zeros((48, 48), np.uint8))
    assert "the tag set is empty" in message
    assert "data.tag_share" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.pop("crs"), 'no "crs" member, got None. Name the CRS'),
        (lambda d: d["crs"]["properties"].update(name="EPSG:99999"), "crs 'EPSG:99999' is unknown"),
        (lambda d: d["features"].clear(), "no features"),
        (lambda d: d["features"][1]["properties"].pop("Fold"), "feature 1: KeyError('Fold'), expected the properties"),
        (lambda d: d["features"][1]["properties"].update(ID_PATCH=10000), "ID_PATCH 10000 stands 2 times"),
        (lambda d: d["features"][1].update(geometry=None), "(ID_PATCH 10001): no usable outline"),
        (lambda d: d["features"][1]["properties"].update({"dates-S2": {"0": 20191345}}), "dates-S2 is not readable"),
        (lambda d: d["features"][1]["properties"].update({"dates-S2": {}}), "dates-S2 is empty"),
        (lambda d: d["features"][1]["properties"].update({"dates-S2": []}), "dates-S2 is empty"),
        (lambda d: d["features"][1]["properties"].update({"dates-S2": [float("inf")]}), "dates-S2 is not readable"),
        (lambda d: d["features"][1]["properties"].update({"dates-S2": "abc"}), "dates-S2 is not readable"),
        (lambda d: d["features"][1]["properties"].update(Fold=float("inf")), "expected the properties ID_PATCH, Fold"),
        (lambda d: d["features"][1]["properties"].update(Fold=1.5), "1.5 is not a whole number"),
        (lambda d: d.update(features={"a": 1}), "features is a dict, expected a list"),
        (lambda d: d.update(features=3), "features is a int, expected a list"),
        (
            lambda d: d["features"][1]["geometry"]["coordinates"][0][0][1].__setitem__(0, float("nan")),
            "NaN or infinite coordinates, expected a polygon",
        ),
    ],
)
def test_broken_metadata(tmp_path: Path, change: object, expected: str) -> None:
    message = refused(tmp_path, change=change)
    assert "metadata.geojson" in message
    assert expected in message


@pytest.mark.parametrize("as_text", [False, True])
def test_a_plain_list_of_dates(tmp_path: Path, as_text: bool) -> None:
    root = write_pastis(tmp_path / "pastis")
    dates = list(PASTIS_DATES)
    listed = json.dumps(dates) if as_text else dates
    edit(root, lambda d: [feature["properties"].update({"dates-S2": listed}) for feature in d["features"]])
    ingest_pastis(root, DataConfig(), tmp_path / "out")
    assert WindowDataset(tmp_path / "out").window(0).days.tolist() == [4, 49, 62, 101]


@pytest.mark.parametrize("content", [None, b"no json", b'{"a": "ma\xefs"}', b"[" * 100_000])
def test_metadata_that_is_no_json_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "metadata.geojson"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    expected = "not a readable file: Is a directory" if content is None else "not valid JSON in UTF-8"
    with pytest.raises(DataError, match=rf"metadata.geojson: {expected}.*ownload it again"):
        ingest_pastis(tmp_path, DataConfig(), tmp_path / "out")
