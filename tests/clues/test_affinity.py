import pytest
import torch
from torch.nn import functional as F

from exact_core.clues.affinity import neighbour_affinity, propagate, refine, time_weights, weighted_embedding
from exact_core.config import AffinityConfig


def plain_affinity(embedding, config):
    """By loops over patches and neighbours."""
    maps, _, height, width = embedding.shape
    result = torch.zeros(maps, 8, height, width)
    steps = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]
    for m in range(maps):
        for row in range(height):
            for col in range(width):
                around = []
                for r, c in steps:
                    y = min(max(row + config.dilation * r, 0), height - 1)
                    x = min(max(col + config.dilation * c, 0), width - 1)
                    around.append(embedding[m, :, y, x])
                stack = torch.stack(around)
                spread = stack.std(0).mean()
                cosine = F.cosine_similarity(stack, embedding[m, :, row, col][None], dim=1)
                result[m, :, row, col] = (cosine / (spread + 1e-8) / config.temperature).softmax(0)
    return result


@pytest.mark.parametrize("dilation", [1, 2])
def test_against_plain_loops(dilation):
    torch.manual_seed(0)
    config = AffinityConfig(dilation=dilation)
    embedding = torch.randn(2, 5, 6, 4)
    affinity = neighbour_affinity(embedding, config)
    torch.testing.assert_close(affinity, plain_affinity(embedding, config), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(affinity.sum(1), torch.ones(2, 6, 4))


@pytest.mark.parametrize("dilation", [1, 2])
def test_gradients_are_those_of_finite_differences(dilation):
    config = AffinityConfig(dilation=dilation)
    embedding = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: neighbour_affinity(given, config), (embedding,))


def test_propagation_by_hand():
    """On a uniform field each patch becomes the mean of its 8 neighbours."""
    config = AffinityConfig(dilation=1, iterations=1)
    cam = torch.zeros(1, 5, 5)
    cam[0, 2, 2] = 8.0
    out = propagate(cam, torch.full((1, 8, 5, 5), 1 / 8), config)
    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = 1.0
    expected[2, 2] = 0.0
    torch.testing.assert_close(out[0], expected)


def test_two_fields_do_not_leak_into_each_other():
    """Left and right half differ in kind: a CAM of the left stays there."""
    config = AffinityConfig(dilation=1)
    embedding = torch.zeros(1, 2, 6, 8)
    embedding[:, 0, :, :4] = 1
    embedding[:, 1, :, 4:] = 1
    cam = torch.zeros(1, 6, 8)
    cam[:, :, :4] = torch.rand(6, 4)
    refined = refine(cam, embedding, config)
    assert refined[:, :, 4:].max() < 0.01
    assert refined[:, :, :4].mean() > 0.2


def test_a_constant_field_has_finite_gradients():
    embedding = torch.ones(1, 3, 4, 4, requires_grad=True)
    refine(torch.rand(1, 4, 4), embedding, AffinityConfig()).sum().backward()
    assert embedding.grad.isfinite().all()


def test_affinity_does_not_change_with_scale():
    embedding = torch.randn(1, 4, 5, 5)
    config = AffinityConfig()
    flipped = neighbour_affinity(embedding.flip(3), config).flip(3)
    order = [2, 1, 0, 4, 3, 7, 6, 5]
    torch.testing.assert_close(flipped[:, order], neighbour_affinity(embedding, config), atol=1e-5, rtol=1e-4)


def test_time_weights_by_hand():
    attention = torch.tensor([[[0.1, 0.3, 0.2, 0.2]]])
    torch.testing.assert_close(time_weights(attention, None)[0, 0], torch.tensor([0.125, 0.375, 0.25, 0.25]))
    seen = torch.tensor([[[True, False, True, False], [True, False, False, False]]])
    torch.testing.assert_close(time_weights(attention, seen)[0, 0], torch.tensor([1 / 3, 0, 2 / 3, 0]))
    twice = time_weights(attention, None, rule="double_softmax")[0, 0]
    torch.testing.assert_close(twice, attention[0, 0].softmax(0))


def test_weighted_embedding_leaves_cloudy_looks_out():
    tokens = torch.randn(1, 2, 3, 4)
    weights = torch.tensor([[[0.5, 0.3, 0.2]]])
    torch.testing.assert_close(
        weighted_embedding(tokens, weights, None)[0, 0, 1], (weights[0, 0, :, None] * tokens[0, 1]).sum(0)
    )
    seen = torch.tensor([[[True, True, True], [True, False, True]]])
    found = weighted_embedding(tokens, weights, seen)
    torch.testing.assert_close(found[0, 0, 1], (0.5 * tokens[0, 1, 0] + 0.2 * tokens[0, 1, 2]) / 0.7)
    assert weighted_embedding(tokens, weights, torch.zeros_like(seen)).abs().max() == 0
