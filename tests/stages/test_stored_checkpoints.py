"""Checkpoints in a store: another machine goes on where a lost one was, to the same bits."""

from __future__ import annotations

import json

import pytest

from exact_core.artifacts import model_folders as models
from exact_core.files import sha256_of
from exact_core.stages.train_classifier import train_classifier
from exact_core.storage import open_store
from exact_core.tracking.runs import NoTracker


class Lost(NoTracker):
    """The machine goes when an epoch is over and before its checkpoint is written."""

    def __init__(self, epoch):
        self.epoch = epoch

    def log_metrics(self, metrics, *, step):
        assert metrics
        if step == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture
def train(config, dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    monkeypatch.setattr(models, "UPLOAD_SECONDS", 0.0)

    def trained(name, tracker):
        # A machine of its own: nothing but the store is shared.
        monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / f"cache-{name}"))
        train_classifier(config, dataset=dataset_folder, out=tmp_path / name, tracker=tracker)
        return tmp_path / name

    return trained


def test_a_retry_elsewhere_continues_to_the_same_bits(train, tmp_path, monkeypatch, caplog):
    with pytest.raises(KeyboardInterrupt):
        train("lost", Lost(3))
    (state,) = (tmp_path / "store" / "state").iterdir()
    caplog.set_level("INFO")
    retried = train("retried", NoTracker())
    assert "continuing after epoch 2 of 3" in caplog.text
    monkeypatch.delenv("EXACT_STORE")
    straight = train("straight", NoTracker())
    assert sha256_of(retried / "weights.safetensors") == sha256_of(straight / "weights.safetensors")
    history = [json.loads((folder / "metrics.json").read_text())["history"] for folder in (retried, straight)]
    assert [row["loss"] for row in history[0]] == [row["loss"] for row in history[1]]
    # What older checkpoints alone held is deleted: one pointer, the files it names, and the name of the latest.
    store = open_store(state.as_uri())
    pointer = models.read_pointer(store.uri_of(models.LATEST))
    named = {models.content_key(file.sha256) for file in (*pointer.files, pointer.manifest)}
    assert set(store.list_keys()) == named | {f"folders/{pointer.digest}.json", models.LATEST}


def test_checkpoints_that_have_expired_there_are_no_end(train, tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        train("lost", Lost(3))
    (state,) = (tmp_path / "store" / "state").iterdir()
    for path in state.glob("sha256/*/*"):
        path.unlink()
    train("anew", NoTracker())
    assert "training starts anew" in caplog.text
    assert (tmp_path / "anew" / "model.json").is_file()


def test_uploads_are_not_more_frequent_than_asked_for(train, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "UPLOAD_SECONDS", 3600.0)
    train("quick", NoTracker())
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
