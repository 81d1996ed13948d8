import numpy as np
import pytest
import torch

from exact_core.clues.quality import QualitySigns, every_other_date, expected_miou, shares_shown, tag_agreement
from exact_core.data.batches import Series


def test_every_other_date_parts_the_series():
    pixels = torch.arange(5.0).view(1, 5, 1, 1, 1).expand(2, 5, 3, 4, 4)
    dates = torch.arange(5).expand(2, 5)
    seen = torch.rand(2, 4, 5) > 0.5
    halves = [every_other_date(Series(pixels, dates, seen), first) for first in (0, 1)]
    assert [half.dates[0].tolist() for half in halves] == [[0, 2, 4], [1, 3]]
    assert halves[0].pixels[0, :, 0, 0, 0].tolist() == [0, 2, 4]
    torch.testing.assert_close(halves[1].seen, seen[..., [1, 3]])
    assert every_other_date(Series(pixels, dates, None), 1).seen is None


def test_tag_agreement_by_hand():
    """Of two tagged crops one covers 3 of 16 pixels and the other 1; an untagged one never counts."""
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, 0, :3], mask[0, 1, 0], mask[0, 2] = 1, 2, 3
    tags = np.array([[1, 1, 0, 1]], np.float32)
    assert tag_agreement(mask, tags, share=0.1).tolist() == [[True, False, False, False]]
    assert tag_agreement(mask, tags, share=0.05).tolist() == [[True, True, False, False]]


def test_better_signs_promise_better_masks():
    low, high = QualitySigns(0.4, 0.85), QualitySigns(0.9, 0.98)
    assert 0 <= expected_miou(low) < expected_miou(high) <= 1
    for name in ("stability", "tag_agreement"):
        better = QualitySigns(**{**vars(low), name: getattr(high, name)})
        assert expected_miou(better) > expected_miou(low), name
    assert expected_miou(QualitySigns(0.0, 0.0)) == 0
    assert 0.9 < expected_miou(QualitySigns(1.0, 1.0)) <= 1


def test_the_expectation_by_hand():
    """Stability 0.64 and tag agreement 0.99, as on a generated season whose masks scored 0.89."""
    assert expected_miou(QualitySigns(0.64, 0.99)) == pytest.approx(0.972 - 0.36 * 0.159 - 0.01 * 2.767)


def test_lost_crops_count_as_nothing():
    """Of three crops and background, one is lost: a quarter of what was to be expected is gone."""
    signs = QualitySigns(0.9, 1.0)
    assert expected_miou(signs, lost=1 / 4) == pytest.approx(0.75 * expected_miou(signs))


def test_shares_shown_by_hand():
    tags = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], np.uint8)
    shown = np.array([[True, False, True], [True, False, False], [False, False, False]])
    assert shares_shown(shown, tags) == [pytest.approx(2 / 3), 0.0, None]
