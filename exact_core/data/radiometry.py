"""What a Sentinel-2 pixel is worth: whether it shows the ground.

Axes: H W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exact_core.data.dataset import CLEAR_PATCH

__all__ = ["CLEAR_SCL", "clear_from_scl"]

CLEAR_SCL = (4, 5, 6, 7, 11)
"""Classes of the scene classification that show the ground: vegetation, bare soil, water, unclassified, snow."""


def clear_from_scl(scl: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where the scene classification of Sentinel-2 L2A sees the ground, at 2x2 patches.

    A patch is clear only if all its pixels are: one cloudy pixel spoils the patch's spectrum. No data (0), saturated
    (1), dark or cast shadow (2), cloud shadow (3), clouds (8, 9) and cirrus (10) are not clear.

    Args:
        scl: classes (H, W) on the grid of the image, H and W even.

    Returns:
        uint8 (H/2, W/2), 1 where clear.
    """
    height, width = scl.shape
    if height % CLEAR_PATCH or width % CLEAR_PATCH:
        raise ValueError(f"scl has shape {scl.shape}; expected multiples of {CLEAR_PATCH}")
    shows_ground = np.isin(scl, CLEAR_SCL)
    patches = shows_ground.reshape(height // CLEAR_PATCH, CLEAR_PATCH, width // CLEAR_PATCH, CLEAR_PATCH)
    clear: NDArray[np.uint8] = np.all(patches, axis=(1, 3)).astype(np.uint8)
    return clear
