"""Numeric precision of models: in training, and where nothing more is learned."""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import nn

from exact_core.config import Precision
from exact_core.models.attention import Transformer, has_transformers

__all__ = ["choose_precision", "for_inference"]

Model = TypeVar("Model", bound=nn.Module)


def choose_precision(wanted: Precision, model: nn.Module, device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision to compute in.

    `auto` is bf16 for a model with transformers, where the GPU or processor multiplies bfloat16 by instructions of its
    own (of processors, those with AVX512_BF16).
    """
    if wanted != "auto":
        return wanted
    if not has_transformers(model):
        return "fp32"
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # oneDNN takes bfloat16 on older processors, too, and is slower in it there.
        native = torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()  # type: ignore[no-untyped-call]
    return "bf16" if native else "fp32"


def for_inference(model: Model, device: torch.device, precision: Precision) -> Model:
    """The model, moved to the device, for evaluation. Its transformers multiply in the precision.

    A model without transformers computes in float32.
    """
    lower = choose_precision(precision, model, device) == "bf16"
    for module in model.modules():
        if isinstance(module, Transformer):
            module.product_dtype = torch.bfloat16 if lower else None
    return model.to(device).eval()
