"""Numbers that are not defined (NaN, infinite): left out of metrics, null in JSON. Without numpy.

Neither leaves the project: KFP's launcher and RFC 8259 refuse NaN, so that a step fails after its work, and MLflow's
charts begin elsewhere with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["defined", "to_json"]


def defined(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that have a finite value."""
    return {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}


def to_json(content: Any, *, indent: int | None = 2) -> str:
    """JSON of RFC 8259: a number that is not finite, at any depth, is null."""
    return json.dumps(_without_undefined(content), indent=indent, allow_nan=False)


def _without_undefined(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _without_undefined(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_undefined(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
