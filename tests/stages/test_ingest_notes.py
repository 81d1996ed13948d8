"""What stage `ingest` says of a split in which no crop is tagged."""

import json
import logging

from exact_core.config import override
from exact_core.data.windows.dataset import WindowDataset
from exact_core.stages.ingest import ingest
from exact_core.stages.train_classifier import train_classifier
from exact_core.tracking.runs import NoTracker


def test_a_split_without_tags_is_noted_and_its_scores_are_left_out(tmp_path, config, caplog):
    """A town: of the scenes that chance made the validation split, none shows a crop."""
    config = override(
        config,
        [
            *("data.synthetic.scenes=3", "data.synthetic.scene_size=24", "data.synthetic.background_share=0.85"),
            *("data.synthetic.crops=2", "data.synthetic.dates=6"),
        ],
    )
    caplog.set_level(logging.INFO)
    ingest(config, source="synthetic", season="", out=tmp_path / "dataset", tracker=NoTracker())
    dataset = WindowDataset(tmp_path / "dataset")
    assert not dataset.tags[dataset.indices("validation")].any()
    assert "note: no window of the validation split has a tag" in caplog.text
    summary = train_classifier(config, dataset=tmp_path / "dataset", out=tmp_path / "classifier", tracker=NoTracker())
    assert "validation_tag_map" not in summary

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    history = json.loads((tmp_path / "classifier/metrics.json").read_text(), parse_constant=refuse)["history"]
    assert history[-1]["validation_tag_map"] is None
