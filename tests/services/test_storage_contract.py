"""What every store keeps to, in a folder and on two S3 servers by each library, also when something breaks."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from exact_core.errors import ConfigError, CorruptError, DataError, ServiceError
from exact_core.storage import Cache, ObjectInfo, StoreOptions, content_key, fetch_folder, open_store, publish_folder
from exact_core.storage.base import digest_file
from exact_core.storage.client import FailedRequestError
from exact_core.storage.presign import presigned
from tests.services import children
from tests.services.conftest import BY_LIBRARY, FAST, MIB, Place, place_of

PATIENT = StoreOptions(part_bytes=5 * MIB, workers=2, attempts=30)


@pytest.fixture(params=["file", *BY_LIBRARY])
def place(request, tmp_path, monkeypatch) -> Place:
    return place_of(request.param, request, tmp_path, monkeypatch)


@pytest.fixture(params=BY_LIBRARY)
def s3(request, tmp_path, monkeypatch) -> Place:
    return place_of(request.param, request, tmp_path, monkeypatch)


def write(path, size):
    path.write_bytes(os.urandom(size))
    digest = digest_file(path, FAST.part_bytes)
    return digest, content_key(digest.sha256)


def read_back(store, key, digest, cache):
    with cache.use(store, key, sha256=digest.sha256, size=digest.size) as path:
        return path.read_bytes()


def test_small_objects(place):
    store = place.open()
    neighbour = open_store(f"{place.uri}-2", options=FAST)
    neighbour.write("x", b"other")
    assert store.head("a/b") is None
    for key in ("b", "a/b", "a-b", "é ü#%2F+", "a/empty"):
        store.write(key, b"" if key == "a/empty" else key.encode())
    # Sorted by us: one of the servers lists a/b before a-b.
    assert store.list_keys() == ["a-b", "a/b", "a/empty", "b", "é ü#%2F+"]
    assert store.list_keys("a/") == ["a/b", "a/empty"]
    assert store.read("é ü#%2F+") == "é ü#%2F+".encode()
    assert store.read("a/empty") == b""
    store.write("b", b"shorter?")
    assert store.read("b") == b"shorter?"
    assert store.read_range("b", 2, 3) == b"ort"
    assert store.head("b").size == 8
    store.delete("b")
    store.delete("b")
    assert store.head("b") is None
    with pytest.raises(DataError, match="no such object"):
        store.read("b")


def test_a_store_below_another_is_the_one_at_its_uri(place):
    store = place.open()
    below = store.below("state/a")
    below.write("x", b"deep")
    assert below.uri == open_store(store.uri_of("state/a"), options=FAST).uri
    assert below.options == store.options
    assert store.read("state/a/x") == open_store(below.uri, options=FAST).read("x") == b"deep"
    with pytest.raises(ConfigError):
        store.below("../other")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.", "x.partial"])
def test_keys_that_no_store_takes(place, key):
    with pytest.raises(ConfigError, match="cannot name an object"):
        place.open().write(key, b"x")


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 17 * MIB])
def test_up_and_down(place, tmp_path, cache, size):
    digest, key = write(tmp_path / "file", size)
    store, up, again = place.open(), [], []
    assert store.upload(tmp_path / "file", key, digest=digest, progress=up.append) == size
    assert store.head(key) == ObjectInfo(key, size, digest.sha256)
    assert store.upload(tmp_path / "file", key, digest=digest, progress=again.append) == 0
    assert sum(up) == sum(again) == size
    down = []
    with cache.use(store, key, sha256=digest.sha256, size=size, progress=down.append) as path:
        assert path.read_bytes() == (tmp_path / "file").read_bytes()
    assert sum(down) == size


def test_an_object_that_is_not_what_its_name_says_is_uploaded_again(place, tmp_path, cache):
    digest, key = write(tmp_path / "file", 6 * MIB)
    content = (tmp_path / "file").read_bytes()
    store = place.open()
    store.upload(tmp_path / "file", key, digest=digest)
    for wrong in (content[:-1], bytes([content[0] ^ 1]) + content[1:]):
        place.replace(key, wrong)
        assert store.upload(tmp_path / "file", key, digest=digest) == digest.size
        assert read_back(store, key, digest, cache) == content


@pytest.mark.parametrize("change", [lambda c: c[: 5 * MIB], lambda c: c[:-1] + bytes([c[-1] ^ 1])])
def test_truncated_and_altered_objects_are_refused(place, tmp_path, cache, change):
    store, key, digest = place.put(os.urandom(6 * MIB))
    place.replace(key, change(store.read(key)))
    with (
        pytest.raises(CorruptError, match=f"(?s){digest.sha256}.*corrupt.*[Pp]ublish it again"),
        cache.use(store, key, sha256=digest.sha256, size=digest.size),
    ):
        pass
    assert not (cache.root / key).exists()


def test_a_file_that_changes_during_upload_is_refused(place, tmp_path):
    digest, key = write(tmp_path / "file", 11 * MIB)
    with (tmp_path / "file").open("r+b") as file:
        file.seek(10 * MIB)
        file.write(b"changed")
    store = place.open()
    with pytest.raises(DataError, match="changed while it was being uploaded"):
        store.upload(tmp_path / "file", key, digest=digest)
    assert store.head(key) is None
    if place.server:
        assert store.unfinished(key) == []
    else:
        assert [path for path in place.folder.rglob("*") if path.is_file()] == []


def test_a_killed_client_goes_on(place, tmp_path, cache):
    folder = tmp_path / "masks"
    folder.mkdir()
    digest, key = write(folder / "big", 32 * MIB)
    (folder / "masks.json").write_text("{}")
    code, _ = children.run("publish", folder, place.uri, 15 * MIB)
    assert code == -signal.SIGKILL
    store = place.open()
    assert store.head(key) is None
    assert store.list_keys() == []
    told = []
    sent = store.upload(folder / "big", key, digest=digest, progress=told.append)
    if place.server:
        # Three parts were told of; those under way at the time may have arrived as well.
        assert sent <= 32 * MIB - 15 * MIB
        assert store.unfinished(key) == []
    assert sum(told) == 32 * MIB
    assert read_back(store, key, digest, cache) == (folder / "big").read_bytes()


def test_a_killed_download_goes_on(place, tmp_path, cache):
    folder, out = tmp_path / "one", tmp_path / "out"
    folder.mkdir()
    digest, key = write(folder / "masks.json", 32 * MIB)
    pointer = publish_folder(folder, "masks.json", place.uri, options=FAST)
    code, _ = children.run("fetch", pointer.uri, out, cache.root, 15 * MIB)
    assert code == -signal.SIGKILL
    assert not (cache.root / key).exists()
    assert not (out / "masks.json").exists()
    told = []
    with children.counted_reads() as lengths:
        fetch_folder(pointer, out, cache=cache, options=FAST, progress=told.append)
    # Three ranges were told of; those under way at the time may be here as well.
    assert 0 < sum(lengths) <= 32 * MIB - 15 * MIB
    assert sum(told) == digest.size
    assert (out / "masks.json").read_bytes() == (folder / "masks.json").read_bytes()


def restarted(server):
    """A progress callback that kills a server on its second call; it is started again a little later."""
    calls, threads = [], []

    def restart():
        time.sleep(0.5)
        server.start()

    def progress(count):
        calls.append(count)
        if len(calls) == 2:
            server.kill()
            threads.append(threading.Thread(target=restart))
            threads[0].start()

    return progress, calls, threads


def test_a_server_killed_during_an_upload_and_started_again(s3, tmp_path, cache):
    digest, key = write(tmp_path / "file", 32 * MIB)
    progress, calls, threads = restarted(s3.server)
    store = s3.open(PATIENT)
    store.upload(tmp_path / "file", key, digest=digest, progress=progress)
    threads[0].join()
    assert sum(calls) == digest.size
    assert store.head(key) == ObjectInfo(key, digest.size, digest.sha256)
    assert store.unfinished(key) == []
    assert read_back(store, key, digest, cache) == (tmp_path / "file").read_bytes()


def test_a_server_killed_during_a_download_and_started_again(s3, cache):
    content = os.urandom(32 * MIB)
    store, key, digest = s3.put(content, PATIENT)
    progress, calls, threads = restarted(s3.server)
    with cache.use(store, key, sha256=digest.sha256, size=digest.size, progress=progress) as path:
        threads[0].join()
        assert path.read_bytes() == content
    assert sum(calls) == digest.size


def test_a_server_that_is_gone(s3, tmp_path):
    digest, key = write(tmp_path / "file", 12 * MIB)
    store = s3.open()
    assert store.list_keys() == []
    s3.server.kill()
    try:
        with pytest.raises(ServiceError) as caught:
            store.upload(tmp_path / "file", key, digest=digest)
        with pytest.raises(ServiceError, match="cannot list .*bucket exact.* after 3 attempts: .*AWS_ENDPOINT_URL"):
            s3.open().list_keys()
    finally:
        s3.server.start()
    for part in (f"http://127.0.0.1:{s3.server.port}", "bucket exact", f"key {key}", "3 attempts", "AWS_ENDPOINT_URL"):
        assert part in str(caught.value)
    assert store.upload(tmp_path / "file", key, digest=digest) == digest.size


@pytest.mark.parametrize(
    ("variable", "code"),
    [("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"), ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch")],
)
def test_wrong_credentials(s3, tmp_path, monkeypatch, variable, code):
    digest, key = write(tmp_path / "file", 10)
    s3.open().write("x", b"x")
    monkeypatch.setenv(variable, "wrongwrong")
    store = s3.open()
    for use in (
        lambda: store.upload(tmp_path / "file", key, digest=digest),
        lambda: store.head("x"),
        lambda: store.read("x"),
        lambda: store.write("x", b"y"),
        store.list_keys,
    ):
        with pytest.raises(ServiceError, match=f"bucket exact.*after 1 attempt: {code}: .*check {variable}"):
            use()


def test_missing_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match=r"needs AWS_SECRET_ACCESS_KEY\. Set"):
        s3.open()


def test_a_missing_bucket(s3, tmp_path):
    digest, key = write(tmp_path / "file", 10)
    store = open_store("s3://no-such-bucket/x", options=FAST)
    for use in (
        lambda: store.upload(tmp_path / "file", key, digest=digest),
        lambda: store.head("x"),
        lambda: store.read("x"),
        lambda: store.write("x", b"x"),
        lambda: store.list_keys(),
    ):
        with pytest.raises(ServiceError, match="bucket no-such-bucket.*1 attempt: NoSuchBucket.*make the bucket"):
            use()


def test_a_missing_folder(tmp_path):
    store = open_store(str(tmp_path / "none"))
    for use in (lambda: store.head("x"), lambda: store.read("x"), store.list_keys):
        with pytest.raises(ServiceError, match="none: no such folder"):
            use()


def test_a_full_disk(place, small_disk):
    first, second = os.urandom(6 * MIB), os.urandom(7 * MIB)
    store, key, digest = place.put(first)
    _, other, its = place.put(second)
    _, large, too = place.put(os.urandom(9 * MIB))
    with small_disk() as disk:
        cache = Cache(disk / "cache", bound=10**9)
        with cache.use(store, key, sha256=digest.sha256, size=digest.size) as path:
            assert path.read_bytes() == first
        with (
            pytest.raises(ServiceError, match=r"9\.4 MB.* free. Make room there, or set EXACT_CACHE_DIR"),
            cache.use(store, large, sha256=too.sha256, size=too.size),
        ):
            pass
        assert [path for path in cache.root.rglob("*") if path.is_file() and too.sha256 in path.name] == []
        # What the cache holds makes room for what is needed now.
        with cache.use(store, other, sha256=its.sha256, size=its.size) as path:
            assert path.read_bytes() == second
        full = open_store(str(disk / "store"), options=FAST)
        with pytest.raises(ServiceError, match="cannot write .*make room there"):
            full.upload(place.folder.with_name("file2"), large, digest=too)
        assert full.list_keys() == []


class Flipping(BaseHTTPRequestHandler):
    """A proxy that changes the last byte of what is sent."""

    def log_message(self, *_):
        pass

    def do_PUT(self):
        body = bytearray(self.rfile.read(int(self.headers["Content-Length"])))
        body[-1] ^= 1
        address = urlsplit(self.path)
        beyond = http.client.HTTPConnection(address.netloc, timeout=10)
        headers = {key: value for key, value in self.headers.items() if key.lower() != "expect"}
        beyond.request("PUT", f"{address.path}?{address.query}".rstrip("?"), bytes(body), headers)
        answer = beyond.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type", ""))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_bytes_that_change_on_the_way_are_refused(s3, monkeypatch):
    straight, name = s3.open()._client, f"{s3.uri.removeprefix('s3://exact/')}/ab/x"
    upload = straight.begin_upload("exact", name, "0" * 64)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Flipping)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    for each in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
    client = s3.open()._client
    for send in (
        lambda: client.put_part("exact", name, upload, 1, b"content"),
        lambda: client.put("exact", name, b"content", "0" * 64),
    ):
        with pytest.raises(FailedRequestError) as refused:
            send()
        assert refused.value.code in ("BadDigest", "XAmzContentSHA256Mismatch")
    proxy.shutdown()
    proxy.server_close()
    assert straight.parts("exact", name, upload) == {}
    tag = straight.put_part("exact", name, upload, 1, b"content")
    assert straight.parts("exact", name, upload) == {1: hashlib.md5(b"content", usedforsecurity=False).hexdigest()}
    assert straight.uploads("exact", name) == [upload]
    straight.finish_upload("exact", name, upload, {1: tag})
    assert straight.head("exact", name) == ObjectInfo(name, 7, "0" * 64)
    assert straight.uploads("exact", name) == []


def test_a_presigned_address_is_read_without_keys(s3):
    store = s3.open()
    store.write("é +", b"content")
    bucket, _, prefix = s3.uri.removeprefix("s3://").partition("/")
    address = presigned(bucket, f"{prefix}/é +")
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.read() == b"content"
