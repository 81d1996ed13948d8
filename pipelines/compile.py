"""Compile the pipelines: `python -m exact_kubeflow.pipelines.compile [--check]`.

The compiled YAML is committed; --check compiles to a temporary folder and fails when a committed file is stale.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from exact_kubeflow.pipelines.leave_one_season_out import leave_one_season_out
from exact_kubeflow.pipelines.map_area import map_area
from exact_kubeflow.pipelines.new_season import new_season
from exact_kubeflow.pipelines.train_exact import train_dense, train_exact
from kfp import compiler

COMPILED = Path(__file__).parent / "compiled"
PIPELINES = {
    "train_exact.yaml": train_exact,
    "train_dense.yaml": train_dense,
    "new_season.yaml": new_season,
    "map_area.yaml": map_area,
    "leave_one_season_out.yaml": leave_one_season_out,
}


def compile_to(folder: Path) -> list[Path]:
    """Write every pipeline's YAML to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, pipeline in PIPELINES.items():
        compiler.Compiler().compile(pipeline, str(folder / name))
        written.append(folder / name)
    return written


def stale() -> list[str]:
    """Names of committed files that differ from what the code compiles to now."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            path.name
            for path in compile_to(Path(folder))
            if not (COMPILED / path.name).is_file() or (COMPILED / path.name).read_bytes() != path.read_bytes()
        ]


def main() -> int:
    """Compile, or check. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing")
    if not parser.parse_args().check:
        for path in compile_to(COMPILED):
            sys.stdout.write(f"{os.path.relpath(path)}\n")
        return 0
    outdated = stale()
    if outdated:
        sys.stderr.write(f"stale: {', '.join(outdated)} in {COMPILED}. Run `make compile` and commit the result\n")
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main())
