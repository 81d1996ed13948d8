"""One crop a field: votes of pixels, whatever windows they lie in, and outlines that are not believed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from exact_core.clues.fields import Fields
from exact_core.clues.overlaps import OverlapTags
from exact_core.data.windows.dataset import VOID, Window, WindowDataset, WindowRecord
from exact_core.data.windows.writer import DatasetWriter

SIDE = 4
Corner = tuple[int, int]


def dataset(
    folder: Path,
    fields: NDArray[np.int32] | None,
    corners: dict[Corner, tuple[int, ...]],
    unknown: NDArray[np.uint8] | None = None,
) -> WindowDataset:
    """Windows of 4 pixels of one scene, by their corners, with their tags of two crops."""
    start = dt.date(2018, 4, 1)
    with DatasetWriter(
        folder, name="t", source="t", bands=("B02",), classes=("a", "b"), window=SIDE, season_start=start, season_days=9
    ) as writer:
        for (row, col), tags in corners.items():
            here = np.s_[row : row + SIDE, col : col + SIDE]
            record = WindowRecord(f"{row}-{col}", "s", row, col, "", (), "train", 0, 2, tags)
            window = Window(
                pixels=np.ones((2, 1, SIDE, SIDE), np.int16),
                days=np.array([0, 9], np.int16),
                tags=np.array(tags, np.uint8),
                labels=None,
                clear=None,
                unknown=None if unknown is None else unknown[here],
                fields=None if fields is None else fields[here],
            )
            writer.add(record, window, origin="t")
    return WindowDataset(folder)


def opened(windows: WindowDataset) -> Fields:
    every = list(range(len(windows)))
    return Fields(windows, every, OverlapTags(windows, every))


def scores_of(windows: WindowDataset, whole: NDArray[np.float64]):
    """Scores of a window's pixels, cut from those of the scene (H, W, 3), within the window's tags."""

    def scores(index: int) -> NDArray[np.float64]:
        record = windows.records[index]
        part = whole[record.row : record.row + SIDE, record.col : record.col + SIDE]
        return part * np.array([1, *record.tags])

    return scores


def halves() -> NDArray[np.int32]:
    """Field 5 on the left of 4 x 8 pixels, field 9 on the right, and a row between nothing."""
    fields = np.repeat(np.array([[5, 5, 5, 9, 9, 9, 9, 9]], np.int32), 4, 0)
    fields[3] = 0
    return fields


def test_a_field_takes_the_crop_of_most_of_its_score_by_hand(tmp_path: Path) -> None:
    """Field 5 lies in the first window; field 9 is cut by the windows' edge and counts once, as a whole."""
    windows = dataset(tmp_path, halves(), {(0, 0): (1, 1), (0, 4): (1, 1)})
    whole = np.zeros((4, 8, 3))
    whole[..., 1] = 0.4
    # Of 15 pixels of field 9, three in the first window say b loudly, twelve in the second say a.
    whole[:3, 3, 2] = 0.9
    whole[:3, :3, 2] = 0.5
    fields = opened(windows)
    assert fields.count == 2
    crops, mean = fields.crops(scores_of(windows, whole), tag_share=0.01)
    assert crops.tolist() == [2, 1]
    np.testing.assert_allclose(mean, [[0, 0.4, 0.5], [0, 0.4, 0.9 * 3 / 15]])
    # Alone, the first window's three pixels would have become b.
    pixels = np.zeros((4, 4), np.uint8)
    assert fields.mask(0, pixels, crops).tolist() == [[2, 2, 2, 1]] * 3 + [[0] * 4]
    assert fields.mask(1, pixels, crops).tolist() == [[1] * 4] * 3 + [[0] * 4]


def test_tags_of_the_windows_over_a_field_leave_its_crop(tmp_path: Path) -> None:
    """Crop b is louder everywhere, but half of the right field lies in a window without it."""
    fields = np.repeat(np.array([[1, 1, 2, 2, 2, 2, 3, 3]], np.int32), 4, 0)
    windows = dataset(tmp_path, fields, {(0, 0): (1, 1), (0, 4): (1, 0)})
    whole = np.tile(np.array([0.1, 0.2, 0.7]), (4, 8, 1))
    assert opened(windows).crops(scores_of(windows, whole), tag_share=0.01)[0].tolist()[:2] == [2, 1]
    # No crop at all is left by two windows of different crops: the outline joins two fields.
    apart = dataset(tmp_path / "apart", fields, {(0, 0): (1, 0), (0, 4): (0, 1)})
    crops, _ = opened(apart).crops(scores_of(apart, whole), tag_share=0.01)
    assert crops.tolist() == [1, -1, 2]
    mask = np.array([[1, 1, 0, 2]] * 4, np.uint8)
    assert opened(apart).mask(0, mask, crops).tolist() == mask.tolist()


