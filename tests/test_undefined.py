"""Numbers that are not defined never leave: KFP's launcher and RFC 8259 refuse them."""

import json
import math

import numpy as np
import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given, strategies as st

from exact_core.undefined import defined, to_json


def test_by_hand():
    metrics = {"a": 1.0, "b": math.nan, "c": math.inf, "d": -math.inf, "e": None, "f": 0.0, "g": np.float64("nan")}
    assert defined(metrics) == {"a": 1.0, "f": 0.0}
    content = {"rows": [{"iou": math.nan, "pixels": 3}, (math.inf, "x", True, None)], "g": np.float64(0.5)}
    assert json.loads(to_json(content)) == {"rows": [{"iou": None, "pixels": 3}, [None, "x", True, None]], "g": 0.5}


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_protobuf_reads_whatever_is_written(content):
    """protojson, of which this is Google's own in Python, reads what KFP's launcher (in Go) must read."""
    text = to_json({"content": content})
    json_format.Parse(text, struct_pb2.Struct())
    json.loads(text, parse_constant=pytest.fail)
