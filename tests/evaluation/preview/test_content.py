"""The data preview: numbers worked by hand on tiny datasets and seasons, and the page that shows them."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exact_core.config import DataConfig, SeasonConfig
from exact_core.data.season.folder import open_season, open_tags
from exact_core.data.windows.dataset import Statistics, Window, WindowDataset, WindowRecord
from exact_core.data.windows.writer import DatasetWriter
from exact_core.evaluation.preview.charts import calendar_figure, degrees, signed, squares_figure
from exact_core.evaluation.preview.content import BINS, BandSums, Preview, SceneDates, count_tags, find_gaps
from exact_core.evaluation.preview.findings import findings
from exact_core.evaluation.preview.footprints import corners_of
from exact_core.evaluation.preview.from_dataset import NamedStatistics, preview_dataset, strip_dates
from exact_core.evaluation.preview.from_season import preview_season
from exact_core.evaluation.preview.page import summary, write_preview
from tests.fakes import SEASON_LEFT, SEASON_TOP, write_season

SIDE, BANDS = 4, ("B02", "B03")
START = dt.date(2021, 3, 1)


def write_dataset(out: Path, **changes: Any) -> WindowDataset:
    """Two scenes of two windows beside each other; scene 0 is train, scene 1 test, 900 brighter and half clouded.

    Every value of band b in scene s on date t is 1000 + 100 t + 900 s + 10 b.
    """
    given: dict[str, Any] = {"classes": ("wheat", "maize"), "apart": 1000.0, "scenes": ("one", "two"), **changes}
    with DatasetWriter(
        out,
        name="small",
        source="test",
        bands=BANDS,
        classes=given["classes"],
        window=SIDE,
        season_start=START,
        season_days=100,
    ) as writer:
        for number, scene in enumerate(given["scenes"]):
            for col in (0, SIDE):
                tags = (1, int(col > 0))
                day = np.arange(3) * 100 + 900 * number + 1000
                values = day[:, None] + 10 * np.arange(2)
                pixels = np.broadcast_to(values[..., None, None], (3, 2, SIDE, SIDE)).astype(np.int16)
                clear = np.ones((3, 2, 2), np.uint8)
                clear[1, :, : number + col // SIDE] = 0
                writer.add(
                    WindowRecord(
                        id=f"{scene}/{col}",
                        scene=scene,
                        row=0,
                        col=col,
                        crs="EPSG:32631",
                        transform=(10.0, 0.0, 500000.0 + number * given["apart"] + 10 * col, 0.0, -10.0, 5600000.0),
                        split=("train", "test")[number],
                        fold=0,
                        dates=3,
                        tags=tags,
                    ),
                    Window(pixels.copy(), np.array([10, 20, 30], np.int16), np.array(tags, np.uint8), None, clear),
                    origin="test",
                )
    return WindowDataset(out)


def preview_of(tmp_path: Path, **changes: Any) -> Preview:
    return preview_dataset(write_dataset(tmp_path / "d", **changes), seed=0)


def test_dates_and_clear_shares_by_hand(tmp_path: Path) -> None:
    one, two = preview_of(tmp_path).calendar
    assert (one.name, one.days.tolist()) == ("one", [10, 20, 30])
    # On the second date, 0 and 1 of 2 columns of patches are clouded in scene one, 1 and 2 of 2 in scene two.
    assert one.clear.tolist() == [1, 0.75, 1]
    assert two.clear.tolist() == [1, 0.25, 1]


def test_outlines_splits_and_corners_by_hand(tmp_path: Path) -> None:
    (footprint,) = preview_of(tmp_path).footprints
    assert footprint.outlines[1].tolist() == [
        [500040, 5600000],
        [500080, 5600000],
        [500080, 5599960],
        [500040, 5599960],
    ]
    assert footprint.groups == ("train", "train", "test", "test")
    assert not footprint.apart
    # The zone's central meridian is at 500 km: 3 degrees east.
    (lat, lon), _, south_west, _ = footprint.corners
    assert lon == pytest.approx(3, abs=1e-9)
    assert south_west[0] < lat == pytest.approx(50.552, abs=2e-3)


def test_scenes_on_the_same_ground_are_drawn_apart(tmp_path: Path) -> None:
    assert preview_of(tmp_path, apart=0.0).footprints[0].apart


def test_no_place_no_corners() -> None:
    outlines = np.zeros((1, 4, 2))
    assert corners_of("", outlines) == ()
    assert corners_of("EPSG:nonsense", outlines) == ()


@pytest.mark.parametrize(
    ("days", "clear", "expected"),
    [
        ([0, 28, 56, 84], [1, 1, 1, 1], []),
        ([0, 29, 57, 85], [1, 1, 1, 1], [(0, 29)]),
        ([0, 20, 40, 60, 80], [1, 1, 0.29, 1, 1], [(20, 60)]),
        ([0, 20, 40, 60, 80], [1, 1, 0.3, 1, 1], []),
        ([40, 60], [1, 1], [(0, 40), (60, 99)]),
        ([50], [0.1], [(0, 99)]),
    ],
)
def test_gaps_by_hand(days: list[int], clear: list[float], expected: list[tuple[int, int]]) -> None:
    found = find_gaps(SceneDates("s", np.array(days), np.array(clear)), start=START, length=100)
    assert [((gap.first - START).days, (gap.last - START).days) for gap in found] == expected
    assert all(gap.weeks == (gap.last - gap.first).days / 7 for gap in found)


def test_shift_in_standard_deviations_of_training_by_hand(tmp_path: Path) -> None:
    bands = preview_of(tmp_path).bands
    # Training: 1000, 1100, 1200 (+ 10 for the second band), equally often: mean 1100, variance 20000 / 3.
    std = (20000 / 3) ** 0.5
    for number, figures in enumerate(bands):
        assert figures.reference == pytest.approx((1100 + 10 * number, std))
        assert figures.means == pytest.approx({"train": 1100 + 10 * number, "test": 2000 + 10 * number})
        assert figures.shifts == pytest.approx({"train": 0, "test": 900 / std}, abs=1e-9)
        assert {group: int(counts.sum()) for group, counts in figures.counts.items()} == {"train": 96, "test": 96}


def test_histograms_leave_out_what_was_not_measured_and_keep_what_lies_beyond() -> None:
    sums = BandSums(("a", "b"), Statistics(mean=(100.0, 100.0), std=(10.0, 10.0), pixels=1, origin="test"))
    pixels = np.zeros((1, 2, 2, 2), np.int16)
    pixels[0, :, 0, 0] = (105, 0)  # measured, for the other band is not 0
    pixels[0, :, 1, 1] = (30_000, 30_000)
    sums.add("all", pixels)
    first, second = sums.figures(compare=True)
    assert first.edges[[0, -1]].tolist() == pytest.approx([70, 140])
    assert np.flatnonzero(first.counts["all"]).tolist() == [24, BINS - 1]  # (105 - 70) / (70 / 48) = 24
    assert np.flatnonzero(second.counts["all"]).tolist() == [0, BINS - 1]
    assert first.means["all"] == (105 + 30_000) / 2
    assert first.shifts["all"] == (first.means["all"] - 100) / 10


def test_histograms_agree_with_numpy() -> None:
    values = np.random.default_rng(0).integers(1, 6000, (5, 1, 8, 8)).astype(np.int16)
    sums = BandSums(("a",), Statistics(mean=(2000.0,), std=(500.0,), pixels=1, origin="test"))
    for part in np.array_split(values, 3):
        sums.add("all", part)
    (figures,) = sums.figures(compare=False)
    clipped = np.clip(values, figures.edges[0], figures.edges[-1])
    np.testing.assert_array_equal(figures.counts["all"], np.histogram(clipped, figures.edges)[0])
    assert figures.shifts == {}


def test_tags_by_hand() -> None:
    tags = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], np.uint8)
    figures = count_tags(tags, {"train": np.array([0, 1]), "test": np.array([2, 3])}, ("a", "b", "c"))
    assert {split: counts.tolist() for split, counts in figures.counts.items()} == {
        "train": [2, 1, 0],
        "test": [1, 1, 1],
    }
    assert figures.together.tolist() == [[3, 2, 1], [2, 2, 1], [1, 1, 1]]
    assert figures.density.tolist() == [1, 1, 1, 1]
    assert figures.mean == 1.5


def test_dates_of_a_strip_by_hand() -> None:
    shares = np.array([1, 0.2, 1, 0.9, 1, 0.5])
    assert strip_dates(shares, 4).tolist() == [0, 2, 3, 4]  # all cloud-free ones, then the clearest
    assert strip_dates(shares, 2).tolist() == [0, 4]  # one of each half of the cloud-free ones
    assert strip_dates(shares, 9).tolist() == [0, 1, 2, 3, 4, 5]


def test_what_stands_out_is_said_with_the_way_out(tmp_path: Path) -> None:
    preview = preview_of(tmp_path)
    said = findings(preview)
    assert len(said) == 4
    for sentence, words in zip(
        said,
        [
            ("In the test split", "B02 (+11.0) and B03 (+11.0)", "offset"),
            ("All 2 scenes", "2021-03-31 to 2021-06-08 in one, 9.9 weeks", "data.max_dates"),
            ("wheat (2) and maize (1)", "Add scenes", "class map"),
            ("wheat (100 %)", "data.window"),
        ],
        strict=True,
    ):
        for word in words:
            assert word in sentence
    many = count_tags(np.array([[1, 1], [0, 1]] * 30 + [[0, 0]] * 9, np.uint8), {"train": np.arange(69)}, ("a", "b"))
    (sentence,) = findings(replace(preview, bands=[], gaps=[], tags=many))
    assert "a is nearly always tagged together with b (30 of 30 windows)" in sentence
    assert findings(replace(preview, bands=[], gaps=[], tags=None)) == []


def test_the_page_needs_no_network_and_escapes_names(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "a & <b>$x$</b>")
    preview = preview_of(tmp_path, classes=names, scenes=("<i>one</i>", "two"))
    preview = replace(preview, notes=("a <u>note</u>",))
    path = tmp_path / "p.html"
    write_preview(path, preview)
    page = path.read_text(encoding="utf-8")
    text = re.sub(r"data:image/png;base64,[\w+/=]+", "", page)
    assert not re.search(r"https?:|//|<link|<script|@import|url\(", text)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'(?:src|href)="([^"]*)"', page))
    for raw in (*names, "<i>one</i>", "<u>note</u>"):
        assert raw not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert preview.facts["Digest"] in page
    assert not list(tmp_path.glob("*.partial"))
    write_preview(tmp_path / "again.html", preview)
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_the_summary_names_place_dates_and_tags(tmp_path: Path) -> None:
    said = summary(preview_of(tmp_path))
    for words in (
        "4 of 4 × 4 pixels (2 train, 2 test), 2 scenes",
        "2021-03-01 to 2021-06-08 (100 days), 3 dates a scene, 2 to 3 of them at least 30 % clear",
        "3.0000° E",
        "1.5 per window, 2 crops, 2 to 4 windows per crop",
    ):
        assert words in said


def test_one_split_alone_is_held_against_a_model_only(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "d", scenes=("one",))
    assert all(not figures.shifts for figures in preview_dataset(dataset, seed=0).bands)
    model = NamedStatistics(Statistics(mean=(1000.0, 1110.0), std=(50.0, 100.0), pixels=1, origin="x"), "model m")
    shifts = [figures.shifts["train"] for figures in preview_dataset(dataset, seed=0, reference=model).bands]
    assert shifts == pytest.approx([2, 0])


def test_many_scenes_stay_legible() -> None:
    rows = [SceneDates(f"scene{number}", np.arange(0, 300, 5), np.linspace(0, 1, 60)) for number in range(200)]
    figure = calendar_figure(rows, [], start=START, length=300)
    assert figure.get_figheight() < 10
    assert len(figure.axes[0].get_yticks()) <= 25


def scl_of(date: int) -> np.ndarray[Any, Any]:
    """Date 1 is half under cloud, date 2 wholly; the others are clear."""
    scl = np.full((32, 32), 4)
    scl[:, : {1: 16, 2: 32}.get(date, 0)] = 9
    return scl


def test_a_season_by_hand(tmp_path: Path) -> None:
    write_season(tmp_path / "s", size=(64, 64), dates=("20210301", "20210306", "20210311", "20210501"), scl=scl_of)
    first = SeasonConfig(start=dt.date(2021, 3, 1))
    images = open_season(tmp_path / "s", DataConfig(max_dates=1000, season=first))
    preview = preview_season(images, source="season:s", limit=2, seed=0)
    every, kept = preview.calendar
    assert every.days.tolist() == [0, 5, 10, 61]
    assert every.clear.tolist() == [1, 0.5, 0, 1]
    assert kept.days.tolist() == [0, 61]  # the clearest of each of two runs
    assert {(gap.scene, (gap.last - gap.first).days) for gap in preview.gaps} == {("4 dates", 56), ("2 kept", 61)}
    assert preview.tags is None
    assert preview.facts["Size"] == "64 × 64 pixels of 10 m"
    assert preview.footprints[0].groups == ("area", *["cut-outs read"] * 9)
    # The lone cut-outs are their own reference.
    assert all(not figures.shifts for figures in preview.bands)
    write_preview(tmp_path / "p.html", preview)
    assert "exact ingest season" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_squares_of_tags_are_drawn_where_ingest_cuts_its_windows(tmp_path: Path) -> None:
    """A square of two windows, one without a size beside the images, and a slip that is asked about."""
    root = write_season(tmp_path / "s", size=(64, 64), labels=False, legend=None)
    (root / "labels").mkdir()
    rows = f"{SEASON_LEFT + 320},{SEASON_TOP - 320},160,maize;grass\n{SEASON_LEFT - 320},{SEASON_TOP - 80},,maise\n"
    (root / "labels/tags.csv").write_text(f"x,y,size,crops\n{rows}")
    config = DataConfig(max_dates=1000, window=8)
    tags, notes = open_tags(root, config)
    assert tags is not None
    assert notes[0] == "labels are those of labels/tags.csv"
    images = open_season(root, config)
    preview = preview_season(images, source="s", limit=60, seed=0, tags=tags, window=8)
    squares = preview.squares
    assert squares is not None
    assert [(each.box, each.crops, each.used) for each in squares.squares] == [
        ((24, 24, 40, 40), ("maize", "grass"), True),
        ((-36, 4, -28, 12), ("maise",), False),
    ]
    assert squares.windows == 4
    assert squares.counts == {"grass": (1, 4), "maise": (1, 0), "maize": (1, 4)}
    assert squares.image.shape == (64, 64, 3)
    said = summary(preview)
    assert "tags: tags.csv: 2 squares; maize in 1, grass in 1, maise in 1" in said
    assert "look: tags.csv: are 'maise' (1) and 'maize' (1) one crop?" in said
    assert "look: 1 of 2 squares of tags.csv are not in the images: line 3" in said
    assert "look: Fewer than 20 training windows are tagged with grass (4), maise (0) and maize (4)." in said
    np.testing.assert_array_equal(squares.together, [[4, 0, 4], [0, 0, 0], [4, 0, 4]])
    write_preview(tmp_path / "p.html", preview)
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "2 squares give 4 windows" in " ".join(page.split())
    drawn = squares_figure(squares).axes[0]
    assert [text.get_text() for text in drawn.texts] == ["maize\ngrass"]


def test_thinning_that_makes_a_gap_is_told_apart_from_missing_acquisitions(tmp_path: Path) -> None:
    dates = ("20210301", "20210316", "20210331", "20210415", "20210430")
    write_season(tmp_path / "s", dates=dates, scl=lambda _date: np.full((16, 16), 4))
    images = open_season(tmp_path / "s", DataConfig(max_dates=1000, season=SeasonConfig(start=dt.date(2021, 3, 1))))
    (sentence,) = findings(preview_season(images, source="season:s", limit=2, seed=0))
    assert "Thinning to 2 dates" in sentence
    assert "data.max_dates" in sentence
    assert findings(preview_season(images, source="season:s", limit=5, seed=0)) == []


def test_cut_outs_hold_the_pixels_and_the_seed_draws_them(tmp_path: Path) -> None:
    write_season(tmp_path / "s", size=(64, 64))
    images = open_season(tmp_path / "s", DataConfig(max_dates=1000))
    one = preview_season(images, source="s", limit=60, seed=0)
    assert not one.clouds_known
    write_preview(tmp_path / "p.html", one)
    assert "Clouds are unknown" in " ".join((tmp_path / "p.html").read_text(encoding="utf-8").split())
    whole, _ = images.read(0, 60)
    for figures, plane in zip(one.bands, whole.transpose(1, 0, 2, 3), strict=True):
        # Nine cut-outs of 20 pixels tile 60 x 60 pixels of the scene.
        assert figures.means["all"] == pytest.approx(plane[:, :, :60].mean())
    assert [strip.place for strip in one.strips] == [
        strip.place for strip in preview_season(images, source="s", limit=60, seed=0).strips
    ]


def test_words() -> None:
    assert degrees(-1.25, 30.5) == "1.2500° S, 30.5000° E"
    assert [signed(value, 1) for value in (0.04, -0.04, 1.26, -2.0)] == ["0.0", "0.0", "+1.3", "-2.0"]
