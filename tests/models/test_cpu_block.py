"""The block written out for the CPU, against autograd on the block of modules and against finite differences."""

import math

import pytest
import torch

from exact_core.models import attention, cpu_block as written_out
from exact_core.models.attention import Block
from exact_core.models.cpu_block import BlockShape, cpu_block, filled_up, kernel_rows, linear


def block(residual, dtype=torch.float32):
    torch.manual_seed(0)
    return Block(12, heads=2, head_dim=5, mlp_ratio=2, dropout=0.0, residual=residual).to(dtype)


def key_bias(dtype=torch.float32):
    bias = torch.zeros(3, 7, dtype=dtype)
    bias[0, 5:], bias[1, 4] = -torch.inf, 1.1
    return bias


def every_kind(test):
    """All residuals, all rows or the first only, with and without a mask, wide and narrow."""
    cases = {
        "wide": [False, True],
        "masked": [False, True],
        "only_rows": [False, True],
        "residual": ["pre_norm", "normed", "double"],
    }
    for name, values in cases.items():
        test = pytest.mark.parametrize(name, values)(test)
    return test


@every_kind
def test_equals_the_block_of_modules(residual, only_rows, masked, wide, monkeypatch):
    monkeypatch.setattr(written_out, "KEEPING_WIDTH", 11 if wide else 12)
    monkeypatch.setattr(written_out, "_MKL_WEIGHTS", wide)
    module = block(residual)
    x = torch.randn(3, 7, 12, requires_grad=True)
    weight = torch.randn(3, 2 if only_rows else 7, 12)
    bias = key_bias() if masked else None
    results = []
    for ours in (True, False):
        monkeypatch.setattr(attention, "runs_on", lambda _, answer=ours: answer)
        out, probabilities = module(x, bias=bias, rows=2, only_rows=only_rows)
        assert ("CpuBlock" in type(out.grad_fn).__name__) is ours
        gradients = torch.autograd.grad((out * weight).sum(), [x, *module.parameters()])
        assert (probabilities is None) is only_rows
        results.append([out, *gradients, *([] if only_rows else [probabilities])])
    for ours, modules in zip(*results, strict=True):
        torch.testing.assert_close(ours, modules, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("only_rows", [False, True])
def test_a_wide_block_keeps_less_and_has_the_same_gradients(only_rows, monkeypatch):
    module, x = block("pre_norm"), torch.randn(3, 7, 12, requires_grad=True)
    results, saved = [], []
    for width in (11, 12):
        monkeypatch.setattr(written_out, "KEEPING_WIDTH", width)
        out, _ = module(x, bias=key_bias(), rows=2, only_rows=only_rows)
        saved.append(sum(tensor.numel() for tensor in out.grad_fn.saved_tensors if tensor is not None))
        results.append(torch.autograd.grad(out.square().sum(), [x, *module.parameters()]))
    assert all(torch.equal(wide, narrow) for wide, narrow in zip(*results, strict=True))
    assert saved[0] < saved[1]


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("only_rows", [False, True])
def test_heads_together_give_what_each_gives_to_the_last_bit(only_rows, lower, monkeypatch):
    module, x = block("pre_norm"), torch.randn(3, 7, 12, requires_grad=True)
    results = []
    for short in (6, 7):
        monkeypatch.setattr(written_out, "SHORT", short)
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            out, probabilities = module(x, bias=key_bias(), rows=2, only_rows=only_rows)
        kept = next(each for each in out.grad_fn.saved_tensors[::-1] if each is not None)
        assert len(kept) == (3 if short < 7 else 3 * module.attention.heads)
        found = torch.autograd.grad(out.square().sum(), [x, *module.parameters()])
        results.append([out, *found, *([] if only_rows else [probabilities])])
    assert all(torch.equal(each, together) for each, together in zip(*results, strict=True))


@pytest.mark.parametrize(("residual", "only_rows"), [("pre_norm", False), ("normed", True), ("double", False)])
def test_gradients_against_finite_differences(residual, only_rows):
    module = block(residual, torch.float64)
    x = torch.randn(3, 7, 12, dtype=torch.float64, requires_grad=True)
    shape = BlockShape(2, residual, 1e-5, 2, only_rows)

    def run(x, *parameters):
        return cpu_block(x, key_bias(torch.float64), shape, parameters)[0]

    assert torch.autograd.gradcheck(run, (x, *module._parameters_in_order()), fast_mode=True)


def test_a_product_is_a_product():
    torch.manual_seed(1)
    x, weight, bias = torch.randn(50, 33), torch.randn(17, 33), torch.randn(17)
    expected = x.double() @ weight.double().t() + bias.double()
    torch.testing.assert_close(linear(x, weight, bias).double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(linear(x.t().contiguous().t(), weight, bias).double(), expected, atol=1e-5, rtol=1e-5)
    assert linear(x[:0], weight).shape == (0, 17)


@pytest.mark.parametrize("onednn", [True, False])
def test_a_row_alone_is_the_same_row_among_many(onednn, monkeypatch):
    monkeypatch.setattr(written_out, "_ONEDNN", onednn and written_out._ONEDNN)
    x, weight, bias = torch.randn(50, 64), torch.randn(32, 64), torch.randn(32)
    assert torch.equal(linear(x[:1], weight, bias), linear(x, weight, bias)[:1])


@pytest.mark.parametrize("only_rows", [False, True])
def test_without_gradients_the_values_are_the_same_to_the_last_bit(only_rows):
    """There GELU is part of a product; a checkpointed block runs both ways, and its gradients must not notice."""
    module, x = block("pre_norm"), torch.randn(3, 7, 12)
    learning = module(x, bias=key_bias(), rows=2, only_rows=only_rows)
    with torch.no_grad():
        asked = module(x, bias=key_bias(), rows=2, only_rows=only_rows)
    assert torch.equal(learning[0], asked[0])
    assert only_rows or torch.equal(learning[1], asked[1])


def test_a_product_and_its_gelu():
    torch.manual_seed(2)
    x, weight, bias = torch.randn(50, 33), torch.randn(17, 33), torch.randn(17)
    expected = torch.nn.functional.gelu(x.double() @ weight.double().t() + bias.double())
    torch.testing.assert_close(linear(x, weight, bias, gelu=True).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "filled"),
    [(0, 0), (1, 32), (32, 32), (33, 64), (129, 160), (4096, 4096), (4097, 5120), (7100, 7168), (8192, 8192)],
)
def test_rows_of_few_kernels(rows, filled):
    assert kernel_rows(rows) == filled
    x = torch.arange(3.0 * rows).view(rows, 3)
    found = filled_up(x, torch.bfloat16)
    assert found.shape == (filled, 3)
    assert torch.equal(found[:rows], x.bfloat16())
    assert not found[rows:].any()


def test_rows_that_are_filled_up_already_are_not_copied():
    x = torch.randn(64, 3)
    assert filled_up(x) is x


def test_few_kernels_for_any_number_of_rows():
    assert len({kernel_rows(rows) for rows in range(4097, 16_385)}) == 8
    assert all(rows <= kernel_rows(rows) <= math.ceil(1.25 * rows) for rows in range(129, 16_385))


@pytest.mark.parametrize("length", [2, 9, 15, 16, 17])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_any_number_of_tokens_against_modules_in_float64(length, masked):
    """Fewer tokens than a vector has lanes are computed among zeros."""
    x = torch.randn(5, length, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    bias = torch.zeros(5, length)
    bias[1, 1:] = -torch.inf
    bias = bias if masked else None
    found = []
    for dtype in (torch.float32, torch.float64):
        module = block("pre_norm").to(dtype)
        of = x.detach().to(dtype).requires_grad_()
        mask = None if bias is None else bias.to(dtype)
        if dtype is torch.float32:
            out, shown = module(of, bias=mask, rows=2)
        else:
            normed = module.attention_norm(of)
            values, shown = module.attention(normed, bias=mask, rows=2)
            out = of + values
            out = out + module.mlp(module.mlp_norm(out))
        found.append((out, shown, *torch.autograd.grad(out.square().sum(), [of, *module.parameters()])))
    for ours, modules in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), modules.double(), atol=2e-5, rtol=1e-4)


