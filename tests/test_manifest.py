"""Manifests with their own checksum: any changed byte is noticed, and files from before there was one still open."""

from __future__ import annotations

import errno
import json

import pytest

from exact_core.data.windows.dataset import DatasetManifest, WindowDataset
from exact_core.errors import CorruptError, DataError, ExactError, ServiceError
from exact_core.files import publish_text, publishing
from exact_core.manifest import publish_record, read_record
from exact_core.storage import publish_folder, read_pointer


def flipped(path):
    """The file with each of its bytes changed in turn."""
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        yield place
    path.write_bytes(content)


def test_any_changed_byte_of_a_manifest_is_noticed(dataset_folder, tmp_path):
    manifest = WindowDataset(dataset_folder).manifest
    path = tmp_path / "dataset.json"
    manifest.write(path)
    assert path.read_bytes() == (dataset_folder / "dataset.json").read_bytes()
    for place in flipped(path):
        with pytest.raises(DataError) as error:
            DatasetManifest.read(path)
        assert "dataset.json" in str(error.value), place
    assert DatasetManifest.read(path) == manifest


def test_any_changed_byte_of_a_record_is_noticed(tmp_path):
    """Of the word "checksum" itself, too, without which it would pass for a record from before there was one."""
    record = {"miou": 0.5, "classes": ["wheat", "é"], "empty": None}
    publish_record(tmp_path / "metrics.json", record)
    for place in flipped(tmp_path / "metrics.json"):
        with pytest.raises(ExactError):
            assert read_record(tmp_path / "metrics.json") is None, place
    assert read_record(tmp_path / "metrics.json") == record


def test_any_changed_byte_of_a_pointer_is_noticed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "map.json").write_text("{}")
    pointer = publish_folder(tmp_path / "folder", "map.json", str(tmp_path / "store"))
    pointer.save(tmp_path / "pointer.json")
    for place in flipped(tmp_path / "pointer.json"):
        with pytest.raises(ExactError):
            assert read_pointer(tmp_path / "pointer.json") is None, place
    assert read_pointer(tmp_path / "pointer.json").digest == pointer.digest


def test_files_of_older_versions_open(dataset_folder, tmp_path):
    old = json.loads((dataset_folder / "dataset.json").read_text())
    del old["checksum"]
    (tmp_path / "dataset.json").write_text(json.dumps(old, indent=2))
    assert DatasetManifest.read(tmp_path / "dataset.json").digest == old["digest"]
    (tmp_path / "metrics.json").write_text('{"miou": 0.5}')
    assert read_record(tmp_path / "metrics.json") == {"miou": 0.5}


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_record_is_named(tmp_path, content):
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(CorruptError, match=r"metrics\.json: corrupt"):
        read_record(tmp_path / "metrics.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_record(tmp_path / "none.json")


def test_a_full_disk_is_named_with_bytes_and_nothing_stays(tmp_path):
    with (
        pytest.raises(ServiceError, match=r"w\.bin: the disk is full: 3\.0 MB are needed, [\d.,]+ MB are free"),
        publishing(tmp_path / "w.bin", size=3_000_000) as partial,
    ):
        partial.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ServiceError, match="cannot be written"):
        publish_text(tmp_path / "none" / "x.json", "{}")
    assert list(tmp_path.iterdir()) == []
