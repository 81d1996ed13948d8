import numpy as np
import pytest

from exact_core.data.windows.choice import evenly_chosen


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [
        (10, 4, [0, 3, 6, 9]),
        (7, 3, [0, 3, 6]),
        (6, 4, [0, 2, 3, 5]),
        (4, 9, [0, 1, 2, 3]),
        (5, 1, [0]),
        (5, 0, []),
        (0, 3, []),
    ],
)
def test_by_hand(total, count, expected):
    assert evenly_chosen(total, count).tolist() == expected


def test_none_is_chosen_twice_and_steps_differ_by_one_at_most():
    for total in range(1, 60):
        for count in range(2, total + 5):
            places = evenly_chosen(total, count)
            assert len(places) == min(count, total)
            assert places[0] == 0
            assert places[-1] == total - 1 or total == 1
            steps = np.diff(places)
            assert total == 1 or (steps.min() >= 1 and steps.max() - steps.min() <= 1)
