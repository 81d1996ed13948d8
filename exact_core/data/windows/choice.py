"""Some of many, the same ones each time: what is shown, sampled or compared is chosen evenly, not by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["evenly_chosen"]


def evenly_chosen(total: int, count: int) -> NDArray[np.int64]:
    """Positions among `total`, at most `count` of them, ascending and in even steps from the first to the last."""
    places: NDArray[np.float64] = np.linspace(0, total - 1, min(count, total))
    return places.round().astype(np.int64)
