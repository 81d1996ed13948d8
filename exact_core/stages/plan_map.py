"""Stage `plan_map`: the parts that a map is made in, side by side on a cluster."""

from __future__ import annotations

from exact_core.data.sources import parse_source, source_of
from exact_core.errors import ConfigError

__all__ = ["check_parts", "plan_map"]

MOST = 16
"""Parts: with its loop's drivers each takes the room of one and a half steps of about 43 that a run has, and the other
steps of the pipelines take 13 (docs/scale.md, "What would break first")."""


def plan_map(*, source: str, parts: int) -> list[str]:
    """Names I/N of the parts.

    Args:
        source: with images of an area; of any other there is nothing to map, by one step.
        parts: N.

    Raises:
        ConfigError: fewer than one part, or too many steps for a pipeline.
    """
    check_parts(parts)
    if not source_of(parse_source(source)[0]).opens:
        parts = 1
    return [f"{part}/{parts}" for part in range(1, parts + 1)]


def check_parts(parts: int) -> None:
    """Accept a number of parts that a run can hold.

    Raises:
        ConfigError: fewer than one, or too many.
    """
    if not 1 <= parts <= MOST:
        raise ConfigError(
            f"map_parts = {parts}: expected 1 to {MOST}: more steps do not fit into one run on a cluster; map a large "
            f"area tile by tile or cell by cell, a run each, or with exact map --part I/N and exact join-map, which "
            f"have no such limit"
        )
