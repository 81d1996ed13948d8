"""Windows of a scene whose dates each cover a part of it, and the shares of the splits."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exact_core.config import DataConfig
from exact_core.data.windows.cutting import (
    LeftOut,
    Scene,
    TagNoise,
    add_scene,
    check_shares,
    has_window,
    open_tags,
    origins,
    split_names,
    tags_from_labels,
)
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import ConfigError, DataError

CONFIG = DataConfig(window=8)


def swath(*, clear: bool = False) -> Scene:
    """Three dates of 16 x 24 pixels, that is 2 x 3 windows of 8: the number of dates that measure each is
    3 2 1
    3 0 2
    """
    pixels = np.full((3, 1, 16, 24), 500, np.int16)
    pixels[2, :, :8, 8:16] = 0
    pixels[:2, :, :8, 16:] = 0
    pixels[:, :, 8:, 8:16] = 0
    pixels[1, :, 8:, 16:] = 0
    return Scene(
        name="swath",
        pixels=pixels,
        days=np.array([0, 10, 20], np.int16),
        labels=np.ones((16, 24), np.uint8),
        clear=np.ones((3, 8, 12), np.uint8) if clear else None,
        crs="EPSG:32631",
        transform=(10.0, 0.0, 0.0, 0.0, -10.0, 0.0),
        origin="swath.tif",
    )


def writer(out: Path) -> DatasetWriter:
    start = dt.date(2018, 4, 1)
    return DatasetWriter(
        out, name="t", source="t", bands=("B02",), classes=("wheat",), window=8, season_start=start, season_days=30
    )


@pytest.mark.parametrize("clear", [False, True])
def test_windows_that_fewer_than_two_dates_measured_are_skipped_and_counted(tmp_path: Path, clear: bool) -> None:
    with writer(tmp_path) as out:
        assert add_scene(out, swath(clear=clear), CONFIG, split="train", skip_unseen=True) == LeftOut(unseen=2)
    dataset = WindowDataset(tmp_path)
    assert [(r.row, r.col, r.dates) for r in dataset.records] == [(0, 0, 3), (0, 8, 2), (8, 0, 3), (8, 16, 2)]
    # The last window was measured on the first and third date.
    window = dataset.window(3)
    assert window.days.tolist() == [0, 20]
    assert window.pixels.all()
    assert (window.clear is not None) == clear


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        ((8, 8, 16, 16), "swath.tif: the window at row 8, column 8 is 0 (nodata) on all 3 dates"),
        ((0, 16, 8, 24), "1 date. A time series needs at least 2"),
    ],
)
def test_without_the_option_such_a_window_is_refused(
    tmp_path: Path, area: tuple[int, int, int, int], expected: str
) -> None:
    with pytest.raises(DataError) as caught, writer(tmp_path) as out:
        add_scene(out, swath(), CONFIG, split="train", area=area)
    assert expected in str(caught.value)
    assert not (tmp_path / "dataset.json").exists()


def test_a_whole_scene_is_unseen(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training window"), writer(tmp_path) as out:
        assert add_scene(out, swath(), CONFIG, split="train", area=(8, 8, 16, 16), skip_unseen=True) == LeftOut(1)


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        ((0, 0, 16, 24), True),
        ((8, 8, 16, 16), False),
        ((0, 16, 8, 24), False),
        ((0, 16, 16, 24), True),
        ((0, 0, 4, 4), False),
    ],
)
def test_has_window(area: tuple[int, int, int, int], expected: bool) -> None:
    assert has_window(swath(), area, window=8, stride=8) == expected


@pytest.mark.parametrize("clear", [False, True])
def test_rows_of_a_scene_give_its_windows(tmp_path: Path, clear: bool) -> None:
    whole = swath(clear=clear)
    with writer(tmp_path / "whole") as out:
        add_scene(out, whole, CONFIG, split="train", skip_unseen=True)
    with writer(tmp_path / "rows") as out:
        for first in (0, 8):
            patches = None if whole.clear is None else whole.clear[:, first // 2 : first // 2 + 4]
            rows = replace(whole, pixels=whole.pixels[:, :, first : first + 8], clear=patches, first=first)
            assert has_window(rows, (first, 0, first + 8, 8), window=8, stride=8)
            add_scene(out, rows, CONFIG, split="train", skip_unseen=True)
    assert WindowDataset(tmp_path / "rows").manifest.digest == WindowDataset(tmp_path / "whole").manifest.digest


def test_splits_that_are_named_at_last(tmp_path: Path) -> None:
    """The same dataset, statistics of its training windows included, as with the splits known before."""
    upper, lower = (0, 0, 8, 24), (8, 0, 16, 24)
    with writer(tmp_path / "before") as out:
        add_scene(out, swath(), CONFIG, split="test", area=upper, skip_unseen=True)
        add_scene(out, swath(), CONFIG, split="train", area=lower, skip_unseen=True)
    with writer(tmp_path / "after") as out:
        add_scene(out, swath(), CONFIG, split="block 0", area=upper, skip_unseen=True)
        add_scene(out, swath(), CONFIG, split="block 1", area=lower, skip_unseen=True)
        out.name_splits({"block 0": "test", "block 1": "train"})
    assert WindowDataset(tmp_path / "after").manifest.digest == WindowDataset(tmp_path / "before").manifest.digest
    with (
        pytest.raises(DataError, match=r"\(window swath/00000-00000\): unknown split 'block 0', expected one of"),
        writer(tmp_path / "never") as out,
    ):
        add_scene(out, swath(), CONFIG, split="block 0", area=upper, skip_unseen=True)


def test_shares_of_the_splits() -> None:
    names = split_names(10, validation=0.2, test=0.3, seed=0, what="scenes")
    assert [names.count(split) for split in ("train", "validation", "test")] == [5, 2, 3]
    assert split_names(3, validation=0.01, test=0.01, seed=0, what="scenes").count("test") == 1
    assert split_names(4, validation=0, test=0, seed=0, what="scenes") == ["train"] * 4
    assert split_names(4, validation=0, test=0.25, seed=0, what="scenes").count("validation") == 0


def test_a_validation_share_needs_a_test_share() -> None:
    with pytest.raises(ConfigError, match=r"data.test_share is 0 but data.validation_share is 0.15.*or both to 0"):
        split_names(10, validation=0.15, test=0, seed=0, what="scenes")
    check_shares(validation=0, test=0.25)
    check_shares(validation=0, test=0)


def test_too_few_scenes() -> None:
    with pytest.raises(DataError, match="2 scenes cannot fill train, validation"):
        split_names(2, validation=0.15, test=0.25, seed=0, what="scenes")


def test_tags_that_rest_on_little_are_counted_as_by_tagging_anew() -> None:
    """An oracle that asks for the tags of each of the eight cases by itself."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, (6, 6)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.05] = VOID
    window, share, noise = 8, 0.25, TagNoise()
    expected = [0, 0, 0]
    for row, col in origins(*labels.shape, window=window, stride=4):
        noise.add(labels, row, col, window=window, classes=4, share=share)

        def tags(step_row, step_col, least, row=row, col=col):
            top = min(max(row + step_row, 0), labels.shape[0] - window)
            left = min(max(col + step_col, 0), labels.shape[1] - window)
            return tags_from_labels(labels[top : top + window, left : left + window], classes=4, share=least) > 0

        here = tags(0, 0, share)
        expected[0] += here.sum()
        expected[1] += (tags(0, 0, share / 2) & ~tags(0, 0, 2 * share)).sum()
        moved = [tags(*step, share) != here for step in ((-1, 0), (1, 0), (0, -1), (0, 1))]
        expected[2] += np.any(moved, axis=0).sum()
    assert [noise.tags, noise.narrow, noise.loose] == expected
    assert noise.narrow > 0
    assert noise.loose > 0


