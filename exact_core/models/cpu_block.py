"""A transformer block on the CPU, forward and backward written out.

The equations are those of `attention.Block`. This version is faster, and keeps less for the backward pass:

- Matrix products go through oneDNN where torch has it. MKL, the default of torch, ran at less than half of its speed on
  an AMD EPYC with AVX-512. Without AVX-512 MKL is as fast, and for gradients of weights 1.6 times as fast.
- The block keeps its input, queries, keys, values, the input of the MLP and its hidden layer before GELU. This is about
  half of what autograd would keep. Layer norms are recomputed, and attention probabilities and GELU in wide blocks,
  where they would take much memory. A narrow block keeps them, because there they cost as much as the products.
- Heads are views of one array, so nothing is transposed or copied for them. In learning, a narrow block computes those
  of short sequences together, from copies: threads wait for each other at each operator, so fewer are worth a copy.
- Arrays of rows are filled up with rows of 0, so that few kernels serve groups of any size (`kernel_rows`).
- Without gradients, GELU is part of the product before it, with bit-identical values.
- Under autocast products are of bfloat16, to sums in float32, where oneDNN has them for the processor. What blocks add
  to, norms and softmax are in float32.

Axes are N sequences, L tokens, D embedding, Q queries (L, or the first rows only), I = heads x head width d. M = N x L.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["BlockShape", "cpu_block", "linear", "project", "runs_on", "weight_gradient"]

Residual = Literal["pre_norm", "normed", "double"]

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)
_ONEDNN_DTYPES: tuple[torch.dtype, ...] = (torch.float32,)
if _ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    _ONEDNN_DTYPES += (torch.bfloat16,)
_MKL_WEIGHTS = not _ONEDNN or torch.backends.cpu.get_cpu_capability() != "AVX512"
LANES = 16
"""float32 values in a processor's widest vector. torch's softmax of rows with fewer takes 13 times as long a value."""
KEEPING_WIDTH = 64
"""Width D up to which a block keeps attention probabilities and GELU for the backward pass. Values are the same."""
SHORT = 64
"""Tokens up to which a block that keeps probabilities computes all heads at once. Longer ones would leave the cache."""


def runs_on(x: Tensor) -> bool:
    """Whether `cpu_block` computes on this tensor: CPU, not while torch.compile traces."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def linear(x_MI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """The product x @ weight.T + bias, or GELU of it, (M, I) -> (M, O). It records no gradient."""
    # A single row would be added up in another order than one among many.
    rows = filled_up(x_MI)
    if _ONEDNN and x_MI.dtype in _ONEDNN_DTYPES and len(x_MI):
        # The last argument is GELU's approximation.
        then: tuple[str, list[Any], str] = ("gelu", [], "none") if gelu else ("none", [], "")
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight_OI, bias_O, *then)
    else:
        product = F.linear(rows, weight_OI, bias_O)
        product = F.gelu(product) if gelu else product
    return product if len(rows) == len(x_MI) else product[: len(x_MI)]


def filled_up(x_MI: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The rows, in `dtype` if given, and rows of 0 after them up to `kernel_rows`."""
    dtype = dtype or x_MI.dtype
    if kernel_rows(len(x_MI)) == len(x_MI):
        return x_MI.to(dtype)
    filled = _room(len(x_MI), x_MI.shape[1], dtype)
    filled[: len(x_MI)].copy_(x_MI)
    return filled


def kernel_rows(rows: int) -> int:
    """So many rows or, beyond 128, up to a quarter more, of four numbers between two powers of two.

    oneDNN makes a kernel for each number of rows, in the time of a product of thousands. Groups of sequences have any
    number.
    """
    step = max(32, 1 << max(0, rows.bit_length() - 3))
    return math.ceil(rows / step) * step


