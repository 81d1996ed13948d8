#!/usr/bin/env bash
# torch 2.13 (CPU): softmax over a last axis shorter than a vector of the processor takes many times as long a value.
#
# With AVX-512 a vector has 16 values of float32, and rows of 15 take 13 times as long a value as rows of 16. With AVX2 it
# has 8. The backward pass of short rows is slower too, 7 to 25 times. So to fill a row up with -inf, to compute twice as
# many values and to cut the result off is faster than to ask for what is wanted. Attention over few tokens meets this.
# Measured on one thread, medians of 21 in turn. Fails if rows of 7 no longer take 3 times as long a value as rows of 16,
# if filling up to 16 is no longer faster, or if its values differ by more than rounding.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2>/dev/null
cat >"$work/try.py" <<'PY'
from statistics import median
from time import process_time

import torch
from torch.nn.functional import pad

def seconds(*functions):
    found = [[] for _ in functions]
    for _ in range(21):
        for function, times in zip(functions, found):
            began = process_time()
            for _ in range(5):
                function()
            times.append(process_time() - began)
    return [median(times) for times in found]

torch.manual_seed(0)
torch.set_num_threads(1)
short, long = torch.randn(40_000, 7), torch.randn(40_000, 16)
filled = lambda: pad(short, (0, 9), value=-torch.inf).softmax(-1)[:, :7]
plain, whole, padded = seconds(lambda: short.softmax(-1), lambda: long.softmax(-1), filled)
backward = torch.ops.aten._softmax_backward_data
one, other = short.softmax(-1), long.softmax(-1)
back_plain, back_whole = seconds(
    lambda: backward(short, one, -1, short.dtype), lambda: backward(long, other, -1, long.dtype)
)
print(f"{torch.backends.cpu.get_cpu_capability()}: a value of a row of 7 takes {plain / 7 / (whole / 16):.1f} times as long")
print(f"as one of 16, backward {back_plain / 7 / (back_whole / 16):.1f} times; filled up to 16 a row takes "
      f"{padded / plain:.2f} of the time")
same = torch.allclose(filled(), one, atol=1e-7, rtol=1e-5)
print("as told" if plain / 7 > 3 * whole / 16 and padded < plain and same else "changed")
PY
said=$("$work/venv/bin/python" "$work/try.py")
echo "$said"
[ "$(tail -1 <<<"$said")" = "as told" ] || exit 1
echo "torch 2.13.0: softmax over a last axis shorter than a vector is faster when it is filled up with -inf"
