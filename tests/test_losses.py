import numpy as np
import pytest
import torch

from exact_core.data.windows.dataset import VOID
from exact_core.losses import affinity_loss, segmentation_loss, tag_loss


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
    sums = (
        sum(tag_loss(logits[part], tags[part], windows=3) for part in parts),
        sum(affinity_loss(cams[part], refined[part], maps=torch.tensor(3)) for part in parts),
        sum(segmentation_loss(pixels[part], target[part], pixels=known) for part in parts),
    )
    means = (tag_loss(logits, tags), affinity_loss(cams, refined), segmentation_loss(pixels, target))
    torch.testing.assert_close(torch.stack(sums), torch.stack(means))
