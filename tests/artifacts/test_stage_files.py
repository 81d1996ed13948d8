"""Folders between stages: without a store as they are, with one by reference."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient

from exact_core.artifacts.stage_files import stage_files
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import DataError
from exact_core.files import sha256_of
from exact_core.stages.generate_masks import generate_masks
from exact_core.stages.ingest import ingest
from exact_core.stages.lifecycle import open_stage
from exact_core.stages.train_classifier import train_classifier
from exact_core.storage import default_cache
from exact_core.tracking.runs import NoTracker, tracking_uri

WRITES = {"masks": ("masks.json",), "dataset": ("dataset.json",)}


@dataclass
class Artifact:
    path: str
    metadata: dict = field(default_factory=dict)


class Tags(NoTracker):
    def __init__(self):
        self.tags = {}

    def set_tags(self, tags):
        self.tags |= tags


@pytest.fixture(autouse=True)
def _own_places(monkeypatch, tmp_path):
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EXACT_STORE", raising=False)


def scratch_folders() -> list[Path]:
    return list((default_cache().root / "scratch").glob("*/"))


def write(folder: Path, text: str = "{}") -> None:
    folder.mkdir(parents=True)
    (folder / "data.bin").write_bytes(b"0123" * 100)
    (folder / "masks.json").write_text(text)


def test_without_a_store_folders_are_the_artifacts_themselves(tmp_path):
    artifact = Artifact(str(tmp_path / "masks"))
    with stage_files(NoTracker(), WRITES) as files:
        assert files.write(artifact) == tmp_path / "masks"
        assert files.read(artifact) == tmp_path / "masks"
        assert files.read(str(tmp_path / "masks")) == tmp_path / "masks"
    assert artifact.metadata == {}
    assert not (tmp_path / "cache").exists()


def test_with_a_store_a_pointer_is_handed_on_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    artifact, tracker = Artifact(str(tmp_path / "run" / "masks")), Tags()
    with stage_files(tracker, WRITES) as files:
        write(files.write(artifact))
        assert files.write(artifact).is_dir()
        assert not Path(artifact.path).exists()
    assert Path(artifact.path).is_file()
    uri = artifact.metadata["store_uri"]
    assert tracker.tags == {"exact.stored.masks": uri}
    for source in (artifact, artifact.path, Path(artifact.path), uri):
        with stage_files(NoTracker(), WRITES) as files:
            folder = files.read(source)
            assert (folder / "data.bin").read_bytes() == b"0123" * 100
        assert not folder.exists()
    assert scratch_folders() == []


def test_mlflow_hears_of_a_dataset_by_its_place_in_the_store(tmp_path, monkeypatch, config):
    """As components run their stages: one makes the dataset, one reads it, one fails over it."""
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    client = MlflowClient(tracking_uri=tracking_uri())
    made = Artifact(str(tmp_path / "dataset"))
    with open_stage("ingest", config, pipeline_run="run-1") as tracker, stage_files(tracker, WRITES) as files:
        ingest(config, source="synthetic", season="", out=files.write(made), tracker=tracker)
    runs = [tracker.run_id]
    with open_stage("train_classifier", config, pipeline_run="run-1") as tracker, stage_files(tracker, WRITES) as files:
        train_classifier(config, dataset=files.read(made), out=tmp_path / "classifier", tracker=tracker)
    runs.append(tracker.run_id)
    with (
        pytest.raises(DataError),
        open_stage("generate_masks", config, pipeline_run="run-1") as tracker,
        stage_files(tracker, WRITES) as files,
    ):
        generate_masks(config, dataset=files.read(made), classifier=tmp_path, out=tmp_path / "masks", tracker=tracker)
    runs.append(tracker.run_id)
    uri = made.metadata["store_uri"]
    assert uri.startswith("file://")
    for run_id in runs:
        run = client.get_run(run_id)
        dataset = run.inputs.dataset_inputs[0].dataset
        assert dataset.name.startswith("synthetic 2")
        assert dataset.source == uri
        assert run.data.tags["exact.dataset"] == uri
        with stage_files(NoTracker(), WRITES) as files:
            assert WindowDataset(files.read(dataset.source)).manifest.digest[:36] == dataset.digest


def test_a_stage_that_fails_publishes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    artifact = Artifact(str(tmp_path / "masks"))
    with pytest.raises(DataError, match="broken"), stage_files(NoTracker(), WRITES) as files:
        write(files.write(artifact))
        raise DataError("broken")
    assert not Path(artifact.path).exists()
    assert not (tmp_path / "store").exists()
    assert scratch_folders() == []


def test_an_unfinished_output_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    with pytest.raises(DataError, match=r"masks\.json"), stage_files(NoTracker(), WRITES) as files:
        files.write(Artifact(str(tmp_path / "masks"))).mkdir()


def test_a_dataset_is_used_where_it_was_fetched_to(tmp_path, monkeypatch, dataset_folder):
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    artifact = Artifact(str(tmp_path / "dataset"))
    with stage_files(NoTracker(), WRITES) as files:
        folder = files.write(artifact)
        folder.symlink_to(dataset_folder)
    with stage_files(NoTracker(), WRITES) as files:
        read = files.read(artifact)
        assert WindowDataset(read).manifest == WindowDataset(dataset_folder).manifest
        assert sha256_of(read / "index.parquet") == sha256_of(dataset_folder / "index.parquet")


def test_what_a_killed_stage_left_is_cleared_away_and_what_runs_is_not(tmp_path):
    with default_cache().scratch() as running:
        (running / "file").write_text("mine")
        code = (
            "import os, signal\nfrom exact_core.storage import default_cache\n"
            "with default_cache().scratch() as folder:\n"
            "    (folder / 'left').write_text('x')\n    print(folder, flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        left = Path(killed.stdout.strip())
        assert (left / "left").is_file()
        with default_cache().scratch():
            assert not left.exists()
            assert (running / "file").is_file()


@pytest.mark.parametrize(
    "module", ["stages.ingest", "stages.resolve_season", "stages.lifecycle", "artifacts.stage_files"]
)
def test_stages_that_read_images_need_no_torch(module):
    """They run in an image that has none."""
    code = f"import sys; sys.modules['torch'] = None; import exact_core.{module}, exact_kubeflow.cli.app"
    subprocess.run([sys.executable, "-c", code], check=True)
