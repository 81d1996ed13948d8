#!/usr/bin/env bash
# torch 2.13 (CPU): softmax over the channels of a batch of images, on two threads. An image's values differ in the last
# bit from those of the same image alone.
#
# A pixel's softmax needs nothing of other pixels, and no sum changes its order. But torch divides the pixels of the
# whole batch among threads, and those at an end of a share are rounded in another way. Which these are depends on the
# number of images. It shows with sides of 6, 10 and 14, with AVX2 and with AVX-512, and not of 8 and 24. On one thread all are
# equal, and so are exp(x - amax) / sum, and softmax over a last axis. Fails when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2>/dev/null
cat >"$work/try.py" <<'PY'
import torch

def differ(function, x):
    alone = torch.cat([function(image) for image in x.split(1)])
    return int((function(x) != alone).sum())

def written_out(x):
    e = (x - x.amax(1, keepdim=True)).exp()
    return e / e.sum(1, keepdim=True)

torch.manual_seed(0)
found = {}
for threads in (1, 2):
    torch.set_num_threads(threads)
    for side in (6, 8, 10, 14, 24):
        x = torch.randn(37, 7, side, side)
        every = [lambda x: x.softmax(1), written_out, lambda x: x.movedim(1, -1).contiguous().softmax(-1)]
        found[threads, side] = [differ(function, x) for function in every]
print(found)
plain = {key: values[0] for key, values in found.items()}
odd = {key for key, count in plain.items() if count}
others = sum(sum(values[1:]) for values in found.values())
print("as told" if odd == {(2, 6), (2, 10), (2, 14)} and others == 0 else "changed")
PY
said=$(OMP_NUM_THREADS=2 "$work/venv/bin/python" "$work/try.py")
echo "$said"
[ "$(tail -1 <<<"$said")" = "as told" ] || exit 1
echo "torch 2.13.0: softmax(1) of an image depends on its batch on two threads; written out, or over a last axis, not"
