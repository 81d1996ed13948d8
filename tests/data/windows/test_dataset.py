import datetime as dt
import json
from dataclasses import replace

import numpy as np
import pytest

from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows import dataset as dataset_module
from exact_core.data.windows.dataset import VOID, Shard, Window, WindowDataset, WindowRecord
from exact_core.data.windows.dates import PAD_DAY
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import CorruptError, DataError
from exact_core.files import publish_checked

SIDE, BANDS, CROPS = 4, ("B04", "B08"), ("wheat", "maize")


def writer(out, **changes):
    settings = {
        "name": "small",
        "source": "test",
        "bands": BANDS,
        "classes": CROPS,
        "window": SIDE,
        "season_start": dt.date(2021, 3, 1),
        "season_days": 100,
        "shard_windows": 2,
    }
    return DatasetWriter(out, **{**settings, **changes})


def record(number, *, split="train", dates=3, tags=(1, 0)):
    return WindowRecord(
        id=f"s/{number}",
        scene="s",
        row=0,
        col=4 * number,
        crs="EPSG:32631",
        transform=(10.0, 0.0, 40.0 * number, 0.0, -10.0, 0.0),
        split=split,
        fold=0,
        dates=dates,
        tags=tags,
    )


def window(number=0, *, dates=3, tags=(1, 0)):
    rng = np.random.default_rng(number)
    return Window(
        pixels=rng.integers(1, 5000, (dates, 2, SIDE, SIDE)).astype(np.int16),
        days=np.arange(0, 10 * dates, 10, dtype=np.int16),
        tags=np.array(tags, np.uint8),
        labels=rng.integers(0, 3, (SIDE, SIDE)).astype(np.uint8),
        clear=np.ones((dates, 2, 2), np.uint8),
    )


def test_what_is_written_is_read(tmp_path):
    windows = [window(number, dates=2 + number) for number in range(3)]
    with writer(tmp_path / "d") as out:
        for number, item in enumerate(windows):
            split = "test" if number == 2 else "train"
            out.add(record(number, split=split, dates=2 + number), item, origin="x")
    dataset = WindowDataset(tmp_path / "d")
    assert len(dataset) == 3
    assert dataset.manifest.splits == {"train": 2, "validation": 0, "test": 1}
    assert dataset.manifest.tag_counts == {"wheat": 2, "maize": 0}
    assert any("maize" in note for note in dataset.manifest.notes)
    for number, item in enumerate(windows):
        read = dataset.window(number)
        for name in ("pixels", "days", "tags", "clear"):
            np.testing.assert_array_equal(getattr(read, name), getattr(item, name))
        assert read.labels is None
        np.testing.assert_array_equal(dataset.labels(number), item.labels)
        assert dataset.records[number] == record(number, split=dataset.records[number].split, dates=2 + number)
    # Padding is marked in the file itself.
    raw = dataset._locate(0)[0].arrays["days"]
    np.testing.assert_array_equal(raw[0], [0, 10, PAD_DAY])


def test_the_share_of_an_epoch_follows_from_how_windows_overlap(tmp_path):
    """Four windows of 4 x 4 pixels share 6 x 6 pixels. A fifth and the sixth, of another scene, share none."""
    places = [("a", 0, 0), ("a", 0, 2), ("a", 2, 0), ("a", 2, 2), ("a", 0, 6), ("b", 0, 0), ("a", 20, 20)]
    with writer(tmp_path / "d") as out:
        for number, (scene, row, col) in enumerate(places):
            split = "train" if number < 6 else "test"
            placed = replace(record(number, split=split), scene=scene, row=10 + row, col=5 + col)
            out.add(placed, window(number), origin="x")
    dataset = WindowDataset(tmp_path / "d")
    pixels = 6 * 6 + 4 * 4 + 4 * 4
    for looks in (1, 1.25, 6 * 16 / pixels, 2):
        assert dataset.share_of_epoch(looks) == pytest.approx(min(1, looks * pixels / (6 * 16)))
    assert dataset.share_of_epoch(None) == 1


