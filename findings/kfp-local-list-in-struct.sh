#!/usr/bin/env bash
# kfp 2.17.0, local runner: a LIST parameter inside a dict argument makes the task's input invalid JSON.
#
# A pipeline may build a dict from its parameters, as in task(run={"seed": seed, "overrides": overrides}). The compiler
# accepts it and writes a struct constant with a placeholder for each parameter. With strings and numbers inside, the
# local runner fills it in (numbers arrive as text). With a list inside, the runner pastes the list's JSON, quotes and
# all, into a JSON string: the executor ends with json.decoder.JSONDecodeError before the component's code begins.
# Seen 2026-11-28, kfp 2.17.0, Python 3.11, Debian 12. Fails when either behaviour changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check kfp==2.17.0
cat >"$work/try.py" <<'PY'
import sys
from kfp import compiler, dsl, local

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def show(run: dict):
    print("GOT", {key: type(value).__name__ for key, value in sorted(run.items())})

@dsl.pipeline(name="scalars")
def scalars(seed: int = 3, recipe: str = "demo"):
    show(run={"seed": seed, "recipe": recipe})

@dsl.pipeline(name="with-list")
def with_list(seed: int = 3, overrides: list = ["a=1"]):
    show(run={"seed": seed, "overrides": overrides})

which = {"scalars": scalars, "list": with_list}[sys.argv[1]]
compiler.Compiler().compile(which, sys.argv[2])
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2] + ".root")
which()
PY
cd "$work"
export PATH="$work/venv/bin:$PATH"
"$work/venv/bin/python" try.py scalars "$work/scalars.yaml" >"$work/scalars.log" 2>&1
grep -q "GOT {'recipe': 'str', 'seed': 'str'}" "$work/scalars.log" || { tail -5 "$work/scalars.log"; echo "changed: scalars"; exit 1; }
if "$work/venv/bin/python" try.py list "$work/list.yaml" >"$work/list.log" 2>&1; then echo "changed: a list is filled in now"; exit 1; fi
test -s "$work/list.yaml"  # it compiled
grep -q "json.decoder.JSONDecodeError" "$work/list.log" || { tail -5 "$work/list.log"; echo "changed: another error"; exit 1; }
echo "kfp 2.17.0: numbers in a struct arrive as text; a list in a struct compiles, and its task cannot start locally (JSONDecodeError)"
