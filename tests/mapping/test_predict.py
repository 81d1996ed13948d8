"""A segmenter over an area: each patch once, and the same as window by window."""

import datetime as dt
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from exact_core.config import EncoderConfig, SegmenterConfig, UtaeConfig
from exact_core.data.windows.batches import Series, make_series, model_dates
from exact_core.data.windows.dataset import Statistics
from exact_core.mapping.predict import season_mapper
from exact_core.mapping.rows import bands_of_part, map_rows, window_starts, window_weights
from exact_core.models.precision import for_inference
from exact_core.models.probabilities import class_probabilities
from exact_core.models.segmenter import build_segmenter

SIDE, BANDS, CLASSES, DATES = 8, 2, 2, 5
HEIGHT, WIDTH = 22, 30
MEAN, STD = (500.0, 400.0), (300.0, 250.0)
SMALL = {"dim": 32, "temporal_depth": 2, "spatial_depth": 1, "heads": 2, "head_dim": 16, "mlp_ratio": 2}
IMAGES = SimpleNamespace(days=np.arange(3, 3 + 20 * DATES, 20), start=dt.date(2021, 1, 1), length=200, seen_days=None)


def segmenter(*, model="tsvit", precision="fp32", pixel_days=(), **encoder):
    torch.manual_seed(0)
    utae = UtaeConfig(encoder_widths=(8, 8), decoder_widths=(8, 8), heads=2, attention_width=8, groups=2, dropout=0.0)
    weight = 0.5 if pixel_days else 0
    config = SegmenterConfig(model=model, encoder=EncoderConfig(**SMALL, **encoder), utae=utae, pixel_weight=weight)
    built = build_segmenter(config, bands=BANDS, classes=CLASSES, window=SIDE, pixel_days=pixel_days)
    if built.pixels is not None:
        built.pixels.coefficients.normal_()
    return for_inference(built, torch.device("cpu"), precision), config.reading


def mapper_of(model, reading):
    statistics = Statistics(mean=MEAN, std=STD, origin="made up", pixels=0)
    return season_mapper(model, IMAGES, statistics=statistics, encoder=reading, device=torch.device("cpu"))


