"""The parts that a map is made in, side by side on a cluster."""

from __future__ import annotations

from exact_core.errors import ConfigError

__all__ = ["check_parts", "plan_map"]


def plan_map(parts: int) -> list[str]:
    """Names I/N of the parts, for a step each. One part, which is the whole map, has none."""
    return [f"{part}/{parts}" for part in range(1, parts + 1)] if parts > 1 else [""]


def check_parts(parts: float, most: int) -> None:
    """Accept a number of parts that a run of a pipeline can hold.

    Args:
        parts: a whole number.
        most: as many as fit (`exact_kubeflow.pipelines.size` has the arithmetic).

    Raises:
        ConfigError: fewer than one, or more than `most`.
    """
    if parts not in range(1, most + 1):
        raise ConfigError(
            f"map_parts = {parts}: expected 1 to {most}, because more steps do not fit into one run on a cluster. Map "
            f"a large area tile by tile or cell by cell, a run each, or with exact map --part I/N and exact join-map, "
            f"which have no such limit"
        )
