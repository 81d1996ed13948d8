import numpy as np
import pytest
import torch

from exact_core.clues.field_borders import OFFSETS
from exact_core.clues.selection import (
    BINS,
    ENOUGH,
    SMOOTH,
    BorderProfile,
    border_profile,
    border_threshold,
    valley_threshold,
)


def contrasts(strong: torch.Tensor) -> torch.Tensor:
    """Contrast (B, 4, H, W) that is high between pixels of different `strong` (B, H, W) and low elsewhere."""
    height, width = strong.shape[-2:]
    out = torch.full((len(strong), 4, height, width), torch.inf)
    for number, (down, right) in enumerate(OFFSETS[:2]):
        here = strong[:, : height - down, : width - right]
        differs = here != strong[:, down:, right:]
        out[:, number, : height - down, : width - right] = torch.where(differs, 10.0, 0.1)
    return out


def plain_profile(cams: np.ndarray, contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threshold by threshold, side by side, from the definition."""
    total, length = np.zeros(BINS), np.zeros(BINS, int)
    for window, around in zip(cams.max(1), contrast[:, :2], strict=True):
        logs = np.log(np.where(np.isfinite(around), around, np.nan))
        logs -= np.nanmean(logs)
        for step in range(BINS):
            mask = window > step / BINS
            for (i, j), inside in np.ndenumerate(mask):
                for n, (down, right) in enumerate(OFFSETS[:2]):
                    known = i + down < mask.shape[0] and j + right < mask.shape[1] and not np.isnan(logs[n, i, j])
                    if known and mask[i + down, j + right] != inside:
                        total[step] += logs[n, i, j]
                        length[step] += 1
    return total, length


def test_one_pass_gives_what_every_threshold_gives():
    rng = np.random.default_rng(0)
    cams = torch.from_numpy(rng.random((2, 3, 5, 4)).astype(np.float16)).float()
    contrast = torch.from_numpy(rng.random((2, 4, 5, 4)))
    contrast[:, 0, :, -1] = contrast[:, 1, -1] = torch.inf
    contrast[0, 0, 2, 1] = torch.inf
    found = border_profile(cams, contrast)
    total, length = plain_profile(cams.numpy(), contrast.numpy())
    np.testing.assert_array_equal(found.length, length)
    np.testing.assert_allclose(found.contrast, total, atol=1e-9)
    # Parts add up to the whole.
    parts = border_profile(cams[:1], contrast[:1]) + border_profile(cams[1:], contrast[1:])
    np.testing.assert_allclose(parts.contrast, found.contrast, atol=1e-12)
    np.testing.assert_array_equal(parts.length, found.length)


@pytest.mark.parametrize("level", [0.25, 0.55, 0.75])
def test_the_threshold_is_where_the_outline_lies_on_the_border(level):
    """A CAM that falls off smoothly from the middle; the images change where it passes `level`."""
    rows = torch.linspace(-1, 1, 80)
    cam = 1 - (rows[:, None] ** 2 + rows[None] ** 2).sqrt() / 1.5
    contrast = contrasts((cam > level)[None])
    threshold, reached = border_threshold(border_profile(cam[None, None], contrast))
    assert threshold == pytest.approx(level, abs=0.03)
    assert reached > 1
    # Classes beside it, and another brightness of all images, change nothing.
    two = torch.stack([cam, cam * 0.5])[None]
    assert border_threshold(border_profile(two, 7 * contrast))[0] == threshold


def test_an_outline_too_short_to_be_judged_is_not_chosen():
    """Two pixels that stand out on the strongest of borders make no threshold."""
    cam, strong = torch.full((1, 1, 40, 40), 0.1), torch.zeros(1, 40, 40)
    cam[..., 5:35, 5:35], strong[:, 5:35, 5:35] = 0.6, 1
    cam[..., 20, 20] = 0.95
    contrast = contrasts(strong)
    contrast[0, 0, 20, 19:21] = contrast[0, 1, 19:21, 20] = 1e6
    profile = border_profile(cam, contrast)
    assert profile.length[70] < ENOUGH * profile.length.max()
    assert 0.1 <= border_threshold(profile)[0] < 0.6 + SMOOTH / BINS


def test_without_any_outline_the_masks_are_the_same_everywhere():
    threshold, contrast = border_threshold(BorderProfile.empty())
    assert threshold == 0.5
    assert np.isnan(contrast)


def test_the_valley_lies_between_the_peaks():
    histogram = np.zeros(BINS, np.int64)
    histogram[5:20], histogram[70:90] = 50, 80
    histogram[30:45] = 10
    assert 0.45 < valley_threshold(histogram) < 0.7
    assert valley_threshold(histogram[::-1].copy()) == pytest.approx(1 - valley_threshold(histogram), abs=0.011)
