import numpy as np
import pytest

from exact_core.data.windows.dates import MIN_DATES, PAD_DAY, measured_dates, stack_dates


def test_a_date_is_measured_where_any_band_of_any_pixel_is_not_0():
    pixels = np.zeros((4, 2, 3, 3), np.int16)
    pixels[1, 1, 2, 0] = 7
    # Reflectance may be below 0, which is a measurement.
    pixels[3, 0, 0, 0] = -1
    assert measured_dates(pixels).tolist() == [False, True, False, True]
    assert measured_dates(pixels[:0]).tolist() == []


def test_series_of_unequal_length_are_filled_up_at_their_end():
    stacked = stack_dates([np.array([1, 5, 9], np.int16), np.array([2], np.int16)], PAD_DAY)
    assert stacked.tolist() == [[1, 5, 9], [2, -1, -1]]
    assert stacked.dtype == np.int16


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.bool_])
def test_what_is_stacked_is_what_was_given(dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 2, (dates, 2, 3)).astype(dtype) for dates in (4, 2, MIN_DATES, 7)]
    stacked = stack_dates(arrays, 0)
    assert stacked.shape == (4, 7, 2, 3)
    for row, array in zip(stacked, arrays, strict=True):
        np.testing.assert_array_equal(row[: len(array)], array)
        assert not row[len(array) :].any()
