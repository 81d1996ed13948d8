"""What the shares make of the scenes of the generator."""

from __future__ import annotations

from pathlib import Path

import pytest

from exact_core.config import DataConfig, SyntheticConfig
from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError

SMALL = SyntheticConfig(scenes=3, scene_size=48, dates=4)


def test_both_shares_at_0_train_and_score_on_everything(tmp_path: Path) -> None:
    ingest_synthetic(DataConfig(validation_share=0, test_share=0, synthetic=SMALL), tmp_path, seed=0)
    manifest = WindowDataset(tmp_path).manifest
    assert manifest.self_scored
    assert manifest.splits == {"train": 12, "validation": 0, "test": 0}
    assert manifest.notes[0].startswith("data.validation_share and data.test_share are 0: every window is")


def test_a_validation_share_needs_a_test_share(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="or both to 0 to train and score on everything"):
        ingest_synthetic(DataConfig(test_share=0, synthetic=SMALL), tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()
