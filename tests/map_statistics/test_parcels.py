"""What a map says of parcels: against points counted one by one, in any layer, whatever its outlines are."""

import json
import struct
import warnings

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings, strategies as st
from rasterio.warp import transform

from exact_core.errors import ConfigError, CorruptError, DataError, ServiceError
from exact_core.map_statistics import parcels
from exact_core.map_statistics.map_folder import open_map
from exact_core.map_statistics.outlines import place_outlines
from exact_core.map_statistics.parcels import summarise_parcels
from tests.mapping.maps import CLASSES, TRANSFORM, VOID, write_map

CRS = rasterio.crs.CRS.from_epsg(32631)
SIZE = 40
LEFT, TOP = TRANSFORM.c, TRANSFORM.f


def box(left, top, right, bottom):
    """A rectangle of pixels, from the upper left corner of the map."""
    return shapely.box(LEFT + 10 * left, TOP - 10 * bottom, LEFT + 10 * right, TOP - 10 * top)


@pytest.fixture(scope="module")
def field_map(tmp_path_factory):
    """Wheat left of column 20, maize right of it, the last ten columns without a class; confidence = 50 + row."""
    label = np.repeat([[1] * 20 + [2] * 10 + [VOID] * 10], SIZE, 0)
    confidence = np.where(label == VOID, VOID, 50 + np.arange(SIZE)[:, None])
    return open_map(write_map(tmp_path_factory.mktemp("map"), label, confidence=confidence))


