"""Tags without labels: tables of squares and crops, class maps, how sure tags are, and areas of several cells."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings, strategies as st
from rasterio.transform import Affine
from rasterio.warp import transform

from exact_core.config import DataConfig, SeasonConfig
from exact_core.data.season.folder import ingest_season, survey_season
from exact_core.data.season.labels import open_labels
from exact_core.data.season.legends import read_class_map
from exact_core.data.season.rasters import Grid
from exact_core.data.season.tag_checks import check_places, check_sizes, contradictions
from exact_core.data.season.tag_tables import read_tag_table
from exact_core.data.season.tags import TagTable, groups
from exact_core.data.windows.cutting import TagNoise
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import DataError, ExactError
from tests.fakes import SEASON_LEFT, SEASON_TOP, write_parcels, write_season

WHOLE = DataConfig(validation_share=0, test_share=0)


def table(tmp_path: Path, text: str, legend: str | None = None) -> TagTable:
    path = tmp_path / "labels" / "tags.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    class_map = None
    if legend is not None:
        (path.parent / "legend.csv").write_text(legend, encoding="utf-8")
        class_map = read_class_map(tmp_path, SeasonConfig())
    return read_tag_table(path, class_map)


def grid(size: int = 100) -> Grid:
    from rasterio.crs import CRS

    place = Affine(10, 0, SEASON_LEFT, 0, -10, SEASON_TOP)
    return Grid(CRS.from_epsg(32631), place, size, size, Path("x.tif"))


def season(root: Path, tags: str, **kwargs: Any) -> Path:
    write_season(root, labels=False, legend=None, **kwargs)
    (root / "labels").mkdir()
    (root / "labels/tags.csv").write_text(tags, encoding="utf-8")
    return root


def ingest(root: Path, config: DataConfig = WHOLE, seed: int = 0) -> WindowDataset:
    ingest_season(root, config, root.parent / f"{root.name}-out", seed=seed)
    return WindowDataset(root.parent / f"{root.name}-out")


def test_a_square_by_hand(tmp_path: Path) -> None:
    # The centre lies 305 m right of and 195 m below the corner: pixel 30.5, 19.5. A window of 8 begins 4 before, even.
    found = table(tmp_path, f"x,y,crops\n{SEASON_LEFT + 305},{SEASON_TOP - 195},maize;grass\n")
    assert found.classes == ("grass", "maize")
    placed, outside = found.place("s", grid(), window=8)
    assert outside == []
    assert [(each.row, each.col, each.tags.tolist()) for each in placed] == [(16, 26, [1, 1])]


def test_degrees_and_metres_are_one_place(tmp_path: Path) -> None:
    x, y = SEASON_LEFT + 505.0, SEASON_TOP - 405.0
    (lon,), (lat,) = transform("EPSG:32631", "EPSG:4326", [x], [y])
    by_metres, _ = table(tmp_path, f"x,y,crops\n{x},{y},maize\n").place("s", grid(), window=8)
    by_degrees, _ = table(tmp_path, f"lon,lat,crops\n{lon:.8f},{lat:.8f},maize\n").place("s", grid(), window=8)
    assert [(each.row, each.col) for each in by_degrees] == [(each.row, each.col) for each in by_metres]


def test_a_large_square_is_cut_and_a_scene_is_tiled(tmp_path: Path) -> None:
    centre = f"{SEASON_LEFT + 500},{SEASON_TOP - 500}"
    placed, _ = table(tmp_path, f"x,y,size,crops\n{centre},250,maize\n").place("s", grid(), window=8)
    # 25 pixels hold 3 windows of 8 a side, around pixel 50.
    assert [(each.row, each.col) for each in placed] == list(itertools.product((38, 46, 54), (38, 46, 54)))
    placed, _ = table(tmp_path, "scene,crops\ns,maize\nother,grass\n").place("s", grid(20), window=8)
    assert [(each.row, each.col) for each in placed] == list(itertools.product((0, 8), (0, 8)))
    assert all(each.tags.tolist() == [0, 1] for each in placed)
    assert {each.square for each in placed} == {0}


def test_windows_know_the_square_that_gave_several(tmp_path: Path) -> None:
    """Two squares of four windows share windows, and one of one window shares pixels with them. Two are apart."""
    here = [(SEASON_LEFT + 80 * step + 500, SEASON_TOP - 500) for step in (5, -4, 0, 1)]
    rows = "".join(f"{x},{y},{size},maize\n" for (x, y), size in zip(here, (80, 160, 160, 160), strict=True))
    rows += f"{here[2][0]},{here[2][1]},80,grass\n"
    placed, _ = table(tmp_path, f"x,y,size,crops\n{rows}").place("s", grid(), window=8)
    assert [(each.row, each.col, each.square) for each in placed] == [
        *((42, 10, 1), (42, 18, 1), (42, 42, 2), (42, 50, 2), (42, 58, 2), (46, 46, None), (46, 86, None)),
        *((50, 10, 1), (50, 18, 1), (50, 42, 2), (50, 50, 2), (50, 58, 2)),
    ]


def test_a_split_never_divides_a_square(tmp_path: Path) -> None:
    """Twelve squares of two by two windows, and twelve of one. Without the former, the index is as it ever was."""
    wide = [f"{SEASON_LEFT + 80 + 160 * (n % 4)},{SEASON_TOP - 80 - 160 * (n // 4)},160" for n in range(12)]
    small = [f"{SEASON_LEFT + 40 + 80 * (n % 8)},{SEASON_TOP - 520 - 80 * (n // 8)},80" for n in range(12)]
    crops = itertools.cycle(["maize;grass\n", "maize\n"])
    rows = "".join(f"{at},{crop}" for at, crop in zip([*wide, *small], crops, strict=False))
    config = DataConfig(window=8, fewest_squares=24)
    dataset = ingest(season(tmp_path / "s", f"x,y,size,crops\n{rows}", size=(80, 64)), config, seed=1)
    squares: dict[int | None, list[str]] = {}
    for record in dataset.records:
        squares.setdefault(record.square, []).append(record.split)
    assert len(squares.pop(None)) == 12
    assert sorted(map(len, squares.values())) == [4] * 12
    assert all(len(set(splits)) == 1 for splits in squares.values())
    assert len({splits[0] for splits in squares.values()}) == 3
    # 60 windows are 24 squares.
    few = ingest(season(tmp_path / "few", f"x,y,size,crops\n{rows}", size=(80, 64)), DataConfig(window=8))
    assert any("24 squares apart from each other are fewer than" in note for note in few.manifest.notes)
    one = ingest(season(tmp_path / "one", f"x,y,size,crops\n{small[0]},maize\n", size=(80, 64)), DataConfig(window=8))
    assert "square" not in pq.read_table(one.root / "index.parquet").column_names


def test_rows_of_one_square_are_joined_and_rows_elsewhere_counted(tmp_path: Path) -> None:
    here = f"{SEASON_LEFT + 500},{SEASON_TOP - 500}"
    found = table(tmp_path, f"x,y,crops\n{here},maize\n{here},grass\n{here},\n0,0,maize\n")
    placed, outside = found.place("s", grid(), window=8)
    assert [each.tags.tolist() for each in placed] == [[1, 1]]
    assert [row.name for row in outside] == ["line 5"]


def test_names_and_codes_of_a_class_map(tmp_path: Path) -> None:
    legend = "code,name,group,colour\n3,fodder maize,maize,#E0A030\n1,grain maize,maize,\n2,grass,,#00ff00\n4,beet,,\n"
    here = f"{SEASON_LEFT + 500},{SEASON_TOP - 500}"
    found = table(tmp_path, f"x,y,crops\n{here},3;grass\n", legend)
    assert found.classes == ("fodder maize", "grass")
    assert found.colours == {"fodder maize": "#e0a030", "grass": "#00ff00"}
    with pytest.raises(
        DataError, match=r"tags\.csv, line 2: crop 'Gras' is not in the class map \(did you mean 'grass'"
    ):
        table(tmp_path, f"x,y,crops\n{here},Gras\n", legend)


HERE = (SEASON_LEFT + 500, SEASON_TOP - 500)


@pytest.mark.parametrize(
    "text",
    [
        "x,y,size,crops\n{x},{y},160.5,maize;grass\n",
        "X;Y;Size;Crop\n{x};{y};160,5;maize;grass\n",
        'x;y;size;crops\n{x};{y};160,5;"maize;grass"\n\n;;;\n',
        "x\ty\tsize\tcrops\n{x}\t{y}\t160,5\tmaize; grass\n",
        "\ufeffx, y, size, crops\r\n{x}, {y}, 160.5, maize; grass;-\r\n",
    ],
)
def test_a_table_as_spreadsheets_of_any_country_write_it(tmp_path: Path, text: str) -> None:
    found = table(tmp_path, text.format(x=HERE[0], y=HERE[1]))
    assert found.classes == ("grass", "maize")
    assert [row.size for row in found.rows] == [160.5]
    placed, _ = found.place("s", grid(), window=8)
    assert [(each.row, each.col) for each in placed] == list(itertools.product((42, 50), (42, 50)))


def test_names_are_read_as_a_person_means_them(tmp_path: Path) -> None:
    """Case and blanks make no crop; `none` and `-` are none; a slip of the keyboard is asked about."""
    at = f"{HERE[0]},{HERE[1]}"
    names = ["Winter  wheat", "winter wheat", "winter wheat ;potatoes", "potatos", "none", "-", "", "rye; Rye"]
    found = table(tmp_path, "x,y,crops\n" + "".join(f"{at},{name}\n" for name in names))
    assert found.classes == ("potatoes", "potatos", "rye", "winter wheat")
    assert [row.crops for row in found.rows] == [
        *[("winter wheat",)] * 2,
        ("winter wheat", "potatoes"),
        ("potatos",),
        *[()] * 3,
        ("rye",),
    ]
    assert found.notes == (
        "tags.csv: 'Winter wheat' and 'winter wheat' are one crop",
        "tags.csv: 'Rye' and 'rye' are one crop",
        "tags.csv: 8 squares; winter wheat in 3, potatoes in 1, potatos in 1, rye in 1. No crop in 3",
    )
    assert found.questions == (
        "tags.csv: are 'potatoes' (1) and 'potatos' (1) one crop? If so, use one spelling. As they are, they are two",
    )
    with pytest.raises(DataError, match=r"line 2: crop 'maize, grass' has a comma. Separate several crops by ;"):
        table(tmp_path, f'x,y,crops\n{at},"maize, grass"\n')


def test_sizes_that_no_one_means(tmp_path: Path) -> None:
    at = f"{HERE[0]},{HERE[1]}"
    kilometres = table(tmp_path, f"x,y,size,crops\n{at},0.24,maize\n")
    with pytest.raises(DataError, match=r"line 2: .* 0\.24 m, less than a pixel \(10 m\)\. .*write 240 if kilometres"):
        check_sizes(kilometres, grid(), window=8)
    found = table(tmp_path, f"x,y,size,crops\n{at},40,maize\n{at},1e9,grass\n{at},80,maize\n")
    assert check_sizes(found, grid(), window=8) == [
        "1 squares of tags.csv are smaller than a window of 80 m (line 2): their crops count for the whole window",
        "1 squares of tags.csv are larger than the images, 1000 x 1000 m (line 3): each window in them takes all of "
        "their crops",
    ]
    # A square of a million kilometres takes no more work than the images have windows.
    placed, _ = table(tmp_path, f"x,y,size,crops\n{at},1e9,grass\n").place("s", grid(), window=8)
    assert len(placed) == 12 * 12


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (f"x,y,crops\n{HERE[1]},{HERE[0]},maize\n", "with x and y exchanged they would: exchange the names"),
        (f"x,y,crops\n{HERE[0] / 1000},{HERE[1] / 1000},maize\n", "if they were kilometres: write metres"),
        ("x,y,crops\n3.00706,50.54744,maize\n", "if they were degrees: name the columns lon,lat"),
        ("lon,lat,crops\n50.54744,3.00706,maize\n", "with lon and lat exchanged they would"),
        ("lon,lat,crops\n10,20,maize\n", "check the columns"),
    ],
)
def test_what_would_bring_squares_into_the_images(tmp_path: Path, rows: str, words: str) -> None:
    found = table(tmp_path, rows)
    (lon,), (lat,) = transform("EPSG:32631", "EPSG:4326", [HERE[0]], [HERE[1]])
    assert (lon, lat) == pytest.approx((3.00706, 50.54744), abs=1e-5)
    _, outside = found.place("s", grid(), window=8)
    with pytest.raises(DataError, match=r"none of its 1 squares is in the images of s. ") as caught:
        check_places(found, outside, grid(), window=8, source="s")
    assert words in str(caught.value)


def test_squares_that_contradict_each_other_are_noted(tmp_path: Path) -> None:
    x, y = HERE
    rows = [(x, y, 160, "maize;grass"), (x + 20, y, 80, "beet"), (x + 20, y, 80, "maize"), (x + 400, y, 80, "rye")]
    lines = "".join(f"{a},{b},{size},{crops}\n" for a, b, size, crops in rows)
    found = table(tmp_path, f"x,y,size,crops\n{lines}")
    (note,) = contradictions(found, grid(), window=8)
    assert note.startswith(
        "2 squares of tags.csv are in others that leave out one of their crops (line 3 has beet, line 2 has not, "
        "line 3 has beet, line 4 has not)"
    )
    alone = table(tmp_path, f"x,y,size,crops\n{x},{y},80,maize\n{x + 80},{y},80,rye\n{x},{y},80,maize\n")
    assert contradictions(alone, grid(), window=8) == []


@pytest.mark.parametrize("crs", [32631, 4326])
def test_a_layer_of_squares_or_points(tmp_path: Path, crs: int) -> None:
    """The same windows as the table of the same squares; the file and what lies beside it are named."""
    x, y = HERE[0] - 340, HERE[1] + 340
    shapes = [shapely.box(x - 80, y - 80, x + 80, y + 80), shapely.Point(x - 100, y - 100)]
    moved = [shapely.transform(one, lambda at: np.stack(transform(32631, crs, *at.T), 1)) for one in shapes]
    root = season(tmp_path / "s", "x,y,crops\n0,0,never\n")
    pyogrio.raw.write(
        root / "labels/tags.gpkg",
        geometry=shapely.to_wkb(moved),
        field_data=[np.array(["maize; grass", "Maize"], object)],
        fields=["Crops"],
        geometry_type="Unknown",
        crs=f"EPSG:{crs}",
    )
    notes: list[str] = []
    assert open_labels(root, SeasonConfig(), notes).path.name == "tags.csv"
    assert notes[0] == "labels are those of labels/tags.csv. labels/tags.gpkg beside it is not used"
    (root / "labels/tags.csv").unlink()
    layer = open_labels(root, SeasonConfig(), notes)
    assert isinstance(layer, TagTable)
    by_layer, _ = layer.place("s", grid(), window=8)
    text = f"x,y,size,crops\n{x},{y},160,maize;grass\n{x - 100},{y - 100},,maize\n"
    by_table, _ = table(tmp_path, text).place("s", grid(), window=8)
    assert [(one.row, one.col, one.tags.tolist()) for one in by_layer] == [
        (one.row, one.col, one.tags.tolist()) for one in by_table
    ]
    (root / "labels/tags.gpkg").rename(root / "labels/Squares.gpkg")
    with pytest.raises(DataError, match=r"no labels, .* \(labels/ holds Squares\.gpkg\). Name a label raster"):
        open_labels(root, SeasonConfig(), [])
    assert open_labels(root, SeasonConfig(labels="labels/Squares.gpkg"), []).path.name == "Squares.gpkg"


def test_a_triangle_is_no_square(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    pyogrio.raw.write(
        tmp_path / "labels/tags.gpkg",
        geometry=shapely.to_wkb([shapely.Polygon([(0, 0), (9, 0), (0, 9)])]),
        field_data=[np.array(["maize"], object)],
        fields=["crops"],
        geometry_type="Polygon",
        crs="EPSG:32631",
    )
    with pytest.raises(DataError, match=r"feature 1: a Polygon that is no square"):
        open_labels(tmp_path, SeasonConfig(), [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,y\n1,2\n", "line 1: columns ['x', 'y'], expected crops and scene"),
        ("crops\nmaize\n", "line 1: columns ['crops']"),
        ("x,y,crops\n", "no rows"),
        ("x,y,crops\n1,2,\n", "no row names a crop"),
        ("x,y,crops\n1,two,maize\n", "line 2: y 'two' is not a number"),
        ("x,y,crops\n1,nan,maize\n", "line 2: y 'nan' is not a number"),
        (
            "x,y,crops\n1,2,maize,grass\n",
            "line 2: another number of values than the header has. Separate several crops",
        ),
        ("lon,lat,crops\n501440,5629400,maize\n", "are no degrees. Name the columns x,y"),
        ("x,y,size,crops\n1,2,-3,maize\n", "line 2: size -3, expected the side of the square"),
        ("scene,crops\n,maize\n", "line 2: no scene"),
        ("x,y,crops\n1,2,background\n", "'background' is the name of what is no crop"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path, text)
    assert expected in str(caught.value)


def test_a_dataset_of_tags_alone(tmp_path: Path) -> None:
    rows = "".join(
        f"{SEASON_LEFT + 40 + 80 * j},{SEASON_TOP - 40 - 80 * i},crop{(i + j) % 2}\n"
        for i in range(4)
        for j in range(4)
    )
    root = season(tmp_path / "s", f"x,y,crops\n{rows}")
    few = ingest(season(tmp_path / "few", f"x,y,crops\n{rows}"), DataConfig(window=8))
    assert few.manifest.self_scored
    assert few.manifest.splits == {"train": 16, "validation": 0, "test": 0}
    assert any(
        "16 squares apart from each other are fewer than data.fewest_squares, 100" in n for n in few.manifest.notes
    )
    dataset = ingest(root, DataConfig(window=8, fewest_squares=16))
    assert not dataset.manifest.has_labels
    assert not dataset.manifest.self_scored
    assert dataset.manifest.classes == ("crop0", "crop1")
    assert sum(dataset.manifest.splits.values()) == 16
    assert all(dataset.manifest.splits.values())
    for index, record in enumerate(dataset.records):
        assert dataset.window(index).tags.tolist() == ([1, 0] if (record.row + record.col) // 8 % 2 == 0 else [0, 1])
    with pytest.raises(DataError, match="image-level tags only"):
        dataset.labels(0)


def test_squares_that_share_pixels_stay_in_one_split(tmp_path: Path) -> None:
    # Ten pairs of windows that overlap by half.
    rows = "".join(
        f"{SEASON_LEFT + 40 + 160 * (pair % 4) + 40 * half},{SEASON_TOP - 40 - 160 * (pair // 4)},crop{pair % 2}\n"
        for pair in range(12)
        for half in (0, 1)
    )
    config = DataConfig(window=8, fewest_squares=9)
    dataset = ingest(season(tmp_path / "s", f"x,y,crops\n{rows}", size=(64, 64)), config, seed=3)
    covered = {}
    for split in ("train", "validation", "test"):
        mask = np.zeros((64, 64), bool)
        for index in dataset.indices(split):
            record = dataset.records[int(index)]
            mask[record.row : record.row + 8, record.col : record.col + 8] = True
        assert mask.any()
        covered[split] = mask
    for first, second in itertools.combinations(covered.values(), 2):
        assert not (first & second).any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=14, unique=True))
def test_groups_as_by_comparing_all(corners: list[tuple[int, int]]) -> None:
    found = groups(corners, window=6)
    reach = np.array([[abs(a[0] - b[0]) < 6 and abs(a[1] - b[1]) < 6 for b in corners] for a in corners], bool).reshape(
        len(corners), len(corners)
    )
    for _ in corners:
        reach = reach @ reach
    for i, j in itertools.product(range(len(corners)), repeat=2):
        assert (found[i] == found[j]) == reach[i, j]


def test_groups_of_windows_far_apart_that_are_of_one_square() -> None:
    corners = [(0, 0), (0, 20), (0, 22), (0, 50), (0, 80)]
    assert groups(corners, window=6) == [0, 1, 1, 2, 3]
    assert groups(corners, window=6, squares=[[0, 3], [4]]) == [0, 1, 1, 0, 2]
    assert groups(corners, window=6, squares=[[0, 3], [2, 4]]) == [0, 1, 1, 0, 1]


def test_tags_outside_the_images(tmp_path: Path) -> None:
    root = season(tmp_path / "s", "x,y,crops\n0,0,maize\n")
    with pytest.raises(DataError, match=r"none of its 1 squares is in the images"):
        ingest(root)


def test_few_squares_are_used_whole(tmp_path: Path) -> None:
    root = season(tmp_path / "s", f"x,y,crops\n{SEASON_LEFT + 160},{SEASON_TOP - 160},maize\n0,0,maize\n")
    dataset = ingest(root, DataConfig(window=8))
    assert dataset.manifest.self_scored
    assert "1 of 2 squares of tags.csv are not in the images: line 3" in dataset.manifest.notes


def test_text_codes_of_parcels_groups_and_colours(tmp_path: Path) -> None:
    box = (SEASON_LEFT, SEASON_TOP - 320, SEASON_LEFT + 160, SEASON_TOP)
    other = (SEASON_LEFT + 160, SEASON_TOP - 320, SEASON_LEFT + 320, SEASON_TOP)
    legend = "code,name,group,colour\nZM,grain maize,maize,#e0a030\nSM,silage maize,maize,\nGR,grass,,\n"
    root = write_season(tmp_path / "s", labels=False, legend=legend)
    write_parcels(root / "labels/parcels.geojson", [("ZM", box), ("GR", other)])
    plain = ingest(root)
    assert plain.manifest.classes == ("grain maize", "grass")
    assert plain.manifest.colours == {"grain maize": "#e0a030"}
    shutil.rmtree(tmp_path / "s-out")
    write_parcels(root / "labels/parcels.geojson", [("ZM", box), ("SM", other)])
    grouped = ingest(root, WHOLE.model_copy(update={"season": SeasonConfig(level="group")}))
    assert grouped.manifest.classes == ("maize",)
    assert (grouped.labels(0) == 1).all()
    write_parcels(root / "labels/parcels.geojson", [("ZM", box), ("zm", other)])
    shutil.rmtree(tmp_path / "s-out")
    with pytest.raises(DataError, match=r"parcel 1: crop_code is 'zm', which is in neither .*did you mean 'ZM'"):
        ingest(root)


def test_colours_change_no_digest(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    plain = ingest(root).manifest
    (root / "labels/legend.csv").write_text("code,name,colour\n100,wheat,#112233\n200,maize,\n")
    shutil.rmtree(tmp_path / "s-out")
    coloured = ingest(root).manifest
    assert coloured.colours == {"wheat": "#112233"}
    assert coloured.digest == plain.digest
    (root / "labels/legend.csv").write_text("code,name,colour\n100,wheat,red\n200,maize,\n")
    with pytest.raises(DataError, match="line 2: colour 'red', expected #rrggbb"):
        ingest_season(root, WHOLE, tmp_path / "x", seed=0)


def test_too_little_support_is_refused_with_the_way_out(tmp_path: Path) -> None:
    root = write_season(tmp_path / "s")
    with pytest.raises(DataError, match=r"'wheat' is tagged in 1 training windows, fewer than data\.min_support = 2"):
        ingest(root, DataConfig(window=24, stride=24, validation_share=0, test_share=0, min_support=2))


def test_how_sure_tags_are_by_hand() -> None:
    labels = np.zeros((12, 12), np.uint8)
    # 3 of 16 pixels of the window at 4, 4: 19 %; its neighbour to the right begins one pixel beyond the window.
    labels[4:7, 4] = 1
    labels[4:8, 8] = 2
    noise = TagNoise()
    noise.add(labels, 4, 4, window=4, classes=2, share=0.1)
    # Crop 1 covers between 5 and 20 %; shifted to the right it goes, and crop 2 comes.
    assert (noise.tags, noise.narrow, noise.loose) == (1, 1, 2)
    note = noise.note(0.1)
    assert note is not None
    assert note.startswith("of 1 tags, 1 rest on an area between half and twice 10.00% of the window")
    sure = TagNoise()
    sure.add(np.ones((12, 12), np.uint8), 4, 4, window=4, classes=2, share=0.1)
    assert (sure.tags, sure.narrow, sure.loose) == (1, 0, 0)


# Several cells


def cells(root: Path, count: int = 10) -> Path:
    """A row of cells, beside each other, as `exact fetch --cell` leaves them."""
    for number in range(count):
        write_season(root / f"E{number}", layout="stac", labels=False, legend=None)
        path = root / f"E{number}/collection.json"
        path.write_text(path.read_text().replace('"fake"', f'"E{number}"'))
    (root / "cells.json").write_text(json.dumps({"cells": [{"name": f"E{number}"} for number in range(count)]}))
    (root / "labels").mkdir()
    (root / "labels/legend.csv").write_text("code,name\n100,wheat\n200,maize\n300,never\n")
    return root


@pytest.mark.parametrize(
    ("states", "help_"),
    [
        (("empty", "empty"), "Fetch other days, more clouds or another area"),
        (("empty", "failed"), "Run exact fetch again"),
    ],
)
def test_cells_without_images(tmp_path: Path, states: tuple[str, ...], help_: str) -> None:
    """Fetching again would find nothing again where the catalogue has nothing."""
    listed = [{"name": f"E{number}", "state": state} for number, state in enumerate(states)]
    (tmp_path / "cells.json").write_text(json.dumps({"cells": listed}))
    with pytest.raises(DataError, match=rf"no cell has images\. {help_}"):
        survey_season(tmp_path, WHOLE)


def test_cells_become_one_dataset_split_by_cells(tmp_path: Path) -> None:
    root = cells(tmp_path / "s")
    half = (SEASON_LEFT, SEASON_TOP - 320, SEASON_LEFT + 160, SEASON_TOP)
    write_parcels(root / "labels/parcels.geojson", [(100, half), (200, (half[2], half[1], half[2] + 160, half[3]))])
    dataset = ingest(root, DataConfig(window=16))
    assert dataset.manifest.classes == ("wheat", "maize")
    assert len(dataset) == 40
    scenes = {
        split: {dataset.records[int(i)].scene for i in dataset.indices(split)} for split in dataset.manifest.splits
    }
    assert set.union(*scenes.values()) == {f"E{number}" for number in range(10)}
    for first, second in itertools.combinations(scenes.values(), 2):
        assert first
        assert not first & second
    assert survey_season(root, DataConfig()) == (4, 10, None, ("",) * 10)
    with pytest.raises(DataError, match="3 cells with images, but a split by cells needs 9"):
        ingest_season(cells(tmp_path / "few", 3), DataConfig(), tmp_path / "x", seed=0)


def test_cells_do_not_divide_a_square(tmp_path: Path) -> None:
    """Cells of 320 m beside each other. Of each square of 480 m on a border, a window lies in the cell on each side."""
    root = cells(tmp_path / "s")
    for path in root.glob("E*/**/*.tif"):
        number = int(path.relative_to(root).parts[0][1:])
        with rasterio.open(path, "r+") as file:
            file.transform = Affine.translation(320 * number, 0) @ file.transform
    rows = "".join(f"{SEASON_LEFT + 320 * border},{SEASON_TOP - 80},480,wheat\n" for border in (1, 3, 5, 7, 9))
    rows += "".join(f"{SEASON_LEFT + 320 * cell + 80},{SEASON_TOP - 240},160,maize\n" for cell in range(10))
    (root / "labels/tags.csv").write_text(f"x,y,size,crops\n{rows}")
    for seed in range(3):
        ingest_season(root, DataConfig(window=16), tmp_path / f"out{seed}", seed=seed)
        records = WindowDataset(tmp_path / f"out{seed}").records
        squares: dict[int, list[tuple[str, str]]] = {}
        for record in records:
            if record.square is not None:
                squares.setdefault(record.square, []).append((record.scene, record.split))
        assert sorted(squares) == [0, 1, 2, 3, 4]
        for number, own in squares.items():
            assert {scene for scene, _ in own} == {f"E{2 * number}", f"E{2 * number + 1}"}
            assert len({split for _, split in own}) == 1


def test_a_table_tags_scenes_by_name(tmp_path: Path) -> None:
    root = cells(tmp_path / "s")
    rows = "".join(f"E{number},{'wheat' if number % 2 else 'maize'}\n" for number in range(9))
    (root / "labels/tags.csv").write_text(f"scene,crops\n{rows}")
    dataset = ingest(root, DataConfig(window=16))
    # E9 is in no row: nothing is known of it.
    assert {record.scene for record in dataset.records} == {f"E{number}" for number in range(9)}
    for index, record in enumerate(dataset.records):
        assert dataset.window(index).tags.tolist() == ([1, 0] if int(record.scene[1:]) % 2 else [0, 1])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(
        st.text(max_size=80),
        st.lists(st.text(alphabet='xylonatcrps;,.0123456789-e\n" ', max_size=20), max_size=5).map(
            lambda lines: "\n".join(["lon,lat,crops", *lines])
        ),
    )
)
def test_any_table_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tags.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read_tag_table(path, None).place("s", grid(), window=8)
    except ExactError as error:
        assert str(path) in str(error)  # noqa: PT017 - it may also be read


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet='code,name,group,colour\n"0123456789#abcdef;- ', max_size=120))
def test_any_legend_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels" / "legend.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"code,name,group,colour\n{text}", encoding="utf-8")
    try:
        read_class_map(tmp_path, SeasonConfig(level="group")).numbered()
    except ExactError as error:
        assert "legend.csv" in str(error)  # noqa: PT017 - it may also be read
