"""Training of the segmenter: what its pixels count."""

import numpy as np
import pytest
import torch

from exact_core.config import override
from exact_core.stages.train_segmenter import _weights

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