def test_outlines_that_the_images_do_not_show_are_left_out(tmp_path: Path) -> None:
    """Contrast by hand: twice as high across the outline of field 1 as inside, half as high across that of field 2."""
    fields = np.array([[1, 1, 0, 0, 2, 2, 0, 0]] * 4, np.int32)
    windows = dataset(tmp_path, fields, {(0, 0): (1, 1), (0, 4): (1, 1)})
    found = opened(windows)
    for index, across in enumerate((2.0, 0.5)):
        contrast = np.ones((4, SIDE, SIDE), np.float32)
        contrast[:, -1] = np.inf
        contrast[0] = 1.0
        contrast[0, :, 1] = across
        contrast[0, :, 3] = np.inf
        contrast[1, :3] = 1.0
        contrast[1, 3] = np.inf
        found.look(index, contrast)
    assert found.shown().tolist() == [True, False]
    whole = np.tile(np.array([0.1, 0.9, 0.0]), (4, 8, 1))
    assert found.crops(scores_of(windows, whole), tag_share=0.01)[0].tolist() == [1, -1]


@pytest.mark.parametrize("seed", range(3))
def test_as_by_adding_up_the_pixels_of_the_scene(tmp_path: Path, seed: int) -> None:
    """Windows anywhere: the same crops as from a plain mean over each field of the scene, and as from other windows."""
    rng = np.random.default_rng(seed)
    fields = rng.integers(0, 5, (3, 3)).repeat(4, 0).repeat(4, 1).astype(np.int32)
    whole = rng.random((12, 12, 3))
    corners = {(row, col): (1, 1) for row in range(0, 9, 2) for col in range(0, 9, 2)}
    windows = dataset(tmp_path / "many", fields, corners)
    crops, mean = opened(windows).crops(scores_of(windows, whole), tag_share=1.0)
    numbers = sorted(set(np.unique(fields).tolist()) - {0})
    for place, number in enumerate(numbers):
        expected = whole[fields == number].mean(0)
        np.testing.assert_allclose(mean[place], expected)
        assert crops[place] == expected.argmax()
    apart = dataset(tmp_path / "few", fields, {corner: tags for corner, tags in corners.items() if corner[0] % 4 == 0})
    assert opened(apart).crops(scores_of(apart, whole), tag_share=1.0)[0].tolist() == crops.tolist()


def fourths(tags_of: dict[Corner, tuple[int, ...]], folder: Path) -> WindowDataset:
    """Fields 1 to 6 of 4 x 2 pixels each, side by side."""
    return dataset(folder, np.repeat(np.arange(1, 7, dtype=np.int32), 2)[None].repeat(4, 0), tags_of)


def test_a_tag_that_no_field_shows_goes_to_the_field_that_is_least_against_it_by_hand(tmp_path: Path) -> None:
    """Two windows of fields 1 and 2, and 3 and 4. All look like a. Field 2 is 3 times as much a as b, field 4 twice.

    Field 3, in the second window alone, is b as much as a nearly, but without it that window would not show a.
    """
    windows = fourths({(0, 0): (1, 1), (0, 4): (1, 1)}, tmp_path)
    whole = np.zeros((4, 12, 3))
    for field, (a, b) in enumerate([(0.9, 0.1), (0.6, 0.2), (0.8, 0.1), (0.6, 0.3)]):
        whole[:, 2 * field : 2 * field + 2, 1:] = a, b
    scores = scores_of(windows, whole)
    assert opened(windows).crops(scores, tag_share=1.0)[0].tolist() == [1, 1, 1, 1]
    assert opened(windows).crops(scores, tag_share=0.01)[0].tolist() == [1, 2, 1, 2]
    # Half of a window is not more than half of it.
    assert opened(windows).crops(scores, tag_share=0.5)[0].tolist() == [1, 1, 1, 1]