def _room(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """An array for so many rows, and 0 after them, which adds nothing to sums over rows."""
    room = torch.empty(kernel_rows(rows), width, dtype=dtype)
    if len(room) > rows:
        room[rows:].zero_()
    return room


def project(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer (..., I) -> (..., O). Where nothing is learned on a CPU, a row's does not depend on the others."""
    if torch.is_grad_enabled() or not runs_on(x):
        learned: Tensor = layer(x)
        return learned
    return linear(x.reshape(-1, x.shape[-1]), layer.weight, layer.bias).view(*x.shape[:-1], len(layer.weight))


@dataclass(frozen=True)
class BlockShape:
    """What a block is beside its parameters.

    rows: number of leading tokens whose attention is of interest; only_rows: deliver only those tokens.
    """

    heads: int
    residual: Residual
    epsilon: float
    rows: int
    only_rows: bool


def cpu_block(
    x_NLD: Tensor, bias_NL: Tensor | None, shape: BlockShape, parameters: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor | None]:
    """The block's output (N, L or rows, D), and the attention probabilities of the first rows (N, rows, L).

    Args:
        x_NLD: tokens.
        bias_NL: added to the scores of each key, -inf where it must not be attended to. If None, nothing.
        shape: heads, residual, rows.
        parameters: of attention norm (weight, bias), qkv (weight), out (weight, bias), MLP norm (weight, bias), first
            and second layer of the MLP (weight, bias each).
    """
    lower = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") in _ONEDNN_DTYPES
    given = (x_NLD, bias_NL, shape, torch.bfloat16 if lower else x_NLD.dtype, torch.is_grad_enabled())
    # What is in which type is written out here. Autocast would choose anew for some operators.
    with torch.autocast("cpu", enabled=False):
        out, probabilities = _CpuBlock.apply(*given, *parameters)  # type: ignore[no-untyped-call]
    return out, probabilities if shape.rows and not shape.only_rows else None


class _CpuBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        shape: BlockShape,
        dtype: torch.dtype,
        learning: bool,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        g1, b1, _, _, _, g2, b2, *_ = parameters
        w_qkv, w_out, b_out, w_in, b_in, w_back, b_back = (parameters[i].to(dtype) for i in (2, 3, 4, 7, 8, 9, 10))
        sequences, length, dim = x.shape
        normed, mean1, scale1 = torch.native_layer_norm(x, [dim], g1, b1, shape.epsilon)
        low = filled_up(normed.view(-1, dim), dtype)
        # Where only leading tokens are delivered, the others give keys and values, and are never asked as queries.
        queries = shape.rows if shape.only_rows else length
        asked, tokens = sequences * queries, sequences * length
        kept: tuple[Tensor, ...]
        if shape.only_rows:
            inner = len(w_qkv) // 3
            first = filled_up(normed[:, :queries].reshape(-1, dim), dtype)
            q = linear(first, w_qkv[:inner])[:asked].view(sequences, queries, inner)
            kept = (q, linear(low, w_qkv[inner:])[:tokens].view(sequences, length, 2 * inner))
        else:
            # One wide product instead of three narrow ones.
            kept = (linear(low, w_qkv)[:tokens].view(sequences, length, -1),)
        keeping = learning and dim <= KEEPING_WIDTH
        sets = _sets(kept, shape.heads, w_out.shape[1], together=keeping and length <= SHORT)
        values, probabilities, every = _attend(sets, bias, shape, keeping=keeping)
        if keeping:
            kept = (values, *every)
        y = linear(values, w_out, b_out)[:asked].view(sequences, queries, dim).to(x.dtype)
        # What attention is added to: x, LN(x) or both (`EncoderConfig.residual`).
        if shape.residual != "normed":
            y += x[:, :queries]
        if shape.residual != "pre_norm":
            y += normed[:, :queries]
        # Freed before the MLP makes arrays as large.
        del normed, low, values
        normed, mean2, scale2 = torch.native_layer_norm(y, [dim], g2, b2, shape.epsilon)
        # The backward pass wants GELU's input; without one, product and GELU are a single step.
        hidden = linear(filled_up(normed.view(-1, dim), dtype), w_in, b_in, gelu=not learning)
        active = F.gelu(hidden) if learning else hidden
        out = linear(active, w_back, b_back)[:asked].view_as(y).to(x.dtype)
        if keeping:
            kept = (active, *kept)
        out += y
        ctx.shape, ctx.keeping = shape, keeping
        ctx.save_for_backward(x, bias, mean1, scale1, y, mean2, scale2, hidden, *parameters, *kept)
        # Attention is read off for the clues, never learned from: the backward pass has no term for it.
        ctx.mark_non_differentiable(probabilities)
        # An output that no loss uses comes back as None below, not as zeros to compute with.
        ctx.set_materialize_grads(False)
        return out, probabilities

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        shape: BlockShape = ctx.shape
        x, bias, mean1, scale1, y, mean2, scale2, hidden, *rest = ctx.saved_tensors
        dtype = hidden.dtype
        g1, b1, _, _, _, g2, b2, *_ = rest[:11]
        w_qkv, w_out, w_in, w_back = (rest[i].to(dtype) for i in (2, 3, 7, 9))
        if grad_out is None:
            return (None,) * 16
        sequences, queries, dim = y.shape
        asked, tokens = sequences * queries, sequences * x.shape[1]
        if ctx.keeping:
            active, values, *every = rest[11:]
            sets = [tuple(every[start : start + 4]) for start in range(0, len(every), 4)]
        else:
            # What a wide block computes again.
            active, values = F.gelu(hidden), None
            sets = _sets(rest[11:], shape.heads, w_out.shape[1])
        # A gradient that was expanded or transposed on its way has no rows to view.
        grad_out = grad_out.contiguous()
        rows = grad_out.view(-1, dim)

        # out = y + MLP(LN(y))
        low = filled_up(rows, dtype)
        grad_w_back = weight_gradient(low, active)
        del active
        grad_hidden = torch.ops.aten.gelu_backward(linear(low, w_back.t()), hidden)
        # Again instead of kept: a norm costs little beside the products, and its output is as large as its input.
        normed = _normed(y, mean2, scale2, g2, b2)
        grad_w_in = weight_gradient(grad_hidden, filled_up(normed.view(-1, dim), dtype))
        grad_b_in = grad_hidden.sum(0, dtype=y.dtype)
        grad_normed = linear(grad_hidden, w_in.t())[:asked].view_as(y).to(y.dtype)
        del grad_hidden, normed
        grad_y, grad_g2, grad_b2 = _norm_backward(grad_normed, y, mean2, scale2, g2, b2)
        # The residual around the MLP.
        grad_y += grad_out

        # y = out(attention(LN(x))) + residual
        rows_y = grad_y.view(-1, dim)
        low = filled_up(rows_y, dtype)
        grad_values = linear(low, w_out.t())[:asked].view(sequences, queries, -1)
        normed = _normed(x, mean1, scale1, g1, b1)
        normed_rows = filled_up(normed.view(-1, dim), dtype)
        # Queries, keys and values are stacked in one weight, in this order.
        inner = len(w_qkv) // 3
        of_inputs: tuple[Tensor, ...]
        if shape.only_rows:
            # Every head writes into its slice of these: nothing is joined afterwards.
            flat_q, flat_kv = _room(asked, inner, dtype), _room(tokens, 2 * inner, dtype)
            of_inputs = (flat_q[:asked].view_as(grad_values), flat_kv[:tokens].view(sequences, -1, 2 * inner))
            values = _attend_backward(grad_values, sets, bias, values, of_inputs)
            grad_w_qkv = torch.cat(
                [
                    weight_gradient(flat_q, filled_up(normed[:, :queries].reshape(-1, dim), dtype)),
                    weight_gradient(flat_kv, normed_rows),
                ]
            )
            # Keys and values came from all tokens, queries from the leading ones only.
            grad_normed = linear(flat_kv, w_qkv[inner:].t())[:tokens].view_as(x).to(x.dtype)
            grad_normed[:, :queries] += linear(flat_q, w_qkv[:inner].t())[:asked].view(sequences, queries, dim)
        else:
            flat = _room(tokens, 3 * inner, dtype)
            of_inputs = (flat[:tokens].view(sequences, -1, 3 * inner),)
            values = _attend_backward(grad_values, sets, bias, values, of_inputs)
            grad_w_qkv = weight_gradient(flat, normed_rows)
            grad_normed = linear(flat, w_qkv.t())[:tokens].view_as(x).to(x.dtype)
        grad_w_out = weight_gradient(low, values)
        if shape.residual != "pre_norm":
            grad_normed[:, :queries] += grad_y
        grad_x, grad_g1, grad_b1 = _norm_backward(grad_normed, x, mean1, scale1, g1, b1)
        # The residual around attention: x is reached past the norm, too.
        if shape.residual != "normed":
            grad_x[:, :queries] += grad_y
        of_attention = (grad_g1, grad_b1, grad_w_qkv, grad_w_out, rows_y.sum(0), grad_g2, grad_b2)
        of_all = (*of_attention, grad_w_in, grad_b_in, grad_w_back, rows.sum(0))
        # autograd converts gradients to the parameters' type.
        return (grad_x, None, None, None, None, *of_all)


def _sets(arrays: Sequence[Tensor], heads: int, inner: int, *, together: bool = False) -> list[tuple[Tensor, ...]]:
    """The arrays' parts of width I by heads: a set of all heads, or a set for each.

    Args:
        arrays: (N, tokens, a multiple of I), such as queries, and keys and values.
        heads: heads of a part.
        inner: width I of a part.
        together: make one set.

    Returns:
        For each set a view (its heads, N, tokens, d) of each part.
    """
    parts = []
    for each in arrays:
        of_part = each.view(*each.shape[:2], -1, heads, inner // heads).permute(2, 3, 0, 1, 4)
        parts += list(of_part) if together else [part.split(1) for part in of_part]
    return [tuple(parts)] if together else list(zip(*parts, strict=True))


def _attend(
    sets: Sequence[tuple[Tensor, ...]], bias_NL: Tensor | None, shape: BlockShape, *, keeping: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Attended values (`kernel_rows` of N x Q, I), and the mean over heads of the first rows' probabilities.

    Those are empty when not wanted. Last, when `keeping`, what `_attend_backward` takes of each set, in a row.
    """
    (_, sequences, queries, width), length = sets[0][0].shape, sets[0][1].shape[2]
    asked, inner = sequences * queries, shape.heads * width
    flat = _room(asked, inner, sets[0][0].dtype)
    places = _sets((flat[:asked].view(sequences, queries, inner),), shape.heads, inner, together=len(sets) == 1)
    rows = 0 if shape.only_rows else shape.rows
    wide = torch.promote_types(flat.dtype, torch.float32)
    total = flat.new_zeros(sequences, rows, length, dtype=wide)
    every = []
    # One set at a time: unless kept, the probabilities of all heads are never in memory together.
    for of_set, (place,) in zip(sets, places, strict=True):
        q, k, v = (each.flatten(0, 1) for each in of_set)
        probabilities = _probabilities(q, k, bias_NL)
        total += probabilities.view(-1, sequences, queries, length)[:, :, :rows].sum(0)
        probabilities = probabilities.to(v.dtype)
        # Written into its place directly, torch would compute the products one by one.
        place.copy_(torch.bmm(probabilities, v).view_as(place))
        if keeping:
            every += [q, k, v, probabilities]
    return flat, total.div_(shape.heads), every


def _attend_backward(
    grad_NQI: Tensor,
    sets: Sequence[tuple[Tensor, ...]],
    bias_NL: Tensor | None,
    values: Tensor | None,
    into: Sequence[Tensor],
) -> Tensor:
    """Writes the gradients of queries, keys and values. Returns the attended values as `_attend`.

    Args:
        grad_NQI: gradient of the attended values.
        sets: queries, keys, values and probabilities that `_attend` kept of each set. Otherwise `_sets`.
        bias_NL: as in the forward pass.
        values: those that were kept. If None, they and the probabilities are computed once more.
        into: arrays like those of queries, keys and values that `_sets` takes.
    """
    asked, inner = len(grad_NQI) * grad_NQI.shape[1], grad_NQI.shape[2]
    again = _room(asked, inner, grad_NQI.dtype) if values is None else values
    together = len(sets) == 1
    heads = inner // sets[0][0].shape[-1]
    arrays = (grad_NQI, again[:asked].view(grad_NQI.shape), *into)
    for of_set, (grad, out, *places) in zip(sets, _sets(arrays, heads, inner, together=together), strict=True):
        grad = grad.flatten(0, 1)
        if values is None:
            q, k, v = (each.flatten(0, 1) for each in of_set)
            probabilities = _probabilities(q, k, bias_NL).to(v.dtype)
            out.copy_(torch.bmm(probabilities, v).view_as(out))
        else:
            q, k, v, probabilities = of_set
        grad_v = torch.bmm(probabilities.transpose(1, 2), grad)
        grad_p = _wide(torch.bmm(grad, v.transpose(1, 2)))
        # Back through the softmax, then through the scale of its scores.
        grad_s = _softmax_backward(grad_p, _wide(probabilities))
        grad_s = grad_s.mul_(q.shape[-1] ** -0.5).to(q.dtype)
        grads = (torch.bmm(grad_s, k), torch.bmm(grad_s.transpose(1, 2), q), grad_v)
        for place, found in zip(places, grads, strict=True):
            place.copy_(found.view_as(place))
    return again


def _probabilities(q_NQd: Tensor, k_NLd: Tensor, bias_NL: Tensor | None) -> Tensor:
    scale = q_NQd.shape[-1] ** -0.5
    if bias_NL is not None and len(bias_NL) < len(q_NQd):
        bias_NL = bias_NL.repeat(len(q_NQd) // len(bias_NL), 1)
    if bias_NL is not None and bias_NL.dtype == q_NQd.dtype:
        # Scale and mask within the product: two passes over the scores less.
        scores = torch.baddbmm(bias_NL[:, None], q_NQd, k_NLd.transpose(1, 2), alpha=scale)
    else:
        scores = _wide(torch.bmm(q_NQd, k_NLd.transpose(1, 2))).mul_(scale)
        scores = scores if bias_NL is None else scores.add_(bias_NL[:, None])
    length = scores.shape[-1]
    if length < LANES:
        return F.pad(scores, (0, LANES - length), value=-math.inf).softmax(-1)[..., :length]
    return scores.softmax(-1)


def _softmax_backward(grad: Tensor, probabilities: Tensor) -> Tensor:
    length = grad.shape[-1]
    if length < LANES:
        grad, probabilities = (F.pad(each, (0, LANES - length)) for each in (grad, probabilities))
    found: Tensor = torch.ops.aten._softmax_backward_data(grad, probabilities, -1, grad.dtype)
    return found[..., :length]


def _wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def weight_gradient(grad_MO: Tensor, x_MI: Tensor) -> Tensor:
    """A weight's gradient (O, I): the sum over rows of outer products."""
    # In bfloat16 torch's own product goes to oneDNN too, which then transposes as it reads: in half to two thirds.
    if grad_MO.dtype == torch.bfloat16 or (_MKL_WEIGHTS and grad_MO.dtype == x_MI.dtype == torch.float32):
        return torch.mm(grad_MO.t(), x_MI)
    # The first factor of a product is copied to be transposed, the second is not: let it be the narrower one.
    if x_MI.shape[1] < grad_MO.shape[1]:
        return linear(x_MI.t(), grad_MO.t()).t()
    return linear(grad_MO.t(), x_MI.t())


def _normed(x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The layer norm of known mean and scale: three passes, a third of the norm's own time where rows are short."""
    return torch.addcmul(bias, (x - mean).mul_(scale), weight).contiguous()


def _norm_backward(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
        grad, x, [x.shape[-1]], mean, scale, weight, bias, [True, True, True]
    )
    return grads