def test_statistics_come_from_the_training_split(tmp_path):
    train, test = window(0), window(1)
    with writer(tmp_path / "d") as out:
        out.add(record(0), train, origin="x")
        out.add(record(1, split="test"), test, origin="x")
    statistics = WindowDataset(tmp_path / "d").manifest.statistics
    np.testing.assert_allclose(statistics.mean, train.pixels.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(statistics.std, train.pixels.std((0, 2, 3)), rtol=1e-9)
    assert "training split: 1 windows" in statistics.origin


def test_equal_data_equal_digest_whatever_the_folder(tmp_path, config, dataset_folder):
    ingest_synthetic(config.data, tmp_path / "again", seed=config.seed)
    assert WindowDataset(tmp_path / "again").manifest == WindowDataset(dataset_folder).manifest
    ingest_synthetic(config.data, tmp_path / "other", seed=config.seed + 1)
    assert WindowDataset(tmp_path / "other").manifest.digest != WindowDataset(dataset_folder).manifest.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": np.ones((2, 2, SIDE, SIDE), np.int16)}, ["(2, 2, 4, 4)", "3 dates"]),
        ({"pixels": np.zeros((3, 2, SIDE, SIDE), np.int16)}, ["every pixel is 0"]),
        ({"labels": np.full((SIDE, SIDE), 3, np.uint8)}, ["label value 3", "1..2", str(VOID)]),
        ({"days": np.array([0, 20, 10], np.int16)}, ["ascend", "[0, 20, 10]"]),
        ({"tags": np.ones(3, np.uint8)}, ["tags", "(2,)"]),
        ({"clear": np.ones((3, 4, 4), np.uint8)}, ["clear", "(3, 2, 2)"]),
    ],
)
def test_a_window_that_breaks_the_contract_is_named(tmp_path, change, words):
    broken = Window(**{**window().__dict__, **change})
    with pytest.raises(DataError) as error, writer(tmp_path / "d") as out:
        out.add(record(0), broken, origin="S2_1.npy")
    for word in ["S2_1.npy", "s/0", *words]:
        assert word in str(error.value)
    assert not (tmp_path / "d" / "dataset.json").exists()


def test_a_single_date_is_refused(tmp_path):
    with pytest.raises(DataError, match="1 date. A time series needs at least 2"), writer(tmp_path / "d") as out:
        out.add(record(0, dates=1), window(dates=1), origin="x")


def test_an_empty_tag_set_or_training_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="tag set is empty"), writer(tmp_path / "a") as out:
        out.add(record(0, tags=(0, 0)), window(tags=(0, 0)), origin="x")
    with pytest.raises(DataError, match="no training window"), writer(tmp_path / "b") as out:
        out.add(record(0, split="test"), window(), origin="x")
    with pytest.raises(DataError, match="0 crop classes"):
        writer(tmp_path / "c", classes=())


def test_a_killed_writer_leaves_nothing_that_looks_finished_and_can_be_repeated(tmp_path):
    with pytest.raises(KeyboardInterrupt), writer(tmp_path / "d") as out:
        for number in range(3):
            out.add(record(number), window(number), origin="x")
        raise KeyboardInterrupt
    with pytest.raises(DataError, match="no dataset here"):
        WindowDataset(tmp_path / "d")
    with writer(tmp_path / "d") as out:
        out.add(record(0), window(), origin="x")
    assert len(WindowDataset(tmp_path / "d")) == 1
    assert len(list((tmp_path / "d" / "shards").iterdir())) == 1
    with pytest.raises(DataError, match="already holds a dataset"):
        writer(tmp_path / "d")


def test_records_are_a_sequence(tmp_path):
    with writer(tmp_path / "d") as out:
        for number in range(5):
            out.add(record(number), window(number), origin="x")
    records = WindowDataset(tmp_path / "d").records
    assert [item.id for item in records] == [f"s/{number}" for number in range(5)]
    assert records[1:3] == [records[1], records[2]]
    assert records[-1] == records[4] == record(4)
    with pytest.raises(IndexError):
        records[5]


