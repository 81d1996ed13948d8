"""Whether tags are informative: a crop in nearly all windows, in few, or never without another cannot be identified.

Axes are N windows, K crop classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALWAYS", "FEW_WINDOWS", "findings_of_counts", "listed", "tag_findings"]

FEW_WINDOWS = 20
"""A crop tagged in fewer training windows is flagged."""
ALWAYS = 0.9
"""Largest share of windows, or of another crop's windows, that may have a crop's tag. Above it, tags do not identify
it."""


def tag_findings(tags: NDArray[np.integer], classes: Sequence[str]) -> list[str]:
    """What stands out in the tags (N, K) of training windows, a sentence or two each, with the way out."""
    wide = tags.astype(np.int64)
    return findings_of_counts(wide.sum(0), wide.T @ wide, len(wide), classes)


def findings_of_counts(
    counts: NDArray[np.int64], together: NDArray[np.int64], windows: int, classes: Sequence[str]
) -> list[str]:
    """The same from numbers of windows.

    Args:
        counts: training windows of each crop (K,).
        together: windows that have two crops each (K, K). Those of one crop on the diagonal.
        windows: how many there are.
        classes: names of the crops.
    """
    return [*_few(counts, classes), *_always(together, windows, classes)]


def _few(counts: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    scarce = [f"{classes[number]} ({counts[number]})" for number in np.flatnonzero(counts < FEW_WINDOWS).tolist()]
    if not scarce:
        return []
    many = len(scarce) > 1
    return [
        f"Fewer than {FEW_WINDOWS} training windows are tagged with {listed(scarce)}. Add scenes where "
        f"{'they grow' if many else 'it grows'}, give like crops one name in the class map, or leave "
        f"{'them' if many else 'it'} out as void."
    ]


def _always(together: NDArray[np.int64], windows: int, classes: Sequence[str]) -> list[str]:
    said = []
    own = together.diagonal()
    always = np.flatnonzero(own > ALWAYS * windows).tolist()
    if always:
        names = [f"{classes[number]} ({100 * own[number] / windows:.0f} %)" for number in always]
        said.append(
            f"Nearly every window is tagged with {listed(names)}: a tag that is always there teaches nothing. Cut "
            f"smaller windows (data.window), or add scenes without it."
        )
    for first, second in np.argwhere(together > ALWAYS * np.maximum(own[:, None], 1)).tolist():
        if first != second and second not in always and own[first] >= FEW_WINDOWS:
            said.append(
                f"{classes[first]} is nearly always tagged together with {classes[second]} "
                f"({together[first, second]} of {own[first]} windows), so tags can hardly separate the two. Cut "
                f"smaller windows, or add scenes where only one of them grows."
            )
    return said


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last
