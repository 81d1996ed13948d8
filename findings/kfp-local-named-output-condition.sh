#!/usr/bin/env bash
# kfp 2.17.0, local runner: dsl.If on a task's named output is false, whatever the output is.
#
# A condition on the only output of a task (`task.output`, named "Output") works. A condition on an output of a task that
# has several, as task.outputs["mode"] == "b", compiles; the local runner looks for it among the inputs of the pipeline,
# logs "Could not resolve CEL parameter", takes the condition for false and ends SUCCEEDED without the branch. Inside a
# further group, where the output is handed on as an input, it is found. A condition on a pipeline's parameter works too.
# Seen 2026-11-28, kfp 2.17.0, Python 3.11, Debian 12. Fails when either behaviour changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check kfp==2.17.0
cat >"$work/try.py" <<'PY'
from typing import NamedTuple
from kfp import dsl, local

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def single() -> str:
    return "b"

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def several() -> NamedTuple("Out", [("mode", str), ("other", str)]):
    return ("b", "c")

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def show(word: str):
    print("BRANCH", word)

@dsl.pipeline(name="conditions")
def conditions(width: int = 2):
    with dsl.If(single().output == "b"):
        show(word="only-output")
    with dsl.If(several().outputs["mode"] == "b"):
        show(word="named-output")
    with dsl.If(width > 1):
        show(word="parameter")

local.init(local.SubprocessRunner(use_venv=False), pipeline_root="root", raise_on_error=True)
conditions()
PY
cd "$work"
export PATH="$work/venv/bin:$PATH"
"$work/venv/bin/python" try.py >log 2>&1 || { tail -5 log; echo "changed: the run fails"; exit 1; }
grep -q "BRANCH only-output" log || { tail -5 log; echo "changed: the only output"; exit 1; }
grep -q "BRANCH parameter" log || { tail -5 log; echo "changed: a parameter"; exit 1; }
if grep -q "BRANCH named-output" log; then echo "changed: a named output is found now"; exit 1; fi
grep -q "Could not resolve CEL parameter: pipelinechannel--several-mode" log || { tail -5 log; echo "changed: the warning"; exit 1; }
echo "kfp 2.17.0: a condition on a named output of a task is false in the local runner, and the run succeeds without its branch"
