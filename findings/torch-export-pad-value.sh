#!/usr/bin/env bash
# torch 2.13: torch.export, with a dimension that is dynamic. F.pad(x, (0, 1), value=x.shape[1]) makes a constant of that
# dimension, and the export fails.
#
# The same size as the value of new_full, of where and of masked_fill leaves the dimension dynamic, and so does F.pad
# with a number. The error says that "your code specialized it to be a constant", and not where. Fails when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2>/dev/null
cat >"$work/try.py" <<'PY'
import torch
from torch.nn import functional as F

WAYS = {
    "pad, value=size": lambda x: F.pad(x, (0, 1), value=x.shape[1]),
    "pad, value=9": lambda x: F.pad(x, (0, 1), value=9),
    "pad by size": lambda x: F.pad(x, (0, x.shape[1])),
    "cat, new_full(size)": lambda x: torch.cat([x, x.new_full((x.shape[0], 1), x.shape[1])], 1),
    "where(size)": lambda x: torch.where(x > 2, x, x.shape[1]),
    "masked_fill(size)": lambda x: x.masked_fill(x > 2, x.shape[1]),
}

class Program(torch.nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, x):
        return self.way(x)

found = {}
dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
for name, way in WAYS.items():
    try:
        program = torch.export.export(Program(way), (torch.ones(2, 4),), dynamic_shapes=(dynamic,))
    except Exception as error:
        found[name] = "constant" if "specialized it to be a constant (4)" in str(error) else type(error).__name__
    else:
        other = torch.ones(3, 7)
        found[name] = "dynamic" if torch.equal(program.module()(other), way(other)) else "wrong"
print(found)
told = {name: "constant" if name == "pad, value=size" else "dynamic" for name in WAYS}
print("as told" if found == told else "changed")
PY
said=$("$work/venv/bin/python" "$work/try.py" 2>/dev/null)
echo "$said"
[ "$(tail -1 <<<"$said")" = "as told" ] || exit 1
echo "torch 2.13.0: torch.export: F.pad(value=size) makes the dimension a constant; new_full, where and masked_fill do not"
