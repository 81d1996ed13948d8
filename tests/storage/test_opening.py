"""Where URIs lead, and what is said about those that lead nowhere."""

import pytest

from exact_core.errors import ConfigError
from exact_core.storage import default_cache, open_object, open_store
from exact_core.storage.base import digest_file, in_parallel, read_part

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def test_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for uri in ((tmp_path / "a b").as_uri(), str(tmp_path / "a b"), "a b", f"file://localhost{tmp_path}/a%20b"):
        assert open_store(uri).uri == (tmp_path / "a b").as_uri()
    store, key = open_object((tmp_path / "a b" / "x").as_uri())
    assert (store.uri, key) == ((tmp_path / "a b").as_uri(), "x")


def test_buckets():
    store = open_store("s3://bucket/a/b/")
    assert store.uri == "s3://bucket/a/b"
    assert store.uri_of("c/d") == "s3://bucket/a/b/c/d"
    assert open_store("s3://bucket").uri_of("c") == "s3://bucket/c"
    store, key = open_object("s3://bucket/a/b")
    assert (store.uri, key) == ("s3://bucket/a", "b")


@pytest.mark.parametrize("uri", ["", "s3://", "s3://ab", "s3://Upper/x", "s3://a_b/x", "http://h/x"])
def test_uris_that_lead_nowhere(uri):
    with pytest.raises(ConfigError, match="s3://|single slashes"):
        open_store(uri)


def test_a_file_on_another_machine_is_refused():
    with pytest.raises(ConfigError, match="file:///folder"):
        open_store("file://other/x")


@pytest.mark.parametrize("endpoint", ["localhost:9000", "ftp://h", "http://", "http://h/path"])
def test_wrong_endpoints(monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL.*Give http://host:port"):
        open_store("s3://bucket")


def test_missing_keys_are_named(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        open_store("s3://bucket")


def test_the_cache_is_where_the_variables_say(monkeypatch, tmp_path):
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "c"))
    assert default_cache().bound == 20 * 10**9
    monkeypatch.setenv("EXACT_CACHE_GB", "0.5")
    assert (default_cache().root, default_cache().bound) == (tmp_path / "c", 500_000_000)
    for wrong in ("much", "inf", "nan", "-1"):
        monkeypatch.setenv("EXACT_CACHE_GB", wrong)
        with pytest.raises(ConfigError, match="number|0 or more"):
            default_cache()


def test_parts_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abcdefg")
    digest = digest_file(path, 3)
    # echo -n abcdefg | sha256sum; echo -n g | md5sum
    assert digest.sha256 == "7d1a54127b222502f5b79b5fb0803061152a44f92b37e23c6527baf665d4da9a"
    assert digest.md5[2].hex() == "b2f5ff47436671b6e533d8dc3614845d"
    assert [read_part(path, i, digest) for i in range(3)] == [b"abc", b"def", b"g"]
    # At most 10,000 parts: larger ones where a file is too large for that.
    path.write_bytes(bytes(25_000))
    assert (len(digest_file(path, 1).md5), digest_file(path, 1).part_bytes) == (8334, 3)


def test_the_first_failure_ends_what_has_not_begun():
    begun = []

    def work(i):
        begun.append(i)
        if i == 1:
            raise ConfigError("no")
        return i

    assert in_parallel(lambda i: i * i, range(5), workers=3) == [0, 1, 4, 9, 16]
    with pytest.raises(ConfigError, match="no"):
        in_parallel(work, range(10_000), workers=1)
    assert len(begun) < 10_000
