"""What this process may use: what the machine has, and the limits of its control groups, of version 2 or 1."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["busy", "cores", "memory_free", "memory_left"]

CGROUPS, OWN_CGROUP, MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")


def busy() -> str:
    """How much more than its cores this machine has to do, in words. If empty, it has not.

    By the mean number of processes that want a core over the last minute (getloadavg(3)). That is of the whole machine,
    whatever part of it a container may use, so it is held against all of its cores.
    """
    try:
        load = os.getloadavg()[0]
    except OSError:
        return ""
    count = os.cpu_count() or 1
    return f"load {load:.1f} on {count} cores" if load > count else ""


def cores() -> int | None:
    """Cores that may be used, rounded up. If None, all there are."""
    root = CGROUPS
    quota, period = _number(root / "cpu" / "cpu.cfs_quota_us"), _number(root / "cpu" / "cpu.cfs_period_us")
    try:
        words = (root / "cpu.max").read_text().split()
        quota, period = (None if words[0] == "max" else int(words[0])), int(words[1])
    except (OSError, ValueError, IndexError):
        pass  # version 1, or none
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return max(1, math.ceil(quota / period))


def memory_free() -> int:
    """Bytes that this process may still take: the least that the machine, its control groups and its own limit leave.

    Where none of them is known, 2^63.
    """
    limits = [] if (left := memory_left()) is None else [left]
    for line in MEMINFO.read_text().splitlines() if MEMINFO.is_file() else []:
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    return min(limits, default=2**63)


def memory_left() -> int | None:
    """Bytes that this process's group and those around it leave, the least of them. If None, there is no limit."""
    return min((free for group in _own_groups() for free in _free_in_group(group)), default=None)


def _own_groups() -> Iterator[Path]:
    """Control groups that this process is in, of version 1 or 2, with those around them: each may have a limit.

    In a container `/proc/self/cgroup` may name a group as the host sees it, which is not there. The folder itself then
    stands for the container's own.
    """
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, kinds, name = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root = CGROUPS / "memory" if kinds else CGROUPS
        own = root / name.lstrip("/")
        yield from dict.fromkeys(group for group in (own, *own.parents, root) if root in (group, *group.parents))
    yield CGROUPS


def _free_in_group(group: Path) -> Iterator[int]:
    """Bytes that a group's limit leaves: what it holds of files it gives back before it is out of memory."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):  # no such limit, or "max"
            most, taken = (int((group / name).read_text()) for name in (limit, used))
            with suppress(OSError):
                for line in (group / "memory.stat").read_text().splitlines():
                    if line.startswith(f"{cache} "):
                        taken -= int(line.split()[1])
            yield most - taken


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
