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
@pytest.mark.parametrize("kind", ["clue", "fused"])
def test_one_kind_alone_is_what_both_together_give(kind, changes, config, classifier, batch):
    """The spatial encoder, which clue-based CAMs do without, changes nothing in them."""
    settings = override(config, [*changes, f"masks.cam={kind}"])
    maker = CamMaker(classifier, settings.classifier, settings.masks)
    both, alone = maker(batch.series, batch.tags), maker.chosen(batch.series, batch.tags)
    torch.testing.assert_close(alone, getattr(both, kind), rtol=0, atol=0)
    assert alone.shape == (*batch.tags.shape, *batch.series.pixels.shape[-2:])
    assert alone.min() >= 0
    assert 0 < alone.max() <= 1
    assert not torch.equal(both.clue, both.fused)


def test_the_spatial_encoder_is_not_asked_for_clue_based_cams(config, classifier, batch):
    asked = []
    classifier.spatial.register_forward_hook(lambda *_: asked.append(1))
    maker = CamMaker(classifier, config.classifier, config.masks)
    maker.chosen(batch.series, batch.tags)
    assert not asked
    maker(batch.series, batch.tags)
    assert len(asked) == config.classifier.encoder.patch**2