def test_pages_given_back_are_read_again(tmp_path, monkeypatch):
    """With room for no more than a window, every window still reads right, in any order and from any shard."""
    monkeypatch.setattr(dataset_module, "RESIDENT", 1)
    with writer(tmp_path / "d") as out:
        for number in range(6):
            out.add(record(number), window(number), origin="x")
    dataset = WindowDataset(tmp_path / "d")
    kept = dataset.window(0)
    for number in (5, 0, 3, 2, 4, 1, 5):
        np.testing.assert_array_equal(dataset.window(number).pixels, window(number).pixels)
        assert len(dataset._read) == 1
    np.testing.assert_array_equal(kept.pixels, window(0).pixels)


def test_what_is_read_cannot_be_changed_by_accident(tmp_path):
    with writer(tmp_path / "d") as out:
        out.add(record(0), window(0), origin="x")
    with pytest.raises(ValueError, match="read-only"):
        WindowDataset(tmp_path / "d").window(0).pixels[0] = 1


@pytest.mark.parametrize("content", [b"", b"12", b"\x02" + b"\0" * 7 + b"[]", b"\xff" * 40, None])
def test_a_file_that_is_no_shard_is_named(tmp_path, content):
    """Not only a checksum stands between the reader and a foreign file."""
    with writer(tmp_path / "d") as out:
        out.add(record(0), window(0), origin="x")
    path = tmp_path / "d" / "shards" / "00000.safetensors"
    # None: a shard whose header promises more than the file holds.
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(CorruptError, match=r"00000.safetensors: not a readable shard"):
        Shard(path)


def damaged(tmp_path, name, change):
    with writer(tmp_path / "d") as out:
        out.add(record(0), window(), origin="x")
    path = tmp_path / "d" / name
    path.write_bytes(change(path.read_bytes()))
    return tmp_path / "d"


@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda _: b""], ids=["short", "bit", "empty"]
)
def test_a_corrupt_shard_is_named_with_its_checksum(tmp_path, change):
    dataset = WindowDataset(damaged(tmp_path, "shards/00000.safetensors", change))
    with pytest.raises(CorruptError, match=r"00000.safetensors: corrupt: its SHA-256 .*Ingest again"):
        dataset.window(0)


def test_a_corrupt_index_or_manifest_is_named(tmp_path):
    with pytest.raises(CorruptError, match="index.parquet: corrupt"):
        WindowDataset(damaged(tmp_path / "1", "index.parquet", lambda b: b + b"x"))
    folder = damaged(tmp_path / "2", "dataset.json", lambda b: b)
    data = json.loads((folder / "dataset.json").read_text())
    data |= {"colour": "red", "checksum": ""}
    publish_checked(folder / "dataset.json", json.dumps(data))
    with pytest.raises(DataError, match="unknown key 'colour'"):
        WindowDataset(folder)
    (folder / "shards" / "00000.safetensors").unlink()
    del data["colour"]
    publish_checked(folder / "dataset.json", json.dumps(data))
    with pytest.raises(CorruptError, match="missing, though the manifest lists it"):
        WindowDataset(folder).window(0)


def test_a_dataset_without_outlines_and_void_is_the_one_that_it_was(tmp_path):
    """Its digest was recorded before there were outlines and unknown pixels (commit 44aab5d)."""
    start = dt.date(2018, 4, 1)
    given = {"bands": ("B02",), "classes": ("a", "b"), "window": 4, "season_start": start, "season_days": 9}
    with DatasetWriter(tmp_path / "d", name="t", source="t", **given) as writer:
        for number in range(2):
            record = WindowRecord(f"s/{number}", "s", 0, 4 * number, "", (), "train", 0, 2, (1, number))
            pixels = np.arange(32, dtype=np.int16).reshape(2, 1, 4, 4) + 1
            labels, tags = np.full((4, 4), number, np.uint8), np.array((1, number), np.uint8)
            writer.add(record, Window(pixels, np.array([0, 9], np.int16), tags, labels, None), origin="t")
    found = WindowDataset(tmp_path / "d")
    assert found.manifest.digest == "499b220d306e04f91b118ec2fa289238dda5fa9213e6efc928474aced7c3deff"
    assert found.open is None
    assert found.unknown(0) is None
    assert found.fields(0) is None
