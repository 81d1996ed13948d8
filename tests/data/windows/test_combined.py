"""Several datasets as one."""

from dataclasses import replace

import numpy as np
import pytest

from exact_core.config import override
from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.combined import join_datasets
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("other") / "dataset"
    ingest_synthetic(config.data, folder, seed=7)
    return folder


def test_every_window_is_there_as_it_was(dataset_folder, other_folder, tmp_path):
    join_datasets([dataset_folder, other_folder], tmp_path / "joint")
    joint, *parts = (WindowDataset(folder) for folder in (tmp_path / "joint", dataset_folder, other_folder))
    assert len(joint) == sum(map(len, parts))
    expected = [(part, index) for part in parts for index in range(len(part))]
    for position, (part, index) in enumerate(expected):
        one, two = joint.window(position), part.window(index)
        np.testing.assert_array_equal(one.pixels, two.pixels)
        np.testing.assert_array_equal(one.days, two.days)
        np.testing.assert_array_equal(joint.labels(position), part.labels(index))
        assert joint.records[position].split == part.records[index].split
    assert len({record.id for record in joint.records}) == len(joint)
    assert joint.manifest.splits == {
        name: sum(part.manifest.splits[name] for part in parts) for name in joint.manifest.splits
    }
    # Statistics of all training pixels at once.
    pixels = [
        part.window(int(index)).pixels.transpose(1, 0, 2, 3).reshape(10, -1)
        for part in parts
        for index in part.indices("train")
    ]
    values = np.concatenate(pixels, 1).astype(float)
    np.testing.assert_allclose(joint.manifest.statistics.mean, values.mean(1), rtol=1e-9)
    np.testing.assert_allclose(joint.manifest.statistics.std, values.std(1), rtol=1e-9)
    assert joint.manifest.statistics.pixels == values.shape[1]


def test_squares_of_two_datasets_stay_apart(dataset_folder, config, tmp_path):
    """A dataset with squares of two windows, twice, and one without such squares."""

    class Paired(DatasetWriter):
        def add(self, record, window, *, origin):
            super().add(replace(record, square=len(self._records) // 2), window, origin=origin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exact_core.data.synthetic.DatasetWriter", Paired)
        ingest_synthetic(config.data, tmp_path / "pairs", seed=0)
    join_datasets([tmp_path / "pairs", dataset_folder, tmp_path / "pairs"], tmp_path / "joint")
    pairs, plain, joint = (WindowDataset(each) for each in (tmp_path / "pairs", dataset_folder, tmp_path / "joint"))
    own = [record.square for record in pairs.records]
    assert own[:3] == [0, 0, 1]
    assert pairs.manifest.digest != plain.manifest.digest
    moved = [square + max(own) + 1 for square in own]
    assert [record.square for record in joint.records] == [*own, *[None] * len(plain), *moved]


def test_what_does_not_fit_is_refused(dataset_folder, other_folder, config, tmp_path):
    fewer = override(config, ["data.synthetic.crops=2"])
    ingest_synthetic(fewer.data, tmp_path / "fewer", seed=1)
    with pytest.raises(ConfigError, match="has classes .*Ingest both with the same settings"):
        join_datasets([dataset_folder, tmp_path / "fewer"], tmp_path / "joint")
    with pytest.raises(DataError, match="already holds"):
        join_datasets([dataset_folder], other_folder)
