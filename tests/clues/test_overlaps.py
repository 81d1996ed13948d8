"""What overlapping windows rule out for each other."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from exact_core.clues.overlaps import WITNESSES, OverlapTags
from exact_core.data.windows.dataset import Window, WindowDataset, WindowRecord
from exact_core.data.windows.writer import DatasetWriter

SIDE = 4


def dataset(
    folder: Path, places: list[tuple[str, int, int, tuple[int, ...], tuple[int, ...]]], classes: int
) -> WindowDataset:
    """Windows of 4 pixels: scene, row, column, tags, and crops that may grow untagged."""
    names = tuple(f"crop {number}" for number in range(classes))
    start = dt.date(2018, 4, 1)
    with DatasetWriter(
        folder, name="t", source="t", bands=("B02",), classes=names, window=SIDE, season_start=start, season_days=30
    ) as writer:
        for number, (scene, row, col, tags, untold) in enumerate(places):
            record = WindowRecord(str(number), scene, row, col, "", (), "train", 0, 2, tags, untold)
            pixels = np.ones((2, 1, SIDE, SIDE), np.int16)
            window = Window(pixels, np.array([0, 9], np.int16), np.array(tags, np.uint8), None, None)
            writer.add(record, window, origin="t")
    return WindowDataset(folder)


def test_two_windows_by_hand(tmp_path: Path) -> None:
    """Both have crop 1; only the first has crop 2: it grows where the second, two pixels to the right, is not."""
    found = dataset(tmp_path, [("a", 0, 0, (1, 1, 0), ()), ("a", 0, 2, (1, 0, 1), ())], 3)
    overlaps = OverlapTags(found, [0, 1])
    left, right = [1, 1, 0, 0], [0, 0, 1, 1]
    assert overlaps.allowed(0)[:, 0].tolist() == [[1] * 4, [1] * 4, left, [0] * 4]
    assert overlaps.allowed(1)[:, 3].tolist() == [[1] * 4, [1] * 4, [0] * 4, right]
    alone = OverlapTags(found, [0, 1], use=False)
    assert alone.allowed(0).tolist() == [[[1]], [[1]], [[1]], [[0]]]


def test_neither_other_scenes_nor_silent_tags_rule_anything_out(tmp_path: Path) -> None:
    places = [("a", 0, 0, (1, 1), ()), ("b", 0, 2, (1, 0), ()), ("a", 0, 4, (1, 0), ()), ("a", 2, 0, (1, 0), (0, 1))]
    overlaps = OverlapTags(dataset(tmp_path, places, 2), range(4))
    assert overlaps.allowed(0).min() == 1
    assert overlaps.allowed(0).shape == (3, SIDE, SIDE)
    assert overlaps.allowed(1).shape == (3, 1, 1)


def test_one_of_many_windows_may_lack_a_tag(tmp_path: Path) -> None:
    """Eight windows over one pixel, one without the crop; a ninth and tenth such window are too many."""
    corners = [(row, col) for row in range(3) for col in range(4)]
    few = [("a", *corner, (1, int(number > 0)), ()) for number, corner in enumerate(corners[:WITNESSES])]
    few[0], few[-1] = (*few[0][:3], (1, 1), ()), (*few[-1][:3], (1, 0), ())
    found = OverlapTags(dataset(tmp_path / "few", few, 2), range(len(few)))
    assert found.allowed(0)[2, 3, 3] == 1
    few[-2] = (*few[-2][:3], (1, 0), ())
    found = OverlapTags(dataset(tmp_path / "more", few, 2), range(len(few)))
    assert found.allowed(0)[2, 3, 3] == 0


@pytest.mark.parametrize("seed", range(3))
def test_as_by_asking_every_window_of_every_pixel(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 9, (30, 2)).tolist()
    places = [("a", row, col, tuple(map(int, rng.random(3) < 0.7)), ()) for row, col in corners]
    found = dataset(tmp_path, places, 3)
    overlaps = OverlapTags(found, range(30))
    for index, (row, col) in enumerate(corners):
        given = overlaps.allowed(index)
        for i, j in np.ndindex(SIDE, SIDE):
            over = [
                other
                for other, (top, left) in enumerate(corners)
                if top <= row + i < top + SIDE and left <= col + j < left + SIDE
            ]
            for crop in range(3):
                lacking = sum(1 - int(found.tags[other][crop]) for other in over)
                expected = found.tags[index][crop] and lacking <= len(over) // WITNESSES
                assert given[crop + 1, i, j] == expected
        assert given[0].min() == 1
