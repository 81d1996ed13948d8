"""Three places for objects: a folder and two S3 servers, which run for the whole session."""

from __future__ import annotations

import itertools
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from minio import Minio

from exact_core.storage import Cache, Store, StoreOptions, content_key, open_store
from exact_core.storage.base import FileDigest, digest_file
from tests.services.servers import ACCESS_KEY, SECRET_KEY, JuiceFS, S3Server, SeaweedFS

MIB = 2**20
FAST = StoreOptions(part_bytes=5 * MIB, workers=3, attempts=3, first_pause=0.05)
"""The smallest parts that S3 takes, and no long waiting for what will not come."""
_numbers = itertools.count()


@dataclass
class Place:
    """A fresh, empty place for objects, and a way to it that is not ours."""

    uri: str
    folder: Path
    server: S3Server | None = None
    files: itertools.count[int] = field(default_factory=itertools.count)

    def open(self, options: StoreOptions = FAST) -> Store:
        return open_store(self.uri, options=options)

    @property
    def client(self) -> Minio:
        assert self.server is not None
        endpoint = f"127.0.0.1:{self.server.port}"
        return Minio(endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")

    def replace(self, key: str, content: bytes) -> None:
        """Another program writes over an object."""
        if self.server is None:
            (self.folder / key).write_bytes(content)
        else:
            bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
            self.client.put_object(bucket, f"{prefix}/{key}", BytesIO(content), len(content))

    def put(self, content: bytes, options: StoreOptions = FAST) -> tuple[Store, str, FileDigest]:
        """Upload content; the store, the key and what use() of a cache needs."""
        path = self.folder.with_name(f"file{next(self.files)}")
        path.write_bytes(content)
        store, digest = self.open(options), digest_file(path, options.part_bytes)
        store.upload(path, content_key(digest.sha256), digest=digest)
        return store, content_key(digest.sha256), digest


@contextmanager
def _running(server: S3Server) -> Iterator[S3Server]:
    try:
        server.start()
        endpoint = f"127.0.0.1:{server.port}"
        Minio(endpoint, ACCESS_KEY, SECRET_KEY, secure=False).make_bucket("exact")
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def juicefs(tmp_path_factory):
    with _running(JuiceFS(tmp_path_factory.mktemp("juicefs"))) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory):
    with _running(SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))) as server:
        yield server


def place_of(kind: str, request, tmp_path, monkeypatch) -> Place:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "store"
    if kind == "file":
        folder.mkdir()
        return Place(folder.as_uri(), folder)
    kind, _, library = kind.partition(" ")
    server = request.getfixturevalue(kind)
    monkeypatch.setenv("EXACT_S3_CLIENT", library)
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    return Place(f"s3://exact/test/{next(_numbers)}", folder, server)


SERVERS = [pytest.param(name, marks=pytest.mark.services) for name in ("juicefs", "seaweedfs")]
LIBRARIES = ["minio", "boto3"]
BY_LIBRARY = [
    pytest.param(f"{name} {library}", marks=pytest.mark.services)
    for name in ("juicefs", "seaweedfs")
    for library in LIBRARIES
]
"""Each server, spoken to by each library."""


@pytest.fixture(params=["file", *SERVERS])
def place(request, tmp_path, monkeypatch) -> Place:
    return place_of(request.param, request, tmp_path, monkeypatch)


@pytest.fixture(params=SERVERS)
def s3(request, tmp_path, monkeypatch) -> Place:
    return place_of(request.param, request, tmp_path, monkeypatch)


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache", bound=10**9)


@pytest.fixture
def small_disk(tmp_path):
    """A way to a folder of 8 MiB: a file system of that size, or, where none may be mounted, a limit on files."""
    folder = tmp_path / "disk"
    folder.mkdir()

    @contextmanager
    def limited() -> Iterator[Path]:
        mounted = shutil.which("mount") is not None and not subprocess.call(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], stderr=subprocess.DEVNULL
        )
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8 * MIB, hard))
        try:
            yield folder
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            if mounted:
                subprocess.run(["umount", folder], check=True)

    return limited
