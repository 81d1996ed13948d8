"""What the encoder must not depend on, and what it computes, against plain loops."""

from dataclasses import replace

import pytest
import torch

from exact_core.clues.affinity import time_weights, weighted_embedding
from exact_core.clues.cams import clue_cams, tagged_embedding
from exact_core.config import ClassifierConfig, EncoderConfig, SegmenterConfig
from exact_core.data.windows.batches import Series
from exact_core.models import sequences, tsvit
from exact_core.models.attention import Attention, Block, compile_blocks
from exact_core.models.classifier import TagClassifier
from exact_core.models.segmenter import Segmenter
from exact_core.models.sequences import shared_patches
from exact_core.models.tsvit import TemporalEncoder, to_patches

WINDOW, BANDS, CLASSES = 8, 3, 2
SMALL = {"dim": 12, "temporal_depth": 2, "spatial_depth": 2, "heads": 2, "head_dim": 6, "mlp_ratio": 2}


def models(**encoder):
    torch.manual_seed(0)
    config = EncoderConfig(**SMALL, **encoder)
    shape = {"bands": BANDS, "classes": CLASSES, "window": WINDOW}
    return (
        TagClassifier(ClassifierConfig(encoder=config), **shape).eval(),
        Segmenter(SegmenterConfig(encoder=config), **shape).eval(),
    )


