"""Checkpoints in a store: another machine goes on where a lost one was, to the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from exact_core.artifacts import model_folders as models
from exact_core.errors import CorruptError
from exact_core.files import sha256_of
from exact_core.stages.lifecycle import open_stage
from exact_core.stages.train_classifier import train_classifier
from exact_core.storage import open_store
from exact_core.tracking.runs import MlflowTracker, NoTracker


class Lost(NoTracker):
    """The machine goes when an epoch is over."""

    def __init__(self, epoch):
        self.epoch = epoch

    def log_metrics(self, metrics, *, step, **_):
        assert metrics
        if step == self.epoch:
            raise KeyboardInterrupt


class Cut(MlflowTracker):
    """The machine goes when an epoch is over, before anything of that epoch is sent."""

    def log_metrics(self, metrics, *, step, at=None):
        if step == 2:
            raise KeyboardInterrupt
        super().log_metrics(metrics, step=step, at=at)


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
        train("lost", Lost(2))
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
        train("lost", Lost(2))
    (state,) = (tmp_path / "store" / "state").iterdir()
    for path in state.glob("sha256/*/*"):
        path.unlink()
    train("anew", NoTracker())
    assert "training starts anew" in caplog.text
    assert (tmp_path / "anew" / "model.json").is_file()


def latest(tmp_path):
    """The state that the store's newest pointer names."""
    (state,) = (tmp_path / "store" / "state").iterdir()
    store = open_store(state.as_uri())
    pointer = models.read_pointer(store.uri_of(models.LATEST))
    return json.loads(store.read(models.content_key(pointer.manifest.sha256)))


def test_the_first_checkpoint_goes_up_at_once_and_the_others_not_more_often_than_asked_for(
    train, tmp_path, monkeypatch
):
    monkeypatch.setattr(models, "UPLOAD_SECONDS", 3600.0)
    train("quick", NoTracker())
    assert latest(tmp_path)["epoch"] == 1


def test_the_newest_goes_up_when_the_process_is_asked_to_end(config, train, tmp_path, monkeypatch):
    class AskedToEnd(NoTracker):
        def log_metrics(self, metrics, *, step, **_):
            assert metrics
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(models, "UPLOAD_SECONDS", 3600.0)
    with pytest.raises(SystemExit) as ended, open_stage("train_classifier", config, tracking=False):
        train("taken", AskedToEnd())
    assert ended.value.code == 128 + signal.SIGTERM
    assert latest(tmp_path)["epoch"] == 2
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_store_that_is_away_costs_a_warning_and_gets_the_next_checkpoint(train, tmp_path, caplog):
    class Away(NoTracker):
        """The store is gone during the second epoch."""

        def log_metrics(self, metrics, *, step, **_):
            assert metrics
            if step == 1:
                (tmp_path / "store").rename(tmp_path / "away")
                (tmp_path / "store").write_text("not a folder")
            if step == 2:
                (tmp_path / "store").unlink()
                (tmp_path / "away").rename(tmp_path / "store")

    train("patient", Away())
    assert "the checkpoint of epoch 2 is not in the store" in caplog.text
    assert latest(tmp_path)["epoch"] == 3


def test_a_damaged_checkpoint_is_noticed(config, dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_STATE_DIR", str(tmp_path / "state"))
    with pytest.raises(KeyboardInterrupt):
        train_classifier(config, dataset=dataset_folder, out=tmp_path / "out", tracker=Lost(2))
    (state,) = (tmp_path / "state").iterdir()
    files = sorted(path for path in state.iterdir())
    assert "state.json" in {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(CorruptError, match="damaged"):
                train_classifier(config, dataset=dataset_folder, out=tmp_path / "out", tracker=NoTracker())
        path.write_bytes(content)
    train_classifier(config, dataset=dataset_folder, out=tmp_path / "out", tracker=NoTracker())


def test_what_a_lost_machine_had_not_sent_is_sent_by_the_next_one(config, train, tracked, tmp_path):
    with tracked("train_classifier", "run") as tracker:
        cut = Cut(tracker.client, tracker.run_id, tmp_path / "outbox")
        with pytest.raises(KeyboardInterrupt):
            train("first", cut)
        cut.close()
    for name in ("second", "third"):
        if name == "third":
            # Its machine finds no checkpoint, and trains epochs that are recorded already.
            shutil.rmtree(tmp_path / "store")
        with tracked("train_classifier", "run") as tracker:
            train(name, tracker)
        history = tracker.client.get_metric_history(tracker.run_id, "loss")
        assert sorted(each.step for each in history) == [*range(1, config.classifier.training.epochs + 1)], name
