import math

import pytest
import torch

from exact_core.config import EncoderConfig, SegmenterConfig
from exact_core.data.windows.batches import Series
from exact_core.models.probabilities import class_probabilities
from exact_core.models.segmenter import Segmenter
from exact_core.models.tsvit import TemporalTokens

WINDOW, PATCH = 24, 2


def own_pixels(layout):
    """How many pixels of a window are an output of the patch they lie in: the head alone, with numbered outputs."""
    config = SegmenterConfig(encoder=EncoderConfig(patch=PATCH, dim=4, heads=1, head_dim=4), layout=layout)
    model = Segmenter(config, bands=1, classes=1, window=WINDOW)
    side = WINDOW // PATCH
    numbered = torch.arange(side**2, dtype=torch.float32)[None, None, :, None].expand(1, 2, -1, PATCH**2)
    tokens = TemporalTokens(torch.zeros(1, side**2, 2, 4), None, None, None)
    model.temporal.forward = lambda *_series, **_options: tokens
    model.spatial.forward = lambda *_tokens: torch.zeros(1, 2, side**2, 4)
    model.head.forward = lambda *_tokens: numbered
    image = model(Series(torch.zeros(1, 1, 1, WINDOW, WINDOW), torch.zeros(1, 1, dtype=torch.long), None))[0, 0]
    row, col = torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")
    return image, int((image == row // PATCH * side + col // PATCH).sum())


def test_a_patchs_outputs_are_its_own_pixels():
    assert own_pixels("patch")[1] == WINDOW**2


def test_the_published_layout_reads_one_long_list_row_by_row():
    image, own = own_pixels("published")
    # The list holds each patch PATCH ** 2 times; its first row is the patches 0..5 of the first row of patches.
    torch.testing.assert_close(image[0], torch.arange(6.0).repeat_interleave(PATCH**2))
    assert image.flatten().diff().min() >= 0
    assert own == 48


@pytest.mark.parametrize("layout", ["patch", "published"])
def test_no_output_is_lost(layout):
    image, _ = own_pixels(layout)
    assert torch.bincount(image.flatten().long()).tolist() == [PATCH**2] * (WINDOW // PATCH) ** 2


def test_probabilities_worked_by_hand():
    logits = torch.tensor([[0.0, 100.0], [math.log(3.0), 100.0]]).view(1, 2, 1, 2)
    expected = torch.tensor([[0.25, 0.5], [0.75, 0.5]]).view(1, 2, 1, 2)
    torch.testing.assert_close(class_probabilities(logits), expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(class_probabilities(logits + 1000), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [6, 10, 12, 24])
@pytest.mark.parametrize("classes", [3, 7])
def test_probabilities_of_a_window_do_not_depend_on_the_batch(side, classes, of_threads):
    """On threads that share a batch at the same pixel torch's softmax differs in the last bit."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(37, classes, side, side)
    of_threads(2)
    whole = class_probabilities(logits)
    parts = torch.cat([class_probabilities(each) for each in logits.split(1)])
    assert torch.equal(whole, parts)
    torch.testing.assert_close(whole, logits.double().softmax(1).float(), atol=1e-6, rtol=1e-5)
