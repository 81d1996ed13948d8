import numpy as np
import pytest
import torch

from exact_core.clues.field_borders import FLOOR, OFFSETS, border_contrast, diffuse
from exact_core.data.windows.batches import Series


def series(pixels, seen=None):
    return Series(pixels=pixels, dates=torch.zeros(pixels.shape[:2], dtype=torch.long), seen=seen)


def plain_contrast(pixels, usable):
    """From the definition, pixel by pixel."""
    batch, dates, _, height, width = pixels.shape
    out = np.full((batch, 4, height, width), np.inf)
    for b, n, i, j in np.ndindex(out.shape):
        y, x = i + OFFSETS[n][0], j + OFFSETS[n][1]
        if not (0 <= y < height and 0 <= x < width):
            continue
        common = [t for t in range(dates) if usable[b, t, i, j] and usable[b, t, y, x]]
        if common:
            value = np.mean([(pixels[b, t, :, i, j] - pixels[b, t, :, y, x]) ** 2 for t in common])
            out[b, n, i, j] = max(value, FLOOR)
    return out


def plain_step(cams, contrast, temperature):
    """One step of diffusion of one window, pixel by pixel, over all 8 neighbours."""
    _, height, width = cams.shape
    scale = temperature * np.sort(contrast[np.isfinite(contrast)])[(np.isfinite(contrast).sum() - 1) // 2]
    out = np.zeros_like(cams)
    for i, j in np.ndindex(height, width):
        total, weight_sum = cams[:, i, j].copy(), 1.0
        for n, (down, right) in enumerate(OFFSETS):
            for y, x, value in ((i + down, j + right, contrast[n, i, j]), (i - down, j - right, None)):
                if not (0 <= y < height and 0 <= x < width):
                    continue
                weight = np.exp(-(contrast[n, y, x] if value is None else value) / scale)
                total += weight * cams[:, y, x]
                weight_sum += weight
        out[:, i, j] = total / weight_sum
    return out


def test_contrast_by_hand():
    """Two columns that differ by 2 in one of two bands on one of two dates: mean of (4, 0, 0, 0) is 1."""
    pixels = torch.zeros(1, 2, 2, 2, 2)
    pixels[0, 0, 0, :, 1] = 2.0
    found = border_contrast(series(pixels), patch=1)[0]
    right, below, diagonal, anti = found
    assert right[:, 0].tolist() == [1.0, 1.0]
    assert below[0].tolist() == pytest.approx([FLOOR, FLOOR])
    assert diagonal[0, 0] == anti[0, 1] == 1.0
    outside = (right[:, 1], below[1], diagonal[1], diagonal[:, 1], anti[1], anti[:, 0])
    assert all(torch.isinf(value).all() for value in outside)


@pytest.mark.parametrize("per_patch", [True, False])
def test_contrast_agrees_with_the_definition_and_leaves_clouded_looks_out(per_patch):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 5, 3, 4, 4, generator=generator)
    seen = torch.rand(2, 4 if per_patch else 1, 5, generator=generator) > 0.4
    grid = seen.transpose(1, 2).view(2, 5, 2, 2) if per_patch else seen.view(2, 5, 1, 1).expand(-1, -1, 2, 2)
    usable = grid.repeat_interleave(2, 2).repeat_interleave(2, 3).numpy()
    expected = plain_contrast(pixels.numpy(), usable)
    np.testing.assert_allclose(border_contrast(series(pixels, seen), patch=2), expected, rtol=1e-5)
    # What a cloud hides does not matter.
    hidden = torch.where(torch.from_numpy(usable)[:, :, None], pixels, torch.tensor(99.0))
    np.testing.assert_allclose(border_contrast(series(hidden, seen), patch=2), expected, rtol=1e-5)


def test_a_step_of_diffusion_agrees_with_plain_loops():
    generator = torch.Generator().manual_seed(1)
    pixels, cams = torch.randn(1, 3, 2, 5, 6, generator=generator), torch.rand(1, 2, 5, 6, generator=generator)
    contrast = border_contrast(series(pixels), patch=1)
    expected = plain_step(cams[0].numpy().astype(np.float64), contrast[0].numpy().astype(np.float64), 0.7)
    expected = plain_step(expected, contrast[0].numpy().astype(np.float64), 0.7)
    np.testing.assert_allclose(diffuse(cams, contrast, steps=2, temperature=0.7)[0], expected, rtol=1e-4)


def test_diffusion_keeps_to_the_field():
    """Two fields, left and right, with a spot on the left: it spreads there and nowhere else; equal CAMs stay."""
    pixels = torch.zeros(1, 4, 3, 6, 6)
    pixels[..., 3:] = 5.0
    pixels += 0.1 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(2))
    contrast = border_contrast(series(pixels), patch=1)
    cams = torch.zeros(1, 1, 6, 6)
    cams[0, 0, 2, 1] = 1.0
    found = diffuse(cams, contrast, steps=30, temperature=1.0)[0, 0]
    assert found[:, 3:].max() < 1e-6
    assert found[:, :3].min() > 0.01
    flat = torch.full((1, 1, 6, 6), 0.3)
    torch.testing.assert_close(diffuse(flat, contrast, steps=5, temperature=1.0), flat)
    assert diffuse(cams, contrast, steps=0, temperature=1.0) is cams


def test_turning_the_window_turns_the_result():
    generator = torch.Generator().manual_seed(3)
    pixels, cams = torch.randn(1, 3, 2, 6, 6, generator=generator), torch.rand(1, 2, 6, 6, generator=generator)

    def run(pixels, cams):
        return diffuse(cams, border_contrast(series(pixels), patch=1), steps=3, temperature=0.5)

    turned = run(pixels.rot90(1, (-2, -1)), cams.rot90(1, (-2, -1)))
    torch.testing.assert_close(turned.rot90(-1, (-2, -1)), run(pixels, cams))


def test_a_window_without_a_common_look_is_left_as_it_is():
    seen = torch.zeros(1, 4, 3, dtype=torch.bool)
    contrast = border_contrast(series(torch.randn(1, 3, 2, 4, 4), seen), patch=2)
    assert contrast.isinf().all()
    cams = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(diffuse(cams, contrast, steps=4, temperature=0.3), cams)
