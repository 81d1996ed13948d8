"""Stage `plan_map`: the parts that a map is made in, side by side on a cluster."""

from __future__ import annotations

from exact_core.errors import ConfigError
from exact_core.stages.ingest import parse_source

__all__ = ["plan_map"]

MOST = 1000
"""Parts: each is a step of the pipeline."""


def plan_map(*, source: str, parts: int) -> list[str]:
    """Names I/N of the parts.

    Args:
        source: season:PATH; of any other there is nothing to map, by one step.
        parts: N.

    Raises:
        ConfigError: fewer than one part, or too many steps for a pipeline.
    """
    if not 1 <= parts <= MOST:
        raise ConfigError(f"map_parts = {parts}: expected 1 to {MOST}")
    if parse_source(source)[0] != "season":
        parts = 1
    return [f"{part}/{parts}" for part in range(1, parts + 1)]