def test_one_field_shows_the_tag_of_all_windows_over_it(tmp_path: Path) -> None:
    """Field 2 lies in both windows. Fields 1 and 3, each in one, are a little less against b."""
    windows = fourths({(0, 0): (1, 1), (0, 2): (1, 1)}, tmp_path)
    whole = np.zeros((4, 12, 3))
    for field, (a, b) in enumerate([(0.6, 0.3), (0.65, 0.3), (0.6, 0.3)]):
        whole[:, 2 * field : 2 * field + 2, 1:] = a, b
    assert opened(windows).crops(scores_of(windows, whole), tag_share=0.01)[0].tolist() == [1, 2, 1]


def test_a_window_does_not_lose_the_only_field_of_another_tag(tmp_path: Path) -> None:
    """One field and two tags: whichever crop it has, one tag is shown. A crop that it cannot be is not forced on it."""
    windows = dataset(tmp_path, np.ones((4, 4), np.int32), {(0, 0): (1, 1)})
    whole = np.tile(np.array([0.1, 0.5, 0.4]), (4, 4, 1))
    assert opened(windows).crops(scores_of(windows, whole), tag_share=0.01)[0].tolist() == [1]
    # As background it shows neither, and becomes the likelier of the two.
    whole[..., 0] = 0.9
    assert opened(windows).crops(scores_of(windows, whole), tag_share=0.01)[0].tolist() == [1]
    whole[..., 1:] = 0.0
    assert opened(windows).crops(scores_of(windows, whole), tag_share=0.01)[0].tolist() == [0]


@pytest.mark.parametrize("seed", range(5))
def test_no_single_change_of_a_field_would_show_more_tags(tmp_path: Path, seed: int) -> None:
    """Counted field by field and tag by tag. And what is shown without a change stays as it is."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(36).reshape(6, 6).repeat(2, 0).repeat(2, 1).astype(np.int32)
    whole = rng.random((12, 12, 3)) * np.array([1, 1, 0.3])
    corners = {(row, col): (1, 1) for row in range(0, 9, 2) for col in range(0, 9, 4)}
    windows = dataset(tmp_path, numbers, corners)

    def shown(crops: NDArray[np.int64]) -> int:
        whole_map = np.append(0, crops)[numbers]
        parts = [whole_map[row : row + SIDE, col : col + SIDE] for row, col in corners]
        return sum((part == crop).any() for part in parts for crop in (1, 2))

    fields = opened(windows)
    before, _ = fields.crops(scores_of(windows, whole), tag_share=1.0)
    crops, _ = fields.crops(scores_of(windows, whole), tag_share=0.01)
    assert shown(crops) > shown(before)
    for field in range(len(crops)):
        for crop in range(3):
            changed = crops.copy()
            changed[field] = crop
            assert shown(changed) <= shown(crops)
    # Said at once: the order of the windows does not matter.
    turned = dataset(tmp_path / "turned", numbers, dict(reversed(corners.items())))
    again, _ = opened(turned).crops(scores_of(turned, whole), tag_share=0.01)
    assert again.tolist() == crops.tolist()


def test_void_is_neither_counted_nor_labelled(tmp_path: Path) -> None:
    unknown = np.zeros((4, 4), np.uint8)
    unknown[:, :2] = 1
    windows = dataset(tmp_path, np.ones((4, 4), np.int32), {(0, 0): (1, 1)}, unknown)
    whole = np.zeros((4, 4, 3))
    whole[:, :2, 2], whole[:, 2:, 1] = 1.0, 0.5
    found = opened(windows)
    crops, _ = found.crops(scores_of(windows, whole), tag_share=0.01)
    assert crops.tolist() == [1]
    mask = np.where(unknown, VOID, 2).astype(np.uint8)
    assert found.mask(0, mask, crops).tolist() == [[VOID, VOID, 1, 1]] * 4


def test_pixels_beside_a_field_and_outside(tmp_path: Path) -> None:
    fields = np.zeros((4, 4), np.int32)
    fields[:2, :2] = 7
    windows = dataset(tmp_path, fields, {(0, 0): (1, 1)})
    found = opened(windows)
    assert np.argwhere(found.beside(0)).tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]
    mask = np.full((4, 4), 1, np.uint8)
    made = found.mask(0, mask, np.array([2]), outside=found.beside(0))
    assert made.tolist() == [[2, 2, 0, 1], [2, 2, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]
