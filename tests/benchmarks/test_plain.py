"""The plain implementation and the package's own: the same numbers, so that a ratio of times compares equals."""

import numpy as np
import pytest
import torch

from benchmarks import plain
from exact_core.clues.cams import clue_cams
from exact_core.clues.masks import strongest_class
from exact_core.clues.sweep import sweep_confusions
from exact_core.config import ClassifierConfig, EncoderConfig, SegmenterConfig
from exact_core.data.windows.batches import Batch, Series
from exact_core.losses import segmentation_loss
from exact_core.models.classifier import TagClassifier
from exact_core.models.segmenter import Segmenter
from exact_core.training.classifier import classifier_losses

SHAPE = {"bands": 3, "classes": 4, "window": 12}
TOTAL = 9


def encoder(*, masked, residual="normed", dates="day_of_year"):
    return EncoderConfig(
        dim=12,
        temporal_depth=2,
        spatial_depth=1,
        heads=2,
        head_dim=6,
        residual=residual,
        dates=dates,
        mask_padding=masked,
        pad_dates=TOTAL,
    )


def batch(*, masked):
    """Three windows of 4, 7 and 9 dates, as the loader gives them: padding masked, or counted."""
    generator = torch.Generator().manual_seed(2)
    counts = torch.tensor([4, 7, 9])
    real = torch.arange(TOTAL) < counts[:, None]
    pixels = torch.randn(3, TOTAL, 3, 12, 12, generator=generator) * real[:, :, None, None, None]
    series = Series(
        pixels, torch.arange(1, 10 * TOTAL, 10) * real, real[:, None], padding=None if masked else TOTAL - counts
    )
    tags = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]])
    target = torch.randint(0, 5, (3, 12, 12), generator=generator)
    return Batch(series=series, tags=tags, target=target, index=np.arange(3))


def close(ours, theirs, what):
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-4, msg=lambda text: f"{what}: {text}")


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "attended"])
def test_a_classifier_step_is_the_same(masked, published):
    torch.manual_seed(0)
    prototypes = {"momentum": 0.9, "momentum_warmup": False}
    prototypes |= {"weights": "published", "present_only": False} if published else {}
    config = ClassifierConfig.model_validate(
        {
            "encoder": encoder(masked=masked),
            "prototypes": prototypes,
            "affinity": {"time_weights": "double_softmax" if published else "attention"},
        }
    )
    ours, theirs = TagClassifier(config, **SHAPE), plain.PlainClassifier(config, **SHAPE)
    theirs.load_state_dict(ours.state_dict())
    given = batch(masked=masked)
    padded, real = plain.pad_series(given.series, TOTAL)
    keys = real if masked else None

    output = ours(given.series)
    losses, clues = classifier_losses(output, given, ours, config, contrast=True)
    losses.total.backward()
    plain_output = theirs(padded, keys)
    parts = plain.classifier_loss(plain_output, given.tags, keys, theirs.prototypes, config, start=True)
    sum(parts.values()).backward()

    close(output.logits, plain_output.logits, "logits")
    for name, value in parts.items():
        close(getattr(losses, name), value, name)
    assert losses.contrast > 0
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        close(parameter.grad, named[name].grad, name)
    clues.move(ours.prototypes)
    close(ours.prototypes.foreground, theirs.prototypes.foreground, "foreground")
    close(ours.prototypes.background, theirs.prototypes.background, "background")
    args = (given.tags, given.series.seen, ours.prototypes, config.affinity)
    cams = clue_cams(output, *args, stretch="maximum")
    close(cams, plain.clue_cams(plain_output, given.tags, keys, theirs.prototypes, config), "CAMs")
    assert cams.max() > 0.9


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "attended"])
def test_a_segmenter_step_is_the_same(masked):
    torch.manual_seed(0)
    config = SegmenterConfig(encoder=encoder(masked=masked, residual="double", dates="season_day"))
    ours, theirs = Segmenter(config, **SHAPE), plain.PlainSegmenter(config, **SHAPE)
    theirs.load_state_dict(ours.state_dict())
    given = batch(masked=masked)
    padded, real = plain.pad_series(given.series, TOTAL)
    one, two = ours(given.series), theirs(padded, real if masked else None)
    close(one, two, "logits")
    segmentation_loss(one, given.target).backward()
    segmentation_loss(two, given.target).backward()
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        close(parameter.grad, named[name].grad, name)


def test_a_sweep_is_the_same():
    generator = torch.Generator().manual_seed(1)
    cams = torch.rand(3, 4, 6, 6, generator=generator) * (torch.rand(3, 4, 1, 1, generator=generator) < 0.7)
    truth = torch.randint(0, 5, (3, 12, 12), generator=generator).numpy().astype(np.uint8)
    thresholds = np.arange(0, 1, 0.07)
    large = torch.nn.functional.interpolate(cams, size=(12, 12), mode="bilinear", align_corners=True)
    ours = sweep_confusions(*strongest_class(large), truth, thresholds, 4)
    np.testing.assert_array_equal(ours, plain.sweep(cams, truth, thresholds, 4))
