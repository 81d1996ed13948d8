import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from exact_core.clues.prototypes import SharedBatch, prototype_clues, sample_assignment, sinkhorn
from exact_core.config import PrototypeConfig
from exact_core.models.classifier import Prototypes


def test_sinkhorn_by_hand():
    """Two rows that both prefer the first prototype: balance gives the keener one to it."""
    similarity = torch.tensor([[0.9, 0.1], [0.5, 0.4]])
    plan = sinkhorn(similarity, iterations=200)
    torch.testing.assert_close(plan.sum(1), torch.ones(2))
    torch.testing.assert_close(plan.sum(0), torch.ones(2), atol=1e-2, rtol=0)
    assert plan.argmax(1).tolist() == [0, 1]
    # One iteration from the definition, in float64.
    kernel = np.exp(similarity.double().numpy() / 0.05)
    kernel /= kernel.sum()
    kernel /= kernel.sum(0, keepdims=True) * 2
    kernel /= kernel.sum(1, keepdims=True) * 2
    np.testing.assert_allclose(sinkhorn(similarity, iterations=1), kernel * 2, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 10_000))
def test_sinkhorn_batched_and_masked_equals_one_by_one(rows, prototypes, seed):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(3, rows, prototypes, generator=generator) * 2 - 1
    mask = torch.rand(3, rows, generator=generator) < 0.7
    batched = sinkhorn(similarity, mask=mask)
    for k in range(3):
        alone = sinkhorn(similarity[k][mask[k]])
        torch.testing.assert_close(batched[k][mask[k]], alone, atol=1e-5, rtol=1e-4)
        assert batched[k][~mask[k]].abs().sum() == 0
    # The order of the rows does not matter.
    order = torch.randperm(rows, generator=generator)
    torch.testing.assert_close(sinkhorn(similarity[0][order]), sinkhorn(similarity[0])[order], atol=1e-5, rtol=1e-4)


def plain_pass(features, rows, weights, own, every, config):
    """One side by loops over classes, from the paper's equations; features (K, R, D) of unit length."""
    classes = len(own)
    losses, moved = [], own.clone()
    for k in range(classes):
        chosen = features[k][rows[k]]
        if not len(chosen):
            losses.append(torch.zeros(()))
            continue
        assigned = sinkhorn(chosen @ own[k].t()).argmax(1)
        logits = chosen @ F.normalize(every[0], dim=-1).flatten(0, 1).t() / config.temperature
        target = every[1] + k * own.shape[1] + assigned
        losses.append(F.cross_entropy(logits, target))
        for n in range(own.shape[1]):
            mine = assigned == n
            weight = weights[k][rows[k]][mine]
            if weight.sum() > 0:
                mean = F.normalize((weight[:, None] * chosen[mine]).sum(0), dim=0)
                moved[k, n] = config.momentum * own[k, n] + (1 - config.momentum) * mean
    return torch.stack(losses), F.normalize(moved, dim=-1)


@pytest.mark.parametrize("weights", ["cam", "published"])
def test_against_plain_loops(weights):
    torch.manual_seed(3)
    batch, classes, patches, dim = 3, 4, 9, 5
    config = PrototypeConfig(momentum=0.9, momentum_warmup=False, weights=weights)
    tokens = torch.randn(batch, classes, patches, dim, requires_grad=True)
    cams = torch.rand(batch, classes, patches)
    tags = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]])
    prototypes = Prototypes(classes, 2, dim)
    clues = prototype_clues(tokens, cams, tags, prototypes, config)

    features = F.normalize(tokens.detach().transpose(0, 1).flatten(1, 2), dim=-1)
    flat = cams.transpose(0, 1).flatten(1)
    tagged = tags.t()[:, :, None].expand(-1, -1, patches).flatten(1).bool()
    front = flat if weights == "cam" else flat**2
    back = 1 - flat if weights == "cam" else flat**2
    before = (prototypes.foreground, prototypes.background)
    losses, moved = plain_pass(features, tagged & (flat >= 0.4), front, before[0], (torch.cat(before), 0), config)
    torch.testing.assert_close(clues.foreground.loss_per_class, losses, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clues.foreground.prototypes, moved, atol=1e-5, rtol=1e-4)
    # Class 3 has no tag, so no foreground: it does not enter the mean.
    torch.testing.assert_close(clues.foreground.loss, losses[:3].mean(), atol=1e-5, rtol=1e-4)
    every = torch.cat([moved, before[1]])
    losses, moved = plain_pass(features, flat < 0.2, back, before[1], (every, classes * 2), config)
    torch.testing.assert_close(clues.background.loss_per_class, losses, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clues.background.prototypes, moved, atol=1e-5, rtol=1e-4)
    clues.loss.backward()
    assert tokens.grad.abs().sum() > 0


