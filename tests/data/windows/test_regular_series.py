"""Series on regular days, by hand."""

from __future__ import annotations

import numpy as np

from exact_core.data.windows.dataset import Window
from exact_core.data.windows.regular_series import calendar_series


def test_a_patch_without_a_clear_look_takes_those_that_measured_it() -> None:
    """Two patches on days 0, 10, 20: the first always clouded and unmeasured on day 10, the second always clear."""
    pixels = np.zeros((3, 1, 2, 4), np.int16)
    pixels[:, 0, :, :2] = np.array([100, 0, 300])[:, None, None]
    pixels[:, 0, :, 2:] = np.array([400, 500, 600])[:, None, None]
    clear = np.array([[[0, 1]]] * 3, np.uint8)
    window = Window(
        pixels=pixels, days=np.array([0, 10, 20], np.int16), tags=np.ones(1, np.uint8), labels=None, clear=clear
    )
    series = calendar_series(window, np.array([0.0, 10.0, 15.0])).reshape(2, 4, 3)
    np.testing.assert_allclose(series[0, 0], [100, 200, 250])
    np.testing.assert_allclose(series[1, 3], [400, 500, 550])
