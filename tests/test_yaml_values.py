"""Values as people write them: the cases by hand, by the core schema of YAML 1.2."""

import datetime as dt
import math

import pytest

from exact_core.yaml_values import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-7", -7),
        ("1_000", 1000),
        ("0x10", 16),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("NO", "NO"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("true", True),
        ("~", None),
        ("", None),
        ("2018-10-01", dt.date(2018, 10, 1)),
        ("[007, 1e3, x, 'y: z']", [7, 1000.0, "x", "y: z"]),
        ("{a: 08}", {"a": 8}),
        ("'010'", "010"),
    ],
)
def test_by_hand(text, value):
    assert read_yaml(text) == value
    assert type(read_yaml(text)) is type(value)
