"""Last in this folder: is there a recorded array that no test looked at?"""

import inspect
from importlib import import_module
from pathlib import Path

from tests.skipping import skip

UNREAD: dict[str, set[str]] = {}
"""Arrays by file that no test reads, each for a reason that stands beside it."""


def test_no_recorded_array_was_left_unread(recorded):
    wanted = {
        f"{path.name}:{name}"
        for path in Path(__file__).parent.glob("test_*.py")
        if path.name != Path(__file__).name
        for name, _ in inspect.getmembers(import_module(f"tests.parity.{path.stem}"), inspect.isfunction)
        if name.startswith("test_")
    }
    if missing := wanted - recorded.tests:
        skip(f"only a part of tests/parity ran, without {sorted(missing)[0]}; run the folder as a whole")
    assert recorded.unread() == UNREAD
