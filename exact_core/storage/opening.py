"""From a URI to its store: the only module that knows every kind of store."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from exact_core.errors import ConfigError
from exact_core.storage.base import Store, StoreOptions, check_key
from exact_core.storage.filestore import FileStore
from exact_core.storage.s3 import S3Store

__all__ = ["open_object", "open_store"]

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(uri: str, *, options: StoreOptions | None = None) -> Store:
    """The store at `s3://bucket/prefix`, `file:///folder` or a plain path.

    The address of an S3 server is AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (unset: Amazon's). AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN (optional) and AWS_REGION (unset: us-east-1) apply, and http_proxy or
    https_proxy unless no_proxy names the server. EXACT_S3_CLIENT names the library (minio or boto3; unset: minio). All
    are read at this moment.

    Raises:
        ConfigError: the URI or a variable is missing or wrong.
        ServiceError: the package of the client is not installed.
    """
    options = options or StoreOptions()
    kind, place = _split(uri)
    if kind == "file":
        return FileStore(Path(place), options=options)
    bucket, _, prefix = place.partition("/")
    if not BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"{uri}: {bucket!r} is no bucket name. A bucket has 3 to 63 lower-case letters, digits, dots and hyphens, "
            f"as in s3://exact/artifacts"
        )
    prefix = prefix.strip("/")
    if prefix:
        check_key(prefix)
    return S3Store.from_environment(bucket, prefix, options=options)


def open_object(uri: str, *, options: StoreOptions | None = None) -> tuple[Store, str]:
    """The store and the key of one object's URI. See `open_store`."""
    kind, place = _split(uri)
    if kind == "file":
        path = Path(place)
        return open_store(str(path.parent), options=options), path.name
    # At its own prefix: keys may be good for that alone.
    base, _, name = place.rpartition("/")
    return open_store(f"s3://{base}", options=options), check_key(name)


def _split(uri: str) -> tuple[str, str]:
    """('s3', 'bucket/prefix') or ('file', absolute path)."""
    kind, colon, place = uri.partition("://")
    if not uri:
        raise ConfigError("the URI of a store is empty. Give s3://bucket/prefix, file:///folder or a path")
    if not colon:
        return "file", str(Path(uri).absolute())
    if kind == "s3":
        return "s3", place
    if kind != "file" or urlsplit(uri).netloc not in ("", "localhost"):
        raise ConfigError(f"{uri}: cannot be used as a store. Give s3://bucket/prefix, file:///folder or a path")
    return "file", unquote(urlsplit(uri).path)
