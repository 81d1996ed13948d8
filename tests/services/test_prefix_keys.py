"""Keys that are good for one prefix of a bucket, as Amazon's own guide writes their policy."""

from __future__ import annotations

import os

import pytest
from minio import MinioAdmin
from minio.credentials import StaticProvider

from exact_core.errors import ServiceError
from exact_core.storage import Cache, fetch_folder, open_store, publish_folder
from tests.services.conftest import FAST, LIBRARIES, MIB
from tests.services.servers import ACCESS_KEY, SECRET_KEY

pytestmark = pytest.mark.services


@pytest.mark.parametrize("listed", [("team/*",), ("team", "team/*")])
@pytest.mark.parametrize("uploads", [True, False])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_folder_goes_up_and_down(juicefs, monkeypatch, tmp_path, listed, uploads, library):
    monkeypatch.setenv("EXACT_S3_CLIENT", library)
    admin = MinioAdmin(
        endpoint=f"127.0.0.1:{juicefs.port}",
        credentials=StaticProvider(ACCESS_KEY, SECRET_KEY),
        secure=False,
        region="us-east-1",
    )
    bucket = "arn:aws:s3:::exact"
    actions = ["GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts"]
    statements = [
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [bucket],
            "Condition": {"StringLike": {"s3:prefix": list(listed)}},
        },
        {"Effect": "Allow", "Action": [f"s3:{each}" for each in actions], "Resource": [f"{bucket}/team/*"]},
    ]
    if uploads:
        statements.append({"Effect": "Allow", "Action": ["s3:ListBucketMultipartUploads"], "Resource": [bucket]})
    admin.user_add("teamuser", "teamsecret1")
    admin.policy_add("team", policy={"Version": "2012-10-17", "Statement": statements})
    admin.policy_set("team", user="teamuser")
    for name, value in juicefs.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "teamuser")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "teamsecret1")
    store = open_store("s3://exact/team", options=FAST)
    assert store.head("nothing") is None
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(11 * MIB))
    (folder / "dataset.json").write_text("{}")
    pointer = publish_folder(folder, "dataset.json", store.uri, options=FAST)
    assert pointer.uri.startswith("s3://exact/team/folders/")
    fetch_folder(pointer.uri, tmp_path / "back", cache=Cache(tmp_path / "cache", bound=10**9), options=FAST)
    assert (tmp_path / "back" / "large").read_bytes() == (folder / "large").read_bytes()
    with pytest.raises(ServiceError, match=r"(?s)AccessDenied.*what they may do with this bucket"):
        open_store("s3://exact/others", options=FAST).write("x", b"x")
