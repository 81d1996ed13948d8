"""Tags that teach little, by hand."""

from __future__ import annotations

import numpy as np

from exact_core.data.windows.tag_support import tag_findings


def test_what_stands_out_by_hand() -> None:
    """Of 40 windows: a in 37 (92 %), b in 30, c in 25 that all have b too, d in 5."""
    tags = np.zeros((40, 4), np.uint8)
    tags[:37, 0], tags[:30, 1], tags[5:30, 2], tags[30:35, 3] = 1, 1, 1, 1
    few, always, together = tag_findings(tags, ("a", "b", "c", "d"))
    assert few.startswith("Fewer than 20 training windows are tagged with d (5). Add scenes where it grows")
    assert always.startswith("Nearly every window is tagged with a (92 %)")
    assert together.startswith("c is nearly always tagged together with b (25 of 25 windows)")


def test_tags_that_differ_say_nothing() -> None:
    rng = np.random.default_rng(0)
    assert tag_findings((rng.random((200, 3)) < 0.5).astype(np.uint8), ("a", "b", "c")) == []


def test_nine_tenths_are_not_yet_always() -> None:
    tags = np.zeros((200, 2), np.uint8)
    tags[:180, 0], tags[::2, 1] = 1, 1
    assert tag_findings(tags, ("a", "b")) == []
    tags[180, 0] = 1
    assert len(tag_findings(tags, ("a", "b"))) == 1
