"""Temporary folders: gone with their process, or with the next one where it was killed."""

import os
import signal
import tempfile

import pytest

from exact_core.errors import ServiceError
from exact_core.scratch import scratch_folder
from exact_kubeflow.cli import app as cli


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"exact-{os.getuid()}"


def folders(root):
    return {path for path in root.iterdir() if path.is_dir()}


def test_a_folder_goes_with_its_block(temporary):
    with scratch_folder() as folder:
        (folder / "a").write_text("a")
        assert folders(temporary) == {folder}
    assert folders(temporary) == set()


def test_what_a_killed_process_left_goes_with_the_next_one_and_what_is_held_stays(temporary):
    child = os.fork()
    if not child:
        with scratch_folder() as left:
            (left / "model.safetensors").write_bytes(b"x")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = folders(temporary)
    assert list(left.iterdir())
    with scratch_folder() as mine, scratch_folder() as other:
        assert folders(temporary) == {mine, other}


def test_the_folder_of_another_user_is_not_used(temporary):
    (temporary.parent / "elsewhere").mkdir()
    temporary.symlink_to(temporary.parent / "elsewhere")
    with pytest.raises(ServiceError, match="belongs to another user. Delete it, or set TMPDIR"), scratch_folder():
        pass


def test_a_command_that_is_asked_to_end_clears_up_and_says_so(temporary, monkeypatch, capsys):
    def command():
        with scratch_folder():
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cli, "app", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err.startswith("exact: ended by signal 15 (SIGTERM)")
    assert folders(temporary) == set()
