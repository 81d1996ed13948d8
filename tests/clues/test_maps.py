import pytest
import torch

from exact_core.clues.maps import CamMaker
from exact_core.config import override
from exact_core.data.windows.batches import BatchLoader
from exact_core.models.classifier import TagClassifier
from exact_core.training.loop import seed_everything

WAYS = {
    "shifted, diffused": [],
    "shifted": ["masks.diffusion=0"],
    "diffused": ["masks.shifts=false"],
    "as in the paper": ["masks.shifts=false", "masks.diffusion=0"],
}


@pytest.fixture
def classifier(config, dataset):
    """An untrained classifier: its CAMs are of no use, but they are CAMs."""
    seed_everything(3)
    manifest = dataset.manifest
    return TagClassifier(
        config.classifier, bands=len(manifest.bands), classes=dataset.classes, window=manifest.window
    ).eval()


@pytest.fixture
def batch(config, dataset):
    indices = dataset.indices("train")[:3]
    encoder = config.classifier.encoder
    return next(iter(BatchLoader(dataset, indices, batch=3, encoder=encoder, device=torch.device("cpu"))))


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_cams_of_either_kind(changes, config, classifier, batch):
    """Within [0, 1], where a class is tagged, from one pass of the classifier a shift."""
    asked = []
    classifier.spatial.register_forward_hook(lambda *_: asked.append(1))
    settings = override(config, changes)
    cams = CamMaker(classifier, settings.classifier, settings.masks)(batch.series, batch.tags)
    assert len(asked) == (config.classifier.encoder.patch**2 if settings.masks.shifts else 1)
    for each in (cams.clue, cams.fused):
        assert each.shape == (*batch.tags.shape, *batch.series.pixels.shape[-2:])
        assert each.min() >= 0
        assert 0 < each.max() <= 1
        assert not each[batch.tags == 0].any()
    assert not torch.equal(cams.clue, cams.fused)
