"""What a pipeline must know of a stage: stated once, as STAGE beside the stage's function, in literals.

`stage_table` reads them from the sources, so pipelines are compiled without importing what stages import (torch).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

__all__ = ["Stage", "manifests", "stage_table"]


@dataclass(frozen=True)
class Stage:
    """The facts of a stage of the pipelines."""

    name: str
    """As its component, and in MLflow."""
    size: Literal["small", "data", "train"]
    """`small` requires little. `data` reads or joins many files. `train` runs a model, on a GPU if there is one."""
    minutes: int
    """Longest time of one try on a cluster, the pull of its image included."""
    within: str = ""
    """The step that runs it as its second half. If empty, it is a separate step."""
    image: Literal["data", "train"] = "train"
    """The smallest of our images that it runs in. Data has no torch."""
    retries: int = 2
    """Tries after the first. Trainings and maps continue from their finished parts."""
    reads_source: bool = False
    """Whether it opens the run's source."""
    settings: tuple[str, ...] | None = None
    """Sections of the configuration that it reads. If None, all."""
    in_parts: bool = False
    """Whether parallel steps each do a part of it, which is then in their runs' names."""
    writes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Folders that it puts out, each with the manifest that makes it complete, or those that it may have."""


@cache
def stage_table() -> Mapping[str, Stage]:
    """Every stage of the pipelines, by name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STAGE":
                assert isinstance(node.value, ast.Call), path
                facts: dict[str, Any] = {str(each.arg): ast.literal_eval(each.value) for each in node.value.keywords}
                found[facts["name"]] = Stage(**facts)
    return found


def manifests() -> tuple[str, ...]:
    """Names of the manifests of our artifact folders (docs/data-format.md).

    metrics.json is the last: a model folder has one beside its own.
    """
    written = [names for stage in stage_table().values() for names in stage.writes.values()]
    names = dict.fromkeys(name for each in written for name in each)
    return (*(name for name in names if name != "metrics.json"), "metrics.json")
