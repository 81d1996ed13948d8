"""Mapping by bands of rows: against the plain way with everything in memory, and what must not change it."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from exact_core.data.windows.dataset import VOID
from exact_core.mapping.predict import WindowMapper
from exact_core.mapping.rows import (
    MappedRows,
    Seams,
    bands_of_part,
    map_rows,
    usual_stride,
    window_starts,
    window_weights,
)

SIDE, CLASSES = 8, 2


def area(height, width, *, dates=3, seed=0):
    return np.random.default_rng(seed).integers(1, 1000, (dates, 2, height, width)).astype(np.int16)


def predict(windows, clear):
    """Probabilities that depend on a window's pixels, on its surroundings and on what is clear."""
    found = []
    for window, seen in zip(windows, clear, strict=True):
        near = window.mean((0, 1)) / 1000
        far = window.mean() / 1000
        cloudy = 0.0 if seen is None else 1 - seen.mean()
        scores = np.stack([near, np.full_like(near, far), near * far + cloudy])
        found.append(scores / scores.sum(0))
    return np.array(found, np.float32)


def mapped(pixels, *, clear=None, chunk=16, batch=3, read=None, bands=None, side=SIDE):
    def rows(first, last):
        seen = None if clear is None else clear[:, first // 2 : last // 2]
        return pixels[:, :, first:last], seen

    height, width = pixels.shape[2:]
    sizes = {"height": height, "width": width, "side": side, "stride": max(2, side // 4 * 2), "classes": CLASSES}
    parts = list(map_rows(read or rows, WindowMapper(predict), batch=batch, chunk=chunk, bands=bands, **sizes))
    above = 0 if bands is None else parts[0].first
    assert [part.first for part in parts] == list(np.cumsum([above, *(len(part.label) for part in parts)])[:-1])
    return np.concatenate([part.label for part in parts]), np.concatenate([part.probabilities for part in parts], 1)


def plain(pixels, clear=None):
    """Every window at once, summed over the whole area."""
    height, width = pixels.shape[2:]
    total, weight = np.zeros((CLASSES + 1, height, width)), np.zeros((height, width))
    for row in window_starts(height, SIDE, SIDE // 2):
        for col in window_starts(width, SIDE, SIDE // 2):
            cut = np.s_[row : row + SIDE, col : col + SIDE]
            seen = None if clear is None else clear[:, row // 2 : (row + SIDE) // 2, col // 2 : (col + SIDE) // 2]
            total[(slice(None), *cut)] += predict([pixels[(..., *cut)]], [seen])[0] * window_weights(SIDE)
            weight[cut] += window_weights(SIDE)
    return total / weight


def test_weights_worked_by_hand():
    weights = window_weights(4)
    along = np.sin(np.pi * np.array([1, 3, 5, 7]) / 8) ** 2
    np.testing.assert_allclose(weights, np.outer(along, along), rtol=1e-6)
    # Half a window further, the sum is one everywhere inside.
    np.testing.assert_allclose(along[:2] + along[2:], 1, rtol=1e-6)


def test_windows_worked_by_hand():
    assert window_starts(8, 8, 4) == [0]
    assert window_starts(12, 8, 4) == [0, 4]
    assert window_starts(14, 8, 4) == [0, 4, 6]
    assert window_starts(24, 8, 6) == [0, 6, 12, 16]
    assert [usual_stride(side) for side in (2, 4, 8, 12, 24)] == [2, 2, 6, 8, 18]


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(4, 20).map(lambda half: 2 * half),
    width=st.integers(4, 14).map(lambda half: 2 * half),
    chunk=st.integers(1, 50),
    batch=st.integers(1, 7),
)
def test_it_is_the_plain_map_whatever_is_read_at_a_time(height, width, chunk, batch):
    pixels = area(height, width)
    clear = np.random.default_rng(1).random((3, height // 2, width // 2)) > 0.3
    label, probabilities = mapped(pixels, clear=clear, chunk=chunk, batch=batch)
    np.testing.assert_allclose(probabilities, plain(pixels, clear), atol=1e-5)
    assert label.shape == (height, width)
    assert (label == probabilities.argmax(0)).all()
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(5, 30).map(lambda half: 2 * half),
    chunk=st.integers(1, 50),
    parts=st.integers(1, 5),
    side=st.sampled_from([4, 6, 8, 10]),
)
def test_parts_are_to_the_bit_what_the_whole_is(height, chunk, parts, side):
    """Windows of 6 and 10 pixels overlap by more than half: three of them lie over a pixel."""
    pixels = area(height, 20, seed=height)
    clear = np.random.default_rng(1).random((3, height // 2, 10)) > 0.3
    whole = mapped(pixels, clear=clear, chunk=chunk, side=side)
    ranges = [bands_of_part(height, side, max(2, side // 4 * 2), part, parts) for part in range(1, parts + 1)]
    assert [first for first, _ in ranges] == [0, *(last for _, last in ranges)][:-1]
    assert ranges[-1][1] == len(window_starts(height, side, max(2, side // 4 * 2)))
    found = [mapped(pixels, clear=clear, chunk=chunk, side=side, bands=each) for each in ranges if each[0] < each[1]]
    np.testing.assert_array_equal(np.concatenate([label for label, _ in found]), whole[0])
    np.testing.assert_array_equal(np.concatenate([values for _, values in found], 1), whole[1])


def test_parts_worked_by_hand():
    """Windows of 8 begin at 0, 4, .. 32 of 40 rows: nine bands."""
    assert [bands_of_part(40, 8, 4, part, 2) for part in (1, 2)] == [(0, 4), (4, 9)]
    assert [bands_of_part(8, 8, 4, part, 3) for part in (1, 2, 3)] == [(0, 0), (0, 0), (0, 1)]


def test_what_no_series_shows_stays_unknown():
    pixels = area(24, 24)
    pixels[:, :, :10] = 0
    pixels[1:, :, :, 20:] = 0  # one date is no series
    label, _ = mapped(pixels)
    assert (label[:10] == VOID).all()
    assert (label[:, 20:] == VOID).all()
    assert (label[10:, :20] != VOID).all()


def test_rows_are_read_once_and_few_at_a_time():
    pixels, asked = area(200, 16), []

    def read(first, last):
        asked.append((first, last))
        return pixels[:, :, first:last], None

    mapped(pixels, read=read, chunk=16)
    assert [first for first, _ in asked] == list(range(0, 200, 16))
    assert max(last - first for first, last in asked) == 16


def rows_of(label, *heights):
    first = 0
    for height in heights:
        yield MappedRows(first, label[first : first + height], np.zeros((1, height, label.shape[1])))
        first += height


def ratio(label, *heights):
    seams = Seams(SIDE, SIDE // 2)
    for rows in rows_of(label, *(heights or (len(label),))):
        seams.add(rows)
    return seams.ratio()


def test_seams():
    """Squares of four pixels change at borders alone; squares shifted by two never; noise everywhere alike."""
    i, j = np.ogrid[:64, :64]
    squares = ((i // 4 + j // 4) % 2).astype(np.uint8)
    assert ratio(squares) is None  # nothing changes elsewhere, so there is nothing to hold it against
    shifted = (((i + 2) // 4 + (j + 2) // 4) % 2).astype(np.uint8)
    assert ratio(shifted) == 0
    noise = np.random.default_rng(0).integers(0, 2, (400, 400)).astype(np.uint8)
    assert ratio(noise) == pytest.approx(1, abs=0.02)
    # A tenth of noise on the squares: the borders show.
    mixed = np.where(np.random.default_rng(1).random((64, 64)) < 0.1, 1 - squares, squares).astype(np.uint8)
    assert ratio(mixed) > 3
    assert ratio(mixed, 4, 12, 8, 40) == ratio(mixed)
    assert ratio(np.full((16, 16), VOID, np.uint8)) is None


def test_seams_where_windows_begin_and_end():
    """Windows of 8 every 6: they begin at 6, 12, 18 and end at 8, 14, 20."""
    label = np.zeros((2, 24), np.uint8)
    label[:, 6:8] = label[:, 14:18] = 1
    seams = Seams(8, 6)
    seams.add(MappedRows(0, label, np.zeros((1, 2, 24))))
    label = label.copy()
    label[:, 10] = 1 - label[:, 10]
    assert seams.ratio() is None
    seams.add(MappedRows(2, label, np.zeros((1, 2, 24))))
    # Of the 23 neighbours in each of four rows six are borders, four of which change; elsewhere two change in two rows,
    # and one of the 3 x 24 neighbours below each other.
    assert seams.ratio() == pytest.approx((4 * 4 / (4 * 6)) / ((2 * 2 + 1) / (4 * 17 + 3 * 24)))
