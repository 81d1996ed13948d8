"""Each season scored by a model that has not seen it."""

import json
import logging

import pytest

from exact_core.config import override
from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, DataError
from exact_core.files import sha256_of
from exact_core.stages import evaluate as evaluating, leave_season_out as leaving
from exact_core.stages.leave_season_out import leave_each_season_out
from exact_core.stages.season_table import table
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.runs import NoTracker


def test_every_season_is_left_out_once(dataset_folder, config, tmp_path, monkeypatch):
    ingest_synthetic(config.data, tmp_path / "other", seed=7)
    changed = override(config, ["segmenter.training.epochs=1", "evaluation.panels=0"])
    folders = [dataset_folder, tmp_path / "other"]
    out = tmp_path / "out"
    arguments = {"datasets": folders, "dense": True, "out": out, "tracker": NoTracker()}
    summary = leave_each_season_out(changed, **arguments)
    record = json.loads((out / "leave_one_season_out.json").read_text())
    digests = [WindowDataset(folder).manifest.digest for folder in folders]
    assert [row["digest"] for row in record["seasons"]] == digests
    for number, other in enumerate(reversed(folders)):
        joint = WindowDataset(out / f"{number:02d}" / "dataset").manifest
        assert joint.splits == WindowDataset(other).manifest.splits
        scored = json.loads((out / f"{number:02d}" / "evaluation_new" / "metrics.json").read_text())
        assert record["seasons"][number]["new"]["miou_macro"] == scored["miou_macro"]
    figures = [row["new"]["miou_macro"] for row in record["seasons"]]
    assert summary["mean_miou_macro"] == pytest.approx(sum(figures) / 2)
    assert summary["worst_miou_macro"] == min(figures)
    assert table(out).count("\n") == 5
    assert f"| **worst** | {100 * min(row['new']['oa_micro'] for row in record['seasons']):.1f} |" in table(out)
    with pytest.raises(DataError, match="already holds"):
        leave_each_season_out(changed, **arguments)
    # Cut off before the end, it goes on: what is done is not done again.
    (out / "leave_one_season_out.json").unlink()
    for other in (
        {"config": override(changed, ["segmenter.training.learning_rate=0.004"]), **arguments},
        {"config": changed, **arguments, "datasets": folders[::-1]},
    ):
        with pytest.raises(DataError, match="started with other settings or datasets"):
            leave_each_season_out(other.pop("config"), **other)
    for stage in ("train_segmenter", "evaluate"):
        monkeypatch.delattr(leaving, stage)
    assert leave_each_season_out(changed, **arguments) == summary
    with pytest.raises(ConfigError, match="two seasons or more"):
        leave_each_season_out(changed, **{**arguments, "datasets": folders[:1], "out": tmp_path / "one"})


@pytest.fixture
def seasons(config, tmp_path):
    """Two tiny generated seasons, and settings that learn a little from their tags."""
    small = override(
        config,
        [
            "data.synthetic.scenes=3",
            "data.synthetic.scene_size=24",
            "data.synthetic.dates=5",
            "classifier.training.epochs=2",
            "classifier.loss.contrast_start=0",
            "evaluation.panels=0",
        ],
    )
    for seed in (1, 2):
        ingest_synthetic(small.data, tmp_path / f"season{seed}", seed=seed)
    return small, [tmp_path / "season1", tmp_path / "season2"]


def test_from_tags_a_killed_run_goes_on_and_ends_as_an_unbroken_one(seasons, tmp_path, monkeypatch, caplog):
    """Cut off in the second season's last training: nothing before it is done again, and all ends to the bit alike."""
    config, datasets = seasons
    monkeypatch.setenv("EXACT_STATE_DIR", str(tmp_path / "state"))
    # Half of the time went into the reports' pictures, which tests/evaluation looks at.
    monkeypatch.setattr(evaluating, "write_report", lambda path, _: path.write_text("a report"))
    monkeypatch.setattr(evaluating, "figure_files", lambda *_: [])
    caplog.set_level(logging.INFO)

    class Cut(NoTracker):
        def log_metrics(self, metrics, *, step, **_):  # noqa: ARG002
            # What is recorded of an epoch comes after its checkpoint.
            if step == 1:
                raise KeyboardInterrupt

    def cut_off(settings, *, out, tracker, **arguments):
        return train_segmenter(settings, out=out, tracker=Cut() if "01" in out.parts else tracker, **arguments)

    arguments = {"datasets": datasets, "dense": False, "tracker": NoTracker()}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(leaving, "train_segmenter", cut_off)
        leave_each_season_out(config, out=tmp_path / "killed", **arguments)
    assert (tmp_path / "killed/00/season_row.json").is_file()
    assert (tmp_path / "killed/01/masks/masks.json").is_file()
    assert not (tmp_path / "killed/01/segmenter/model.json").exists()
    with monkeypatch.context() as patch:
        for stage in ("train_classifier", "generate_masks"):
            patch.delattr(leaving, stage)
        caplog.clear()
        leave_each_season_out(config, out=tmp_path / "killed", **arguments)
    assert "segmenter: continuing after epoch 1 of 2" in caplog.text
    monkeypatch.setenv("EXACT_STATE_DIR", str(tmp_path / "elsewhere"))
    leave_each_season_out(config, out=tmp_path / "whole", **arguments)
    for name in (
        "leave_one_season_out.json",
        "report.html",
        "01/classifier/weights.safetensors",
        "01/masks/masks.json",
        "01/segmenter/weights.safetensors",
        "00/segmenter/weights.safetensors",
    ):
        assert sha256_of(tmp_path / "killed" / name) == sha256_of(tmp_path / "whole" / name), name
