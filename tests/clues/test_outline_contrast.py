"""Which outlines the images show: by a field's own pairs of neighbours, and by those of the other fields."""

import numpy as np
import pytest

from exact_core.clues.outline_contrast import OutlineContrast, random_effects


def told(inside, across, *, share=None, shift=0.0, scale=1.0):
    """Of each field, its values inside and across. Across are pairs with a pixel of no field."""
    found = OutlineContrast(len(inside))
    for field, (own, other) in enumerate(zip(inside, across, strict=True)):
        for values, neighbour in ((own, field), (other, -1)):
            given = scale * np.array(values, float) + shift
            pairs = np.full(len(given), field), np.full(len(given), neighbour)
            found.add(*pairs, given, share=np.ones(len(given)) if share is None else np.full(len(given), share))
    return found


def test_the_mean_and_variance_of_random_effects_by_hand():
    # Equal errors: the variance of the values, less that of the errors.
    assert random_effects(np.array([1.0, 3.0, 5.0]), np.ones(3)) == (3.0, pytest.approx(4 - 1))
    # Weights 1/2 and 1/4, mean 1, statistic 1.5, so between 0.5 / (1/3); then weights 1/3.5 and 1/5.5.
    assert random_effects(np.array([0.0, 3.0]), np.array([2.0, 4.0])) == (pytest.approx(7 / 6), pytest.approx(1.5))
    # No more apart than the errors explain: one value, the mean weighed by the errors.
    assert random_effects(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == (pytest.approx(1 / 3), 0.0)
    assert random_effects(np.array([7.0]), np.array([2.0])) == (7.0, 0.0)
    # Without any error every value counts the same.
    assert random_effects(np.array([1.0, 5.0]), np.zeros(2)) == (pytest.approx(3), pytest.approx(8))


@pytest.mark.parametrize("seed", range(5))
def test_as_by_the_equations_of_dersimonian_and_laird(seed):
    """Written out value by value."""
    rng = np.random.default_rng(seed)
    values, errors = rng.normal(size=9), rng.uniform(0.1, 2, 9)
    sums = [sum(error**-power for error in errors) for power in (1, 2)]
    fixed = sum(value / error for value, error in zip(values, errors, strict=True)) / sums[0]
    statistic = sum((value - fixed) ** 2 / error for value, error in zip(values, errors, strict=True))
    between = max(0, (statistic - 8) / (sums[0] - sums[1] / sums[0]))
    weights = [1 / (error + between) for error in errors]
    mean = sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
    assert random_effects(values, errors) == (pytest.approx(mean), pytest.approx(between))


def test_what_a_field_shows_for_certain_counts_for_itself():
    rng = np.random.default_rng(0)
    inside = [rng.normal(0, 1, 4000) for _ in range(4)]
    across = [rng.normal(mean, 1, 4000) for mean in (0.5, 0.6, 0.4, -0.3)]
    assert told(inside, across).shown().tolist() == [True, True, True, False]


@pytest.mark.parametrize(("good", "expected"), [(True, True), (False, False)])
def test_few_pairs_are_judged_by_the_other_fields(good, expected):
    """The last two fields have three pairs against their outline, and none at all."""
    rng = np.random.default_rng(1)
    sign = 1 if good else -1
    inside = [rng.normal(0, 1, 4000) for _ in range(5)] + [[0.3, 0.1, 0.2], []]
    across = [rng.normal(sign * mean, 1, 4000) for mean in (0.5, 0.6, 0.4, 0.5, 0.6)] + [[0.0, 0.1, 0.1], []]
    assert told(inside, across).shown().tolist() == [expected] * 7


@pytest.mark.parametrize("seed", range(3))
def test_units_order_and_how_often_pairs_are_seen_change_nothing(seed):
    rng = np.random.default_rng(seed)
    inside = [rng.normal(0, 1, rng.integers(3, 40)) for _ in range(12)]
    across = [rng.normal(rng.normal(0, 0.5), 1, rng.integers(3, 40)) for _ in range(12)]
    expected = told(inside, across).shown().tolist()
    assert 0 < sum(expected) < 12
    assert told(inside, across, shift=3.0, scale=0.1).shown().tolist() == expected
    assert told(inside[::-1], across[::-1]).shown().tolist() == expected[::-1]
    twice = [[*each, *each] for each in inside], [[*each, *each] for each in across]
    assert told(*twice, share=0.5).shown().tolist() == expected


def test_where_nothing_is_known_all_are_believed():
    assert told([[1.0], []], [[], [2.0]]).shown().tolist() == [True, True]
    assert told([], []).shown().tolist() == []


def test_a_pair_of_two_fields_is_across_both():
    found = OutlineContrast(2)
    zero, one = np.zeros(4, int), np.ones(4, int)
    for fields, others, value in ((zero, zero, 1.0), (one, one, 3.0), (zero, one, 2.0)):
        found.add(fields, others, value + 0.01 * np.arange(4), share=np.ones(4))
    # More across than inside the first, less than inside the second.
    assert found.shown().tolist() == [True, False]


def test_one_uncertain_field_does_not_decide_for_the_others():
    clear = [[]] * 9, [[2.0, 3.0]] * 9
    assert told([[0.1], *clear[0]], [[0.0], *clear[1]]).shown().all()
    # Two known fields, whose mean is against their outlines, but by less than its error.
    inside, across = [[0.5, -0.9, 1.0], [0.3, 1.0, -0.7]], [[0.4, 0.9, -1.0], [-0.6, 0.0, 0.9]]
    assert told([*inside, []], [*across, [1.0]]).shown()[-1]
