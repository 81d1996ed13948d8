"""Cores of a container, as both versions of control groups write them; its memory: tests/training/test_memory.py."""

import os

import pytest

from exact_core import cgroup


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_cores(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(cgroup, "CGROUPS", write(tmp_path, files))
    assert cgroup.cores() == expected


def test_a_machine_is_busy_when_more_processes_want_a_core_than_there_are(monkeypatch):
    # A container may use less of the machine, but the load is of all of it.
    monkeypatch.setattr(cgroup, "cores", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 9.0, 9.0))
    assert cgroup.busy() == ""
    monkeypatch.setattr(os, "getloadavg", lambda: (2.6, 0.0, 0.0))
    assert cgroup.busy() == "load 2.6 on 2 cores"
