"""Artifact folders through a store and a shared cache: complete or not there, whatever is killed, full or altered."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, CorruptError, DataError, ServiceError
from exact_core.files import with_checksum
from exact_core.stages.stage import manifests
from exact_core.storage import (
    Cache,
    Pointer,
    content_key,
    fetch_folder,
    manifest_of,
    open_store,
    publish_folder,
    read_pointer,
)
from exact_core.storage.base import digest_file
from exact_core.storage.client import FailedRequestError
from tests.services import children
from tests.services.conftest import FAST, MIB
from tests.skipping import skip


def make(folder: Path, sizes: dict[str, int], manifest: str = "masks.json") -> Path:
    """A folder of random files, finished by its manifest."""
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    (folder / manifest).write_text(str(sizes))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def publish(folder: Path, uri: str) -> Pointer:
    return publish_folder(folder, manifest_of(folder, manifests()), uri, options=FAST)


def cached(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.root.glob("sha256/*/*"))


def test_a_dataset_comes_back_as_it_was(place, dataset_folder, tmp_path, cache):
    told = []
    pointer = publish_folder(dataset_folder, "dataset.json", place.uri, options=FAST, progress=told.append)
    assert sum(told) == pointer.size == sum(map(len, contents(dataset_folder).values()))
    assert sorted(file.name for file in pointer.files)[0] == "index.parquet"
    assert pointer.uri == place.open().uri_of(f"folders/{pointer.digest}.json")
    out = fetch_folder(pointer.uri, tmp_path / "out", cache=cache, options=FAST)
    assert contents(out) == contents(dataset_folder)
    windows, original = WindowDataset(out), WindowDataset(dataset_folder)
    assert windows.manifest == original.manifest
    np.testing.assert_array_equal(windows.window(3).pixels, original.window(3).pixels)


def test_every_object_lies_under_its_digest_and_is_stored_once(place, tmp_path):
    folder = make(tmp_path / "a", {"x": 100, "sub/y": 200})
    (folder / "copy").write_bytes((folder / "x").read_bytes())
    (folder / "rest.partial").write_bytes(b"of a killed stage")
    pointer = publish(folder, place.uri)
    files = {file.name: file for file in (*pointer.files, pointer.manifest)}
    assert set(files) == {"copy", "masks.json", "sub/y", "x"}
    assert files["copy"].uri == files["x"].uri
    keys = {content_key(file.sha256) for file in files.values()}
    assert place.open().list_keys() == sorted([*keys, f"folders/{pointer.digest}.json"])
    # The same folder elsewhere is the same artifact; another is not.
    assert publish(shutil.copytree(folder, tmp_path / "b"), place.uri) == pointer
    (folder / "x").rename(folder / "z")
    assert publish(folder, place.uri).digest != pointer.digest


def test_a_pointer_in_a_file(place, tmp_path, cache):
    pointer = publish(make(tmp_path / "a", {"x": 10}), place.uri)
    pointer.save(tmp_path / "pointer.json")
    assert read_pointer(tmp_path / "pointer.json") == pointer
    out = fetch_folder(tmp_path / "pointer.json", tmp_path / "out", cache=cache)
    assert contents(out) == contents(tmp_path / "a")


def test_a_killed_publisher_leaves_nothing_that_looks_finished(place, tmp_path, cache):
    folder = make(tmp_path / "a", {f"{i:05d}.safetensors": 3 * MIB for i in range(6)})
    # Beyond what four files at once hold, so that one at least is finished.
    code, _ = children.run("publish", folder, place.uri, 14 * MIB)
    assert code == -signal.SIGKILL
    keys = place.open().list_keys()
    assert [key for key in keys if key.startswith("folders/")] == []
    assert keys
    told = []
    pointer = publish_folder(folder, "masks.json", place.uri, options=FAST, progress=told.append)
    assert sum(told) == pointer.size
    assert contents(fetch_folder(pointer, tmp_path / "out", cache=cache, options=FAST)) == contents(folder)


def test_a_killed_fetch_leaves_nothing_that_looks_finished(place, tmp_path, cache):
    folder, out = make(tmp_path / "a", {f"{i}": 3 * MIB for i in range(6)}), tmp_path / "out"
    pointer = publish(folder, place.uri)
    code, _ = children.run("fetch", pointer.uri, out, cache.root, 8 * MIB)
    assert code == -signal.SIGKILL
    assert not (out / "masks.json").exists()
    with children.counted_reads() as lengths:
        fetch_folder(pointer, out, cache=cache, options=FAST)
    assert sum(lengths) < pointer.size
    assert contents(out) == contents(folder)


def test_two_processes_fetch_each_object_once(place, tmp_path, cache):
    folder = make(tmp_path / "a", {f"{i}": 3 * MIB for i in range(6)})
    pointer = publish(folder, place.uri)
    pair = [children.start("fetch", pointer.uri, tmp_path / f"out{i}", cache.root, 0) for i in range(2)]
    ends = [child.communicate(timeout=200) for child in pair]
    assert [child.returncode for child in pair] == [0, 0], ends
    assert sum(int(said) for said, _ in ends) == pointer.size
    assert contents(tmp_path / "out0") == contents(tmp_path / "out1") == contents(folder)


def test_two_processes_publish_the_same(place, tmp_path, cache):
    folder = make(tmp_path / "a", {f"{i}": 11 * MIB for i in range(2)})
    pair = [children.start("publish", folder, place.uri, 0) for _ in range(2)]
    ends = [child.communicate(timeout=200) for child in pair]
    assert [child.returncode for child in pair] == [0, 0], ends
    store = place.open()
    (pointer,) = (key for key in store.list_keys() if key.startswith("folders/"))
    assert contents(fetch_folder(store.uri_of(pointer), tmp_path / "out", cache=cache)) == contents(folder)
    if place.server:
        assert [store.unfinished(key) for key in store.list_keys()] == [[]] * 4


def test_a_denied_upload_is_looked_for_before_it_fails(place, tmp_path, monkeypatch):
    store = place.open()
    path = make(tmp_path / "a", {"x": 11 * MIB}) / "x"
    digest = digest_file(path, store.options.part_bytes)
    if not place.server:
        assert store.upload(path, "x", digest=digest) == digest.size
        return
    finish = store._client.finish_upload

    def denied(*given, first=lambda *_: None):
        first(*given)
        raise FailedRequestError("Words.", code="AccessDenied", status=403)

    # Another process, which has adopted the same upload, is a moment faster.
    monkeypatch.setattr(store._client, "finish_upload", partial(denied, first=finish))
    assert store.upload(path, "x", digest=digest) == 0
    assert store.read("x") == path.read_bytes()
    monkeypatch.setattr(store._client, "finish_upload", denied)
    with pytest.raises(ServiceError, match="AccessDenied: the server takes no part.*AWS_ACCESS_KEY_ID"):
        store.upload(path, "y", digest=digest)


def test_what_was_altered_in_the_cache_is_fetched_again(place, tmp_path, cache):
    folder = make(tmp_path / "a", {"x": 6 * MIB})
    pointer = publish(folder, place.uri)
    path = cache.root / content_key(pointer.files[0].sha256)
    fetch_folder(pointer, tmp_path / "out0", cache=cache, options=FAST)
    for change in (lambda c: c[:-1], lambda c: c[:-1] + bytes([c[-1] ^ 1])):
        path.chmod(0o644)
        path.write_bytes(change(path.read_bytes()))
        assert contents(fetch_folder(pointer, tmp_path / "out1", cache=cache, options=FAST)) == contents(folder)
        shutil.rmtree(tmp_path / "out1")
    # The first folder shares its file with the altered copy; fetching into it puts that right too.
    path.chmod(0o644)
    (tmp_path / "out0" / "x").chmod(0o644)
    (tmp_path / "out0" / "x").write_bytes(b"altered")
    assert contents(fetch_folder(pointer, tmp_path / "out0", cache=cache, options=FAST)) == contents(folder)


def test_an_altered_object_is_refused_and_can_be_published_again(place, tmp_path, cache):
    folder, out = make(tmp_path / "a", {"x": 6 * MIB, "y": 10}), tmp_path / "out"
    pointer = publish(folder, place.uri)
    wrong = bytearray((folder / "x").read_bytes())
    wrong[5] ^= 1
    place.replace(content_key(pointer.files[0].sha256), bytes(wrong))
    with pytest.raises(CorruptError, match="corrupt.*publish it again"):
        fetch_folder(pointer, out, cache=cache, options=FAST)
    assert not (out / "masks.json").exists()
    assert not (out / "x").exists()
    publish(folder, place.uri)
    assert contents(fetch_folder(pointer, out, cache=cache, options=FAST)) == contents(folder)


def test_altered_pointers_are_refused(place, tmp_path, cache):
    pointer = publish(make(tmp_path / "a", {"x": 10}), place.uri)
    text = place.open().read(f"folders/{pointer.digest}.json").decode()
    file = tmp_path / "pointer.json"
    for wrong, error in (
        (text.replace('"x"', '"y"'), CorruptError),
        (text.replace('"x"', '"../x"'), CorruptError),
        # As one who knows the checksum would write it.
        (with_checksum(re.sub('"checksum": "[0-9a-f]*"', '"checksum": ""', text.replace('"x"', '"../x"'))), DataError),
        (with_checksum(re.sub('"checksum": "[0-9a-f]*"', '"checksum": ""', text.replace('"x"', '"/x"'))), DataError),
        (text[:-20], DataError),
        ("{}", DataError),
    ):
        file.write_text(wrong)
        with pytest.raises(
            error, match="pointer.json.*(Publish the folder again|inside the folder|exact store put|make it again)"
        ):
            fetch_folder(file, tmp_path / "out", cache=cache)
    with pytest.raises(DataError, match="no such object"):
        fetch_folder(place.open().uri_of("folders/none.json"), tmp_path / "out", cache=cache, options=FAST)
    assert not (tmp_path / "out").exists()


def test_unfinished_and_foreign_folders_are_refused(place, tmp_path, cache):
    folder = make(tmp_path / "a", {"x": 10})
    with pytest.raises(DataError, match=r"dataset.json: missing, so this folder is unfinished"):
        publish_folder(folder, "dataset.json", place.uri, options=FAST)
    (folder / "masks.json").unlink()
    with pytest.raises(DataError, match="holds none of"):
        manifest_of(folder, manifests())
    first = publish(make(folder, {"x": 10}), place.uri)
    second = publish(make(tmp_path / "b", {"x": 11}), place.uri)
    fetch_folder(first, tmp_path / "out", cache=cache)
    before = contents(tmp_path / "out")
    with pytest.raises(DataError, match="already holds another finished result"):
        fetch_folder(second, tmp_path / "out", cache=cache)
    assert contents(tmp_path / "out") == before


def test_the_cache_keeps_to_its_bound_and_evicts_what_was_used_longest_ago(place, tmp_path):
    cache = Cache(tmp_path / "cache", bound=10 * MIB)
    objects = [place.put(os.urandom(3 * MIB)) for _ in range(4)]

    def use(i: int) -> None:
        store, key, digest = objects[i]
        with cache.use(store, key, sha256=digest.sha256, size=digest.size):
            assert cache.held() <= 10 * MIB

    def held() -> list[int]:
        return [i for i, (_, key, _) in enumerate(objects) if (cache.root / key).exists()]

    for i in (0, 1, 2, 0):
        use(i)
    assert held() == [0, 1, 2]
    use(3)
    assert held() == [0, 2, 3]
    use(1)
    assert held() == [0, 1, 3]
    store, key, digest = place.put(os.urandom(11 * MIB))
    with cache.use(store, key, sha256=digest.sha256, size=digest.size) as path:
        assert path.stat().st_size == 11 * MIB
        assert held() == []
    # Larger than the bound: there as long as it was needed.
    assert cached(cache) == []


def test_what_another_process_uses_is_not_evicted(place, tmp_path, caplog):
    cache = Cache(tmp_path / "cache", bound=5 * MIB)
    big = tmp_path / "big"
    big.mkdir()
    (big / "masks.json").write_bytes(os.urandom(4 * MIB))
    pointer = publish(big, place.uri)
    child = children.start("use", cache.root, pointer.uri)
    try:
        assert child.stdout.readline() == "using\n"
        store, key, digest = place.put(os.urandom(3 * MIB))
        with cache.use(store, key, sha256=digest.sha256, size=digest.size):
            assert pointer.manifest.sha256 in cached(cache)
            assert "in use" in caplog.text
        # What was no longer in use went instead.
        assert cached(cache) == [pointer.manifest.sha256]
    finally:
        child.communicate(timeout=200)
    with cache.use(store, key, sha256=digest.sha256, size=digest.size):
        assert cached(cache) == [digest.sha256]


def test_what_a_folder_links_to_does_not_count(place, tmp_path):
    cache = Cache(tmp_path / "cache", bound=5 * MIB)
    folder = make(tmp_path / "a", {f"{i}": 2 * MIB for i in range(5)})
    pointer = publish(folder, place.uri)
    out = fetch_folder(pointer, tmp_path / "out", cache=cache, options=FAST)
    assert cache.held() == 0
    with children.counted_reads() as lengths:
        fetch_folder(pointer, tmp_path / "again", cache=cache, options=FAST)
    assert lengths == []
    assert (out / "0").stat().st_ino == (tmp_path / "again" / "0").stat().st_ino
    shutil.rmtree(out)
    shutil.rmtree(tmp_path / "again")
    assert cache.held() > 5 * MIB
    publish(make(tmp_path / "b", {"x": 10}), place.uri)
    fetch_folder(publish(tmp_path / "b", place.uri), tmp_path / "out-b", cache=cache, options=FAST)
    assert cache.held() <= 5 * MIB


def test_a_cache_on_another_file_system(place, tmp_path):
    shm = Path("/dev") / "shm"
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        skip(f"{shm} is not a file system of its own here")
    root = shm / f"exact-test-{os.getpid()}"
    try:
        cache = Cache(root, bound=2 * MIB)
        folder = make(tmp_path / "a", {f"{i}": MIB for i in range(5)})
        out = fetch_folder(publish(folder, place.uri), tmp_path / "out", cache=cache, options=FAST)
        assert contents(out) == contents(folder)
        assert (out / "0").stat().st_nlink == 1
        assert cache.held() <= 2 * MIB
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_a_folder_on_a_full_disk(place, tmp_path, small_disk, cache):
    folder = make(tmp_path / "a", {"0": 3 * MIB, "1": 9 * MIB})
    pointer = publish(folder, place.uri)
    with small_disk() as disk:
        with pytest.raises(ServiceError, match="Make room"):
            fetch_folder(pointer, disk / "out", cache=cache, options=FAST)
        assert not (disk / "out" / "masks.json").exists()
        assert list((disk / "out").rglob("*.partial")) == []


def test_a_cache_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="cannot keep the cache there.*Set EXACT_CACHE_DIR"):
        Cache(tmp_path / "file", bound=1)
    with pytest.raises(ConfigError, match="must be 0 or more"):
        Cache(tmp_path / "cache", bound=-1)


def test_the_commands(place, dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))

    def exact(*arguments):
        command = [
            sys.executable,
            "-c",
            "from exact_kubeflow.cli.app import main; main()",
            "store",
            *map(str, arguments),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    put = exact("put", dataset_folder, place.uri, "--pointer", tmp_path / "pointer.json")
    assert put.returncode == 0, put.stderr
    uri = put.stdout.strip()
    assert uri == read_pointer(tmp_path / "pointer.json").uri
    assert uri.startswith(open_store(place.uri).uri)
    got = exact("get", uri, tmp_path / "out")
    assert got.returncode == 0, got.stderr
    assert contents(tmp_path / "out") == contents(dataset_folder)
    wrong = exact("get", f"{uri}x", tmp_path / "other")
    assert wrong.returncode == 1
    assert "exact: " in wrong.stderr
    assert "no such object" in wrong.stderr
