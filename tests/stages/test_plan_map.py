"""The parts of a map."""

import pytest

from exact_core.errors import ConfigError
from exact_core.stages.plan_map import plan_map


def test_parts_worked_by_hand():
    assert plan_map(source="season:/data/x", parts=3) == ["1/3", "2/3", "3/3"]
    assert len(plan_map(source="season:/data/x", parts=16)) == 16
    assert plan_map(source="season:/data/x", parts=1) == ["1/1"]
    assert plan_map(source="synthetic", parts=3) == ["1/1"]


@pytest.mark.parametrize("parts", [0, -1, 17, 1000])
def test_no_such_number(parts):
    with pytest.raises(ConfigError, match=f"map_parts = {parts}: expected 1 to 16.*cell by cell"):
        plan_map(source="season:/data/x", parts=parts)


def test_no_such_source():
    with pytest.raises(ConfigError, match="expected synthetic"):
        plan_map(source="nothing:x", parts=1)
