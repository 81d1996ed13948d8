import numpy as np
import pytest

from benchmarks.quadrants import QUADRANTS, hold_out, scored_classes
from exact_core.data.windows.dataset import WindowDataset
from exact_core.recipes import resolve
from exact_core.stages.ingest import ingest
from exact_core.tracking.runs import NoTracker
from tests.fakes import SEASON_LEFT, SEASON_TOP, write_parcels, write_season


@pytest.fixture
def whole(tmp_path):
    """One scene of 48 x 48 pixels, windows of 12 every 4: two crops in strips, a third one in the last corner.

    An outline covers the right half.
    """
    codes = np.tile(np.repeat([100, 200], 6), (48, 4)).astype(np.uint16)
    codes[40:, 40:] = 300
    legend = "code,name\n100,wheat\n200,maize\n300,hops\n"
    write_season(tmp_path / "season", size=(48, 48), codes=codes, legend=legend)
    half = (SEASON_LEFT + 240, SEASON_TOP - 480, SEASON_LEFT + 480, SEASON_TOP)
    write_parcels(tmp_path / "season/labels/outlines.geojson", [(0, half)])
    config = resolve("season", overrides=["data.stride=4"])
    ingest(config, source=f"season:{tmp_path / 'season'}", season="", out=tmp_path / "whole", tracker=NoTracker())
    return WindowDataset(tmp_path / "whole")


def covered(windows, split):
    """Pixels of the scene that windows of a split show."""
    seen = np.zeros((48, 48), bool)
    for index in windows.indices(split):
        record = windows.records[int(index)]
        seen[record.row : record.row + 12, record.col : record.col + 12] = True
    return seen


def test_quadrants_share_no_pixel_with_what_is_learned_from(whole, tmp_path):
    tested = np.zeros((48, 48), int)
    for quadrant in QUADRANTS:
        hold_out(whole, quadrant, tmp_path / str(quadrant))
        part = WindowDataset(tmp_path / str(quadrant))
        test, train = covered(part, "test"), covered(part, "train")
        assert not (test & train).any()
        assert (test | train).all()
        tested += test
    assert (tested == 1).all()


def test_windows_keep_their_arrays_labels_and_fields(whole, tmp_path):
    hold_out(whole, 3, tmp_path / "part")
    part = WindowDataset(tmp_path / "part")
    numbers = {record.id: number for number, record in enumerate(whole.records)}
    for number, record in enumerate(part.records):
        theirs = numbers[record.id]
        np.testing.assert_array_equal(part.window(number).pixels, whole.window(theirs).pixels)
        np.testing.assert_array_equal(part.labels(number), whole.labels(theirs))
        np.testing.assert_array_equal(part.fields(number), whole.fields(theirs))
    assert {number for index in range(len(part)) for number in np.unique(part.fields(index))} == {0, 1}


def test_only_crops_that_can_be_learned_whichever_quadrant_is_held_out_are_scored(whole, tmp_path):
    """Hops cannot: they grow in the quadrant alone that is held out for the last time."""
    folders = [tmp_path / str(quadrant) for quadrant in QUADRANTS]
    for quadrant, folder in enumerate(folders):
        hold_out(whole, quadrant, folder)
    assert [("background", *whole.manifest.classes)[number] for number in scored_classes(folders)] == [
        "background",
        "wheat",
        "maize",
    ]