def test_rows_that_teach_nothing_are_as_if_they_were_not_there():
    """The last two of five patches left out of all classes: as a batch of the first three."""
    torch.manual_seed(6)
    tokens, cams, tags = torch.randn(2, 3, 5, 4), torch.rand(2, 3, 5), torch.tensor([[1, 1, 0], [0, 1, 1]])
    teaching = torch.tensor([True, True, True, False, False]).expand(2, 3, 5)
    prototypes, config = Prototypes(3, 2, 4), PrototypeConfig()
    clues = prototype_clues(tokens, cams, tags, prototypes, config, teaching_BKP=teaching)
    fewer = prototype_clues(tokens[:, :, :3], cams[:, :, :3], tags, prototypes, config)
    torch.testing.assert_close(clues.loss, fewer.loss)
    torch.testing.assert_close(clues.foreground.prototypes, fewer.foreground.prototypes)
    torch.testing.assert_close(clues.background.prototypes, fewer.background.prototypes)
    # A crop of which a window says nothing is learned from the other window alone, its background too.
    one = torch.ones(2, 3, 5, dtype=torch.bool)
    one[0, 2] = False
    silent = prototype_clues(tokens, cams, tags, prototypes, config, teaching_BKP=one)
    assert silent.background.pixels[2] == (cams[1, 2] < config.background).sum()


def test_forward_leaves_the_prototypes_alone_and_move_takes_them_over():
    torch.manual_seed(4)
    prototypes = Prototypes(2, 2, 4)
    before = prototypes.foreground.clone()
    tokens = torch.randn(1, 2, 6, 4)
    clues = prototype_clues(tokens, torch.ones(1, 2, 6), torch.ones(1, 2), prototypes, PrototypeConfig())
    assert torch.equal(prototypes.foreground, before)
    clues.move(prototypes)
    torch.testing.assert_close(prototypes.foreground.norm(dim=-1), torch.ones(2, 2))
    assert not torch.equal(prototypes.foreground, before)
    assert not list(prototypes.parameters())


def test_the_first_moves_are_a_running_mean():
    """With the warm-up the first batch replaces the random start, the second is averaged with it."""
    config = PrototypeConfig(per_class=1, momentum=0.999)
    prototypes = Prototypes(1, 1, 2)
    for direction, expected in (((1.0, 0.0), (1.0, 0.0)), ((0.0, 1.0), (0.5**0.5, 0.5**0.5))):
        tokens = torch.tensor(direction).expand(1, 1, 3, 2)
        prototype_clues(tokens, torch.ones(1, 1, 3), torch.ones(1, 1), prototypes, config).move(prototypes)
        torch.testing.assert_close(prototypes.foreground[0, 0], torch.tensor(expected))


def test_a_batch_without_tags_has_no_foreground_and_a_finite_loss():
    tokens = torch.randn(2, 3, 4, 5, requires_grad=True)
    prototypes = Prototypes(3, 2, 5)
    clues = prototype_clues(tokens, torch.ones(2, 3, 4), torch.zeros(2, 3), prototypes, PrototypeConfig())
    assert clues.loss.item() == 0
    torch.testing.assert_close(clues.foreground.prototypes, prototypes.foreground)
    clues.loss.backward()


