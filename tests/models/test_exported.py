"""An exported segmenter gives the logits of the model, for any number of windows and dates, and of what is not seen."""

import io

import numpy as np
import pytest
import torch

from exact_core.data.windows.batches import clear_patches, make_series
from exact_core.data.windows.dataset import Statistics
from exact_core.models.exported import export_segmenter
from exact_core.models.segmenter import build_segmenter
from exact_core.recipes import resolve

BANDS, CLASSES, SIDE = 4, 3, 8
SMALL = ["dim=16", "heads=2", "head_dim=8", "temporal_depth=2", "spatial_depth=1"]


@pytest.mark.parametrize(("recipe", "pixel_days"), [("season", ()), ("season", (100, 300)), ("pastis24", ())])
def test_the_program_gives_the_logits_of_the_model(recipe, pixel_days):
    """Our recipe masks clouds; the paper's attends to padding, has a table of days and another layout."""
    changes = [f"segmenter.encoder.{each}" for each in SMALL]
    settings = resolve(recipe, overrides=changes).segmenter
    encoder = settings.reading
    torch.manual_seed(0)
    model = build_segmenter(settings, bands=BANDS, classes=CLASSES, window=SIDE, pixel_days=pixel_days).eval()
    if model.pixels is not None:
        model.pixels.coefficients.normal_()
    statistics = Statistics(mean=(2000.0,) * BANDS, std=(1000.0,) * BANDS, origin="made up", pixels=0)
    program = export_segmenter(model, statistics=statistics, encoder=encoder, bands=BANDS, window=SIDE)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    rng = np.random.default_rng(0)
    for windows, dates in ((1, 5), (3, 7), (2, 1)):
        pixels = torch.from_numpy(rng.integers(1, 6000, (windows, dates, BANDS, SIDE, SIDE)).astype(np.int16))
        days = torch.from_numpy(np.sort(rng.integers(1, 300, (windows, dates)), 1))
        clear = torch.from_numpy(rng.random((windows, dates, SIDE // 2, SIDE // 2)) < 0.7)
        clear[:, 0] = True
        if dates > 5:
            # One window misses a date, which is then none of its dates.
            pixels[1, 2] = 0
        measured = (pixels != 0).flatten(2).any(2)
        series = make_series(
            pixels,
            days * measured if encoder.mask_padding else days,
            measured,
            clear=clear_patches(clear, encoder) if encoder.mask_clouds else None,
            mean=torch.tensor(statistics.mean),
            std=torch.tensor(statistics.std),
            encoder=encoder,
        )
        with torch.no_grad():
            expected, found = model(series), loaded(pixels, days, clear)
        assert found.shape == (windows, CLASSES + 1, SIDE, SIDE)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
        assert expected.std() > 0.01
