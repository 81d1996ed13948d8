"""Each season scored by a model that has not seen it."""

import json

import pytest

from exact_core.config import override
from exact_core.data.dataset import WindowDataset
from exact_core.data.synthetic import ingest_synthetic
from exact_core.errors import ConfigError, DataError
from exact_core.stages import leave_season_out as leaving
from exact_core.stages.leave_season_out import leave_season_out, table
from exact_core.tracking import NoTracker


def test_every_season_is_left_out_once(dataset_folder, config, tmp_path, monkeypatch):
    ingest_synthetic(config.data, tmp_path / "other", seed=7)
    changed = override(config, ["segmenter.training.epochs=1", "evaluation.panels=0"])
    folders = [dataset_folder, tmp_path / "other"]
    out = tmp_path / "out"
    arguments = {"datasets": folders, "dense": True, "out": out, "tracker": NoTracker()}
    summary = leave_season_out(changed, **arguments)
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
        leave_season_out(changed, **arguments)
    # Cut off before the end, it goes on: what is done is not done again.
    (out / "leave_one_season_out.json").unlink()
    for other in (
        {"config": override(changed, ["segmenter.training.learning_rate=0.002"]), **arguments},
        {"config": changed, **arguments, "datasets": folders[::-1]},
    ):
        with pytest.raises(DataError, match="begun with other settings or datasets"):
            leave_season_out(other.pop("config"), **other)
    for stage in ("train_segmenter", "evaluate"):
        monkeypatch.delattr(leaving, stage)
    assert leave_season_out(changed, **arguments) == summary
    with pytest.raises(ConfigError, match="two seasons or more"):
        leave_season_out(changed, **{**arguments, "datasets": folders[:1], "out": tmp_path / "one"})
