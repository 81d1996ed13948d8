"""A sample to visit: how many, where, and a file that comes back."""

import csv
import json
import math

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given, strategies as st

from exact_core.errors import ConfigError, CorruptError, DataError
from exact_core.map_statistics.map_folder import open_map
from exact_core.map_statistics.reference_points import read_sample
from exact_core.map_statistics.sample_design import (
    Allocation,
    allocate,
    draw,
    expected_accuracies,
    expected_error,
    fitting_minimum,
    sample_size,
    write_sample,
)
from tests.mapping.maps import CLASSES, VOID, write_map

PIXELS = {"deforestation": 200_000, "gain": 150_000, "forest": 3_200_000, "other": 6_450_000}
NAMES = tuple(PIXELS)
COUNTS = np.array(list(PIXELS.values()))


def test_olofsson_2014_as_published():
    """Section 5.1.1, table 5: 641 samples for a standard error of 0.01, and their proportional allocation."""
    accuracies = {"deforestation": 0.7, "gain": 0.6, "forest": 0.9, "other": 0.95}
    assert sample_size(PIXELS, accuracies, standard_error=0.01) == 641
    assert [each.samples for each in allocate(COUNTS, NAMES, size=641, minimum=2)] == [13, 10, 205, 413]


def test_rare_classes_get_the_minimum_and_the_rest_what_is_left():
    """491 of 641 are left for 3.2 and 6.45 million pixels: 162.8 and 328.2."""
    assert [each.samples for each in allocate(COUNTS, NAMES, size=641, minimum=75)] == [75, 75, 163, 328]


def test_the_size_is_the_variance_turned_around():
    """An independent oracle: the error of a stratified mean (Neyman's allocation) of so many is just the target."""
    accuracies = dict(zip(NAMES, (0.6, 0.9, 0.75, 0.8), strict=True))
    size = sample_size(PIXELS, accuracies, standard_error=0.02)
    deviations = np.sqrt([accuracies[name] * (1 - accuracies[name]) for name in NAMES])
    weights = COUNTS / COUNTS.sum()
    drawn = size * weights * deviations / (weights @ deviations)
    error = math.sqrt(sum(weights**2 * deviations**2 / drawn * (1 - drawn / COUNTS)))
    assert error <= 0.02 < error * (1 + 1 / size)


@given(
    counts=st.lists(st.integers(0, 3_000), min_size=1, max_size=6),
    size=st.integers(1, 5_000),
    minimum=st.integers(2, 200),
)
def test_allocations_keep_their_promises(counts, size, minimum):
    names = tuple(f"c{number}" for number in range(len(counts)))
    if not any(counts):
        with pytest.raises(DataError, match="nothing to sample"):
            allocate(np.array(counts), names, size=size, minimum=minimum)
        return
    found = allocate(np.array(counts), names, size=size, minimum=minimum)
    assert [each.label for each in found] == [label for label, count in enumerate(counts) if count]
    for each in found:
        assert min(minimum, each.pixels) <= each.samples <= each.pixels
    total = sum(each.samples for each in found)
    least = sum(min(minimum, count) for count in counts)
    assert total <= max(size, least)
    if least <= size <= sum(counts) / len(found):
        assert total == size or any(each.samples == each.pixels for each in found)


def a_map(folder, shape=(70, 90), seed=5):
    """Three classes of 4, 60 and 30 %, and pixels without one."""
    label = np.random.default_rng(seed).choice([0, 1, 2, VOID], shape, p=[0.04, 0.6, 0.3, 0.06]).astype(np.uint8)
    return label, open_map(write_map(folder, label))


def test_a_seed_is_a_sample_whatever_is_read_at_a_time(tmp_path):
    label, crop_map = a_map(tmp_path)
    allocations = allocate(crop_map.count(), crop_map.classes, size=300, minimum=20)
    whole = draw(crop_map, allocations, seed=7)
    assert [draw(crop_map, allocations, seed=7, pixels=pixels) for pixels in (1, 1000)] == [whole, whole]
    assert draw(crop_map, allocations, seed=8) != whole
    assert len({(point.row, point.col) for point in whole}) == len(whole) == 300
    for point in whole:
        assert label[point.row, point.col] == point.stratum.label
        assert point.stratum.pixels == (label == point.stratum.label).sum()


