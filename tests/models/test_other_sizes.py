"""Both models at sizes that nobody recorded, against an oracle that sees one window at a time."""

import pytest
import torch
from torch.nn import functional as F

from exact_core.config import ClassifierConfig, EncoderConfig, SegmenterConfig
from exact_core.data.windows.batches import Series
from exact_core.models.classifier import TagClassifier
from exact_core.models.published import from_published
from exact_core.models.segmenter import Segmenter
from tests.models.tsvit_oracle import DenseTsvit, Size, TagTsvit, stirred

SIZES = {
    "patch 1": Size(window=5, patch=1, bands=1),
    "patch 3": Size(window=9, patch=3, bands=4, crops=1, residual="normed"),
    "patch 5, one patch": Size(window=5, patch=5, residual="double"),
    "patch 4, 13 bands": Size(window=12, patch=4, bands=13, crops=7),
    "one head, depths 1 and 3": Size(heads=1, width=8, temporal_depth=1, spatial_depth=3),
    "three odd heads": Size(window=6, dim=15, heads=3, width=7, mlp_ratio=1, residual="double"),
}
DATES = (2, 1, 5)
CASES = [pytest.param(size, DATES, id=name) for name, size in SIZES.items()]
CASES += [pytest.param(Size(), lengths, id=f"dates {lengths}") for lengths in ((1,), (1, 1), (61,))]
"""Windows with fewer dates than the batch has, and batches without padding."""


def batch_of(size, lengths, *, attended=0):
    """A batch of windows with so many dates, each day of the year its own, and each window without padding."""
    generator = torch.Generator().manual_seed(sum(lengths) + size.window)
    longest = max(lengths)
    pixels = torch.zeros(len(lengths), longest, size.bands, size.window, size.window)
    days = torch.zeros(len(lengths), longest, dtype=torch.int64)
    seen = torch.zeros(len(lengths), 1, longest, dtype=torch.bool)
    alone = []
    for number, length in enumerate(lengths):
        pixels[number, :length] = torch.randn(length, *pixels.shape[2:], generator=generator)
        days[number, :length] = torch.randperm(365, generator=generator)[:length] + 1
        seen[number, :, :length] = True
        more = attended - length if attended else 0
        rows = torch.zeros(more, *pixels.shape[2:])
        alone.append((torch.cat([pixels[number, :length], rows]), F.pad(days[number, :length], (0, more))))
    padding = torch.tensor([attended - length for length in lengths]) if attended else None
    return Series(pixels=pixels, dates=days, seen=seen, padding=padding), alone


def close(found, expected):
    # Values of about 1 after up to five blocks in float32.
    torch.testing.assert_close(found, torch.stack(expected), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("size", "lengths"), CASES)
def test_the_segmenter_against_the_oracle(size, lengths):
    torch.manual_seed(1)
    oracle = stirred(DenseTsvit(size))
    config = SegmenterConfig(
        encoder=EncoderConfig(dates="day_of_year", mask_clouds=False, **size.encoder), layout="published"
    )
    model = Segmenter(config, bands=size.bands, classes=size.crops, window=size.window).eval()
    model.load_state_dict(from_published(model.state_dict(), oracle.state_dict()))
    # 64 dates with padding that is attended to, as published, which one token stands for.
    for attended in (0, 64):
        series, alone = batch_of(size, lengths, attended=attended)
        with torch.no_grad():
            expected = [oracle(*each) for each in alone]
            close(model(series), expected)
        close(model(series), expected)


@pytest.mark.parametrize(("size", "lengths"), CASES)
def test_the_classifier_against_the_oracle(size, lengths):
    torch.manual_seed(2)
    oracle = stirred(TagTsvit(size))
    config = ClassifierConfig(encoder=EncoderConfig(dates="day_of_year", mask_clouds=False, **size.encoder))
    model = TagClassifier(config, bands=size.bands, classes=size.crops, window=size.window).eval()
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("prototypes.")}
    model.load_state_dict(from_published(own, oracle.state_dict()), strict=False)
    series, alone = batch_of(size, lengths)
    with torch.no_grad():
        found = model(series)
    logits, temporal, spatial, attention = zip(*(oracle(*each) for each in alone), strict=True)
    close(found.logits, logits)
    close(found.temporal_map, temporal)
    close(found.spatial_map, spatial)
    close(found.attention, [F.pad(each, (0, series.dates.shape[1] - each.shape[1])) for each in attention])
