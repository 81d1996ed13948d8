"""The paired bootstrap: cases worked by hand, an oracle, and what must not change it."""

import numpy as np
import pytest

from exact_core.config import PromotionConfig
from exact_core.evaluation.paired_bootstrap import Comparison, UnitCounts, compare
from exact_core.metrics import Scores
from exact_core.stages.promote import decide

NAMES = ("wheat", "maize")


def units(*matrices, metric="miou"):
    return UnitCounts(metric, "scenes", np.array(matrices, np.int64))


def random_units(seed, count=12, quality=0.5):
    """Confusion matrices of scenes of which some are harder than others, for both models alike."""
    scenes, model = np.random.default_rng(7), np.random.default_rng(seed)
    found = []
    for hardness in scenes.uniform(0.2, 0.9, count):
        right = np.clip(quality + 0.3 * (1 - hardness) + model.normal(0, 0.02), 0, 1)
        found.append(1000 * (np.eye(3) * right + (1 - right) / 3))
    return units(*np.array(found).round())


def run(champion, challenger, **changes):
    return compare(champion, challenger, names=NAMES, config=PromotionConfig(**changes), seed=0)


def test_a_case_worked_by_hand():
    """Two equal scenes: whatever is drawn, the difference is the same."""
    before = [[8, 2, 0], [2, 8, 0], [0, 0, 10]]
    after = [[10, 0, 0], [0, 10, 0], [0, 0, 10]]
    found = run(units(before, before), units(after, after))
    # IoU 8/12, 8/12 and 1 against 1, 1 and 1.
    assert found.champion == pytest.approx((8 / 12 + 8 / 12 + 1) / 3)
    assert found.challenger == pytest.approx(1)
    assert found.low == pytest.approx(found.difference) == pytest.approx(found.high)
    assert found.per_class == {"background": pytest.approx(1 / 3), "wheat": pytest.approx(1 / 3), "maize": 0.0}


def test_tags_worked_by_hand():
    """F1 of a crop's presence: 2 both / (2 both + mapped alone + tagged alone)."""
    before = UnitCounts("tag_f1", "scenes", np.array([[[3, 1, 0], [0, 0, 2]]]))
    after = UnitCounts("tag_f1", "scenes", np.array([[[3, 0, 0], [1, 0, 1]]]))
    found = run(before, after)
    assert found.champion == pytest.approx((6 / 7 + 0) / 2)
    assert found.challenger == pytest.approx((1 + 2 / 3) / 2)
    assert set(found.per_class) == set(NAMES)


def test_the_interval_agrees_with_a_plain_bootstrap():
    champion, challenger = random_units(1), random_units(2, quality=0.52)
    found = run(champion, challenger, samples=4000)
    rng = np.random.default_rng(99)
    plain = []
    for _ in range(4000):
        chosen = rng.integers(0, 12, 12)
        pair = [Scores(model.counts[chosen].sum(0)).miou_macro for model in (champion, challenger)]
        plain.append(pair[1] - pair[0])
    low, high = np.quantile(plain, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.003)
    assert found.high == pytest.approx(high, abs=0.003)


def test_pairing_makes_the_interval_narrow():
    """What makes scenes hard for both models does not blur their difference."""
    champion, challenger = random_units(1), random_units(2, quality=0.52)
    paired = run(champion, challenger)
    shuffled = UnitCounts("miou", "scenes", challenger.counts[np.random.default_rng(3).permutation(12)])
    unpaired = run(champion, shuffled)
    assert paired.high - paired.low < unpaired.high - unpaired.low


def test_a_model_against_itself_and_the_order_of_units():
    champion, challenger = random_units(1), random_units(2)
    same = run(champion, champion)
    assert (same.low, same.difference, same.high) == (0, 0, 0)
    there, back = run(champion, challenger), run(challenger, champion)
    assert there.difference == pytest.approx(-back.difference)
    assert there.low == pytest.approx(-back.high)


def test_counts_of_other_units_are_refused():
    with pytest.raises(ValueError, match="not of the same units"):
        run(random_units(1, count=5), random_units(1, count=6))


def comparison(low, *, per_class=None):
    return Comparison("miou", "scenes", 12, 0.6, 0.65, low, 0.08, per_class or {"wheat": 0.05})


def test_the_gate():
    config = PromotionConfig()
    promoted, reason = decide(comparison(0.01), config)
    assert promoted
    assert "65.0 against 60.0: +5.0 points, 95% interval +1.0 to +8.0 over 12 scenes" in reason
    assert not decide(comparison(0.0), config)[0]
    assert not decide(comparison(-0.01), config)[0]
    assert decide(comparison(-0.01), PromotionConfig(minimum_gain=-0.02))[0]
    promoted, reason = decide(comparison(0.01, per_class={"wheat": 0.2, "maize": -0.15, "beet": None}), config)
    assert not promoted
    assert "maize loses 15.0 points" in reason
    assert decide(comparison(0.01, per_class={"maize": -0.15}), PromotionConfig(largest_class_loss=0.2))[0]
