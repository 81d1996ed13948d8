"""U-TAE: its temporal attention by hand and by plain loops, and what it must not depend on."""

import math

import pytest
import torch

from exact_core.config import EncoderConfig, SegmenterConfig, UtaeConfig
from exact_core.data.windows.batches import Series
from exact_core.errors import ConfigError, DataError
from exact_core.models.segmenter import Segmenter, build_segmenter
from exact_core.models.utae import (
    TemporalAttention,
    Utae,
    collapse,
    enlarge_masks,
    masked_softmax,
    seen_by_cells,
    seen_pixels,
)
from exact_core.recipes import resolve

BANDS, CLASSES, DATES = 3, 2, 5
SMALL = UtaeConfig(
    encoder_widths=(8, 8, 16), decoder_widths=(8, 8, 16), heads=4, key_dim=3, attention_width=16, groups=2
)


def model(**changes):
    torch.manual_seed(0)
    return Utae(SMALL.model_copy(update=changes), bands=BANDS, classes=CLASSES).eval()


def series(side=8, dates=DATES, *, seen=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(2, dates, BANDS, side, side, generator=generator)
    return Series(pixels=pixels, dates=torch.arange(dates).expand(2, -1) * 20 + 3, seen=seen)


def attention(*, heads=2, width=8, channels=4, key_dim=3):
    torch.manual_seed(1)
    shape = {"width": width, "out": 6, "heads": heads, "key_dim": key_dim, "period": 1000.0, "dropout": 0.5}
    return TemporalAttention(channels, **shape).eval()


def test_softmax_over_what_is_seen_by_hand():
    """Scores 0, ln 3 and a hidden one share 1 : 3 : 0; nothing seen gives nothing."""
    scores = torch.tensor([0.0, math.log(3), 50.0])[None, None, :, None].expand(1, 1, 3, 2)
    seen = torch.tensor([[True, False], [True, False], [False, False]])[None, None]
    expected = torch.tensor([[0.25, 0.0], [0.75, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(masked_softmax(scores, seen)[0, 0], expected)


def test_one_head_on_two_dates_by_hand():
    """Identity weights, no norm: scores are the first feature (its key) times the query over sqrt(1)."""
    head = TemporalAttention(2, width=2, out=2, heads=1, key_dim=1, period=1000.0, dropout=0.0).eval()
    with torch.no_grad():
        head.project.weight.copy_(torch.eye(2)[:, :, None])
        head.project.bias.zero_()
        head.norm = torch.nn.Identity()
        head.keys.weight.copy_(torch.tensor([[[1.0], [0.0]]]))
        head.query.fill_(2.0)
        head.merge, head.out_norm = torch.nn.Identity(), torch.nn.Identity()
    features = torch.tensor([[0.0, 0.0], [math.log(3) / 2, 4.0]]).view(1, 2, 2, 1, 1)
    # Both on day 0, whose position is (sin 0, cos 0) = (0, 1): keys 0 and ln(3) / 2, scores 0 and ln 3.
    mixed, masks = head(features, torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, 1, 1, dtype=torch.bool))
    torch.testing.assert_close(masks.flatten(), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(mixed.flatten(), torch.tensor([0.75 * math.log(3) / 2, 1.0 + 0.75 * 4.0]))


def test_positions_by_hand():
    """Four channels a head: sines, then cosines, of day / 1000^0 and day / 1000^(1/2)."""
    found = attention(heads=2, width=8).positions(torch.tensor([[0, 100]]))
    angles = [100.0, 100.0 / math.sqrt(1000)]
    expected = [[0, 0, 1, 1], [*(math.sin(a) for a in angles), *(math.cos(a) for a in angles)]]
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_attention_against_plain_loops():
    """The equations, one window, cell, head and date at a time."""
    module = attention()
    features = torch.randn(2, DATES, 4, 2, 3)
    days = torch.arange(DATES).expand(2, -1) * 31
    seen = torch.rand(2, DATES, 2, 3) > 0.4
    seen[1, :, 0, 0] = False
    merged, masks = module(features, days, seen)
    mixed = torch.zeros(2, 8, 2, 3)
    for b in range(2):
        values = []
        for t in range(DATES):
            projected = torch.einsum("oi,ihw->ohw", module.project.weight[:, :, 0], features[b, t])
            projected = projected + module.project.bias[:, None, None]
            for group in (slice(0, 4), slice(4, 8)):
                part = projected[group]
                projected[group] = (part - part.mean()) / (part.var(unbiased=False) + module.norm.eps).sqrt()
            values.append(projected)
        for h in range(2):
            for i in range(2):
                for j in range(3):
                    group = slice(4 * h, 4 * h + 4)
                    scores, looks = [], []
                    for t in range(DATES):
                        value = values[t][group, i, j] + module.positions(days)[b, t]
                        key = module.keys.weight[3 * h : 3 * h + 3, :, 0] @ value
                        score = (module.query[h] @ key).item() / math.sqrt(3)
                        scores.append(math.exp(score) if seen[b, t, i, j] else 0.0)
                        looks.append(value)
                    total = sum(scores)
                    for t in range(DATES):
                        share = scores[t] / total if total else 0.0
                        assert float(masks[b, h, t, i, j]) == pytest.approx(share, abs=1e-5)
                        mixed[b, group, i, j] += share * looks[t]
    torch.testing.assert_close(merged, module.out_norm(module.merge(mixed)), atol=1e-5, rtol=1e-4)


def test_collapse_against_plain_loops():
    features, masks = torch.randn(2, 3, 4, 2, 2), torch.rand(2, 2, 3, 2, 2)
    expected = torch.zeros(2, 4, 2, 2)
    for c in range(4):
        for t in range(3):
            expected[:, c] += masks[:, c // 2, t] * features[:, t, c]
    torch.testing.assert_close(collapse(features, masks), expected)


def test_which_dates_a_cell_has_seen():
    """Half of the pixels is enough; a cell no date shows so well takes the best, and one never seen has none."""
    seen = torch.zeros(1, 3, 2, 6)
    seen[0, 0, :, :2] = 1  # cell 0: all of date 0,
    seen[0, 1, 0, :2] = 1  # half of date 1,
    seen[0, 2, 0, 0] = 1  # a quarter of date 2
    seen[0, 2, 0, 2] = 1  # cell 1: a quarter of date 2 only
    found = seen_by_cells(seen, 2)[0, :, 0]
    assert found.tolist() == [[True, False, False], [True, False, False], [False, True, False]]


def test_enlarged_masks_leave_out_what_a_pixel_has_not_seen():
    """Masks 1/4 and 3/4: a pixel under cloud on date 1 gives it all to date 0; one that saw nothing has nothing."""
    masks = torch.tensor([0.25, 0.75]).view(1, 1, 2, 1, 1)
    seen = torch.ones(1, 2, 2, 2)
    seen[0, 1, 0, 1] = 0
    seen[0, :, 1, 1] = 0
    large = enlarge_masks(masks, seen, 2)[0, 0]
    torch.testing.assert_close(large[0], torch.tensor([[0.25, 1.0], [0.25, 0.0]]))
    torch.testing.assert_close(large[1], torch.tensor([[0.75, 0.0], [0.75, 0.0]]))


def test_seen_pixels_follow_the_patches():
    seen = torch.zeros(2, 16, DATES, dtype=torch.bool)
    seen[1, 6, 3] = True  # row 1, column 2 of the 4 x 4 patches
    found = seen_pixels(series(seen=seen))
    assert found.sum() == 4
    assert found[1, 3, 2:4, 4:6].min() == 1
    whole = torch.ones(2, 1, DATES, dtype=torch.bool)
    assert seen_pixels(series(seen=whole)).min() == 1
    with pytest.raises(DataError, match="do not tile a window of 8 x 8"):
        seen_pixels(series(seen=torch.ones(2, 15, DATES, dtype=torch.bool)))


@pytest.mark.parametrize("side", [24, 12, 10, 6])
@pytest.mark.parametrize("patches", [None, 1, 2])
def test_any_side_gives_logits_of_its_shape(side, patches):
    network = model()
    count = {None: None, 1: 1, 2: (side // 2) ** 2}[patches]
    seen = None if count is None else torch.rand(2, count, DATES) > 0.3
    logits = network(series(side, seen=seen))
    assert logits.shape == (2, CLASSES + 1, side, side)
    assert logits.isfinite().all()
    assert logits.std() > 0


def test_the_order_of_dates_does_not_matter():
    network, batch = model(), series(seen=torch.rand(2, 16, DATES) > 0.3)
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = Series(pixels=batch.pixels[:, order], dates=batch.dates[:, order], seen=batch.seen[:, :, order])
    torch.testing.assert_close(network(turned), network(batch), atol=1e-5, rtol=1e-4)
    swapped = Series(pixels=batch.pixels[:, order], dates=batch.dates, seen=batch.seen[:, :, order])
    assert (network(swapped) - network(batch)).abs().max() > 1e-3, "the days themselves do matter"


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training):
    """Also in training, where batch statistics are formed: padding is not among them."""
    network = model(dropout=0.0).train(training)
    batch = series(seen=torch.ones(2, 1, DATES, dtype=torch.bool))
    padded = Series(
        pixels=torch.cat([batch.pixels, torch.full((2, 3, BANDS, 8, 8), 50.0)], 1),
        dates=torch.cat([batch.dates, torch.full((2, 3), 300)], 1),
        seen=torch.cat([batch.seen, torch.zeros(2, 1, 3, dtype=torch.bool)], 2),
    )
    torch.testing.assert_close(network(padded), network(batch), atol=1e-5, rtol=1e-4)
    everything = Series(pixels=batch.pixels, dates=batch.dates, seen=None)
    torch.testing.assert_close(network(everything), network(batch), atol=1e-5, rtol=1e-4)


def test_a_date_under_cloud_does_not_matter():
    network = model()
    seen = torch.ones(2, 16, DATES, dtype=torch.bool)
    seen[0, :, 2] = False
    batch = series(seen=seen)
    other = batch.pixels.clone()
    other[0, 2] = 1000.0
    changed = network(Series(pixels=other, dates=batch.dates, seen=seen))
    torch.testing.assert_close(changed, network(batch), atol=1e-5, rtol=1e-4)
    clear = Series(pixels=other, dates=batch.dates, seen=None)
    assert (network(clear) - changed).abs().max() > 1e-3, "the same date, seen, does matter"


def test_a_window_never_seen_has_finite_logits_and_gradients():
    network = model(dropout=0.0).train()
    network(series(seen=torch.zeros(2, 16, DATES, dtype=torch.bool))).square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_gradients_reach_every_parameter_and_no_hidden_date():
    network = model(dropout=0.0).train()
    seen = torch.ones(2, 1, DATES, dtype=torch.bool)
    seen[:, :, 3:] = False
    batch = series(seen=seen)
    batch.pixels.requires_grad_()
    network(batch).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert batch.pixels.grad[:, 3:].abs().max() == 0
    assert batch.pixels.grad[:, :3].abs().max() > 0


def test_autocast_runs_the_same_path():
    network, batch = model(), series()
    with torch.autocast("cpu", torch.bfloat16):
        low = network(batch)
    torch.testing.assert_close(low.float(), network(batch), atol=0.1, rtol=0.1)


def test_the_papers_size():
    """The paper reports 1,087 thousand parameters for 10 bands and 20 classes; ours differ by a grouped key map."""
    count = sum(p.numel() for p in Utae(UtaeConfig(), bands=10, classes=19).parameters())
    assert count == pytest.approx(1_087_000, rel=0.03)


def test_the_builder_follows_the_configuration():
    shape = {"bands": BANDS, "classes": CLASSES, "window": 8}
    assert isinstance(build_segmenter(SegmenterConfig(model="utae", utae=SMALL), **shape), Utae)
    assert isinstance(build_segmenter(SegmenterConfig(encoder=EncoderConfig(dim=8)), **shape), Segmenter)


def test_it_reads_days_of_the_season_and_never_padding():
    published = SegmenterConfig(encoder=EncoderConfig(dates="day_of_year", mask_padding=False, mask_clouds=False))
    assert published.reading == published.encoder
    reading = published.model_copy(update={"model": "utae"}).reading
    assert (reading.dates, reading.mask_padding, reading.mask_clouds) == ("season_day", True, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("segmenter.utae.heads=3", "width 16 is no multiple of heads 3"),
        ("segmenter.utae.encoder_widths=[16, 32]", "one entry a level"),
        ("segmenter.utae.attention_width=12", r"no multiple of 2 x heads = 8"),
        ("segmenter.model=unet", "'tsvit' or 'utae'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        resolve("demo", overrides=[change])
