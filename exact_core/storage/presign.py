"""Addresses of S3 objects that carry a signature, so that a reader of web addresses can read them.

The files that a catalogue names may be on another server than EXACT_STORE. Each variable is looked for as
EXACT_STAC_S3_NAME first, then as AWS_NAME: ENDPOINT_URL, ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN, REGION.
EXACT_STAC_S3_REQUESTER_PAYS=1 agrees to pay for the requests. Without keys, objects are read as public ones.
"""

from __future__ import annotations

import datetime as dt
import functools
from urllib.parse import quote, urlsplit

from minio import Minio

from exact_core.environment import variable
from exact_core.errors import ConfigError

__all__ = ["presigned"]

VALID = dt.timedelta(hours=1)
AMAZON = "https://s3.amazonaws.com"


def presigned(bucket: str, key: str) -> str:
    """An http(s) address of an object that can be read (GET) for an hour.

    Raises:
        ConfigError: a variable is wrong.
    """
    keys = (_variable("ACCESS_KEY_ID"), _variable("SECRET_ACCESS_KEY"))
    given = variable("EXACT_STAC_S3_ENDPOINT_URL") or variable("AWS_ENDPOINT_URL_S3")
    endpoint = given or variable("AWS_ENDPOINT_URL") or AMAZON
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/"):
        raise ConfigError(
            f"EXACT_STAC_S3_ENDPOINT_URL or AWS_ENDPOINT_URL = {endpoint!r}; give http://host:port or https://host"
        )
    if not all(keys):
        return f"{url.scheme}://{url.netloc}/{bucket}/{quote(key)}"
    client = _client(url.netloc, url.scheme == "https", *keys, _variable("SESSION_TOKEN"), _variable("REGION"))
    pays = variable("EXACT_STAC_S3_REQUESTER_PAYS") not in ("", "0", "false")
    return client.presigned_get_object(
        bucket, key, expires=VALID, extra_query_params={"x-amz-request-payer": "requester"} if pays else None
    )


@functools.cache
def _client(host: str, secure: bool, access: str, secret: str, token: str, region: str) -> Minio:
    # Named, the region need not be asked for.
    return Minio(
        host,
        access_key=access,
        secret_key=secret,
        session_token=token or None,
        secure=secure,
        region=region or "us-east-1",
    )


def _variable(name: str) -> str:
    return variable(f"EXACT_STAC_S3_{name}") or variable(f"AWS_{name}")
