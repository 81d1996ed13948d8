import numpy as np
import pytest

from exact_core.clues.quality import Committee, judge, shares_shown, tag_agreement
from exact_core.data.windows.dataset import VOID
from exact_core.data.windows.mask_dataset import MaskQuality


def test_tag_agreement_by_hand():
    """Of two tagged crops one covers 3 of 16 pixels and the other 1; an untagged one never counts."""
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, 0, :3], mask[0, 1, 0], mask[0, 2] = 1, 2, 3
    tags = np.array([[1, 1, 0, 1]], np.float32)
    assert tag_agreement(mask, tags, share=0.1).tolist() == [[True, False, False, False]]
    assert tag_agreement(mask, tags, share=0.05).tolist() == [[True, True, False, False]]


def test_shares_shown_by_hand():
    tags = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], np.uint8)
    shown = np.array([[True, False, True], [True, False, False], [False, False, False]])
    assert shares_shown(shown, tags) == [pytest.approx(2 / 3), 0.0, None]


def labelled(*members):
    committee = Committee(3)
    committee.look([np.array(each, np.uint8) for each in members])
    return committee


def test_agreement_by_hand():
    """Of four known pixels two members agree on three, and each with the third one on two. None knows the last."""
    committee = labelled([[0, 1, 1, 2, VOID]], [[0, 1, 1, 1, VOID]], [[0, 1, 0, 0, VOID]])
    assert committee.oa == pytest.approx((3 / 4 + 2 / 4 + 2 / 4) / 3)
    background, first, second = (1 + 1 / 3 + 1 / 3) / 3, (2 / 3 + 1 / 2 + 1 / 3) / 3, 0
    expected = [background, first, second, np.nan]
    np.testing.assert_allclose(committee.iou(np.array([True, True, True, False])), expected)
    # A crop with a tag that nobody sees counts for nothing.
    np.testing.assert_allclose(committee.iou(np.ones(4, bool)), [*expected[:3], 0])


def test_windows_add_up_and_the_order_of_members_changes_nothing():
    rng = np.random.default_rng(0)
    members = rng.integers(0, 4, (3, 6, 20), dtype=np.uint8)
    together, apart, other = Committee(3), Committee(3), Committee(3)
    together.look(list(members))
    other.look(list(members[[2, 0, 1]]))
    for part in (members[:, :2], members[:, 2:]):
        apart.look(list(part))
    for each in (apart, other):
        assert each.oa == pytest.approx(together.oa)
        np.testing.assert_allclose(each.iou(np.ones(4, bool)), together.iou(np.ones(4, bool)))
    same = Committee(3)
    same.look([members[0]] * 3)
    assert same.oa == 1
    assert same.iou(np.ones(4, bool)).tolist() == [1] * 4


def test_members_that_err_apart():
    """Each of three is wrong about another tenth of the pixels: two of them agree on 80 %."""
    truth = np.arange(1000).reshape(10, 100) % 4
    members = [np.where(np.arange(10)[:, None] == wrong, (truth + 1 + wrong) % 4, truth) for wrong in range(3)]
    assert labelled(*members).oa == pytest.approx(0.8)


def judged(committee, **changes):
    given = {"names": ("a", "b", "c"), "tagged": [40, 5, 0], "border_contrast": np.nan, "relearn_agreement": 0.9}
    return judge(committee, **given, found=[0.9, 0.5, None], shown=[1.0, 0.4, None], **changes)


def test_what_is_said_of_masks():
    quality = judged(labelled([[0, 1, 1, 2]], [[0, 1, 1, 1]]))
    assert quality.expected_oa == 0.75
    assert quality.expected_by_class == {"background": 1, "a": pytest.approx(2 / 3), "b": 0, "c": None}
    assert quality.expected_miou == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert quality.expected_low == pytest.approx(quality.expected_miou - 0.15)
    assert quality.expected_high == pytest.approx(quality.expected_miou + 0.25)
    assert (quality.lost, quality.rare) == (("b",), ("b",))
    assert quality.tag_agreement == pytest.approx(0.7)
    assert quality.border_contrast is None


def test_of_masks_by_cams_alone_nothing_is_expected():
    quality = judged(None)
    assert quality.expected_oa is quality.expected_miou is quality.expected_low is quality.expected_high is None
    assert quality.expected_by_class == {}
    assert quality.lost == ("b",)


def test_what_earlier_versions_said_of_masks_is_read_as_far_as_it_is_still_said():
    said = judged(None).model_dump() | {"stability": 0.6, "expected_known": True, "expected_miou": 0.5}
    assert MaskQuality.model_validate(said) == judged(None).model_copy(update={"expected_miou": 0.5})
