"""Reading references: what makes them a probability sample of a map, and each thing that does not."""

import contextlib
import csv
import json

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import HealthCheck, given, settings, strategies as st
from rasterio.warp import transform

from exact_core.errors import ConfigError, DataError, ExactError
from exact_core.map_statistics.areas import estimate_areas
from exact_core.map_statistics.map_folder import open_map
from exact_core.map_statistics.reference_points import COLUMNS, read_sample
from tests.mapping.maps import CLASSES, TRANSFORM, VOID, write_map

LABEL = np.repeat([[0, 0, 1, 1, 1, 2, 2, VOID]], 8, axis=0)
COUNTS = np.array([16, 24, 16, 8])


@pytest.fixture(scope="module")
def crop_map(tmp_path_factory):
    return open_map(write_map(tmp_path_factory.mktemp("map"), LABEL))


def place(row, col):
    """Longitude and latitude of a pixel's centre."""
    x, y = TRANSFORM @ (col + 0.5, row + 0.5)
    (longitude,), (latitude,) = transform("EPSG:32631", "EPSG:4326", [x], [y])
    return longitude, latitude


def table(path, rows, columns, delimiter=","):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


PLACED = ("reference", "longitude", "latitude")
STRATIFIED = ("reference", "map_class", "stratum", "stratum_size")
TWELVE = [("wheat", *place(row, col)) for row, col in [(0, 0), (1, 3), (2, 5), (7, 4), (5, 6), (3, 2)]]


def test_places_are_looked_up_on_the_map(crop_map, tmp_path):
    path = table(tmp_path / "a.csv", TWELVE, PLACED)
    found = read_sample(path, crop_map, COUNTS, design="simple")
    assert found.mapped.tolist() == [0, 1, 2, 1, 2, 1]
    assert found.reference.tolist() == [1] * 6
    assert (found.strata, found.sizes) == (("map",), (56,))


def test_any_point_layer_in_any_crs_says_the_same(crop_map, tmp_path):
    expected = read_sample(table(tmp_path / "a.csv", TWELVE, PLACED), crop_map, COUNTS, design="simple")
    points = shapely.points([row[1:] for row in TWELVE])
    moved = shapely.transform(points, lambda at: np.stack(transform("EPSG:4326", "EPSG:3035", *at.T), 1))
    for name, outlines, crs in (("a.geojson", points, "EPSG:4326"), ("a.gpkg", moved, "EPSG:3035")):
        pyogrio.raw.write(
            tmp_path / name,
            geometry=shapely.to_wkb(outlines),
            field_data=[np.array(["wheat"] * 6, object)],
            fields=["Reference"],
            geometry_type="Point",
            crs=crs,
        )
        found = read_sample(tmp_path / name, crop_map, COUNTS, design="simple")
        np.testing.assert_array_equal(found.mapped, expected.mapped)


def test_strata_have_the_sizes_they_were_drawn_from(crop_map, tmp_path):
    """Strata of an older map: 20 and 36 pixels; semicolons, as spreadsheets of many countries write."""
    rows = [("wheat", "wheat", "old", 20), ("maize", "wheat", "old", 20)] + [("background", "maize", "new", 36.0)] * 3
    found = read_sample(table(tmp_path / "a.csv", rows, STRATIFIED, ";"), crop_map, COUNTS, design="stratified")
    assert (found.strata, found.sizes) == (("old", "new"), (20, 36))
    assert found.stratum.tolist() == [0, 0, 1, 1, 1]
    assert found.counts().tolist() == [2, 3]
    assert found.mapped.tolist() == [1, 1, 2, 2, 2]


def test_strata_that_are_the_map_need_no_sizes(crop_map, tmp_path):
    names = [CLASSES[LABEL[0, col]] for _, col in [(0, 0), (1, 3), (2, 5), (7, 4), (5, 6), (3, 2)]]
    rows = [(*row, name) for row, name in zip(TWELVE, names, strict=True)]
    path = table(tmp_path / "a.csv", rows, (*PLACED, "stratum"))
    found = read_sample(path, crop_map, COUNTS, design="stratified")
    assert (found.strata, found.sizes) == (CLASSES, (16, 24, 16))
    rows[0] = (*rows[0][:-1], "maize")
    with pytest.raises(DataError, match="no column 'stratum_size', and the strata are not the classes of this map"):
        read_sample(table(tmp_path / "b.csv", rows, (*PLACED, "stratum")), crop_map, COUNTS, design="stratified")


@pytest.mark.parametrize("design", ["purposive", "", "convenience", "Stratified"])
def test_only_chance_gives_errors(crop_map, tmp_path, design):
    path = table(tmp_path / "a.csv", TWELVE, PLACED)
    with pytest.raises(ConfigError) as told:
        read_sample(path, crop_map, COUNTS, design=design)
    assert "only from places that chance chose" in str(told.value)
    assert "exact sample" in str(told.value)