def series(dates=5, *, seed=0, pad=0, garbage=0.0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(2, dates, BANDS, WINDOW, WINDOW, generator=generator)
    days = torch.arange(0, 20 * dates, 20).expand(2, -1)
    seen = torch.ones(2, 1, dates, dtype=torch.bool)
    if pad:
        pixels = torch.cat([pixels, torch.full((2, pad, *pixels.shape[2:]), garbage)], 1)
        days = torch.cat([days, torch.full((2, pad), 300)], 1)
        seen = torch.cat([seen, torch.zeros(2, 1, pad, dtype=torch.bool)], 2)
    return Series(pixels=pixels, dates=days, seen=seen)


def everything(model, batch):
    """Every tensor a later step could use, dates cut to the real ones."""
    if isinstance(model, Segmenter):
        return {"logits": model(batch)}
    output = model(batch)
    tags = torch.ones(2, CLASSES)
    weights = time_weights(output.attention, batch.seen)
    return {
        "logits": output.logits,
        "spatial_map": output.spatial_map,
        "temporal_map": output.temporal_map,
        "class_tokens": output.class_tokens,
        "attention": output.attention[..., :5],
        "weights": weights[..., :5],
        "embedding": weighted_embedding(output.date_tokens, weights, batch.seen),
        "cams": clue_cams(output, tags, batch.seen, model.prototypes, ClassifierConfig().affinity, stretch="min_max"),
    }


@pytest.mark.parametrize("which", [0, 1], ids=["classifier", "segmenter"])
@pytest.mark.parametrize("dates", ["season_day", "day_of_year"])
def test_padding_never_influences_a_result(which, dates):
    model = models(dates=dates)[which]
    plain = everything(model, series())
    for pad, garbage in ((1, 0.0), (4, 0.0), (3, 50.0)):
        padded = everything(model, series(pad=pad, garbage=garbage))
        for name, value in plain.items():
            torch.testing.assert_close(
                padded[name], value, atol=1e-5, rtol=1e-4, msg=f"{name}, {pad} dates of {garbage}"
            )


def test_padding_takes_no_gradient():
    model = models()[0]
    batch = series(pad=3, garbage=2.0)
    pixels = batch.pixels.requires_grad_()
    output = model(batch)
    (output.logits.sum() + output.spatial_map.sum()).backward()
    assert pixels.grad[:, 5:].abs().max() == 0
    assert pixels.grad[:, :5].abs().max() > 0


@pytest.mark.parametrize("which", [0, 1], ids=["classifier", "segmenter"])
def test_a_cloudy_look_of_one_patch_does_not_reach_the_model(which):
    """What lies under a cloud that is masked may be anything."""
    model = models()[which]
    batch = series()
    seen = torch.ones(2, 16, 5, dtype=torch.bool)
    seen[0, 5, 2] = False  # patch 5 of a 4 x 4 grid: rows 2-3, columns 2-3
    other = batch.pixels.clone()
    other[0, 2, :, 2:4, 2:4] = 40.0
    one = everything(model, Series(batch.pixels, batch.dates, seen))
    two = everything(model, Series(other, batch.dates, seen))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_patch_without_any_look_stays_finite():
    model = models()[0]
    batch = series()
    seen = torch.ones(2, 16, 5, dtype=torch.bool)
    seen[0, 5] = False
    for name, value in everything(model, Series(batch.pixels, batch.dates, seen)).items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize("which", [0, 1], ids=["classifier", "segmenter"])
def test_a_group_of_patches_without_any_look_changes_nothing_for_others(which, monkeypatch):
    """As beside a swath, where they are so many that they are a group of their own."""
    model, batch = models()[which], series()
    seen = torch.ones(2, 16, 5, dtype=torch.bool)
    expected = everything(model, Series(batch.pixels, batch.dates, seen))
    seen[1] = False
    monkeypatch.setitem(sequences.TOKENS, "cpu", 16)
    for name, value in everything(model, Series(batch.pixels, batch.dates, seen)).items():
        assert value.isfinite().all(), name
        if len(value) == 2:
            torch.testing.assert_close(value[0], expected[name][0], atol=1e-5, rtol=1e-4, msg=name)


def test_the_order_of_dates_does_not_matter():
    model, segmenter = models()
    batch = series()
    order = torch.tensor([3, 0, 4, 1, 2])
    mixed = Series(batch.pixels[:, order], batch.dates[:, order], batch.seen[:, :, order])
    torch.testing.assert_close(model(mixed).logits, model(batch).logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(segmenter(mixed), segmenter(batch), atol=1e-5, rtol=1e-4)


def test_patches_by_hand():
    pixels = torch.arange(2 * 4 * 4).reshape(1, 1, 2, 4, 4)
    patches = to_patches(pixels, 2)
    assert patches.shape == (1, 4, 1, 8)
    # Second patch: rows 0-1, columns 2-3; row in patch, column in patch, band fastest.
    assert patches[0, 1, 0].tolist() == [2, 18, 3, 19, 6, 22, 7, 23]


def test_the_segmenters_pixels_lie_in_their_own_patch():
    """With no attention over space to carry it, a change in one patch changes that patch alone."""
    segmenter = models()[1]
    for block in segmenter.spatial.transformer.blocks:
        torch.nn.init.zeros_(block.attention.out.weight)
    batch = series()
    other = batch.pixels.clone()
    other[:, :, :, 2:4, 4:6] += 1
    with torch.no_grad():
        changed = segmenter(batch) != segmenter(Series(other, batch.dates, batch.seen))
    where = changed.any(0).any(0)
    assert where[2:4, 4:6].all()
    assert where.sum() == 4


def plain_attention(module, x, keys):
    """Attention by loops from the definition."""
    heads, width = module.heads, module.qkv.weight.shape[0] // 3 // module.heads
    q, k, v = (part.reshape(*x.shape[:2], heads, width) for part in module.qkv(x).chunk(3, -1))
    out = torch.zeros(*x.shape[:2], heads * width)
    probabilities = torch.zeros(x.shape[0], heads, x.shape[1], x.shape[1])
    for n in range(x.shape[0]):
        for head in range(heads):
            for i in range(x.shape[1]):
                scores = torch.stack([q[n, i, head] @ k[n, j, head] / width**0.5 for j in range(x.shape[1])])
                scores[~keys[n]] = -torch.inf
                p = scores.softmax(0)
                probabilities[n, head, i] = p
                out[n, i, head * width : (head + 1) * width] = (p[:, None] * v[n, :, head]).sum(0)
    return module.out(out), probabilities


def test_attention_against_plain_loops():
    torch.manual_seed(1)
    module = Attention(6, heads=2, head_dim=4, dropout=0.0)
    x = torch.randn(2, 5, 6)
    keys = torch.tensor([[True] * 5, [True, True, False, True, False]])
    expected, probabilities = plain_attention(module, x, keys)
    bias = torch.zeros(keys.shape).masked_fill(~keys, -torch.inf)
    values, rows = module(x, bias=bias, rows=2)
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows, probabilities.mean(1)[:, :2], atol=1e-6, rtol=1e-5)
    only, none = module(x, bias=bias, rows=2, only_rows=True)
    torch.testing.assert_close(only, expected[:, :2], atol=1e-5, rtol=1e-5)
    assert none is None


@pytest.mark.parametrize("residual", ["pre_norm", "normed", "double"])
def test_residuals_by_definition(residual):
    torch.manual_seed(2)
    block = Block(6, heads=2, head_dim=3, mlp_ratio=2, dropout=0.0, residual=residual)
    x = torch.randn(1, 4, 6)
    u = block.attention_norm(x)
    v = block.attention(u)[0] + {"pre_norm": x, "normed": u, "double": x + u}[residual]
    torch.testing.assert_close(block(x)[0], v + block.mlp(block.mlp_norm(v)))


def test_autocast_runs_the_same_path():
    model, segmenter = models()
    batch = series(pad=2)
    with torch.autocast("cpu", torch.bfloat16):
        output, logits = model(batch), segmenter(batch)
    torch.testing.assert_close(output.logits.float(), model(batch).logits, atol=0.1, rtol=0.1)
    torch.testing.assert_close(logits.float(), segmenter(batch), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("learning", [False, True])
def test_tags_told_alone_are_those_of_everything(learning):
    model, _ = models()
    with torch.set_grad_enabled(learning):
        torch.testing.assert_close(model.tag_logits(series(pad=2)), model(series(pad=2)).logits)


def attended(dates, *, total):
    """The same batch twice: padding rows written out, and counted; windows of `dates` dates each."""
    longest = max(dates)
    full = series(total)
    real = torch.arange(total) < torch.tensor(dates)[:, None]
    pixels, days = full.pixels * real[:, :, None, None, None], full.dates * real
    written = Series(pixels, days, None)
    counted = Series(
        pixels[:, :longest],
        days[:, :longest],
        real[:, None, :longest],
        padding=torch.tensor([total - d for d in dates]),
    )
    return written, counted


@pytest.mark.parametrize("rule", ["attention", "double_softmax"])
@pytest.mark.parametrize("dates", [(5, 3), (9, 4)], ids=["both padded", "one of them full"])
def test_counted_padding_equals_padding_written_out(dates, rule):
    """One token with log(n) on its score stands for n equal ones: in every output and every gradient."""
    model, segmenter = models(dates="day_of_year", residual="normed")
    affinity = ClassifierConfig().affinity.model_copy(update={"time_weights": rule})
    results = []
    for batch in attended(dates, total=9):
        output = model(batch)
        embedding = tagged_embedding(output, torch.ones(2, CLASSES), batch.seen, affinity)
        values = [output.logits, output.spatial_map, output.temporal_map, output.class_tokens, embedding]
        values += [segmenter(batch), output.attention[..., : min(dates)]]
        loss = sum(value.square().sum() for value in values)
        gradients = torch.autograd.grad(loss, [*model.parameters(), *segmenter.parameters()], allow_unused=True)
        results.append(values + [g for g in gradients if g is not None])
    assert len(results[0]) == len(results[1]) > 40
    for written, counted in zip(*results, strict=True):
        torch.testing.assert_close(counted, written, atol=2e-5, rtol=2e-4)


def test_checkpointing_changes_no_bit_of_a_gradient():
    batch = series(pad=2)
    gradients = []
    for checkpointing in (False, True):
        model = models(checkpointing=checkpointing)[0].train()
        output = model(batch)
        (output.logits.square().sum() + output.date_tokens.square().sum() + output.temporal_map.sum()).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


def test_groups_do_not_change_a_result(monkeypatch):
    """Small groups, with and without filling up, against one group for all."""
    model = models()[0]
    batch = series(7, pad=2)
    seen = torch.rand(2, 16, 9, generator=torch.Generator().manual_seed(3)) < 0.6
    batch = Series(batch.pixels, batch.dates, seen & batch.seen)
    results = []
    for budget in (10, 64, 10**6):
        monkeypatch.setitem(sequences.TOKENS, "cpu", budget)
        results.append(everything(model, batch))
    for other in results[:2]:
        for name, value in other.items():
            torch.testing.assert_close(value, results[2][name], atol=1e-5, rtol=1e-4, msg=name)


def test_every_sequence_is_in_one_group_with_its_dates_in_order():
    batch = series(6)
    seen = torch.rand(2, 16, 6, generator=torch.Generator().manual_seed(5)) < 0.5
    found = {}
    for group in sequences.group_sequences(Series(batch.pixels, batch.dates, seen), patches=16, tokens=2):
        for row, (window, patch) in enumerate(zip(group.window.tolist(), group.patch.tolist(), strict=True)):
            slots = group.date[row][group.date[row] < 6].tolist()
            assert found.setdefault((window, patch), slots) is slots
            assert slots == seen[window, patch].nonzero().flatten().tolist()
            if group.bias is not None:
                assert torch.equal(group.bias[row] == 0, group.date[row] < 6)
    assert len(found) == 32


def test_compiled_blocks_give_the_same():
    """Traced and run without code generation, which needs a compiler."""
    model = models()[0]
    batch = series(pad=2)
    names = list(model.state_dict())
    plain = model(batch)
    plain.logits.sum().backward()
    gradients = [p.grad.clone() for p in model.temporal.parameters()]
    model.zero_grad()
    compile_blocks(model, backend="aot_eager")
    compiled = model(batch)
    compiled.logits.sum().backward()
    torch.testing.assert_close(compiled.logits, plain.logits, atol=1e-5, rtol=1e-4)
    for parameter, gradient in zip(model.temporal.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-3)
    assert list(model.state_dict()) == names


def overlapping(*, padding=False, clouds=True):
    """Windows of 8 pixels every 4 of a strip: half of a window's patches are those of the next one."""
    generator = torch.Generator().manual_seed(0)
    strip = torch.randn(5, BANDS, WINDOW, 20, generator=generator)
    seen = torch.rand(5, 4, 10, generator=generator) < 0.7
    places = (0, 4, 8, 12)
    return Series(
        torch.stack([strip[..., place : place + WINDOW] for place in places]),
        torch.arange(0, 100, 20).expand(4, -1),
        torch.stack([seen[..., place // 2 : place // 2 + 4].flatten(1).T for place in places]) if clouds else None,
        torch.full((4,), 3) if padding else None,
    )


def test_patches_that_windows_share_by_hand():
    """Ten columns of four patches, of which four windows hold 4 x 16: the second half of one, the first of the next."""
    for batch in (overlapping(), overlapping(clouds=False), overlapping(padding=True)):
        first, place = shared_patches(batch, to_patches(batch.pixels, 2))
        assert len(first) == 40
        grid = place.view(4, 4, 4)
        assert torch.equal(grid[:-1, :, 2:], grid[1:, :, :2])
        assert torch.equal(place.flatten()[first], torch.arange(40))
    batch = overlapping()
    patches = to_patches(batch.pixels, 2)
    # What is not seen does not tell patches apart, and what is seen does: a value, a day, a look.
    window, patch, date = (~batch.seen.transpose(1, 2)).transpose(1, 2).nonzero()[0].tolist()
    hidden = patches.clone()
    hidden[window, patch, date] += 1
    assert len(shared_patches(batch, hidden)[0]) == 40
    days = batch.dates.clone()
    days[1, 0] += 1
    assert len(shared_patches(replace(batch, dates=days), patches)[0]) > 40
    unlike = patches.clone()
    unlike[1, 0, batch.seen[1, 0].nonzero()[0, 0], 0] += 1e-6
    assert len(shared_patches(batch, unlike)[0]) == 41
    assert shared_patches(series(), to_patches(series().pixels, 2)) is None


@pytest.mark.parametrize("encoder", [{}, {"mask_padding": False}], ids=["masked", "padding attended to"])
@pytest.mark.parametrize("which", [0, 1], ids=["classifier", "segmenter"])
def test_patches_that_windows_share_are_encoded_once_and_nothing_changes(which, encoder, monkeypatch):
    model, batch = models(**encoder)[which], overlapping(padding=bool(encoder))
    encoded = []
    encode = TemporalEncoder._encode

    def counted(self, series, patches, **how):
        encoded.append(patches.shape[0] * patches.shape[1])
        return encode(self, series, patches, **how)

    monkeypatch.setattr(TemporalEncoder, "_encode", counted)
    with torch.no_grad():
        found = model(batch)
        monkeypatch.setattr(tsvit, "shared_patches", lambda *_: None)
        expected = model(batch)
    assert encoded == [40, 64]
    if which:
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
        return
    for name, value in vars(expected.float()).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(found, name), value, atol=1e-6, rtol=1e-5, msg=name)
        elif value is not None:
            for part in ("tokens", "attention", "count"):
                torch.testing.assert_close(getattr(found.padding, part), getattr(value, part), atol=1e-6, rtol=1e-5)
