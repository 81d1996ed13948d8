"""Shared fixtures: a tiny generated dataset and a configuration that trains on it in seconds."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import hypothesis
import pytest
import torch

from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import WindowDataset
from exact_core.recipes import resolve
from tests.skipping import skip

TINY = [
    "data.synthetic.scenes=4",
    "data.synthetic.scene_size=48",
    "data.synthetic.dates=8",
    "data.synthetic.crops=3",
    "data.shard_windows=5",
    "classifier.encoder.dim=16",
    "classifier.encoder.temporal_depth=1",
    "classifier.training.epochs=3",
    "classifier.training.batch=4",
    "segmenter.encoder.dim=16",
    "segmenter.encoder.temporal_depth=1",
    "segmenter.training.epochs=2",
    "segmenter.training.batch=4",
    "evaluation.panels=2",
    # It would run in each of them; it has its own tests.
    "masks.relearn.tags=false",
    # Whatever comes of so little training: it may be the champion.
    "promotion.first_floor=0",
    "device=cpu",
    # So short a training ends in another model in bfloat16, and some of those map one class only.
    *(f"{part}precision=fp32" for part in ("", "classifier.training.", "segmenter.training.")),
]

# The same generated inputs in every run, so that a failure can be repeated; `make fuzz` looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


LONGEST = (
    "tests/slow/test_demo.py",
    "tests/docs/test_tutorial.py",
    "tests/services/test_two_years.py",
    "tests/slow/test_week.py",
    "tests/slow/test_runs.py",
)
"""Files of few tests that take minutes, the longest first."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Side by side, a file stays with a worker, and so does tests/parity: its last file looks at what others read.

    Files of many tests start first, as xdist has it, but for the longest: one that began last would run alone.
    """
    from xdist.scheduler import LoadFileScheduling

    assert all((config.rootpath / name).is_file() for name in LONGEST), LONGEST

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/parity" if nodeid.startswith("tests/parity/") else super()._split_scope(nodeid)

        def _assign_work_unit(self, node) -> None:
            if name := next((name for name in LONGEST if name in self.workqueue), None):
                self.workqueue.move_to_end(name, last=False)
            super()._assign_work_unit(node)

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _threads():
    """Two of torch's threads; one where tests run side by side, here and in what they start: more would only wait."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    torch.set_num_threads(2 if alone else 1)
    # Set, so that what they start takes as many however busy the machine is: the last bits follow from the number.
    os.environ.setdefault("OMP_NUM_THREADS", "2" if alone else "1")


@pytest.fixture
def of_threads():
    """Sets the number of torch's threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _away_from_home(tmp_path, monkeypatch):
    """Every test has its own tracking file and no state of another."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("MLFLOW_RUN_ID", "EXACT_STATE_DIR", "EXACT_PIPELINE_RUN", "EXACT_FAILURE_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def empty_tracking_file(tmp_path_factory) -> Path:
    """A tracking file with MLflow's tables, which take it two seconds to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking_file(empty_tracking_file, tmp_path) -> None:
    """The test's own tracking file has its tables already."""
    shutil.copy(empty_tracking_file, tmp_path / "mlflow.db")


@pytest.fixture
def exact(capsys):
    """Run a command as `tests.commands.exact` does."""
    # Not above: it imports what tests of one module do without.
    from tests import commands

    return partial(commands.exact, capsys)


@pytest.fixture(scope="session")
def config():
    return resolve("demo", seed=1, overrides=TINY)


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory, config) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "dataset"
    ingest_synthetic(config.data, folder, seed=config.seed)
    return folder


@pytest.fixture
def dataset(dataset_folder) -> WindowDataset:
    return WindowDataset(dataset_folder)


@pytest.fixture(scope="session")
def flanders() -> Path:
    """The real scene: one 640 m square of Flanders with its crop declarations."""
    root = Path(os.environ.get("EXACT_DATA_DIR", Path(__file__).parents[2] / "shared" / "data")) / "flanders_2018"
    if not root.is_dir():
        skip(f"{root} is not here; set EXACT_DATA_DIR to the folder that holds flanders_2018")
    return root
