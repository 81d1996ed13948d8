"""Env files made from their examples."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.deploy.conftest import DEPLOY


def run(folder):
    command = [sys.executable, str(DEPLOY / "new_secrets.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_random_once_and_never_again(tmp_path):
    (tmp_path / "a.env.example").write_text("# @random@ is explained\nUSER=root\nPASSWORD=@random@\nOTHER=@random@\n")
    (tmp_path / ".env.example").write_text("KEY=@yours@\n")
    done = run(tmp_path)
    assert done.returncode == 0
    assert "fill in KEY" in done.stdout
    first = (tmp_path / "a.env").read_text()
    comment, user, password, other = first.splitlines()
    assert (comment, user) == ("# @random@ is explained", "USER=root")
    assert len(password) == len("PASSWORD=") + 48
    assert password.split("=")[1] != other.split("=")[1]
    assert (tmp_path / "a.env").stat().st_mode & 0o777 == 0o600
    assert "nothing to do" in run(tmp_path).stdout
    assert (tmp_path / "a.env").read_text() == first


def test_a_folder_without_examples_says_which_to_name(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert "deploy/minio/secrets" in done.stderr


@pytest.mark.parametrize("path", ["deploy/minio/secrets/minio.env", "deploy/.env"])
def test_git_ignores_env_files(path):
    root = DEPLOY.parent
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=root, check=False).returncode == 0
    assert subprocess.run(["git", "check-ignore", "-q", f"{path}.example"], cwd=root, check=False).returncode == 1


def test_no_env_file_is_in_git():
    root = DEPLOY.parent
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files", "deploy"], cwd=root, capture_output=True, text=True, check=True).stdout
    assert not [name for name in tracked.splitlines() if name.endswith(".env")]
