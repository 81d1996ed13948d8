"""Where an acquisition shows the ground, by the mask of clouds that came with it.

    SCL         scene classification of ESA's L2A: classes, of which `data.season.clear_classes` show the ground
    CLM, MG2    MAJA's masks (Theia): bits. Each of CLM is a kind of cloud or of its shadow. Of MG2, 2 is any cloud and
                8 a shadow of one (CESBIO's description of the format)
    FMASK       Fmask of HLS 2.0: bits 2 cloud, 4 beside a cloud or shadow, 8 shadow of a cloud (its user guide)

Axes are H W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exact_core.config import SeasonConfig
from exact_core.data.season.files import SCL, Acquisition, cloud_mask
from exact_core.data.season.rasters import Grid, fit_to_grid, read_raster
from exact_core.data.windows.clear_looks import ground_between
from exact_core.errors import DataError

__all__ = ["cloud_reach", "hidden_places", "read_ground"]

HIDING = {"CLM": 0xFF, "MG2": 2 | 8, "FMASK": 2 | 4 | 8}
"""Bits of a mask that say that the ground is hidden."""


def hidden_places(name: str, values: NDArray[Any], settings: SeasonConfig) -> NDArray[np.bool_]:
    """Where values of a mask (H, W), uint8, do not show the ground."""
    if name != SCL:
        return np.asarray((values & np.uint8(HIDING[name])) != 0)
    # One class at a time: they are few, and numpy's isin takes a fifth of all reading.
    hidden = np.ones(values.shape, np.bool_)
    for each in settings.clear_classes:
        hidden &= values != each
    return hidden


def cloud_reach(settings: SeasonConfig) -> int:
    """Pixels by which a cloud may affect its surroundings."""
    return 2 * settings.cloud_erosion + settings.cloud_dilation


def read_ground(
    acquisition: Acquisition, grid: Grid, first: int, last: int, settings: SeasonConfig
) -> NDArray[np.bool_]:
    """Where the mask of clouds shows the ground (h, W). Everywhere if there is none.

    Raises:
        DataError: values that are no mask's.
    """
    mask = cloud_mask(acquisition.files)
    if mask is None:
        return np.ones((last - first, grid.width), np.bool_)
    name, path = mask
    # What clouds beside the rows do to them.
    reach = cloud_reach(settings)
    top, bottom = max(0, first - reach), min(grid.height, last + reach)
    part = grid.rows(top, bottom)
    values, crs, transform, _ = read_raster(path, around=part)
    # Where the mask ends, and where it has no number, nothing is known.
    unknown = np.uint8(0 if name == SCL else 255)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), values.dtype.type(unknown), values)
    if values.dtype != np.uint8 and (values.min() < 0 or values.max() > 255):
        expected = "classes 0..11" if name == SCL else "bits of 0..255"
        raise DataError(f"{path}: {name} values from {values.min()} to {values.max()}, expected {expected}")
    fitted = fit_to_grid(values.astype(np.uint8), crs or grid.crs, transform, part, nearest=True, fill=int(unknown))
    hidden = hidden_places(name, fitted, settings)
    return ground_between(hidden, erosion=settings.cloud_erosion, dilation=settings.cloud_dilation)[
        first - top : last - top
    ]