GOOD = [("wheat", "wheat", "a", 20)] * 2 + [("maize", "maize", "b", 36)] * 2


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([], STRATIFIED, "no reference in it"),
        ([("x",)], ("name",), "no column 'reference'. Name the true class"),
        ([("wheat",)], ("reference",), "neither places nor the column 'map_class'"),
        ([("wheat", "wheat")], ("reference", "map_class"), "no column 'stratum'. Name there"),
        ([("wheat", "wheat", "a")], ("reference", "map_class", "stratum"), "no column 'stratum_size'"),
        ([*GOOD, ("", "wheat", "a", 20)], STRATIFIED, "line 6: reference is empty, as in 1 of 5 rows"),
        ([*GOOD, ("rye", "wheat", "a", 20)], STRATIFIED, "line 6: reference 'rye' is no class of the map"),
        ([*GOOD, ("wheat", "rye", "a", 20)], STRATIFIED, "line 6: map_class 'rye' is no class"),
        ([*GOOD, ("wheat", "wheat", "", 20)], STRATIFIED, "line 6: stratum is empty"),
        ([*GOOD, ("wheat", "wheat", "a", "")], STRATIFIED, "line 6: stratum_size '' is not a number"),
        ([*GOOD, ("wheat", "wheat", "a", 2.5)], STRATIFIED, "line 6: stratum_size is 2.5, expected a number of pix"),
        ([*GOOD, ("wheat", "wheat", "a", 21)], STRATIFIED, "'a' has 21 pixels here and 20 above"),
        ([*GOOD[:2], ("wheat", "wheat", "b", 3600)], STRATIFIED, "strata have 3620 pixels, the map 56"),
        ([*GOOD, ("wheat", "wheat", "a")], STRATIFIED, "line 6: 3 cells, the header has 4"),
        ([("wheat", "wheat", "x")], ("reference", "map_class", "reference"), "a column stands there twice"),
        ([("x", "y")], ("name", "name"), "no column 'reference'"),
        ([("wheat", "east", 50)], PLACED, "line 2: longitude 'east' is not a number"),
        ([*TWELVE, TWELVE[1]], PLACED, "line 8: the same pixel as"),
        ([("wheat", *place(0, 7)), TWELVE[0]], PLACED, "line 2: nothing is mapped there, as at 1 of 2 places"),
        ([("wheat", *place(-1, 0))], PLACED, "nothing is mapped there"),
        ([("wheat", 170, -89)], PLACED, "nothing is mapped there"),
        ([("wheat", 3, 95)], PLACED, "its places cannot be brought to EPSG:32631"),
    ],
)
def test_what_is_no_sample_of_the_map_is_refused(crop_map, tmp_path, rows, columns, words):
    with pytest.raises(DataError) as told:
        read_sample(table(tmp_path / "a.csv", rows, columns), crop_map, COUNTS, design="stratified")
    assert words in str(told.value)


def test_a_stratified_sample_does_not_pass_for_a_simple_one(crop_map, tmp_path):
    path = table(tmp_path / "a.csv", GOOD, STRATIFIED)
    with pytest.raises(DataError, match="declared simple, but it has the strata 'a', 'b'"):
        read_sample(path, crop_map, COUNTS, design="simple")


def test_files_that_are_none(crop_map, tmp_path):
    (tmp_path / "latin.csv").write_bytes(b"reference\nma\xefs\n")
    (tmp_path / "junk.gpkg").write_bytes(b"junk")
    (tmp_path / "lines.geojson").write_text(
        json.dumps(
            {
                "type": "Feature",
                "properties": {"reference": "wheat"},
                "geometry": {"type": "LineString", "coordinates": [[3, 50], [3, 51]]},
            }
        )
    )
    for name, words in (
        ("latin.csv", "not UTF-8: byte 0xef"),
        ("junk.gpkg", "not a readable point layer"),
        ("none.csv", "cannot be read"),
        ("none.gpkg", "no such file. Give a point layer"),
        ("lines.geojson", "feature 0: not a point"),
    ):
        with pytest.raises(DataError, match=words):
            read_sample(tmp_path / name, crop_map, COUNTS, design="simple")


CELL = st.one_of(
    st.sampled_from(["wheat", "maize", "background", "56", "28", "0", "-1", "1e400", "nan", "3.0000001", "50.5", ""]),
    st.text(max_size=6),
    st.floats().map(str),
    st.tuples(st.integers(0, 7), st.integers(0, 7)).map(lambda at: str(place(*at)[1])),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.lists(st.one_of(st.sampled_from(COLUMNS), st.text(max_size=4)), max_size=6),
    rows=st.lists(st.lists(CELL, max_size=6), max_size=5),
    design=st.sampled_from(["simple", "stratified", "other"]),
)
def test_no_table_ends_but_in_an_answer_or_an_explanation(crop_map, tmp_path, columns, rows, design):
    path = table(tmp_path / "a.csv", rows, columns)
    with contextlib.suppress(ExactError):
        found = estimate_areas(read_sample(path, crop_map, COUNTS, design=design), crop_map.classes)
        assert sum(each.share.value for each in found.classes) == pytest.approx(1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".csv", ".geojson", ".gpkg"]))
def test_no_bytes_do(crop_map, tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ExactError):
        read_sample(path, crop_map, COUNTS, design="simple")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_almost_good_tables_do_not_either(crop_map, tmp_path, data):
    """A sample as `exact sample` writes it, with a few cells spoilt."""
    columns = ("reference", "map_class", "stratum", "stratum_size", "longitude", "latitude")
    rows = [
        [CLASSES[label], CLASSES[label], CLASSES[label], int(COUNTS[label]), *place(row, col)]
        for label, col in ((0, 0), (1, 3), (2, 5))
        for row in (0, 3)
    ]
    for _ in range(data.draw(st.integers(0, 3))):
        row, col = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
        rows[row][col] = data.draw(CELL)
    path = table(tmp_path / "a.csv", rows, columns)
    with contextlib.suppress(ExactError):
        found = estimate_areas(read_sample(path, crop_map, COUNTS, design="stratified"), crop_map.classes)
        assert np.isfinite([found.overall.value, found.overall.error]).all()
