"""Trained models where nothing more is learned: on their device, in the precision asked for."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from exact_core.config import Precision
from exact_core.models.attention import Transformer

__all__ = ["for_inference", "resolved"]

Model = TypeVar("Model", bound=nn.Module)


def resolved(precision: Precision, device: torch.device) -> Precision:
    """`fp32` or `bf16`. `auto` is bf16 where the device multiplies bfloat16 by instructions of its own."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # oneDNN takes bfloat16 on older processors, too, and is slower in it there.
        native = torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()  # type: ignore[no-untyped-call]
    return "bf16" if native else "fp32"


def for_inference(model: Model, device: torch.device, precision: Precision) -> Model:
    """The model, moved to the device, for evaluation. Its transformers multiply in the precision, to sums in float32.

    A model without transformers computes in float32.
    """
    products = torch.bfloat16 if resolved(precision, device) == "bf16" else None
    for module in model.modules():
        if isinstance(module, Transformer):
            module.products = products
    return model.to(device).eval()
