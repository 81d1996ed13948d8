"""The floors: their parts by hand, and that no label helps to fit them."""

import numpy as np
import pytest

from benchmarks.floors import (
    floors,
    main,
    markdown,
    pixel_floor,
    score_split,
    tag_prior,
)
from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import VOID, Window, WindowDataset
from exact_core.data.windows.regular_series import calendar_series
from exact_core.errors import DataError
from exact_core.recipes import resolve
from tests.conftest import TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Enough windows for tags to differ."""
    changes = [*TINY, "data.synthetic.scenes=6", "data.synthetic.scene_size=72", "data.synthetic.dates=16"]
    out = tmp_path_factory.mktemp("floors") / "dataset"
    ingest_synthetic(resolve("demo", seed=3, overrides=changes).data, out, seed=3)
    return out


@pytest.fixture(scope="module")
def rows(folder):
    return floors(folder)


def window(days, values, clear=None):
    """A window of 2 x 4 pixels, two patches, one band, with one value a date."""
    pixels = np.tile(np.array(values, np.int16)[:, None, None, None], (1, 1, 2, 4))
    return Window(pixels=pixels, days=np.array(days, np.int16), tags=np.zeros(1, np.uint8), labels=None, clear=clear)


def test_prior_by_hand():
    """No tag: all background. One: a half each. Two: a third each."""
    prior = tag_prior(np.array([[0, 0], [1, 0], [1, 1]], np.uint8))
    np.testing.assert_allclose(prior, [(1 + 1 / 2 + 1 / 3) / 3, (1 / 2 + 1 / 3) / 3, (1 / 3) / 3])
    assert prior.sum() == pytest.approx(1)


def test_calendar_by_hand():
    """Days 10, 20, 40 with 100, 200, 400; the second patch under cloud on day 20, where it holds 999."""
    clear = np.ones((3, 1, 2), np.uint8)
    clear[1, 0, 1] = 0
    series = window([10, 20, 40], [100, 200, 400], clear)
    series.pixels[1, :, :, 2:] = 999
    found = calendar_series(series, np.array([0.0, 15.0, 20.0, 30.0, 99.0]))[:, :, 0].reshape(2, 4, 5)
    for column in range(4):
        expected = [100, 150, 200, 300, 400]  # linear in both, as 100, 200, 400 lie on one line
        np.testing.assert_allclose(found[:, column], np.tile(expected, (2, 1)), rtol=1e-6)


def test_calendar_against_interpolation_pixel_by_pixel(dataset):
    calendar = np.linspace(0, dataset.manifest.season_days, 7)
    looked = dataset.window(0)
    found = calendar_series(looked, calendar)
    side = dataset.manifest.window
    for row, col in ((0, 0), (3, 10), (23, 7)):
        clear = looked.clear[:, row // 2, col // 2] > 0
        clear = clear if clear.any() else np.ones_like(clear)
        for band in (0, 6):
            expected = np.interp(calendar, looked.days[clear], looked.pixels[clear, band, row, col])
            np.testing.assert_allclose(found[row * side + col, :, band], expected, rtol=1e-5)


def test_rows_are_scored_on_the_same_pixels_and_in_order(folder, rows):
    dataset = WindowDataset(folder)
    pixels = sum((dataset.labels(int(i)) != VOID).sum() for i in dataset.indices("test"))
    for name in ("class prior", "best constant", "per pixel"):
        assert rows[name]["pixels"] == pixels
    assert rows["per pixel"]["miou_macro"] > rows["class prior"]["miou_macro"] + 0.2
    assert rows["per pixel"]["oa_micro"] > rows["majority (from labels)"]["oa_micro"] + 0.1
    assert rows["best constant"]["oa_micro"] <= rows["majority (from labels)"]["oa_micro"]
    constant = np.array(rows["best constant"]["confusion"]["counts"])
    assert (constant.sum(0) > 0).sum() == 1


def test_drawn_pixels_follow_the_prior(folder, rows):
    dataset = WindowDataset(folder)
    prior = tag_prior(dataset.tags[dataset.indices("train")])
    counts = np.array(rows["class prior"]["confusion"]["counts"]).sum(0)
    np.testing.assert_allclose(counts / counts.sum(), prior, atol=0.02)


def test_repeats_and_never_fits_on_labels(folder, rows):
    """Fitted where reading a label is an error, the floor scores to the pixel what it scored before."""

    def refuse(self, index):
        raise AssertionError("a dense label was read")

    dataset = WindowDataset(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WindowDataset, "labels", refuse)
        blind = pixel_floor(dataset, seed=0)
        values = blind(int(dataset.indices("test")[0]))
    np.testing.assert_allclose(values.sum(1), 1, rtol=1e-5)
    confusion = score_split(dataset, "test", blind)
    assert confusion.tolist() == rows["per pixel"]["confusion"]["counts"]


def test_the_command_prints_the_table(folder, rows, capsys):
    main(["--dataset", str(folder)])
    printed = capsys.readouterr().out.strip()
    assert printed == markdown(rows)
    assert f"| per pixel | {100 * rows['per pixel']['oa_micro']:.1f} |" in printed


def test_what_cannot_be_scored_is_said(tmp_path, folder):
    with pytest.raises(DataError, match="no window in split 'holdout'"):
        floors(folder, split="holdout")
    with pytest.raises(SystemExit, match="no dataset here"):
        main(["--dataset", str(tmp_path)])