@pytest.fixture
def area():
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 1000, (DATES, BANDS, HEIGHT, WIDTH)).astype(np.int16)
    return pixels, rng.random((DATES, HEIGHT // 2, WIDTH // 2)) < 0.7


def rows_of(mapper, pixels, clear, *, batch=3, bands=None, stride=SIDE // 2):
    height, width = pixels.shape[2:]
    rows = map_rows(
        lambda first, last: (pixels[:, :, first:last], None if clear is None else clear[:, first // 2 : last // 2]),
        mapper,
        height=height,
        width=width,
        side=SIDE,
        stride=stride,
        classes=CLASSES,
        batch=batch,
        chunk=16,
        bands=bands,
    )
    return list(rows)


def mapped(*arguments, **options):
    return np.concatenate([each.probabilities for each in rows_of(*arguments, **options)], 1)


def window_by_window(predict, pixels, clear, stride=SIDE // 2):
    """Each window by itself, blended in the same order."""
    height, width = pixels.shape[2:]
    total = np.zeros((CLASSES + 1, height, width), np.float32)
    weight, weights = np.zeros((height, width), np.float32), window_weights(SIDE)
    for row in window_starts(height, SIDE, stride):
        for col in window_starts(width, SIDE, stride):
            cut = np.s_[row : row + SIDE, col : col + SIDE]
            seen = None if clear is None else clear[:, row // 2 : (row + SIDE) // 2, col // 2 : (col + SIDE) // 2]
            total[(slice(None), *cut)] += predict(pixels[(..., *cut)], seen) * weights
            weight[cut] += weights
    return total / weight


def whole_model(model, reading, said=lambda model, series: class_probabilities(model(series))):
    """What the model as it is trained says of a window, a date of which is real if it measured anything of it."""

    def predict(pixels, clear):
        batch = torch.from_numpy(pixels.copy())[None]
        valid = (batch != 0).flatten(2).any(2)
        seen = None
        if clear is not None:
            seen = torch.from_numpy(clear.copy())[None]
            if reading.patch == 1:
                seen = seen.repeat_interleave(2, 2).repeat_interleave(2, 3)
            if reading.patch == 4:
                seen = -nn.functional.max_pool2d(-seen.float(), 2)
            seen = seen.bool().flatten(2).transpose(1, 2)
        dates = torch.from_numpy(model_dates(IMAGES.days, reading, IMAGES.start, IMAGES.length))[None] * valid
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        series = make_series(batch, dates, valid, clear=seen, mean=mean, std=std, encoder=reading)
        with torch.inference_mode():
            return said(model, series)[0].numpy()

    return predict


@pytest.mark.parametrize(
    "encoder",
    [
        {},
        {"patch": 1},
        {"patch": 4},
        {"dates": "day_of_year", "mask_padding": False, "pad_dates": 9},
        {"pixel_days": (200,)},
        {"pixel_days": (200,), "patch": 4},
    ],
    ids=[
        "network alone",
        "patch of 1",
        "patch of 4, windows off its grid",
        "padding attended to",
        "with single pixels",
        "with single pixels, patch of 4",
    ],
)
@pytest.mark.parametrize("stride", [2, 4, 6, 8])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_patch_once_is_to_the_bit_window_by_window(area, encoder, stride, precision):
    pixels, clear = area[0], None if stride == 6 else area[1]
    model, reading = segmenter(precision=precision, **encoder)
    # On as many threads as there are.
    found = mapped(mapper_of(model, reading), pixels, clear, stride=stride)
    np.testing.assert_array_equal(found, window_by_window(whole_model(model, reading), pixels, clear, stride))


@pytest.mark.parametrize("kind", ["tsvit", "utae"])
@pytest.mark.parametrize("batch", [1, 3])
def test_where_network_and_regression_agree(area, kind, batch):
    """Each asked alone, window by window: a pixel's windows weigh whether both name the same class."""
    pixels, clear = area
    clear = clear.copy()
    clear[:, 3:5, 3:5] = False
    model, reading = segmenter(model=kind, pixel_days=(200,))

    def same(model, series):
        network, single = model.network(series), model.pixels(series)
        return (network.argmax(1) == single.argmax(1)) & (single > 0).any(1)

    expected = window_by_window(whole_model(model, reading, same), pixels, clear)[0] >= 0.5
    rows = rows_of(mapper_of(model, reading), pixels, clear, batch=batch)
    found = np.concatenate([each.agree for each in rows])
    np.testing.assert_array_equal(found, expected)
    assert 0.1 < found.mean() < 0.9
    assert not found[6:10, 6:10].any()
    model.pixels = None
    assert [each.agree for each in rows_of(mapper_of(model, reading), pixels, clear)] == [None] * len(rows)


@pytest.mark.parametrize("kind", ["tsvit", "utae"])
def test_a_map_until_a_day_has_the_regression_of_that_part(area, monkeypatch, kind):
    model, reading = segmenter(model=kind, pixel_days=(60, 200))
    whole = mapped(mapper_of(model, reading), *area)
    monkeypatch.setattr(IMAGES, "seen_days", 70)
    early = mapped(mapper_of(model, reading), *area)
    assert np.abs(early - whole).max() > 0.1
    # The regression of the whole season has no part in it.
    model.pixels.coefficients[1] = 0
    np.testing.assert_array_equal(mapped(mapper_of(model, reading), *area), early)


@pytest.mark.parametrize("stride", [4, 6])
def test_patches_of_3_map_without_clouds(area, monkeypatch, stride):
    """Cells of 6 pixels, which hold whole patches and whole pairs of pixels."""
    monkeypatch.setattr(sys.modules[__name__], "SIDE", 12)
    model, reading = segmenter(patch=3, mask_clouds=False)
    found = mapped(mapper_of(model, reading), *area, stride=stride)
    expected = window_by_window(whole_model(model, reading), area[0], None, stride)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pixel_days", [(), (200,)])
def test_a_model_of_whole_windows_maps_as_it_is_trained(area, pixel_days):
    pixels, clear = area
    pixels[1, :, :, 12:] = 0
    model, reading = segmenter(model="utae", pixel_days=pixel_days)
    expected = window_by_window(whole_model(model, reading), pixels, clear)
    np.testing.assert_allclose(mapped(mapper_of(model, reading), pixels, clear), expected, atol=1e-6)


def test_patches_are_encoded_once(area, monkeypatch):
    """Whatever the batches, and again only for a part that begins below."""
    pixels, clear = area
    model, reading = segmenter()
    mapper = mapper_of(model, reading)
    encoded = []
    encode = mapper.encode
    monkeypatch.setattr(
        mapper,
        "encode",
        lambda pixels, clear: encoded.append(pixels.shape[2] * pixels.shape[3]) or encode(pixels, clear),
    )
    for batch in (1, 3, 64):
        encoded.clear()
        whole = mapped(mapper, pixels, clear, batch=batch)
        assert sum(encoded) == HEIGHT * WIDTH
    parts = [mapped(mapper, pixels, clear, bands=bands_of_part(HEIGHT, SIDE, SIDE // 2, part, 2)) for part in (1, 2)]
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)


def test_a_date_that_measured_nothing_of_a_patch_is_none_of_its_dates(area):
    """The edge of a swath through a window: a patch beyond it is encoded as if the date did not exist."""
    pixels, _ = area
    model, reading = segmenter()
    mapper = mapper_of(model, reading)
    pixels[2, :, :, 10:] = 0
    tokens = mapper.encode(pixels, None)
    without = np.delete(pixels, 2, 0)
    images = SimpleNamespace(**{**vars(IMAGES), "days": np.delete(IMAGES.days, 2)})
    statistics = Statistics(mean=MEAN, std=STD, origin="made up", pixels=0)
    other = season_mapper(model, images, statistics=statistics, encoder=reading, device=torch.device("cpu"))
    assert torch.equal(tokens[:, 5:], other.encode(without, None)[:, 5:])
    assert not torch.equal(tokens[:, :5], other.encode(without, None)[:, :5])


def test_windows_of_an_area_that_nothing_measured_are_left_out(area):
    """Gaps between windows, above windows that are mapped: what one band has not encoded, the next one does."""
    pixels, clear = area
    pixels[:, :, :12, 8:22] = 0
    pixels[1:, :, 8:, :8] = 0
    model, reading = segmenter()
    mapper = mapper_of(model, reading)
    found = mapped(mapper, pixels, clear)
    expected = window_by_window(lambda *window: mapper([window[0]], [window[1]])[0], pixels, clear)
    # A window without a pixel that two dates measured is not asked about, so only such pixels as none knows differ.
    measured = pixels.any(1).sum(0) >= 2
    assert np.abs(found - expected)[:, measured].max() < 0.2
    np.testing.assert_array_equal(found[:, 16:, 16:], expected[:, 16:, 16:])


def test_days_that_all_windows_share_need_to_be_given_once():
    model, _ = segmenter()
    pixels = torch.randn(3, DATES, BANDS, SIDE, SIDE)
    days = torch.from_numpy(IMAGES.days)[None]
    seen = torch.rand(3, 16, DATES) < 0.7
    with torch.no_grad():
        for each in (None, seen):
            one, all_ = (model(Series(pixels, dates, each)) for dates in (days, days.expand(3, -1)))
            assert torch.equal(one, all_)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_threads_change_nothing(area, precision, of_threads):
    pixels, clear = area
    mapper = mapper_of(*segmenter(precision=precision))
    found = []
    for threads in (1, 2, 3):
        of_threads(threads)
        found.append(mapped(mapper, pixels, clear))
        assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
