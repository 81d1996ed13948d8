"""The majority filter and the minimum mapping unit: by hand, by plain loops, and however rows are cut."""

import itertools
from collections import Counter, deque

import numpy as np
import pytest
import rasterio

from exact_core.config import MappingConfig
from exact_core.mapping import generalise
from exact_core.mapping.finished_rows import FinishedRows
from exact_core.mapping.generalise import (
    majority_filter,
    majority_rows,
    merge_small_regions,
    without_small_regions,
)

VOID = 255


def noise(seed, shape=(37, 29), classes=4, void=0.1):
    """Patches of 3 x 3 pixels with specks and holes."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, classes, (-(-shape[0] // 3), -(-shape[1] // 3)))
    label = np.kron(patches, np.ones((3, 3), int))[: shape[0], : shape[1]]
    specks = rng.random(shape) < 0.2
    label[specks] = rng.integers(0, classes, int(specks.sum()))
    label[rng.random(shape) < void] = VOID
    return label.astype(np.uint8)


def test_majority_by_hand():
    label = np.array([[1, 1, 2, 2], [1, 3, 2, 2], [1, 1, VOID, 4]], np.uint8)
    # (1, 1): five of 1. (0, 2): one 1, four 2, one 3. (2, 3): two 2 beside one 4. (0, 1): three 1, two 2, one 3.
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [1, 1, VOID, 2]]
    assert majority_filter(label, 3).tolist() == expected
    # Two of each: each pixel keeps its own.
    assert majority_filter(np.array([[1, 2], [2, 1]], np.uint8), 3).tolist() == [[1, 2], [2, 1]]


@pytest.mark.parametrize("side", [3, 5, 9])
def test_majority_by_plain_loops(side):
    label, half = noise(side), side // 2
    found = majority_filter(label, side)
    for row, col in np.ndindex(label.shape):
        around = label[max(0, row - half) : row + half + 1, max(0, col - half) : col + half + 1]
        votes = Counter(around[around != VOID].tolist())
        own = int(label[row, col])
        if own == VOID:
            expected = VOID
        else:
            most = max(votes.values())
            expected = own if votes[own] == most else min(name for name, count in votes.items() if count == most)
        assert found[row, col] == expected
    turned = majority_filter(np.rot90(label).copy(), side)
    # The lowest label wins ties, wherever north is.
    np.testing.assert_array_equal(turned, np.rot90(found))


@pytest.mark.parametrize("cuts", [[1] * 37, [2, 30, 5], [37], [20, 1, 1, 1, 14]])
def test_majority_is_the_same_however_rows_are_cut(cuts):
    label, confidence = noise(1), noise(2)
    edges = np.cumsum([0, *cuts])
    rows = [
        FinishedRows(int(first), label[first:end], confidence[first:end], None)
        for first, end in itertools.pairwise(edges)
    ]
    found = list(majority_rows(rows, 5))
    assert [each.first for each in found] == edges[:-1].tolist()
    np.testing.assert_array_equal(np.concatenate([each.label for each in found]), majority_filter(label, 5))
    np.testing.assert_array_equal(np.concatenate([each.confidence for each in found]), confidence)


def test_small_regions_by_hand():
    """The speck of 3 has two sides to 1 and one to 2; the pair of 4 two to each, so the lower; the island stays."""
    label = np.array(
        [
            [1, 1, 1, 2, 2, VOID, 3],
            [1, 1, 3, 2, 2, VOID, VOID],
            [1, 1, 1, 2, 2, 2, 2],
            [1, 1, 4, 4, 2, 2, 2],
        ],
        np.uint8,
    )
    expected = label.copy()
    expected[1, 2] = 1
    # (3, 2) meets 1 to the left and above, (3, 3) meets 2 to the right and above.
    expected[3, 2:4] = 1
    np.testing.assert_array_equal(without_small_regions(label, 3), expected)
    np.testing.assert_array_equal(without_small_regions(label, 1), label)


def regions_of(label):
    """Region of each pixel and the size of each, by a search from pixel to pixel."""
    number, sizes = np.full(label.shape, -1), []
    for start in np.ndindex(label.shape):
        if label[start] == VOID or number[start] >= 0:
            continue
        number[start], queue, size = len(sizes), deque([start]), 0
        while queue:
            row, col = queue.popleft()
            size += 1
            for step in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                inside = 0 <= step[0] < label.shape[0] and 0 <= step[1] < label.shape[1]
                if inside and number[step] < 0 and label[step] == label[row, col]:
                    number[step] = len(sizes)
                    queue.append(step)
        sizes.append(size)
    return number, sizes


def plain_merge(label, pixels):
    number, sizes = regions_of(label)
    borders = [Counter() for _ in sizes]
    for row, col in np.ndindex(label.shape):
        for step in ((row, col + 1), (row + 1, col)):
            if step[0] < label.shape[0] and step[1] < label.shape[1]:
                for one, other in (((row, col), step), (step, (row, col))):
                    if label[one] != VOID and label[other] != VOID and sizes[number[other]] >= pixels:
                        borders[number[one]][int(label[other])] += 1
    found = label.copy()
    for place in np.ndindex(label.shape):
        if label[place] != VOID and sizes[number[place]] < pixels and borders[number[place]]:
            found[place] = min(borders[number[place]].items(), key=lambda each: (-each[1], each[0]))[0]
    return found


@pytest.mark.parametrize("pixels", [2, 6, 15])
def test_small_regions_by_plain_loops(pixels):
    label = noise(pixels)
    np.testing.assert_array_equal(without_small_regions(label, pixels), plain_merge(label, pixels))


@pytest.mark.parametrize("strip", [1, 5, 1000])
def test_no_small_region_is_left_wherever_a_strip_ends(tmp_path, monkeypatch, strip):
    label, pixels = noise(5, (60, 29)), 6
    expected = label
    while (after := plain_merge(expected, pixels)).tolist() != expected.tolist():
        expected = after
    monkeypatch.setattr(generalise, "STRIP", strip)
    profile = {"driver": "GTiff", "height": 60, "width": 29, "count": 1, "dtype": "uint8", "nodata": VOID}
    path = tmp_path / "class.tif"
    with rasterio.open(path, "w", **profile, crs="EPSG:32631", transform=rasterio.Affine(10, 0, 0, 0, -10, 0)) as file:
        file.write(label, 1)
        file.write_colormap(1, {1: (1, 2, 3, 255)})
        file.update_tags(1, CLASS_1="wheat")
    merge_small_regions(path, pixels)
    with rasterio.open(path) as file:
        found = file.read(1)
        assert file.colormap(1)[1] == (1, 2, 3, 255)
        assert file.tags(1)["CLASS_1"] == "wheat"
    np.testing.assert_array_equal(found, expected)
    number, sizes = regions_of(found)
    for each, size in enumerate(sizes):
        if size < pixels:
            # What is left has no neighbour of the size.
            row, col = np.nonzero(number == each)
            assert not any(
                0 <= r < 60 and 0 <= c < 29 and found[r, c] != VOID and sizes[number[r, c]] >= pixels
                for r, c in zip(
                    np.concatenate([row - 1, row + 1, row, row]),
                    np.concatenate([col, col, col - 1, col + 1]),
                    strict=True,
                )
                if (r, c) not in set(zip(row, col, strict=True))
            )
    assert [path.name for path in tmp_path.iterdir()] == ["class.tif"]


def test_an_even_window_has_no_middle():
    with pytest.raises(ValueError, match=r"majority\n.*expected an odd number of pixels"):
        MappingConfig(majority=4)
