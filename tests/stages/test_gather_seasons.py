"""Seasons side by side, and what is left out of them."""

import json

import pytest

from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, DataError
from exact_core.stages.gather_seasons import gather_seasons, open_fold
from exact_core.tracking.runs import NoTracker


@pytest.fixture
def seasons(dataset_folder, config, tmp_path):
    ingest_synthetic(config.data, tmp_path / "other", seed=7)
    return [dataset_folder, tmp_path / "other"]


def test_each_is_left_out_once_in_whatever_order_they_come(seasons, tmp_path):
    found = []
    for name, datasets in (("one", seasons), ("two", seasons[::-1])):
        folds = gather_seasons(datasets=datasets, out=tmp_path / name, tracker=NoTracker())
        assert folds == ["1/2", "2/2"]
        opened = [open_fold(tmp_path / name, fold) for fold in folds]
        digests = [WindowDataset(each.left_out).manifest.digest for each in opened]
        assert [WindowDataset(each.seen[0]).manifest.digest for each in opened] == digests[::-1]
        found.append(digests)
    assert found[0] == found[1]
    assert set(found[0]) == {WindowDataset(folder).manifest.digest for folder in seasons}
    shard = next((tmp_path / "one/00/shards").iterdir())
    assert shard.stat().st_nlink > 1
    listed = json.loads((tmp_path / "one/seasons.json").read_text())["seasons"]
    assert [each["digest"] for each in listed] == found[0]


def test_one_season_twice_is_refused(seasons, tmp_path):
    with pytest.raises(ConfigError, match="same dataset.*in training and in the test"):
        gather_seasons(datasets=[*seasons, seasons[0]], out=tmp_path / "out", tracker=NoTracker())


def test_no_such_fold(seasons, tmp_path):
    gather_seasons(datasets=seasons, out=tmp_path / "out", tracker=NoTracker())
    with pytest.raises(ConfigError, match="fold = '3/2': expected one of 1/2, 2/2"):
        open_fold(tmp_path / "out", "3/2")
    with pytest.raises(DataError, match=r"no seasons\.json"):
        open_fold(seasons[0], "1/2")
