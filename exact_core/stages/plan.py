"""What the first step of a pipeline hands to the others.

Its types are read by KFP, which takes no annotations that are text: no `from __future__ import annotations` here.
"""

from typing import Any, NamedTuple

__all__ = ["Fetched", "Plan"]


class Plan(NamedTuple):
    """What the steps of a run are given. Each field is an output of the first step."""

    run: dict[str, Any]
    """`Run` without its defaults. For a map in parts, its first part."""
    parts: list[dict[str, Any]]
    """The run for each further part of the map."""
    seasons: list[dict[str, Any]]
    """The run for each season, of a pipeline of several."""
    Output: str
    """What is left to do: train, reuse, map or nothing. KFP's local runner decides conditions beside the first step by
    an output of this name only."""
    cpu: str
    memory: str
    """Memory of steps that train or map."""
    data_memory: str
    """Memory of steps that read, join or gather data."""
    gpus: str
    node_selector: dict[str, str]
    toleration: dict[str, str]


class Fetched(NamedTuple):
    """What the steps after a fetch are given instead."""

    run: dict[str, Any]
    """`Run`, of which the source is what was fetched."""
    parts: list[dict[str, Any]]
    """The same for each further part of the map."""