def test_each_pixel_has_the_same_chance(tmp_path):
    """4 of 12 pixels, 600 times: each about 200 times, and by no preference for place (chi-square, 11 degrees)."""
    label = np.full((6, 4), 1)
    label[:3] = 2
    crop_map = open_map(write_map(tmp_path, label))
    allocations = allocate(crop_map.count(), crop_map.classes, size=8, minimum=4)
    times = np.zeros((6, 4))
    first = np.zeros((6, 4))
    for seed in range(600):
        points = draw(crop_map, allocations, seed=seed)
        for point in points:
            times[point.row, point.col] += 1
        first[points[0].row, points[0].col] += 1
    assert times.sum() == 600 * 8
    for half in (slice(0, 3), slice(3, 6)):
        assert ((times[half] - 200) ** 2 / (200 * 8 / 12)).sum() < 31.3
    # The first of a stratum is a sample of one.
    used = first[first > 0]
    assert len(used) == 12
    assert ((used - 50) ** 2 / 50).sum() < 31.3


def test_a_class_is_drawn_alike_whatever_the_others_are(tmp_path):
    label, crop_map = a_map(tmp_path / "a")
    other = open_map(write_map(tmp_path / "b", np.where(label == 2, 0, label)))
    drawn = [
        [
            (point.row, point.col)
            for point in draw(each, allocate(each.count(), CLASSES, size=20_000, minimum=100), seed=1)
            if point.stratum.label == 1
        ]
        for each in (crop_map, other)
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == (label == 1).sum()


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.csv"])
def test_what_is_written_comes_back_when_filled_in(tmp_path, name):
    label, crop_map = a_map(tmp_path / "map")
    counts = crop_map.count()
    points = draw(crop_map, allocate(counts, crop_map.classes, size=60, minimum=10), seed=2)
    files = write_sample(points, tmp_path / "out" / name)
    assert [file.name for file in files] == list(dict.fromkeys([name, "a.csv"]))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted({name, "a.csv"})
    with pytest.raises(DataError, match="reference is empty, as in 60 of 60 rows"):
        read_sample(files[0], crop_map, counts, design="stratified")
    with files[-1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "map_class", "stratum", "stratum_size", "longitude", "latitude", "reference"]
    for row, point in zip(rows, points, strict=True):
        x, y = rasterio.warp.transform("EPSG:4326", crop_map.crs, [float(row["longitude"])], [float(row["latitude"])])
        col, line = ~crop_map.transform @ (x[0], y[0])
        assert (line, col) == pytest.approx((point.row + 0.5, point.col + 0.5), abs=1e-3)
        row["reference"] = row["map_class"]
    filled = tmp_path / "filled.csv"
    with filled.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    found = read_sample(filled, crop_map, counts, design="stratified")
    np.testing.assert_array_equal(found.mapped, found.reference)
    assert dict(zip(found.strata, found.sizes, strict=True)) == {
        name: (label == number).sum() for number, name in enumerate(CLASSES)
    }
    if name != "a.csv":
        meta, _, outlines, values = pyogrio.raw.read(files[0])
        assert meta["crs"] == "EPSG:4326"
        assert list(meta["fields"]) == ["id", "map_class", "stratum", "stratum_size", "reference"]
        assert values[0].tolist() == list(range(1, 61))
        assert shapely.get_x(shapely.from_wkb(outlines)).tolist() == pytest.approx(
            [float(row["longitude"]) for row in rows]
        )
    with pytest.raises(ConfigError, match="is there already"):
        write_sample(points, tmp_path / "out" / name)


def test_the_same_sample_is_the_same_file(tmp_path):
    _, crop_map = a_map(tmp_path / "map")
    points = draw(crop_map, allocate(crop_map.count(), crop_map.classes, size=60, minimum=10), seed=2)
    one, other = (write_sample(points, tmp_path / name / "a.geojson") for name in ("x", "y"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_guesses_are_read():
    assert expected_accuracies(["a=b=0.7"], ("a=b", "c"), otherwise=0.8) == {"a=b": 0.7, "c": 0.8}
    for text, words in ((["rye=0.5"], "expected NAME=VALUE"), (["c"], "NAME=VALUE"), (["c=x"], "no number")):
        with pytest.raises(ConfigError, match=words):
            expected_accuracies(text, ("c",), otherwise=0.8)
    for value in ("1.5", "nan", "-0.1"):
        with pytest.raises(ConfigError, match="expected a share from 0 to 1"):
            expected_accuracies([f"c={value}"], ("c",), otherwise=0.8)


def test_the_error_that_a_sample_promises_by_hand():
    """Half of the map at 0.8, half at 0.5, ten samples of each of many pixels: sqrt(0.25 * 0.016 + 0.25 * 0.025)."""
    rows = [Allocation(0, "a", 10**9, 10), Allocation(1, "b", 10**9, 10)]
    assert expected_error(rows, {"a": 0.8, "b": 0.5}) == pytest.approx(math.sqrt(0.25 * 0.016 + 0.25 * 0.025))
    # A stratum that is all in the sample errs no more.
    assert expected_error([Allocation(0, "a", 10, 10)], {"a": 0.5}) == 0
    # The size that eq. 13 gives to a target promises that target.
    pixels, guesses = {"a": 10**6, "b": 10**6}, {"a": 0.8, "b": 0.8}
    size = sample_size(pixels, guesses, standard_error=0.02)
    halves = [Allocation(0, "a", 10**6, size // 2), Allocation(1, "b", 10**6, size // 2)]
    assert expected_error(halves, guesses) == pytest.approx(0.02, rel=0.01)


def test_a_size_means_its_size():
    counts = np.array([900_000, 90_000, 9_000, 0, 1_000])
    names = ("a", "b", "c", "d")
    minimum = fitting_minimum(counts, names, size=60, minimum=50)
    assert minimum == 20
    assert sum(each.samples for each in allocate(counts, names, size=60, minimum=minimum)) == 60
    assert fitting_minimum(counts, names, size=600, minimum=50) == 50
    with pytest.raises(ConfigError, match="5 samples for 3 classes: errors need two of each, expected at least 6"):
        fitting_minimum(counts, names, size=5, minimum=50)


def test_what_cannot_be_drawn_is_refused(tmp_path):
    for error in (0, 1, -1, math.nan):
        with pytest.raises(ConfigError, match="standard error"):
            sample_size({"a": 5}, {"a": 0.5}, standard_error=error)
    with pytest.raises(DataError, match="nothing to sample"):
        sample_size({"a": 0}, {"a": 0.5}, standard_error=0.1)
    for size, minimum in ((0, 5), (10, 1)):
        with pytest.raises(ConfigError, match="errors need two"):
            allocate(COUNTS, NAMES, size=size, minimum=minimum)
    with pytest.raises(ConfigError, match=r"ends in .geojson, .gpkg or .csv"):
        write_sample([], tmp_path / "a.shp")


def test_a_map_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"map.json is missing"):
        open_map(tmp_path)
    folder = write_map(tmp_path / "m", [[0, 7]])
    with pytest.raises(CorruptError, match="label 7, but map.json names 3 classes"):
        open_map(folder).count()
    for text, words in (("{", "not JSON"), ("[]", "not a mapping"), ('{"classes": {}}', "expected names")):
        (folder / "map.json").write_text(text)
        with pytest.raises(CorruptError, match=words):
            open_map(folder)
    (folder / "map.json").write_text(json.dumps({"classes": {"background": "#000000"}}))
    (folder / "class.tif").write_bytes(b"junk")
    with pytest.raises(CorruptError, match="cannot be read"):
        open_map(folder)


def test_single_pixels_are_looked_up(tmp_path):
    label = np.random.default_rng(0).integers(0, 3, (600, 700), np.uint8)
    crop_map = open_map(write_map(tmp_path, label))
    row, col = np.random.default_rng(1).integers(-5, 705, (2, 500))
    inside = (row >= 0) & (row < 600) & (col >= 0) & (col < 700)
    expected = np.where(inside, label[np.clip(row, 0, 599), np.clip(col, 0, 699)], VOID)
    np.testing.assert_array_equal(crop_map.labels_at(row, col), expected)
    none = np.zeros(0, np.int64)
    assert crop_map.labels_at(none, none).shape == (0,)
