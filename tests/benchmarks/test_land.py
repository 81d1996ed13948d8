"""The benchmarks of real land: squares that are drawn, and outlines that are spoilt, as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from benchmarks.outlines import merged, missing, shifted, split, taught
from benchmarks.real import Row, class_table, outlines_of, table, without
from benchmarks.tags import draw_squares
from exact_core.clues.overlaps import OverlapTags
from exact_core.data.season.rasters import Grid
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.recipes import resolve
from exact_core.stages.generate_masks import generate_masks
from exact_core.stages.train_classifier import train_classifier
from exact_core.tracking.runs import NoTracker

AREAS = [shapely.box(100 * place, 0, 100 * place + 90, 60) for place in range(8)]


@pytest.mark.parametrize("seed", range(3))
def test_outlines_are_spoilt_as_it_is_said(seed: int) -> None:
    rng = np.random.default_rng(seed)
    moved = shifted(AREAS, rng, 10.0, pixels=2)
    steps = {
        tuple(np.round(np.array(after.bounds) - before.bounds, 6)[:2])
        for before, after in zip(AREAS, moved, strict=True)
    }
    assert len(steps) == 1
    assert np.hypot(*steps.pop()) == pytest.approx(20)
    assert len(merged(AREAS, rng, 10.0, share=0.25)) in (6, 7)
    halves = split(AREAS, rng, 10.0, share=0.25)
    assert len(halves) == 10
    assert sum(each.area for each in halves) == pytest.approx(sum(each.area for each in AREAS))
    assert sorted(each.area for each in halves)[:4] == [2700] * 4
    kept = missing(AREAS, rng, 10.0, share=0.25)
    assert len(kept) == 6
    assert all(each in AREAS for each in kept)


def test_squares_say_what_grows_in_them() -> None:
    """Wheat on the left, maize on the right, void below: no square is all void, and each says what lies in it."""
    labels = np.ones((40, 40), np.uint8)
    labels[:, 20:], labels[20:] = 2, VOID
    grid = Grid(
        rasterio.crs.CRS.from_epsg(32631), Affine(10, 0, 500_000, 0, -10, 5_600_000), *labels.shape, Path("g.tif")
    )
    table = draw_squares(labels, ("wheat", "maize"), grid, resolve("season"), count=30, size=120, draw=1)
    header, *rows = table.splitlines()
    assert header == "x,y,size,crops"
    assert len(rows) == 30
    for line in rows:
        x, y, size, crops = line.split(",")
        col, row = ~grid.transform @ (float(x), float(y))
        part = labels[round(row) - 6 : round(row) + 6, round(col) - 6 : round(col) + 6]
        assert part.shape == (12, 12)
        assert size == "120"
        assert (part != VOID).any()
        assert crops.split(";") == [
            name for label, name in ((1, "wheat"), (2, "maize")) if (part == label).mean() > 0.01
        ]
    assert table != draw_squares(labels, ("wheat", "maize"), grid, resolve("season"), count=30, size=120, draw=2)


def test_outlines_are_tried_on_the_masks_of_the_stage(config, dataset_folder, tmp_path: Path) -> None:
    """From the CAMs of a mask set the same pixel model is taught again."""
    folders = {"dataset": dataset_folder, "tracker": NoTracker()}
    train_classifier(config, out=tmp_path / "classifier", **folders)
    generate_masks(config, classifier=tmp_path / "classifier", out=tmp_path / "masks", **folders)
    windows = WindowDataset(dataset_folder)
    masks = MaskSet(tmp_path / "masks", windows)
    indices = np.concatenate([windows.indices(split) for split in masks.manifest.splits]).tolist()
    model = taught(windows, masks, OverlapTags(windows, indices, use=config.masks.overlaps), config)
    for index in indices:
        np.testing.assert_array_equal(model.mask(index), masks.mask(index))


def test_outlines_go_before_parcels(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    assert outlines_of(tmp_path, None) is None
    (tmp_path / "labels/parcels.gpkg").touch()
    assert outlines_of(tmp_path, None) == "labels/parcels.gpkg"
    (tmp_path / "labels/outlines.shp").touch()
    assert outlines_of(tmp_path, None) == "labels/outlines.shp"
    assert outlines_of(tmp_path, "labels/mine.gpkg") == "labels/mine.gpkg"


def test_only_the_windows_of_the_split_are_scored(dataset: WindowDataset) -> None:
    """Of one scene: what lies outside of the split's windows is void."""
    side = dataset.manifest.window
    truth = np.ones((120, 110), np.uint8)
    kept = without(truth, dataset, "test")
    inside = np.zeros(truth.shape, bool)
    for each in dataset.records:
        if each.split == "test":
            inside[each.row : each.row + side, each.col : each.col + side] = True
    assert (kept[inside] == 1).all()
    assert (kept[~inside] == VOID).all()
    assert (~inside).any()


def test_the_table_of_real_scenes_by_hand() -> None:
    figures = {"majority": 0.1, "pixel floor": 0.3, "fused CAM": 0.2, "masks": 0.4, "expected": 0.5}
    figures |= {"map from tags": 0.45, "map from dense": 0.6}
    first = Row(196, "itself", {**figures, "masks with fields": 0.7, "map with fields": 0.65}, {"maize": 0.8})
    second = Row(196, "itself", {**first.figures, "masks": 0.6}, {"maize": 0.6, "potatoes": 0.1})
    scenes = {"one": [first, second], "two": [Row(40, "test", figures, {"wheat": 0.5})]}
    lines = table(scenes).splitlines()
    deviation = "14.1"  # of 40 and 60
    assert lines[2].startswith(f"| one | 196 | itself | 10.0 ± 0.0 | 30.0 ± 0.0 | 20.0 ± 0.0 | 50.0 ± {deviation} | ")
    assert lines[2].endswith(" | 70.0 ± 0.0 | 65.0 ± 0.0 |")
    assert lines[3] == "| two | 40 | test | 10.0 | 30.0 | 20.0 | 40.0 | 50.0 | 45.0 | 60.0 | – | – |"
    assert class_table(scenes).splitlines()[2] == "| one | maize 70.0 ± 14.1, potatoes 10.0 |"
