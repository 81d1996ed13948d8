"""The job that prepares the store, against a real server with MinIO's own code (the gateway of JuiceFS)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from tests.deploy.conftest import DEPLOY
from tests.services.servers import ACCESS_KEY, SECRET_KEY, JuiceFS

pytestmark = pytest.mark.services

ROOT = (ACCESS_KEY, SECRET_KEY)
USER = ("exact", "user-secret-123")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URL of an empty store whose root is ROOT."""
    store = JuiceFS(tmp_path_factory.mktemp("store"))
    store.start()
    yield store.variables["AWS_ENDPOINT_URL"]
    store.kill()


def prepare(server: str, *, admin=ROOT, user=USER, **more: str) -> subprocess.CompletedProcess:
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": server,
        "AWS_REGION": "us-east-1",
        "BUCKET": "exact",
        "ADMIN_ACCESS_KEY": admin[0],
        "ADMIN_SECRET_KEY": admin[1],
        "WAIT_SECONDS": "20",
        **more,
    }
    if user:
        environment |= {"USER_ACCESS_KEY": user[0], "USER_SECRET_KEY": user[1]}
    command = [sys.executable, str(DEPLOY / "store-job" / "prepare_store.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def client(server: str, keys: tuple[str, str]):
    from minio import Minio
    from urllib3 import PoolManager

    address = server.removeprefix("http://")
    once = PoolManager(retries=False)
    return Minio(address, access_key=keys[0], secret_key=keys[1], region="us-east-1", secure=False, http_client=once)


def test_twice_then_the_user_may_use_the_bucket_and_nothing_else(server, tmp_path):
    from minio.error import S3Error

    for _ in range(2):
        done = prepare(server)
        assert done.returncode == 0, done.stderr
    client(server, ROOT).make_bucket("other")
    (tmp_path / "object").write_bytes(b"x" * 1000)
    store = client(server, USER)
    store.fput_object("exact", "kfp/object", str(tmp_path / "object"))
    assert store.stat_object("exact", "kfp/object").size == 1000
    assert [item.object_name for item in store.list_objects("exact", recursive=True)] == ["kfp/object"]
    store.remove_object("exact", "kfp/object")
    for forbidden in (
        lambda: store.fput_object("other", "object", str(tmp_path / "object")),
        lambda: list(store.list_objects("other")),
        lambda: store.make_bucket("another"),
        lambda: store.remove_bucket("exact"),
    ):
        with pytest.raises(S3Error, match="AccessDenied"):
            forbidden()


def test_a_changed_secret_is_taken_over(server):
    assert prepare(server).returncode == 0
    assert prepare(server, user=(USER[0], "another-secret-123")).returncode == 0
    assert client(server, (USER[0], "another-secret-123")).bucket_exists("exact")


def test_without_a_user_only_the_bucket(server):
    done = prepare(server, user=None, BUCKET="plain")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "bucket 'plain' is there\n"


def test_wrong_keys_fail_at_once_and_say_so(server):
    begun = time.monotonic()
    done = prepare(server, admin=(ROOT[0], "wrong-secret-123"), WAIT_SECONDS="110")
    assert done.returncode == 1
    assert "the store refuses bucket 'exact'" in done.stderr
    assert time.monotonic() - begun < 60


def test_a_store_that_never_answers_is_given_up():
    with socket.socket() as taken:  # bound, not listening: refused, and nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        done = prepare(f"http://127.0.0.1:{taken.getsockname()[1]}", WAIT_SECONDS="3")
    assert done.returncode == 1
    assert "no store answered within 3 s" in done.stderr
    assert "for the store to answer about bucket 'exact': " in done.stdout
    assert "Connection refused" in done.stdout


def test_an_endpoint_without_a_scheme_is_refused():
    done = prepare("minio:9000")
    assert done.returncode == 1
    assert "it must be a URL such as http://" in done.stderr
