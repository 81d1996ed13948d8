"""What to expect of a map: the lower of two estimates, each of which may be unknown."""

import pytest

from exact_core.mapping.expected import expected_quality, quality_words


@pytest.mark.parametrize(
    ("agreed", "pixels", "masks", "agreement", "expected"),
    [
        (80, 100, 0.9, 0.8, 0.8),
        (80, 100, 0.7, 0.8, 0.7),
        (0, 100, 0.7, 0.0, 0.0),
        (80, 100, None, 0.8, None),
        (None, 100, 0.7, None, None),
        (0, 0, 0.7, None, None),
    ],
)
def test_by_hand(agreed, pixels, masks, agreement, expected):
    found = expected_quality(agreed, pixels, masks=masks)
    assert (found.agreement, found.expected_oa) == (agreement, expected)


def test_in_words():
    said = quality_words(expected_quality(84, 100, masks=0.796).model_dump())
    assert said.startswith("expected OA: 80 %, an estimate without labels (")
    assert said.endswith(" agree on 84 % of the pixels)")
    # As of a map of an older version.
    assert quality_words({}) == "expected OA: unknown"
