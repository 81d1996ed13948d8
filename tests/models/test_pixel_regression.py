"""The regression of single pixels that shares the segmenter's decision."""

import numpy as np
import pytest
import torch

from exact_core.config import SegmenterConfig
from exact_core.data.windows.batches import Series
from exact_core.data.windows.dataset import Window
from exact_core.data.windows.regular_series import calendar_days, pixel_features
from exact_core.models.pixel_regression import BLOCK, PixelRegression, regular_series
from exact_core.models.probabilities import mean_logits, same_class

BANDS, CLASSES, SIDE, DATES, SEASON = 3, 2, 8, 9, 160


def regression(days=(80, SEASON), weight=0.5):
    torch.manual_seed(0)
    model = PixelRegression(bands=BANDS, classes=CLASSES, patch=2, days=days, weight=weight)
    model.coefficients.normal_(std=0.3)
    model.intercepts.normal_()
    return model


@pytest.fixture
def window():
    """Irregular dates, every patch clear on some of them but one that is never."""
    rng = np.random.default_rng(3)
    clear = rng.random((DATES, SIDE // 2, SIDE // 2)) < 0.5
    clear[2] = True
    clear[:, 1, 2] = False
    return Window(
        pixels=rng.integers(1, 900, (DATES, BANDS, SIDE, SIDE)).astype(np.int16),
        days=np.sort(rng.choice(SEASON, DATES, replace=False)),
        tags=np.zeros(CLASSES, np.uint8),
        labels=None,
        clear=clear.astype(np.uint8),
    )


def series_of(window, until=None):
    seen = torch.from_numpy(window.clear.reshape(len(window.days), -1).T > 0)[None]
    return Series(torch.from_numpy(window.pixels).float()[None], torch.from_numpy(window.days)[None], seen, until=until)


def by_pixel(features):
    """Of patches (1, P, 4, D) -> (H * W, D), row by row."""
    side = SIDE // 2
    return features.view(side, side, 2, 2, -1).transpose(1, 2).reshape(SIDE * SIDE, -1)


def test_regular_series_by_hand():
    """Dates 0, 10 and 20, of which the second is hidden in the first patch; in the second only it is seen."""
    usable = torch.tensor([[[True, False, True], [False, True, False], [False, False, False]]])
    shares, seen = regular_series(torch.tensor([[0, 10, 20]]), usable, torch.tensor([0.0, 5.0, 30.0]))
    torch.testing.assert_close(shares[0, 0], torch.tensor([[1, 0, 0], [0.75, 0, 0.25], [0, 0, 1]]))
    torch.testing.assert_close(shares[0, 1], torch.tensor([[0.0, 1, 0]] * 3))
    assert seen.tolist() == [[True, True, False]]


@pytest.mark.parametrize("part", [0, 1])
def test_features_are_those_of_the_masks(window, part):
    """An independent one: NumPy's, by which pixel self-training describes a pixel. Of a part, without later dates."""
    model = regression()
    calendar, days = calendar_days(SEASON), model.days[part]
    first = int((window.days < days).sum())
    cut = Window(window.pixels[:first], window.days[:first], window.tags, None, window.clear[:first])
    found, seen = model.features(series_of(window), part)
    expected = pixel_features(cut, calendar[calendar < days]).reshape(SIDE, SIDE, -1)
    known = torch.ones(SIDE, SIDE, dtype=torch.bool)
    known[2:4, 4:6] = False
    np.testing.assert_allclose(
        by_pixel(found).view(SIDE, SIDE, -1)[known].numpy(), expected[known.numpy()], rtol=1e-5, atol=1e-2
    )
    assert (seen.view(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1) == known).all()


def test_probabilities_by_hand(window):
    """Softmax of the features times coefficients, where a patch is seen."""
    model = regression()
    found = model(series_of(window))[0].permute(1, 2, 0)
    features = by_pixel(model.features(series_of(window), 1)[0]).double()
    scores = features @ model.coefficients[1].T.double() + model.intercepts[1].double()
    expected = scores.softmax(1).view(SIDE, SIDE, -1)
    expected[2:4, 4:6] = 0
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_the_mean_with_the_network():
    """By hand: 0.75 of (0.5, 0.5) and 0.25 of (1, 0); and a pixel that was never seen is left to the network."""
    single = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    found = mean_logits(torch.zeros(1, 2, 1, 2), single, weight=0.25).softmax(1)
    torch.testing.assert_close(found, torch.tensor([[0.625, 0.5], [0.375, 0.5]]).view(1, 2, 1, 2))


def test_where_two_name_the_same_class_by_hand():
    """Equal, unequal, and a pixel without other probabilities, whose likeliest class would be the first."""
    logits = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]).view(1, 2, 1, 3)
    others = torch.tensor([[0.9, 0.4, 0.0], [0.1, 0.6, 0.0]]).view(1, 2, 1, 3)
    assert same_class(logits, others).tolist() == [[[True, False, False]]]


def test_padding_and_dates_of_no_use_change_nothing(window):
    model, batch = regression(), series_of(window)
    expected = model(batch)
    more = Series(
        torch.nn.functional.pad(batch.pixels, (0, 0, 0, 0, 0, 0, 0, 2)),
        torch.nn.functional.pad(batch.dates, (0, 2)),
        torch.nn.functional.pad(batch.seen, (0, 2)),
    )
    torch.testing.assert_close(model(more), expected, atol=1e-6, rtol=1e-6)
    # A date that this window did not measure, with the day 0 that it then has.
    order = [0, 1, DATES, *range(2, DATES)]
    amid = Series(more.pixels[:, order], more.dates[:, order], more.seen[..., order])
    torch.testing.assert_close(model(amid), expected, atol=1e-6, rtol=1e-6)


def test_blocks_of_windows_are_to_the_bit_windows_alone(window, monkeypatch):
    model, batch = regression(), series_of(window)
    many = Series(batch.pixels.expand(5, -1, -1, -1, -1), batch.dates, batch.seen.expand(5, -1, -1))
    monkeypatch.setitem(BLOCK, "cpu", 2 * 16)
    for each in model(many):
        assert torch.equal(each, model(batch)[0])


def test_within_the_season_the_longest_part_not_beyond_decides(window):
    model = regression(days=(40, 80, SEASON))
    assert [model.part_seen(until) for until in (39, 40, 100, SEASON, None)] == [None, 0, 1, 2, 2]
    # What came after that part changes nothing.
    other = Window(window.pixels.copy(), window.days, window.tags, None, window.clear)
    other.pixels[window.days >= 80] += 100
    assert torch.equal(model(series_of(window, until=100)), model(series_of(other, until=100)))
    assert not torch.equal(model(series_of(window)), model(series_of(other)))


@pytest.mark.parametrize("encoder", [{"dates": "day_of_year"}, {"mask_padding": False}])
def test_it_needs_days_of_a_season(encoder):
    with pytest.raises(ValueError, match=r"pixel_weight 0.5 needs the days of a season.*set it to 0"):
        SegmenterConfig.model_validate({"pixel_weight": 0.5, "encoder": encoder})
