import torch

from exact_core.clues.shifts import mean_over_shifts, shift_series
from exact_core.data.windows.batches import Series


def series(pixels, seen=None):
    return Series(pixels=pixels, dates=torch.zeros(pixels.shape[:2], dtype=torch.long), seen=seen)


def patch_means(given):
    """A stand-in for a model: the mean of each 2 x 2 patch of the first band on the first date."""
    return torch.nn.functional.avg_pool2d(given.pixels[:, 0, :1], 2)


def test_a_shift_by_hand():
    pixels = torch.arange(16.0).reshape(1, 1, 1, 4, 4)
    moved = shift_series(series(pixels), 1, 0, patch=2).pixels[0, 0, 0]
    assert moved[:, 0].tolist() == [4, 8, 12, 12]
    moved = shift_series(series(pixels), 0, 1, patch=2).pixels[0, 0, 0]
    assert moved[0].tolist() == [1, 2, 3, 3]


def test_a_moved_patch_is_seen_where_all_it_overlaps_is():
    # The lower left of 2 x 2 patches is cloudy.
    seen = torch.tensor([[1, 1, 0, 1]], dtype=torch.bool).reshape(1, 4, 1)
    given = series(torch.zeros(1, 1, 1, 4, 4), seen)
    for shift, expected in (
        ((0, 0), [1, 1, 0, 1]),
        ((1, 0), [0, 1, 0, 1]),
        ((0, 1), [1, 1, 0, 1]),
        ((1, 1), [0, 1, 0, 1]),
    ):
        assert shift_series(given, *shift, patch=2).seen[0, :, 0].int().tolist() == expected


def test_the_mean_resolves_a_pixel_that_one_grid_cannot():
    pixels = torch.zeros(1, 1, 1, 8, 8)
    pixels[..., 3, 4] = 4.0
    found = mean_over_shifts(patch_means, series(pixels), patch=2)[0, 0]
    assert found.shape == (8, 8)
    # The pixel itself lies in all four shifted patches, a neighbour in two, a diagonal one in one.
    assert found[3, 4] == 1.0
    assert found[3, 3] == found[3, 5] == found[2, 4] == found[4, 4] == 0.5
    assert found[2, 3] == found[4, 5] == 0.25
    assert found.sum() == 4.0


def test_a_flat_field_stays_flat():
    found = mean_over_shifts(patch_means, series(torch.full((2, 1, 1, 6, 6), 0.3)), patch=2)
    torch.testing.assert_close(found, torch.full((2, 1, 6, 6), 0.3))
