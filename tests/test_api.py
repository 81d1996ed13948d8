"""What a notebook uses: exported from the top package, and the same numbers as the stages have."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import exact_core as exact
from exact_core.data.season.folder import ingest_season
from exact_core.errors import ConfigError, DataError
from exact_core.recipes import resolve
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.runs import NoTracker
from tests.conftest import TINY
from tests.fakes import write_season


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A season, its windows, and a segmenter of two epochs under dense labels."""
    root = tmp_path_factory.mktemp("api")
    config = resolve("season", seed=1, overrides=TINY)
    write_season(root / "season")
    ingest_season(root / "season", config.data, root / "dataset", seed=1)
    train_segmenter(config, dataset=root / "dataset", masks=None, out=root / "segmenter", tracker=NoTracker())
    return root


def test_a_window_is_predicted_as_evaluation_does(place):
    dataset, segmenter = exact.open_dataset(place / "dataset"), exact.load_segmenter(place / "segmenter", device="cpu")
    assert segmenter.classes == ("background", *dataset.manifest.classes)
    found = exact.predict_window(segmenter, dataset, 0)
    side = dataset.manifest.window
    assert found.shape == (len(segmenter.classes), side, side)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    # Independent of what else is predicted, and of how often.
    np.testing.assert_array_equal(found, exact.predict_window(segmenter, dataset, 0))


def test_a_season_is_mapped(place, tmp_path):
    record = exact.map_season(f"season:{place}/season", place / "segmenter", tmp_path / "map", overrides=["device=cpu"])
    assert sum(area["pixels"] for area in record["areas"].values()) + record["unmapped_pixels"] == 32 * 32
    # Asked for another first day, the days still count as in the model.
    changes = ["device=cpu", "data.season.start=2018-03-11"]
    again = exact.map_season(f"season:{place}/season", place / "segmenter", tmp_path / "again", overrides=changes)
    assert any("days count from 2018-04-01, as in the model's season" in note for note in again["notes"])
    assert again["areas"] == record["areas"]


def test_what_does_not_fit_is_an_error(place, dataset_folder, tmp_path):
    segmenter = exact.load_segmenter(place / "segmenter", device="cpu")
    with pytest.raises(ConfigError, match="days count from 15 January, those of the model"):
        exact.predict_window(segmenter, exact.open_dataset(dataset_folder), 0)
    dataset = exact.open_dataset(place / "dataset")
    with pytest.raises(IndexError, match=f"window {len(dataset)}: the dataset has {len(dataset)}"):
        exact.predict_window(segmenter, dataset, len(dataset))
    with pytest.raises(DataError, match="no dataset here"):
        exact.open_dataset(tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = exact.nothing


def test_the_package_itself_is_imported_without_torch():
    command = "import sys, exact_core; assert 'torch' not in sys.modules and 'map_season' in exact_core.__all__"
    subprocess.run([sys.executable, "-c", command], check=True)