def test_tags_that_void_pixels_leave_open_by_hand() -> None:
    """Of 100 pixels at a share of 5 %: 6 of crop 1, 3 of crop 2, none of crop 3, and 3 void."""
    labels = np.zeros((10, 10), np.uint8)
    labels.flat[:6], labels.flat[6:9], labels.flat[9:12] = 1, 2, VOID
    assert tags_from_labels(labels, classes=3, share=0.05).tolist() == [1, 0, 0]
    # Crop 2 would have 6 pixels were the void its, crop 3 only 3.
    assert open_tags(labels, classes=3, share=0.05).tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_open_tags_are_those_that_filling_the_void_can_change(seed: int) -> None:
    """An oracle that fills all void with each crop in turn, and with none of them."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 3, VOID], (8, 8), p=[0.55, 0.2, 0.1, 0.05, 0.1]).astype(np.uint8)
    for crop, is_open in enumerate(open_tags(labels, classes=3, share=0.08), 1):
        told = [
            tags_from_labels(np.where(labels == VOID, fill, labels).astype(np.uint8), classes=3, share=0.08)[crop - 1]
            for fill in (0, crop)
        ]
        assert is_open == (told[0] != told[1])


def void_swath() -> Scene:
    """The swath with its first window all void and two void pixels in the second."""
    scene = swath()
    assert scene.labels is not None
    scene.labels[:8, :8] = VOID
    scene.labels[0, 8:10] = VOID
    scene.labels[1:8, 8:16] = 0
    return scene


def test_a_window_that_is_all_void_is_left_out_and_void_pixels_leave_tags_open(tmp_path: Path) -> None:
    with writer(tmp_path / "positive") as out:
        assert add_scene(out, void_swath(), CONFIG, split="train", skip_unseen=True) == LeftOut(unseen=2, void=1)
    found = WindowDataset(tmp_path / "positive")
    assert [(each.row, each.col, each.tags, each.open) for each in found.records] == [
        (0, 8, (1,), (0,)),
        (8, 0, (1,), (0,)),
        (8, 16, (1,), (0,)),
    ]
    unknown = found.unknown(0)
    assert unknown is not None
    assert np.argwhere(unknown).tolist() == [[0, 0], [0, 1]]
    assert found.unknown(1) is None
    with writer(tmp_path / "complete") as out:
        complete = CONFIG.model_copy(update={"void_tags": "complete"})
        assert add_scene(out, void_swath(), complete, split="train", skip_unseen=True) == LeftOut(unseen=2)
    whole = WindowDataset(tmp_path / "complete")
    assert whole.open is None
    assert whole.unknown(0) is None
    assert whole.tags[:, 0].tolist() == [0, 1, 1, 1]


def test_blocks_of_void_are_no_windows() -> None:
    assert has_window(void_swath(), (0, 0, 8, 8), window=8, stride=8)
    assert not has_window(void_swath(), (0, 0, 8, 8), window=8, stride=8, void=False)
    assert has_window(void_swath(), (0, 8, 8, 16), window=8, stride=8, void=False)
