"""What the first step of a pipeline hands to the others.

Its types are read by KFP, which takes no annotations that are text: no `from __future__ import annotations` here.
"""

from typing import Any, NamedTuple

__all__ = ["Plan"]


class Plan(NamedTuple):
    """What the steps of a run are given; each field is an output of the first step."""

    run: dict[str, Any]
    """`Run`, without what is default; of a map in parts, its first part."""
    parts: list[dict[str, Any]]
    """The run for each further part of the map."""
    Output: list[dict[str, Any]]
    """The run for each season, of a pipeline of several. KFP's local runner finds items of a loop by this name only."""
    cpu: str
    memory: str
    """Of steps that train or map."""
    data_memory: str
    """Of steps that read, join or gather data."""
    gpus: str
    node_selector: dict[str, str]
    toleration: dict[str, str]
