"""The parts of a map."""

import pytest

from exact_core.errors import ConfigError
from exact_core.stages.plan_map import check_parts, plan_map


def test_parts_worked_by_hand():
    assert plan_map(3) == ["1/3", "2/3", "3/3"]
    assert len(plan_map(16)) == 16
    assert plan_map(1) == [""]


def test_as_many_as_fit():
    check_parts(1, 6)
    check_parts(6, 6)


@pytest.mark.parametrize("parts", [0, -1, 7, 1000, 1.5])
def test_no_such_number(parts):
    with pytest.raises(ConfigError, match=f"map_parts = {parts}: expected 1 to 6.*cell by cell"):
        check_parts(parts, 6)
