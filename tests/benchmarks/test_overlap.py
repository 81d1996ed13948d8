"""Scenes put together from their windows, and the strides and weights that they are mapped with."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from benchmarks.overlap import Scene, measure, put_together, stride_of, weights_of
from exact_core.mapping.rows import usual_stride, window_weights


def test_a_scene_put_together_holds_every_window_where_it_lies(dataset):
    side = dataset.manifest.window
    for _, indices in dataset.scenes("test"):
        scene = put_together(dataset, indices)
        for index in indices:
            record, window = dataset.records[index], dataset.window(index)
            rows, cols = slice(record.row, record.row + side), slice(record.col, record.col + side)
            dates = np.searchsorted(scene.days, window.days)
            assert (scene.days[dates] == window.days).all()
            assert (scene.pixels[dates, :, rows, cols] == window.pixels).all()
            clear = scene.clear[dates, rows.start // 2 : rows.stop // 2, cols.start // 2 : cols.stop // 2]
            assert (clear == window.clear).all()
            assert (scene.labels[rows, cols] == dataset.labels(index)).all()


def test_a_scene_with_a_gap_is_none(dataset):
    _, indices = next(dataset.scenes("test"))
    side = dataset.manifest.window
    corner = [index for index in indices if (dataset.records[index].row, dataset.records[index].col) != (0, 0)]
    assert len(corner) == len(indices) - 1
    assert side * 2 == 48
    assert put_together(dataset, corner) is None


def test_strides_and_weights_are_those_of_the_map():
    assert [stride_of(Fraction(share), 24) for share in ("1/2", "2/3", "3/4", "5/6", "1")] == [12, 16, 18, 20, 24]
    assert stride_of(Fraction(3, 4), 12) == usual_stride(12)
    assert (weights_of("squared_sine")(24) == window_weights(24)).all()
    assert (weights_of("flat")(4) == 1).all()
    # By hand: of four pixels the middles are at an eighth, three, five and seven eighths.
    assert weights_of("triangle")(4)[0] == pytest.approx(np.array([1, 3, 3, 1]) / 16)


class Half:
    """A mapper that calls the left half of every window background and the right half crop 1."""

    cell, agreement = 2, False

    def encode(self, pixels, clear):  # noqa: ARG002 - the mapper's protocol
        return torch.zeros(pixels.shape[2] // 2, pixels.shape[3] // 2, 1)

    def decode(self, windows):
        side = 2 * len(windows[0])
        values = np.zeros((len(windows), 2, side, side), np.float32)
        values[:, 0, :, : side // 2] = values[:, 1, :, side // 2 :] = 1
        return values


def test_scores_are_those_of_the_map_at_the_stride():
    """Without overlap half of each window is right; borders show, as the class changes in the middle of windows too."""
    labels = np.zeros((4, 16), np.uint8)
    pixels = np.ones((4, 1, 4, 16), np.int16)
    scene = Scene(np.arange(4), None, 365, pixels, None, labels)
    miou, accuracy, seams = measure([(scene, Half())], side=4, classes=1, stride=4, kind="flat")
    assert accuracy == pytest.approx(0.5)
    # Background is half found, crop 1 is nowhere in truth.
    assert miou == pytest.approx(0.25)
    # Along a row the class changes at all 3 borders and at 4 of the 12 other pairs; along a column never, at 3 pairs.
    rows_elsewhere, rows_at_borders = 3 * 16, 0
    elsewhere = 4 * 4 / (4 * 12 + rows_elsewhere)
    assert seams == pytest.approx((4 * 3 / (4 * 3 + rows_at_borders)) / elsewhere)
