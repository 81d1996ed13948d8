"""Training of the segmenter: what its pixels count."""

import numpy as np
import pytest
import torch

from exact_core.config import override
from exact_core.stages.train_segmenter import _weights, train_segmenter
from exact_core.tracking.runs import NoTracker

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "balanced"),
    [([], True), (["segmenter.balance=0"], False), (["segmenter.few_windows=FEW"], False)],
)
def test_pixels_of_few_windows_are_balanced(config, dataset, settings, balanced):
    train = dataset.indices("train")
    settings = [each.replace("FEW", str(len(train))) for each in settings]
    found = _weights(override(config, settings).segmenter, dataset, dataset.labels, CPU)
    assert (found is not None) is balanced
    if found is None:
        return
    # Counted here by comparison, void left out.
    labels = np.stack([dataset.labels(int(index)) for index in train])
    pixels = torch.tensor([int((labels == label).sum()) for label in range(dataset.classes + 1)])
    assert found.shape == (dataset.classes + 1,)
    weight = pixels.double() ** -0.5
    expected = weight * pixels.sum() / (weight * pixels)[pixels > 0].sum()
    torch.testing.assert_close(found[pixels > 0], expected[pixels > 0].float())


def test_balance_decides_what_is_learned_and_repeats_to_the_last_bit(config, dataset_folder, tmp_path):
    def trained(name, *settings):
        changed = override(config, list(settings))
        train_segmenter(changed, dataset=dataset_folder, masks=None, out=tmp_path / name, tracker=NoTracker())
        return (tmp_path / name / "weights.safetensors").read_bytes()

    balanced = trained("balanced")
    assert balanced == trained("again")
    assert balanced != trained("equal", "segmenter.balance=0")
    assert trained("many", "segmenter.few_windows=0") == trained("equal again", "segmenter.balance=0")
