"""Precision of trained models, where nothing more is learned."""

import pytest
import torch
from torch.nn import functional as F

from exact_core.config import EncoderConfig, SegmenterConfig
from exact_core.data.windows.batches import Series
from exact_core.models.precision import choose_precision, for_inference
from exact_core.models.segmenter import build_segmenter

CPU = torch.device("cpu")
# What a processor without products of bfloat16 computes in float32.
LOWER = torch.ops.mkldnn._is_mkldnn_bf16_supported()


def model_and_series():
    torch.manual_seed(0)
    encoder = EncoderConfig(dim=32, temporal_depth=2, spatial_depth=2, heads=2, head_dim=16, mlp_ratio=2)
    model = build_segmenter(SegmenterConfig(encoder=encoder), bands=3, classes=2, window=8)
    return model, Series(torch.randn(2, 5, 3, 8, 8), torch.arange(5).expand(2, -1) * 30, None)


def test_a_precision_that_was_asked_for_is_used():
    assert [choose_precision(each, model_and_series()[0], CPU) for each in ("fp32", "bf16")] == ["fp32", "bf16"]


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_goes_by_the_processor(native, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert choose_precision("auto", model_and_series()[0], CPU) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_computes_as_the_processor_does():
    model, series = model_and_series()
    with torch.no_grad():
        expected = for_inference(model, CPU, "fp32")(series)
        device = torch.device("cuda")
        moved = Series(series.pixels.to(device), series.dates.to(device), None)
        found = for_inference(model, device, "bf16")(moved).float().cpu()
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


def test_products_are_reduced_and_sums_are_not():
    model, series = model_and_series()
    with torch.no_grad():
        exact = for_inference(model, CPU, "fp32")(series)
        lower = for_inference(model, CPU, "bf16")(series)
        again = for_inference(model, CPU, "fp32")(series)
    assert lower.dtype == torch.float32
    assert torch.equal(exact, again)
    assert torch.equal(exact, lower) is not LOWER
    difference = (F.softmax(exact, 1) - F.softmax(lower, 1)).abs()
    assert difference.max() < 0.01


def test_learning_is_not_reduced_by_it():
    model, series = model_and_series()
    gradients = []
    for precision in ("fp32", "bf16"):
        loss = for_inference(model, CPU, precision)(series).square().mean()
        gradients.append(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))
    assert all(one is None or torch.equal(one, other) for one, other in zip(*gradients, strict=True))