def write_layer(path, outlines, *, crs="EPSG:32631", **columns):
    columns = columns or {"crop": np.array([f"c{number}" for number in range(len(outlines))], object)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.raw.write(
            path,
            geometry=np.array([None if each is None else shapely.to_wkb(each) for each in outlines], object),
            field_data=list(columns.values()),
            fields=list(columns),
            geometry_type="Unknown",
            crs=crs,
        )
    return path


def test_by_hand(field_map, tmp_path):
    """All wheat; a quarter maize, cut through pixels; two thirds of it mapped; nothing mapped."""
    outlines = [box(2, 2, 6, 4), box(17.5, 10, 20.5, 12), box(24, 0, 33, 2), box(32, 5, 38, 9)]
    layer = write_layer(tmp_path / "a.gpkg", outlines)
    summary = summarise_parcels(field_map, layer, tmp_path / "out" / "a.parquet", attributes=("crop",))
    table = pq.read_table(tmp_path / "out" / "a.parquet").to_pydict()
    assert list(table) == [
        *("parcel", "majority", "majority_share", "coverage", "confidence", "pixels"),
        *("crop", "geometry"),
    ]
    assert table["majority"] == ["wheat", "wheat", "maize", None]
    assert table["majority_share"][:3] == pytest.approx([1, 2.5 / 3, 1])
    assert table["majority_share"][3] is None
    assert table["coverage"] == pytest.approx([1, 1, 6 / 9, 0])
    assert table["confidence"][:3] == pytest.approx([52.5, 60.5, 50.5])
    assert table["confidence"][3] is None
    assert table["pixels"] == pytest.approx([8, 6, 12, 0])
    assert table["crop"] == ["c0", "c1", "c2", "c3"]
    assert len(set(table["parcel"])) == 4
    assert shapely.equals(shapely.from_wkb(table["geometry"]), outlines).all()
    assert summary.written == 4
    assert summary.majority == {"wheat": 2, "maize": 1}
    assert summary.notes() == ["parcels in which nothing is mapped, without a majority: 1"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.parquet"]


def stars(count, seed=0):
    """Outlines of five to nine corners, some of them beyond the map."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        middle = generator.uniform(0, 10 * SIZE, 2) * (1, -1) + (LEFT, TOP)
        corners = generator.integers(5, 10)
        turn = 2 * np.pi * np.arange(corners) / corners
        reach = generator.uniform(8, 60, corners)
        found.append(shapely.Polygon(np.stack([np.cos(turn), np.sin(turn)], 1) * reach[:, None] + middle))
    return found


@pytest.fixture(scope="module")
def noisy_map(tmp_path_factory):
    generator = np.random.default_rng(1)
    label = np.repeat(np.repeat(generator.choice([0, 1, 2, VOID], (8, 8)), 5, 0), 5, 1)
    confidence = np.where(label == VOID, VOID, generator.integers(30, 100, label.shape))
    return label, confidence, open_map(write_map(tmp_path_factory.mktemp("noisy"), label, confidence=confidence))


def test_against_points_counted_one_by_one(noisy_map, tmp_path):
    """An independent oracle: 400 points a pixel, each in or out."""
    label, confidence, crop_map = noisy_map
    outlines = stars(12)
    summarise_parcels(crop_map, write_layer(tmp_path / "a.gpkg", outlines), tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    fine = 20
    x, y = np.meshgrid(
        LEFT + (np.arange(SIZE * fine) + 0.5) * 10 / fine, TOP - (np.arange(SIZE * fine) + 0.5) * 10 / fine
    )
    labels, percents = (np.kron(each, np.ones((fine, fine), np.uint8)) for each in (label, confidence))
    for row, parcel in enumerate(shapely.from_wkb(table["geometry"])):
        inside = shapely.contains_xy(parcel, x.ravel(), y.ravel()).reshape(x.shape)
        seen = inside & (labels != VOID)
        counts = np.bincount(labels[seen], minlength=3)[:3]
        assert table["pixels"][row] == pytest.approx(seen.sum() / fine**2, abs=0.3)
        assert table["coverage"][row] == pytest.approx(100 * seen.sum() / fine**2 / parcel.area, abs=0.02)
        if seen.any():
            assert CLASSES.index(table["majority"][row]) == counts.argmax()
            assert table["majority_share"][row] == pytest.approx(counts.max() / counts.sum(), abs=0.01)
            assert table["confidence"][row] == pytest.approx(percents[seen].mean(), abs=0.5)


def rows_of(crop_map, layer, out, **options):
    summary = summarise_parcels(crop_map, layer, out, **options)
    return summary, pq.read_table(out)


def test_chunks_do_not_show(noisy_map, tmp_path):
    layer = write_layer(tmp_path / "a.gpkg", [*stars(30), None, box(-9, -9, -5, -5)])
    whole, table = rows_of(noisy_map[2], layer, tmp_path / "a.parquet")
    for chunk in (1, 7):
        again, parts = rows_of(noisy_map[2], layer, tmp_path / "b.parquet", chunk=chunk, force=True)
        assert again == whole
        assert parts.equals(table)
        found = [pq.read_metadata(tmp_path / name).metadata[b"geo"] for name in ("a.parquet", "b.parquet")]
        assert found[0] == found[1]


@pytest.mark.parametrize(("name", "crs"), [("a.gpkg", "EPSG:3035"), ("a.geojson", "EPSG:4326"), ("a.fgb", "EPSG:4326")])
def test_any_layer_in_any_crs_says_the_same(noisy_map, tmp_path, name, crs):
    outlines = stars(20)
    moved = shapely.transform(outlines, lambda at: np.stack(transform(CRS, crs, *at.T), 1))
    _, one = rows_of(noisy_map[2], write_layer(tmp_path / "b.gpkg", outlines), tmp_path / "b.parquet")
    _, other = rows_of(noisy_map[2], write_layer(tmp_path / name, moved, crs=crs), tmp_path / "a.parquet")
    order = np.argsort(one["pixels"].to_numpy()), np.argsort(other["pixels"].to_numpy())
    for column in ("majority_share", "coverage", "confidence", "pixels"):
        mine, yours = (
            table[column].to_numpy(zero_copy_only=False)[each] for table, each in zip((one, other), order, strict=True)
        )
        np.testing.assert_allclose(mine.astype(float), yours.astype(float), rtol=1e-3, atol=1e-3)


def test_the_file_is_geoparquet(field_map, tmp_path):
    """GeoParquet 1.1.0: version, primary column, encoding, geometry types, CRS as PROJJSON, bounding box."""
    outlines = [box(2, 2, 6, 4), shapely.MultiPolygon([box(8, 8, 9, 9), box(11, 8, 12, 9)])]
    summarise_parcels(field_map, write_layer(tmp_path / "a.gpkg", outlines), tmp_path / "a.parquet")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    geo = json.loads(file.metadata.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["bbox"] == pytest.approx([LEFT + 20, TOP - 90, LEFT + 120, TOP - 20])
    assert column["crs"]["type"] == "ProjectedCRS"
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32631}
    assert str(file.schema_arrow.field("geometry").type) == "binary"


def test_outlines_that_are_none_are_counted(field_map, tmp_path):
    bow_tie = shapely.Polygon([(LEFT, TOP - 90), (LEFT + 40, TOP - 50), (LEFT + 40, TOP - 90), (LEFT, TOP - 50)])
    hollow = shapely.Polygon([(LEFT, TOP - 90), (LEFT + 40, TOP - 50), (LEFT + 40, TOP - 50), (LEFT, TOP - 90)])
    outlines = [
        box(2, 2, 6, 4),
        None,
        shapely.Polygon(),
        shapely.Point(LEFT + 5, TOP - 5),
        shapely.LineString([(LEFT, TOP), (LEFT + 9, TOP - 9)]),
        box(-20, 0, -10, 5),
        bow_tie,
        hollow,
        shapely.Polygon([(LEFT, TOP), (np.nan, TOP), (LEFT, TOP - 9)]),
        shapely.force_3d(box(30, 2, 33, 4), 7),
    ]
    summary, table = rows_of(field_map, write_layer(tmp_path / "a.gpkg", outlines), tmp_path / "a.parquet")
    assert (summary.written, summary.unmapped, summary.repaired) == (3, 1, 1)
    assert (summary.empty, summary.broken, summary.other, summary.outside) == (2, 2, 2, 1)
    assert len(summary.notes()) == 6
    written = shapely.from_wkb(table["geometry"].to_pylist())
    assert not shapely.has_z(written).any()
    assert table["pixels"].to_pylist() == pytest.approx([8, 8, 0])
    assert shapely.is_valid(written).all()


def test_a_layer_without_a_parcel_on_the_map_gives_a_table_without_rows(field_map, tmp_path):
    summary, table = rows_of(
        field_map, write_layer(tmp_path / "a.gpkg", [box(-9, 0, -5, 2)]), tmp_path / "a.parquet", attributes=("crop",)
    )
    assert (summary.written, summary.outside, len(table)) == (0, 1, 0)
    assert "bbox" not in json.loads(pq.read_metadata(tmp_path / "a.parquet").metadata[b"geo"])["columns"]["geometry"]


def test_places_that_are_none_in_the_crs_of_the_map(field_map, tmp_path):
    """Latitudes beyond the pole spoil neither the chunk nor the run."""
    good = shapely.box(3.0005, 50.5469, 3.001, 50.5471)
    outlines = [good, shapely.box(3, 94, 4, 95), shapely.box(3, -95, 4, -94), shapely.box(-170, -80, -169, -79)]
    placed = place_outlines(shapely.to_wkb(outlines), rasterio.crs.CRS.from_epsg(4326), field_map)
    assert placed.broken >= 2
    assert placed.broken + placed.outside + len(placed.kept) == 4


WKB = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.lists(st.tuples(st.floats(width=64), st.floats(width=64)), min_size=1, max_size=6).map(
        lambda ring: (
            struct.pack("<BII", 1, 3, 1)
            + struct.pack("<I", len(ring))
            + b"".join(struct.pack("<dd", *point) for point in ring)
        )
    ),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=3, max_size=7).map(
        lambda ring: shapely.to_wkb(shapely.Polygon([(LEFT + x, TOP - y) for x, y in ring]))
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(WKB, max_size=5), code=st.sampled_from([32631, 4326]))
def test_every_outline_is_kept_or_counted(field_map, data, code):
    given_data = np.empty(len(data), object)
    given_data[:] = data
    placed = place_outlines(given_data, rasterio.crs.CRS.from_epsg(code), field_map)
    assert placed.empty + placed.broken + placed.other + placed.outside + len(placed.kept) == len(data)
    assert shapely.is_valid(placed.outlines).all()
    assert (shapely.area(placed.outlines) > 0).all()


def test_what_is_no_layer_is_refused(field_map, tmp_path):
    out = tmp_path / "a.parquet"
    (tmp_path / "junk.gpkg").write_bytes(b"junk")
    (tmp_path / "table.csv").write_text("crop\nwheat\n")
    write_layer(tmp_path / "good.gpkg", [box(0, 0, 1, 1)], majority=np.array([1]))
    write_layer(tmp_path / "empty.gpkg", [])
    write_layer(tmp_path / "nowhere.shp", [box(0, 0, 1, 1)], crs=None)
    for name, attributes, kind, words in (
        ("none.gpkg", (), DataError, "no such file"),
        ("junk.gpkg", (), DataError, "not a readable parcel layer"),
        ("table.csv", (), DataError, "no CRS|without outlines"),
        ("nowhere.shp", (), DataError, "no CRS"),
        ("empty.gpkg", (), DataError, "the layer is empty"),
        ("good.gpkg", ("crop",), ConfigError, "no attribute 'crop', it has majority"),
        ("good.gpkg", ("majority",), ConfigError, "has the name of another column"),
    ):
        with pytest.raises(kind, match=words):
            summarise_parcels(field_map, tmp_path / name, out, attributes=attributes)
    assert not out.exists()
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match="cannot be written"):
        summarise_parcels(field_map, tmp_path / "good.gpkg", tmp_path / "file" / "a.parquet")


def test_a_parcel_larger_than_memory_says_the_same(noisy_map, tmp_path, monkeypatch):
    layer = write_layer(tmp_path / "a.gpkg", [*stars(5), box(0, 0, SIZE, SIZE)])
    _, whole = rows_of(noisy_map[2], layer, tmp_path / "a.parquet")
    monkeypatch.setattr(parcels, "CELLS", 30)
    _, parts = rows_of(noisy_map[2], layer, tmp_path / "b.parquet")
    assert parts["majority"].equals(whole["majority"])
    for column in ("majority_share", "coverage", "confidence", "pixels"):
        assert parts[column].to_pylist() == pytest.approx(whole[column].to_pylist())


def test_a_map_whose_labels_are_no_class_is_refused(tmp_path):
    crop_map = open_map(write_map(tmp_path / "map", np.full((20, 20), 9)))
    with pytest.raises(CorruptError, match="label 9, but map.json names 3 classes"):
        summarise_parcels(crop_map, write_layer(tmp_path / "a.gpkg", [box(0, 0, 1, 1)]), tmp_path / "a.parquet")


def test_a_map_without_its_confidence_is_refused(tmp_path):
    crop_map = open_map(write_map(tmp_path / "map", np.ones((20, 20))))
    layer = write_layer(tmp_path / "a.gpkg", [box(0, 0, 1, 1)])
    write_map(tmp_path / "other", np.ones((20, 21)))
    (tmp_path / "other" / "confidence.tif").replace(tmp_path / "map" / "confidence.tif")
    with pytest.raises(CorruptError, match="has other pixels"):
        summarise_parcels(crop_map, layer, tmp_path / "a.parquet")
    (tmp_path / "map" / "confidence.tif").unlink()
    with pytest.raises(CorruptError, match="cannot be read"):
        summarise_parcels(crop_map, layer, tmp_path / "a.parquet")
    assert not list(tmp_path.glob("*.parquet*"))


def test_its_own_geoparquet_is_read_again(field_map, tmp_path):
    """In parcels of the written file, in the CRS of the map, the same figures come out."""
    outlines = [box(2, 2, 6, 4), box(17.5, 10, 20.5, 12)]
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    summarise_parcels(field_map, write_layer(tmp_path / "a.gpkg", outlines), first)
    summarise_parcels(field_map, first, second)
    before, after = pq.read_table(first), pq.read_table(second)
    names = [name for name in before.column_names if name not in ("parcel", "geometry")]
    assert before.select(names).equals(after.select(names))
    assert after["parcel"].to_pylist() == [0, 1]


def test_a_parcel_with_curves(field_map, tmp_path):
    """A circle of 60 m radius within wheat: its pixels are its area, to the steps of its arcs."""
    x, y = LEFT + 40, TOP - 200
    arcs = [(x, y), (x + 60, y + 60), (x + 120, y), (x + 60, y - 60), (x, y)]
    ring = struct.pack("<BII", 1, 8, len(arcs)) + b"".join(struct.pack("<dd", *place) for place in arcs)
    circle = struct.pack("<BII", 1, 10, 1) + ring
    layer = tmp_path / "a.gpkg"
    codes = [np.array(["c"], object)]
    pyogrio.raw.write(layer, np.array([circle], object), codes, ["crop"], crs="EPSG:32631", geometry_type="Unknown")
    summary = summarise_parcels(field_map, layer, tmp_path / "a.parquet")
    assert summary.majority == {"wheat": 1}
    (pixels,) = pq.read_table(tmp_path / "a.parquet")["pixels"].to_pylist()
    assert pixels == pytest.approx(np.pi * 36, rel=2e-3)


def test_of_several_layers_one_is_named(field_map, tmp_path):
    layer = write_layer(tmp_path / "a.gpkg", [box(2, 2, 6, 4)])
    pyogrio.raw.write(
        layer,
        np.array([shapely.to_wkb(box(22, 2, 24, 4))], object),
        [np.array(["x"], object)],
        ["crop"],
        crs="EPSG:32631",
        geometry_type="Polygon",
        layer="later",
        append=True,
    )
    with pytest.raises(DataError, match="2 layers, 'a', 'later'. Name one"):
        summarise_parcels(field_map, layer, tmp_path / "a.parquet")
    summary = summarise_parcels(field_map, layer.with_name("a.gpkg|layername=later"), tmp_path / "a.parquet")
    assert summary.majority == {"maize": 1}
