"""Finished rows on disk: gone on with, unless they belong to something else or are damaged."""

import json

import numpy as np
import pytest

from exact_core.errors import CorruptError
from exact_core.mapping.finished_rows import FinishedRows, RowFiles, read_rows


def rows(first, height, *, probabilities=True):
    rng = np.random.default_rng(first)
    planes = rng.integers(0, 101, (3, height, 5)).astype(np.uint8) if probabilities else None
    label, confidence = (rng.integers(0, 3, (height, 5)).astype(np.uint8) for _ in range(2))
    return FinishedRows(first, label, confidence, planes, label > confidence if probabilities else None)


@pytest.fixture
def folder(tmp_path):
    pieces = RowFiles(tmp_path / "rows", first=4, key="k", batch=8)
    for first, height in ((4, 3), (7, 5), (12, 2)):
        pieces.add(rows(first, height))
    return tmp_path / "rows"


def test_what_was_written_is_read(folder):
    found = list(read_rows(folder, first=4, end=14))
    assert [each.first for each in found] == [4, 7, 12]
    for each in found:
        expected = rows(each.first, len(each.label))
        np.testing.assert_array_equal(each.label, expected.label)
        np.testing.assert_array_equal(each.confidence, expected.confidence)
        np.testing.assert_array_equal(each.probabilities, expected.probabilities)
        np.testing.assert_array_equal(each.agree, expected.agree)
    assert list(read_rows(folder, first=4, end=4)) == []


def test_it_goes_on_where_it_ended_with_the_batch_that_it_began_with(folder):
    pieces = RowFiles(folder, first=4, key="k", batch=64)
    assert (pieces.end, pieces.batch) == (14, 8)
    pieces.add(rows(14, 1, probabilities=False))
    last = list(read_rows(folder, first=4, end=15))[-1]
    assert last.probabilities is None
    assert last.agree is None


@pytest.mark.parametrize("change", [{"key": "other"}, {"first": 0}])
def test_rows_of_something_else_are_forgotten(folder, change):
    pieces = RowFiles(folder, **{"first": 4, "key": "k", "batch": 2, **change})
    assert pieces.end == change.get("first", 4)
    assert pieces.batch == 2
    assert [path.name for path in folder.iterdir()] == ["journal.json"]


def test_an_unreadable_journal_is_none(folder):
    for text in ("", "[]", "{}"):
        (folder / "journal.json").write_text(text)
        assert RowFiles(folder, first=0, key="k", batch=2).end == 0
        assert json.loads((folder / "journal.json").read_text())["batch"] == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_rows_and_all_below_are_made_again(folder, damage, caplog):
    path = folder / "rows-00000007.npz"
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[140] ^= 255
        path.write_bytes(content)
    with pytest.raises(CorruptError, match="rows-00000007.npz: no whole rows of a map"):
        list(read_rows(folder, first=4, end=14))
    (folder / "rows-00000014.npz.partial").write_text("half")
    assert RowFiles(folder, first=4, key="k", batch=8).end == 7
    assert sorted(each.name for each in folder.iterdir()) == ["journal.json", "rows-00000004.npz"]


def test_rows_that_end_elsewhere_are_no_part(folder):
    with pytest.raises(CorruptError, match="its rows end at 12, not at 11"):
        list(read_rows(folder, first=4, end=11))
