"""What the container that this process runs in may use: its control group's limits, of version 2 or 1."""

from __future__ import annotations

import math
from pathlib import Path

__all__ = ["cores", "memory_left"]

ROOT = Path("/sys/fs/cgroup")
UNLIMITED = 2**60
"""Version 1 writes a huge number where there is no limit."""


def cores(root: Path = ROOT) -> int | None:
    """Cores that may be used, rounded up; None: all there are."""
    quota, period = _number(root / "cpu" / "cpu.cfs_quota_us"), _number(root / "cpu" / "cpu.cfs_period_us")
    try:
        words = (root / "cpu.max").read_text().split()
        quota, period = (None if words[0] == "max" else int(words[0])), int(words[1])
    except (OSError, ValueError, IndexError):
        pass  # version 1, or none
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return max(1, math.ceil(quota / period))


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that may still be taken; None: there is no limit."""
    for limit, used in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory" / "memory.limit_in_bytes", root / "memory" / "memory.usage_in_bytes"),
    ):
        most, now = _number(limit), _number(used)
        if most is not None and now is not None and most < UNLIMITED:
            return most - now
    return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
