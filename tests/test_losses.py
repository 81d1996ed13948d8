import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from sklearn.utils.class_weight import compute_class_weight

from exact_core.data.windows.dataset import VOID
from exact_core.losses import affinity_loss, class_weights, segmentation_loss, tag_loss


def test_tag_loss_by_hand():
    logits = torch.tensor([[0.0, 2.0]])
    tags = torch.tensor([[1.0, 0.0]])
    expected = (-np.log(0.5) - np.log(1 - 1 / (1 + np.exp(-2)))) / 2
    assert tag_loss(logits, tags).item() == pytest.approx(expected, rel=1e-6)


def test_what_is_not_known_of_a_tag_adds_nothing():
    """By hand over the pairs that are known; the logits of the others get no gradient, and all known is the default."""
    torch.manual_seed(2)
    logits = torch.randn(3, 4, requires_grad=True)
    tags = torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    known = torch.tensor([[1.0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
    pairs = torch.nn.functional.binary_cross_entropy_with_logits(logits, tags, reduction="none")
    loss = tag_loss(logits, tags, known=known)
    assert loss.item() == pytest.approx((pairs * known).sum().item() / 12, rel=1e-6)
    loss.backward()
    assert torch.equal(logits.grad != 0, known > 0)
    assert torch.equal(tag_loss(logits, tags), tag_loss(logits, tags, known=torch.ones(3, 4)))


def test_affinity_loss_is_the_mean_over_tagged_maps_and_0_without_any():
    cams = torch.zeros(2, 2, 2)
    refined = cams.clone()
    refined[0, 0, 0] = 0.8
    assert affinity_loss(cams, refined).item() == pytest.approx(0.1)
    none = torch.zeros(0, 2, 2, requires_grad=True)
    loss = affinity_loss(none, none)
    assert loss.item() == 0
    loss.backward()


def test_segmentation_loss_leaves_void_out():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = torch.randint(0, 3, (2, 4, 4))
    target[0, :2] = VOID
    known = target != VOID
    by_hand = -logits.log_softmax(1).gather(1, target.clamp(max=2)[:, None])[:, 0][known].mean()
    loss = segmentation_loss(logits, target)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)
    loss.backward()
    assert logits.grad[0, :, :2].abs().max() == 0
    assert segmentation_loss(logits, torch.full_like(target, VOID)).item() == 0


def test_class_weights_by_hand():
    """Shares of 0.64 and 0.36 weigh 1 / 0.8 and 1 / 0.6, divided by their mean over pixels, 0.8 + 0.6."""
    found = class_weights(np.array([64, 0, 36]), balance=0.5)
    assert found.tolist() == pytest.approx([1 / 0.8 / 1.4, 1, 1 / 0.6 / 1.4], rel=1e-6)
    assert class_weights(np.zeros(3, np.int64), balance=0.5).tolist() == [1, 1, 1]


def test_class_weights_of_full_balance_are_those_of_scikit_learn():
    pixels = np.array([90, 7, 3])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.repeat(np.arange(3), pixels))
    assert class_weights(pixels, balance=1).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8).filter(any), st.floats(0, 1), st.integers(2, 9))
def test_class_weights_follow_shares_alone_and_are_1_in_the_mean(pixels, balance, times):
    counts = np.array(pixels)
    found = class_weights(counts, balance=balance).double().numpy()
    assert (found * counts).sum() == pytest.approx(counts.sum(), rel=1e-5)
    assert class_weights(counts * times, balance=balance).tolist() == pytest.approx(found.tolist(), rel=1e-5)
    assert class_weights(counts[::-1], balance=balance).tolist() == pytest.approx(found[::-1].tolist(), rel=1e-5)
    # A rarer crop never weighs less; without balance all weigh the same.
    present = found[counts > 0][np.argsort(counts[counts > 0])]
    assert (np.diff(present) <= 1e-6 * present[1:]).all()
    assert class_weights(counts, balance=0).tolist() == [1] * len(counts)


def test_a_weight_counts_a_pixel_as_often_and_leaves_void_out():
    """A weight of 3 is the same as two more such pixels; the divisor stays that of the pixels that are there."""
    torch.manual_seed(3)
    logits = torch.randn(1, 3, 2, 3, dtype=torch.float64).float()
    target = torch.tensor([[[0, 1, 2], [VOID, 1, 0]]])
    by_hand = -logits.double().log_softmax(1).gather(1, target.clamp(max=2)[:, None])[0, 0]
    expected = (3 * by_hand[target[0] == 1].sum() + by_hand[target[0] == 0].sum() + by_hand[target[0] == 2].sum()) / 5
    found = segmentation_loss(logits, target, weights_K=torch.tensor([1.0, 3.0, 1.0]))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    equal = segmentation_loss(logits, target, weights_K=torch.ones(3))
    torch.testing.assert_close(equal, segmentation_loss(logits, target))


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_parts_of_a_batch_divided_by_its_counts_add_up_to_its_mean(cut):
    """Also where a part is empty."""
    torch.manual_seed(1)
    logits, tags = torch.randn(3, 4), torch.randint(0, 2, (3, 4)).float()
    cams, refined = torch.rand(3, 5, 5), torch.rand(3, 5, 5)
    pixels, target = torch.randn(3, 2, 4, 4), torch.randint(0, 2, (3, 4, 4))
    target[0, 0] = VOID
    parts = (slice(0, cut), slice(cut, 3))
    known = (target != VOID).sum()
    weights = torch.tensor([0.5, 2.0])
    sums = (
        sum(tag_loss(logits[part], tags[part], windows=3) for part in parts),
        sum(affinity_loss(cams[part], refined[part], maps=torch.tensor(3)) for part in parts),
        sum(segmentation_loss(pixels[part], target[part], pixels=known) for part in parts),
        sum(segmentation_loss(pixels[part], target[part], pixels=known, weights_K=weights) for part in parts),
    )
    means = (
        tag_loss(logits, tags),
        affinity_loss(cams, refined),
        segmentation_loss(pixels, target),
        segmentation_loss(pixels, target, weights_K=weights),
    )
    torch.testing.assert_close(torch.stack(sums), torch.stack(means))
