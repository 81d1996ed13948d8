#!/usr/bin/env bash
# torch 2.13: the first optimiser of a process, a plain SGD, imports torch's compiler with sympy, which nothing has asked for.
#
# A model, a forward and a backward pass import neither. Constructing the optimiser loads hundreds of modules more, and on
# a usual processor that takes a second. A second optimiser imports nothing. Fails when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2>/dev/null
cat >"$work/try.py" <<'PY'
import sys, time
import torch

def loaded():
    return {name for name in ("torch._dynamo", "sympy") if name in sys.modules}, len(sys.modules)

model = torch.nn.Linear(3, 1)
model(torch.ones(2, 3)).sum().backward()
before, modules = loaded()
began = time.process_time()
optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
spent = time.process_time() - began
after, more = loaded()
optimiser.step()
torch.optim.SGD(model.parameters(), lr=0.1)
last = len(sys.modules)
print(f"before: {sorted(before)}; after: {sorted(after)}, {more - modules} modules more, {spent:.1f} s; then {last - more} more")
told = not before and after == {"torch._dynamo", "sympy"} and more - modules > 300 and last - more < 20
print("as told" if told else "changed")
PY
said=$("$work/venv/bin/python" "$work/try.py" 2>/dev/null)
echo "$said"
[ "$(tail -1 <<<"$said")" = "as told" ] || exit 1
echo "torch 2.13.0: the first torch.optim.SGD of a process imports torch._dynamo and sympy; a model and its backward pass do not"
