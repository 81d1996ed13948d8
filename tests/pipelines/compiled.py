"""Compiled pipelines, read back: each step's task, its container and what Kubernetes is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def load(path: Path) -> dict[str, tuple[dict, dict, dict]]:
    """The task, the container and the Kubernetes part of each step."""
    spec, platform = yaml.safe_load_all(path.read_text())
    found = {}
    for part in (spec["root"], *spec["components"].values()):
        for name, task in part.get("dag", {}).get("tasks", {}).items():
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            if label:
                kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(label, {})
                found[name] = (task, spec["deploymentSpec"]["executors"][label]["container"], kubernetes)
    return found


def compile_with(settings: Path, folder: Path) -> None:
    """Compile every pipeline to `folder` with EXACT_CLUSTER; in a process of its own, as settings are read once."""
    code = (
        "import sys; from pathlib import Path; from exact_kubeflow.pipelines.compile import compile_to; "
        "compile_to(Path(sys.argv[1]))"
    )
    environment = {"EXACT_CLUSTER": str(settings), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=ROOT, env=environment)
