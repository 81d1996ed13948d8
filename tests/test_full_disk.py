"""A disk that fills up while an artifact is written: one sentence with bytes, and nothing half is left."""

import datetime as dt
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from rasterio.crs import CRS

from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.mask_dataset import write_mask_shard
from exact_core.errors import ServiceError
from exact_core.mapping.calibration import NOT_FITTED
from exact_core.mapping.cogs import MapRecord, write_files
from exact_core.mapping.finished_rows import FinishedRows, RowFiles
from exact_core.stages.lifecycle import open_stage
from exact_core.training.checkpoint import save_weights


@contextmanager
def small_files():
    """Files of at most 4 KB, by the limit of this process, which writes like a full disk beyond it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_dataset(folder, config):
    ingest_synthetic(config.data, folder, seed=1)


def write_masks(folder, _):
    write_mask_shard(folder, 0, {"index": np.arange(10_000)})


def write_weights(folder, _):
    save_weights(torch.nn.Linear(100, 100), folder / "w.safetensors")


def write_rows(folder, _):
    rows = FinishedRows(0, np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8), None)
    RowFiles(folder / "rows", first=0, key="k", batch=2).add(rows)


def test_a_map_says_it_too(tmp_path):
    """GDAL does the writing, and gives no number of a full disk."""
    record = MapRecord(
        source="season:x",
        name="x",
        season_start=dt.date(2018, 1, 1),
        season_days=365,
        notes=(),
        bands=("B02",),
        dates=(dt.date(2018, 4, 1),),
        inputs="d",
        crs=CRS.from_epsg(32631).to_wkt(),
        transform=(10, 0, 500_000, 0, -10, 5_650_000),
        height=8,
        width=8,
        window=8,
        classes=("maize",),
        colours=("#000000", "#ffff00"),
        probabilities=False,
        calibration=NOT_FITTED,
        model_weights_sha256="d",
        code_version="x",
    )
    label = np.zeros((8, 8), np.uint8)
    with (
        small_files(),
        pytest.raises(ServiceError, match=r"cannot be written: .* 0\.5 MB are needed, .* MB are free"),
    ):
        write_files(record, [FinishedRows(0, label, label, None)], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_dataset, write_masks, write_weights, write_rows])
def test_it_says_which_bytes_are_needed_and_free(write, tmp_path, config):
    with (
        small_files(),
        pytest.raises(ServiceError, match=r"the disk is full: [\d.,]+ MB are needed, [\d.,]+ MB are free. Make room"),
    ):
        write(tmp_path, config)
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.safetensors")) + list(tmp_path.rglob("*.npz"))


def test_any_other_write_of_a_stage_says_what_is_free(config, tmp_path, monkeypatch):
    """The runner is told although it, too, has no room for more than was there."""
    monkeypatch.setenv("EXACT_FAILURE_FILE", str(tmp_path / "failure.txt"))
    with (
        pytest.raises(ServiceError, match=r"the disk is full: [\d.,]+ MB are free. Make room, then repeat"),
        open_stage("ingest", config, tracking=False),
        small_files(),
    ):
        (tmp_path / "page.html").write_bytes(bytes(5000))
    assert "disk is full" in (tmp_path / "failure.txt").read_text()
