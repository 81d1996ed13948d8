"""Free memory as the limits of control groups leave it: version 1 and 2, nested, page cache given back."""

from __future__ import annotations

import pytest
import torch

from exact_core import cgroup
from exact_core.training.memory import available_bytes

GIB = 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Write the files of control groups and the line that names this process's own."""
    root = tmp_path / "cgroup"
    root.mkdir()
    monkeypatch.setattr(cgroup, "CGROUPS", root)
    monkeypatch.setattr(cgroup, "OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n")

    def write(name, own=None, **files):
        (root / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (root / name / file.replace("__", ".")).write_text(f"{content}\n")
        if own is not None:
            (tmp_path / "own").write_text(own)

    return write


def available():
    return available_bytes(torch.device("cpu"))


def test_pages_of_files_that_were_read_are_free(groups):
    """As after a season was copied in a notebook: 0.9 of 1 GiB in use, most of it page cache."""
    groups(
        "",
        memory__max=GIB,
        memory__current=GIB - 100,
        memory__stat=f"anon 1000\nfile {GIB // 2}\ninactive_file {GIB // 2}\nactive_file 7",
    )
    assert available() == GIB // 2 + 100


def test_a_group_without_statistics_or_limit(groups):
    groups("", memory__max=GIB, memory__current=GIB // 4)
    assert available() == 3 * GIB // 4
    groups("", memory__max="max")
    assert available() > 3 * GIB // 4


@pytest.mark.parametrize("limited", ["system.slice", "system.slice/job_7", "system.slice/job_7/step_0"])
def test_the_own_group_and_those_around_it_limit(groups, limited):
    groups("system.slice/job_7/step_0", own="0::/system.slice/job_7/step_0\n", memory__max="max", memory__current=1)
    groups(limited, memory__max=GIB, memory__current=GIB // 8)
    groups("user.slice", memory__max=1, memory__current=0)
    assert available() == 7 * GIB // 8


def test_version_1(groups):
    own = "9:name=systemd:/\n4:cpuset,memory:/job/7\n3:cpu:/\n0::/\n"
    groups(
        "memory/job/7",
        own=own,
        memory__limit_in_bytes=GIB,
        memory__usage_in_bytes=GIB // 2,
        memory__stat=f"cache 5\ntotal_inactive_file {GIB // 4}",
    )
    groups("memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=0)
    assert available() == 3 * GIB // 4


def test_a_group_that_has_another_name_in_here(groups):
    """Without a namespace of its own, a container reads the host's name for its group, and sees it as the root."""
    groups("", own="4:memory:/kubepods/pod1/c1\n0::/\n")
    groups("memory", memory__limit_in_bytes=GIB, memory__usage_in_bytes=0)
    assert available() == GIB


def test_no_groups_at_all(monkeypatch, tmp_path):
    monkeypatch.setattr(cgroup, "CGROUPS", tmp_path / "none")
    monkeypatch.setattr(cgroup, "OWN_CGROUP", tmp_path / "none")
    assert available() > 0
