"""One picture of all of a season's area, coarse, from the date that shows most of it.

Axes are C bands, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exact_core.data.season.images import SeasonImages, sample_places

__all__ = ["Overview", "overview"]

TRUE_COLOUR = ("B04", "B03", "B02")


@dataclass(frozen=True)
class Overview:
    """pixels: (C, H, W) as stored, 0 where not measured. bands: names of the C. step: pixels of the season in one."""

    pixels: NDArray[np.float32]
    bands: tuple[str, ...]
    date: str
    step: int


def overview(images: SeasonImages, *, longest: int) -> Overview:
    """Every n-th pixel of the date that shows most.

    Args:
        images: the season.
        longest: pixels of the longer side, at most.
    """
    step = images.grid.step(longest)
    coarse = images.grid.coarse(step)
    bands = TRUE_COLOUR if set(TRUE_COLOUR) <= set(images.bands) else images.bands[:3]
    best = max(range(len(images.shares)), key=lambda place: images.shares[place])
    date = images.acquisitions[best]
    pixels = np.zeros((len(bands), coarse.height, coarse.width), np.float32)
    for each in (date, *date.others):
        found = np.stack([sample_places(each.files[band], coarse) for band in bands]).astype(np.float32)
        missing = ~pixels.any(0) & (np.nan_to_num(found) != 0).all(0)
        pixels[:, missing] = found[:, missing]
    return Overview(pixels, bands, date.date.isoformat(), step)
