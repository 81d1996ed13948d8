"""Make the bucket of Exact, and on MinIO a user who may use it and nothing else. Running it again changes nothing.

Environment: AWS_ENDPOINT_URL, AWS_REGION, BUCKET, ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY. For the user also
USER_ACCESS_KEY and USER_SECRET_KEY (MinIO only: SeaweedFS and AWS have other ways).
The store may take WAIT_SECONDS (default 300) to answer.
"""

from __future__ import annotations

import os
import time
from urllib.parse import urlsplit

from minio import Minio
from minio.credentials import StaticProvider
from minio.error import S3Error
from minio.minioadmin import MinioAdmin
from urllib3 import PoolManager, Timeout
from urllib3.exceptions import HTTPError

SAY_SECONDS = 30.0
"""A job that waits says for what, at first and then this often."""
BUCKET_ACTIONS = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]
OBJECT_ACTIONS = [
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
]


def bucket_policy(bucket: str) -> dict[str, object]:
    """Everything the pipelines and MLflow do with objects. Nothing that changes the bucket itself or sees another."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": BUCKET_ACTIONS, "Resource": [f"arn:aws:s3:::{bucket}"]},
            {"Effect": "Allow", "Action": OBJECT_ACTIONS, "Resource": [f"arn:aws:s3:::{bucket}/*"]},
        ],
    }


def make_bucket(client: Minio, bucket: str, *, wait_seconds: float) -> None:
    """Make the bucket unless it is there. A store that does not answer yet is waited for.

    Raises:
        SystemExit: the store refuses, or did not answer in time.
    """
    until, said = time.monotonic() + wait_seconds, -SAY_SECONDS
    while True:
        try:
            if not client.bucket_exists(bucket):
                client.make_bucket(bucket)
            print(f"bucket {bucket!r} is there")
            return
        except S3Error as error:
            if error.code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                return  # made by another in between
            if error.code not in ("XMinioServerNotInitialized", "ServiceUnavailable", "SlowDown", "InternalError"):
                raise SystemExit(f"the store refuses bucket {bucket!r}: {error.code}: {error.message}") from error
            last: Exception = error
        except HTTPError as error:
            last = error
        if time.monotonic() > until:
            raise SystemExit(f"no store answered within {wait_seconds:.0f} s; last error: {last}") from last
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            left = until - said
            print(f"waiting up to {left:.0f} s for the store to answer about bucket {bucket!r}: {last}", flush=True)
        time.sleep(2)


def make_user(admin: MinioAdmin, bucket: str, *, access_key: str, secret_key: str) -> None:
    """Give MinIO the user with this key, allowed what `bucket_policy` says. A changed secret or policy replaces it."""
    policy = f"{bucket}-readwrite"
    admin.policy_add(policy, policy=bucket_policy(bucket))
    admin.user_add(access_key, secret_key)
    admin.policy_set(policy, user=access_key)
    print(f"user {access_key!r} may use bucket {bucket!r}")


def main() -> None:
    """Read the environment and do both."""
    endpoint, region, bucket = (os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "BUCKET"))
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.netloc:
        raise SystemExit(
            f"AWS_ENDPOINT_URL is {endpoint!r}; it must be a URL such as http://minio.exact.svc.cluster.local:9000"
        )
    key, secret = os.environ["ADMIN_ACCESS_KEY"], os.environ["ADMIN_SECRET_KEY"]
    http = PoolManager(timeout=Timeout(connect=5, read=30), retries=False)
    secure = url.scheme == "https"
    client = Minio(url.netloc, access_key=key, secret_key=secret, region=region, secure=secure, http_client=http)
    make_bucket(client, bucket, wait_seconds=float(os.environ.get("WAIT_SECONDS", "300")))
    if os.environ.get("USER_ACCESS_KEY"):
        provider = StaticProvider(key, secret)
        admin = MinioAdmin(endpoint=url.netloc, credentials=provider, region=region, secure=secure, http_client=http)
        user, user_secret = os.environ["USER_ACCESS_KEY"], os.environ["USER_SECRET_KEY"]
        make_user(admin, bucket, access_key=user, secret_key=user_secret)


if __name__ == "__main__":
    main()
