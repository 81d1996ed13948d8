import numpy as np
import pytest
import torch

from exact_core.clues.quality import (
    ClassSigns,
    can_tell,
    every_other_date,
    expected_miou,
    real_miou,
    shares_shown,
    tag_agreement,
)
from exact_core.data.windows.batches import Series


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


BACKGROUND = ClassSigns(stability=0.6)


@pytest.mark.parametrize("agreement", [0.9, None], ids=["after pixel self-training", "from the CAMs"])
def test_better_signs_promise_better_masks(agreement):
    def expected(**changes):
        crop = ClassSigns(**{"stability": 0.5, "found": 0.8, "shown": 0.8, "windows": 20} | changes)
        return expected_miou([BACKGROUND, crop], agreement)

    counting = ("shown", "windows") if agreement else ("found", "stability", "windows")
    for name in counting:
        assert 0 < expected() < expected(**{name: 26 if name == "windows" else 0.9}) < 1, name
    assert expected_miou([ClassSigns(0.0, 0.0, 0.0, 100)] * 3, agreement and 0.2) == 0
    assert 0.95 < expected_miou([ClassSigns(1.0), ClassSigns(1.0)], agreement and 1.0) <= 1


def test_pixels_that_kept_their_label_promise_better_masks():
    assert expected_miou([BACKGROUND], 0.8) < expected_miou([BACKGROUND], 0.9)


def test_the_expectation_by_hand():
    """Background and three crops: one always shown, one in half of its windows, one rare; 9 of 10 pixels kept."""
    crops = [ClassSigns(0.7, 1.0, 1.0, 100), ClassSigns(0.7, 1.0, 0.5, 100), ClassSigns(0.7, 1.0, 1.0, 13)]
    sure = 0.974 - 0.785 * 0.1
    by_hand = (sure + sure + (sure - 1.025 * 0.5) + 0.5 * sure) / 4
    assert expected_miou([BACKGROUND, *crops], 0.9) == pytest.approx(by_hand)
    found = [ClassSigns(0.7, 0.9, 1.0, 100)]
    assert expected_miou([BACKGROUND, *found], None) == pytest.approx(
        ((1.007 - 0.687 * 0.4) + (1.007 - 0.610 * 0.1 - 0.687 * 0.3)) / 2
    )


def test_crops_that_tags_never_name_promise_nothing_and_cost_nothing():
    """The mean goes over background and the crops that are there: a copy of a class changes nothing."""
    crop = ClassSigns(0.7, 1.0, 0.8, 40)
    assert expected_miou([crop], 0.9) == pytest.approx(expected_miou([crop, crop], 0.9))


def test_shares_shown_by_hand():
    tags = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], np.uint8)
    shown = np.array([[True, False, True], [True, False, False], [False, False, False]])
    assert shares_shown(shown, tags) == [pytest.approx(2 / 3), 0.0, None]


REAL_SCENES = [
    (0.76, 0.78, 0.731),
    (0.75, 0.64, 0.613),
    (0.32, 0.62, 0.173),
    (0.69, 0.87, 0.570),
    (0.31, 0.48, 0.301),
    (0.37, 0.50, 0.218),
    (0.644, 0.665, 0.528),
]
"""Stability, what generated seasons promise, and the score of the masks, of the mask sets of real land in view."""


def test_real_land_is_expected_by_its_stability():
    """Against a plain least-squares fit of the seven; never 15 points too high, and not above what is promised."""
    stability, promised, score = np.array(REAL_SCENES).T
    slope, constant = np.polyfit(stability, score, 1)
    for steady, high in zip(stability, promised, strict=True):
        assert real_miou(high, steady) == pytest.approx(min(high, constant + slope * steady), abs=2e-3)
    errors = np.array([real_miou(high, steady) for steady, high in zip(stability, promised, strict=True)]) - score
    assert np.sqrt(np.mean(errors**2)) < 0.08
    assert errors.max() < 0.15
    assert real_miou(0.9, float("nan")) == 0
    assert real_miou(0.3, 1.0) == 0.3
    # Beyond the scenes in view: nothing better than the best of them, and no promise below the worst.
    assert real_miou(0.99, 0.9) == real_miou(0.99, stability.max()) < 0.67
    assert [can_tell(each) for each in (*stability, 0.3, 0.0, 1.0, float("nan"))] == [True] * 7 + [
        False,
        False,
        True,
        False,
    ]