def test_where_the_block_does_not_run_the_modules_do():
    """Dropout in training: the block of modules."""
    module = Block(12, heads=2, head_dim=5, mlp_ratio=2, dropout=0.5, residual="pre_norm")
    x = torch.randn(3, 7, 12, requires_grad=True)
    assert "CpuBlock" not in type(module.train()(x)[0].grad_fn).__name__
    assert "CpuBlock" in type(module.eval()(x)[0].grad_fn).__name__


@every_kind
def test_products_of_bfloat16(residual, only_rows, masked, wide, monkeypatch):
    """Values and gradients against float64, no further from it than the block of modules under autocast."""
    monkeypatch.setattr(written_out, "KEEPING_WIDTH", 11 if wide else 12)
    torch.manual_seed(4)
    x = torch.randn(3, 7, 12)
    weight = torch.randn(3, 2 if only_rows else 7, 12)
    bias = key_bias() if masked else None

    def run(dtype, *, autocast, ours):
        monkeypatch.setattr(attention, "runs_on", lambda _: ours)
        module, start = block(residual, dtype), x.to(dtype, copy=True).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out, probabilities = module(
                start, bias=None if bias is None else bias.to(dtype), rows=2, only_rows=only_rows
            )
        if ours:
            kept = {each.dtype for each in out.grad_fn.saved_tensors if each is not None}
            assert (torch.bfloat16 in kept) is (autocast and torch.ops.mkldnn._is_mkldnn_bf16_supported())
        # What blocks add to is in float32, and so are the gradients that parameters get.
        gradients = torch.autograd.grad((out * weight.to(dtype)).sum(), [start, *module.parameters()])
        found = [out, *gradients, *([] if only_rows else [probabilities])]
        if ours:
            assert all(each.dtype == dtype for each in found)
        return [each.double() for each in found]

    truth = run(torch.float64, autocast=False, ours=False)
    near, far = (run(torch.float32, autocast=True, ours=ours) for ours in (True, False))
    for exact, ours, modules in zip(truth, near, far, strict=True):
        error = (ours - exact).norm() / exact.norm()
        # A value of bfloat16 is off by 0.4 % at most, and each is a sum of several.
        assert 0 < error < 0.015
        assert error < 2 * (modules - exact).norm() / exact.norm()


@pytest.mark.parametrize(("dim", "heads", "head_dim", "ratio"), [(12, 2, 5, 2), (64, 4, 16, 2), (128, 4, 32, 4)])
def test_a_sequence_in_bfloat16_does_not_depend_on_its_neighbours(dim, heads, head_dim, ratio):
    """To the last bit, so that a map in parts is that of the whole."""
    torch.manual_seed(3)
    module = Block(dim, heads=heads, head_dim=head_dim, mlp_ratio=ratio, dropout=0.0, residual="pre_norm")
    x = torch.randn(120, 37, dim)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        whole = module(x, rows=7)
        for start, stop in ((0, 1), (0, 3), (17, 120), (60, 77)):
            part = module(x[start:stop], rows=7)
            assert all(torch.equal(own, all_[start:stop]) for own, all_ in zip(part, whole, strict=True))