def test_samples_come_with_the_probabilities_of_the_published_gumbel_softmax():
    """Softmax of the plan: a row sure of its prototype still goes elsewhere in 1 of 1 + e draws."""
    plan = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.8, 0.2]])
    generator = torch.Generator().manual_seed(0)
    draws = 40_000
    sampled = sample_assignment(plan.expand(draws, 3, 2), generator)
    frequency = sampled.float().mean(0)
    expected = torch.softmax(plan, -1)[:, 1]
    assert expected[0].item() == pytest.approx(1 / (1 + np.e))
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((frequency - expected).abs() < 4 * error).all()
    # Torch's own hard Gumbel-softmax, at the published temperature, as an oracle.
    torch.manual_seed(0)
    oracle = F.gumbel_softmax(plan.expand(draws, 3, 2), tau=0.5, hard=True)[..., 1].mean(0)
    assert ((frequency - oracle).abs() < 6 * error).all()


def test_sampled_assignments_repeat_and_move_prototypes_but_not_the_contrast():
    torch.manual_seed(6)
    tokens, cams, tags = torch.randn(3, 2, 30, 4), torch.rand(3, 2, 30), torch.ones(3, 2)
    prototypes = Prototypes(2, 2, 4)
    published = PrototypeConfig(assignment="gumbel")

    def run(config, draw):
        return prototype_clues(tokens, cams, tags, prototypes, config, draw=draw)

    plain, one, again, other = run(PrototypeConfig(), 1), run(published, 1), run(published, 1), run(published, 2)
    assert torch.equal(one.foreground.prototypes, again.foreground.prototypes)
    assert torch.equal(one.background.prototypes, again.background.prototypes)
    for different in (plain, other):
        assert not torch.equal(one.foreground.prototypes, different.foreground.prototypes)
    # The first pass reads no prototype that the sample has moved, so its contrast is that of the arg max.
    assert torch.equal(one.foreground.loss_per_class, plain.foreground.loss_per_class)
    assert torch.equal(one.foreground.assignment, plain.foreground.assignment)
    assert not torch.equal(one.background.loss_per_class, plain.background.loss_per_class)


@pytest.mark.parametrize("assignment", ["argmax", "gumbel"])
@pytest.mark.parametrize("sizes", [(2, 2, 1), (3, 2, 0)])
def test_the_parts_of_a_shared_batch_add_up_to_it(assignment, sizes):
    """Losses and gradients of the parts sum to the whole batch's; each part moves the prototypes as the whole does."""
    torch.manual_seed(7)
    config = PrototypeConfig(assignment=assignment)
    tokens, cams = torch.randn(5, 3, 16, 6, requires_grad=True), torch.rand(5, 3, 16)
    tags = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    prototypes = Prototypes(3, 2, 6)
    whole = prototype_clues(tokens, cams, tags, prototypes, config, draw=3)
    (gradient,) = torch.autograd.grad(whole.loss, tokens)
    features = F.normalize(tokens.detach(), dim=-1)
    loss, summed, start = 0.0, torch.zeros_like(gradient), 0
    for size in sizes:
        own = slice(start, start + size)
        # What the processes would have gathered, by the shape of what is asked for.
        joint = {features[own].shape[1:]: features, cams.shape[1:]: cams, tags.shape[1:]: tags}
        shared = SharedBatch(lambda rows, joint=joint: joint[rows.shape[1:]], start)
        part = prototype_clues(tokens[own], cams[own], tags[own], prototypes, config, shared=shared, draw=3)
        for side in ("foreground", "background"):
            assert torch.equal(getattr(part, side).prototypes, getattr(whole, side).prototypes)
            assert torch.equal(getattr(part, side).pixels, getattr(whole, side).pixels)
        loss += part.loss.detach()
        summed += torch.autograd.grad(part.loss, tokens)[0]
        start += size
    torch.testing.assert_close(loss, whole.loss.detach())
    torch.testing.assert_close(summed, gradient)
