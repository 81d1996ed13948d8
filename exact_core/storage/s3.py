"""A store in a bucket of an S3 server; with retry.py the only module that imports minio.

Multipart calls carry an underscore in the SDK, whose public upload neither continues one nor sends checksums of the
parts; pyproject.toml bounds its version for their sake.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from minio import Minio
from minio.datatypes import Part
from minio.error import S3Error

from exact_core.environment import readable_file, shown, variable
from exact_core.errors import ConfigError, DataError
from exact_core.storage.base import (
    FileDigest,
    ObjectInfo,
    Progress,
    Store,
    StoreOptions,
    check_key,
    in_parallel,
    one_at_a_time,
    read_part,
)
from exact_core.storage.retry import LostUploadError, Requests

__all__ = ["S3Store"]

log = logging.getLogger(__name__)

RECORD = "x-amz-meta-sha256"
AMAZON = "https://s3.amazonaws.com"
UPLOADS = 3
"""Times that an upload is begun anew when it is lost."""


class _Counted:
    """A progress callback that knows its sum."""

    def __init__(self, told: Progress) -> None:
        self.told, self.count, self._lock = told, 0, threading.Lock()

    def add(self, count: int) -> None:
        """Pass on a number of bytes."""
        with self._lock:
            self.count += count
        self.told(count)


class S3Store(Store):
    """Objects below a prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str, *, client: Minio, endpoint: str, options: StoreOptions) -> None:
        super().__init__(f"s3://{bucket}/{prefix}".rstrip("/"), options)
        self.bucket, self.prefix = bucket, prefix
        self._client, self._requests = client, Requests(self.uri, bucket, endpoint, options)
        self._slots = threading.BoundedSemaphore(options.workers)
        self._bucket_seen = False

    @classmethod
    def from_environment(cls, bucket: str, prefix: str, *, options: StoreOptions) -> S3Store:
        """A store reached by the variables that `open_store` names.

        Raises:
            ConfigError: one is missing or wrong.
        """
        endpoint, url = _endpoint()
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if missing := [name for name in names if not variable(name)]:
            raise ConfigError(f"s3://{bucket} at {endpoint} needs {' and '.join(missing)}; set what is missing")
        pool, way = _pool(url, options)
        try:
            client = Minio(
                url.netloc,
                access_key=variable(names[0]),
                secret_key=variable(names[1]),
                session_token=variable("AWS_SESSION_TOKEN") or None,
                secure=url.scheme == "https",
                # Named, the region need not be asked for, which a limited user may not do.
                region=variable("AWS_REGION") or variable("AWS_DEFAULT_REGION") or "us-east-1",
                http_client=pool,
            )
        except ValueError as error:
            raise ConfigError(f"s3://{bucket} at {endpoint}: {error}; check AWS_ENDPOINT_URL and AWS_REGION") from error
        return cls(bucket, prefix, client=client, endpoint=f"{endpoint}{way}", options=options)

    def below(self, name: str) -> S3Store:
        """See `Store`."""
        # A store of its own, which looks for the bucket at its own prefix: keys may be good for that alone.
        return S3Store(
            self.bucket,
            self._name(name),
            client=self._client,
            endpoint=self._requests.endpoint,
            options=self.options,
        )

    def head(self, key: str) -> ObjectInfo | None:
        """See `Store`."""

        def ask() -> ObjectInfo | None:
            try:
                found = self._client.stat_object(self.bucket, self._name(key))
            except S3Error as error:
                if error.response.status == 404:
                    return None
                # Keys that may list below a prefix only are not told that an object is missing.
                if error.response.status == 403 and not self._is_listed(key):
                    return None
                raise
            # Servers change the case of metadata keys; these headers compare without it.
            recorded = str((found.metadata or {}).get(RECORD, ""))
            return ObjectInfo(key, found.size or 0, recorded)

        self._check_bucket()
        return self._requests.ask("look up", key, ask)

    def list_keys(self, prefix: str = "") -> list[str]:
        """See `Store`."""
        base = f"{self.prefix}/" if self.prefix else ""

        def ask() -> list[str]:
            found = self._client.list_objects(self.bucket, prefix=base + prefix, recursive=True)
            return [str(item.object_name).removeprefix(base) for item in found if not item.is_dir]

        self._check_bucket()
        return sorted(self._requests.ask("list", prefix, ask))

    def read(self, key: str) -> bytes:
        """See `Store`."""

        def ask() -> bytes:
            with self._slots:
                response = self._client.get_object(self.bucket, self._name(key))
                try:
                    return response.read()
                finally:
                    response.close()
                    response.release_conn()

        self._check_bucket()
        return self._requests.ask("read", key, ask)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """See `Store`."""
        if not length:
            return b""

        def ask() -> bytes:
            with self._slots:
                response = self._client.get_object(self.bucket, self._name(key), offset=start, length=length)
                try:
                    content = response.read()
                finally:
                    response.close()
                    response.release_conn()
            if len(content) != length:
                raise DataError(f"{self.uri_of(key)}: ends before byte {start + length}: truncated; publish it again")
            return content

        self._check_bucket()
        return self._requests.ask("read", key, ask)

    def write(self, key: str, content: bytes) -> None:
        """See `Store`."""
        self._check_bucket()
        self._put(key, lambda: content, hashlib.sha256(content).hexdigest())

    def upload(self, path: Path, key: str, *, digest: FileDigest, progress: Progress | None = None) -> int:
        """See `Store`."""
        wanted, told = ObjectInfo(key, digest.size, digest.sha256), one_at_a_time(progress)
        if self.head(key) == wanted:
            told(digest.size)
            return 0
        for _ in range(UPLOADS):
            parts = _Counted(told)
            try:
                if len(digest.md5) == 1:
                    self._put(key, lambda: read_part(path, 0, digest), digest.sha256)
                    sent = digest.size
                else:
                    sent = self._multipart(path, key, digest, parts.add)
            except LostUploadError as lost:
                log.info("%s: this upload is over (%s); looking what is there", self.uri_of(key), lost)
                sent = 0
            told(digest.size - parts.count)
            if self.head(key) == wanted:
                return sent
            told(-digest.size)
        raise self._requests.failure("upload", key, "the server does not keep what it confirmed", "", UPLOADS)

    def delete(self, key: str) -> None:
        """See `Store`."""
        self._check_bucket()
        self._requests.ask("delete", key, lambda: self._client.remove_object(self.bucket, self._name(key)))

    def unfinished(self, key: str) -> list[str]:
        """Identities of uploads of this key that were begun and not finished, sorted."""
        name = self._name(key)

        def ask() -> list[str]:
            # With the whole name as the prefix: MinIO's own server lists nothing for a shorter one.
            try:
                listed = self._client._list_multipart_uploads(self.bucket, prefix=name)
            except S3Error as error:
                # Without this right an upload that was cut off is begun anew.
                if error.code == "AccessDenied":
                    return []
                raise
            return sorted(str(upload.upload_id) for upload in listed.uploads if upload.object_name == name)

        return self._requests.ask("list uploads of", key, ask)

    def _check_bucket(self) -> None:
        """Before the first request: what is wrong with keys and bucket is clear here, and nowhere else.

        An answer to HEAD has no text, so that a missing bucket looks like a missing object and a wrong key like a
        missing right; and some servers make a bucket that is written to, and list a missing one as empty.
        """
        if self._bucket_seen:
            return
        base = f"{self.prefix}/" if self.prefix else ""
        self._requests.ask("list", "", lambda: next(iter(self._client.list_objects(self.bucket, prefix=base)), None))

        def exists() -> bool:
            try:
                return bool(self._client.bucket_exists(self.bucket))
            except S3Error as error:
                # Keys for a prefix may not ask about the bucket, and have just listed in it.
                if error.code == "AccessDenied":
                    return True
                raise

        if not self._requests.ask("find", "", exists):
            raise self._requests.failure("find", "", "NoSuchBucket: there is no such bucket", "NoSuchBucket", 1)
        self._bucket_seen = True

    def _is_listed(self, key: str) -> bool:
        name = self._name(key)
        found = self._client.list_objects(self.bucket, prefix=name, recursive=True)
        return any(item.object_name == name for item in found)

    def _put(self, key: str, content: Callable[[], bytes], sha256: str) -> None:
        def ask() -> None:
            with self._slots:
                data = content()
                headers = {RECORD: sha256, **_checksum(data), "Content-Type": "application/octet-stream"}
                self._client._put_object(self.bucket, self._name(key), data, headers)

        self._requests.ask("upload", key, ask)

    def _multipart(self, path: Path, key: str, digest: FileDigest, told: Progress) -> int:
        """Send the parts that the server lacks and join them; returns the bytes sent."""
        name = self._name(key)
        upload, tags = self._adopt(key, digest)
        sizes = [min(digest.part_bytes, digest.size - i * digest.part_bytes) for i in range(len(digest.md5))]
        missing = [i for i in range(len(sizes)) if i not in tags]
        told(sum(sizes[i] for i in tags))

        def send(i: int) -> None:
            def ask() -> str:
                with self._slots:
                    data = read_part(path, i, digest)
                    return self._client._upload_part(self.bucket, name, data, {**_checksum(data)}, upload, i + 1)

            tags[i] = self._requests.ask("upload", key, ask, part=i + 1)
            told(sizes[i])

        try:
            in_parallel(send, missing, workers=self.options.workers)
        except DataError:
            # Of a changed file no part is of use; after any other failure, the next try goes on from here.
            self._abort(key, upload)
            raise
        parts = [Part(part_number=i + 1, etag=tags[i]) for i in range(len(sizes))]
        self._requests.ask(
            "finish", key, lambda: self._client._complete_multipart_upload(self.bucket, name, upload, parts)
        )
        for other in self.unfinished(key):
            self._abort(key, other)
        return sum(sizes[i] for i in missing)

    def _adopt(self, key: str, digest: FileDigest) -> tuple[str, dict[int, str]]:
        """The upload to go on with, and the tags of those of its parts (from 0) that hold the right bytes.

        An unfinished upload of the key is of the same content, for the key is a digest; so it may be gone on with, also
        beside a process that is still at it: both send the same parts.
        """
        name = self._name(key)
        best: tuple[str, dict[int, str]] | None = None
        for upload in self.unfinished(key):
            try:
                have = {
                    part.part_number - 1: part.etag
                    for part in self._parts(key, upload)
                    if 0 < part.part_number <= len(digest.md5)
                    and part.etag.lower() == digest.md5[part.part_number - 1].hex()
                }
            except LostUploadError:
                continue
            if best is None or len(have) > len(best[1]):
                best = upload, have
        if best is not None:
            return best
        upload = self._requests.ask(
            "begin to upload",
            key,
            lambda: self._client._create_multipart_upload(self.bucket, name, {RECORD: digest.sha256}),
        )
        return upload, {}

    def _parts(self, key: str, upload: str) -> list[Part]:
        found: list[Part] = []
        while True:
            marker = str(found[-1].part_number) if found else None
            page = self._requests.ask(
                "list parts of",
                key,
                lambda marker=marker: self._client._list_parts(  # type: ignore[misc]
                    self.bucket, self._name(key), upload, part_number_marker=marker
                ),
            )
            found += page.parts
            if not page.is_truncated or not page.parts:
                return found

    def _abort(self, key: str, upload: str) -> None:
        with suppress(LostUploadError):
            self._requests.ask(
                "abort", key, lambda: self._client._abort_multipart_upload(self.bucket, self._name(key), upload)
            )

    def _name(self, key: str) -> str:
        """Key in the bucket."""
        check_key(key)
        return f"{self.prefix}/{key}" if self.prefix else key


def _endpoint() -> tuple[str, SplitResult]:
    """The server's address, whole and in parts.

    Raises:
        ConfigError: it is none.
    """
    # The one for S3 goes before that for all of Amazon's services, as Amazon's own tools have it.
    name = "AWS_ENDPOINT_URL_S3" if variable("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"
    endpoint = variable(name, AMAZON)
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 80) > 0
    except ValueError:  # a port above 65535
        valid = False
    if not valid or url.path.strip("/") or url.query or url.fragment or re.search(r"[\s_]", url.netloc):
        raise ConfigError(
            f"{name} = {shown(endpoint)!r}: no address of a server; give http://host:port or https://host, without a "
            f"path, the port up to 65535, the host without underscores"
        )
    if "@" in url.netloc:
        raise ConfigError(
            f"{name} = {shown(endpoint)!r}: has a login in it; give http://host:port, and the login in "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return endpoint, url


def _pool(url: SplitResult, options: StoreOptions) -> tuple[urllib3.PoolManager, str]:
    """Connections to a server, by way of a proxy where the environment names one, and the words for that way.

    Raises:
        ConfigError: a file of certificates or the proxy's address is none.
    """
    bundle = readable_file("AWS_CA_BUNDLE") or readable_file("SSL_CERT_FILE") or certifi.where()
    try:
        ssl.create_default_context(cafile=bundle)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"AWS_CA_BUNDLE or SSL_CERT_FILE = {bundle}: holds no certificates: {error}; name a PEM file"
        ) from error
    settings: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=min(10.0, options.timeout), read=options.timeout),
        "maxsize": 2 * options.workers,
        # Our own retries, which say what they wait for: urllib3's stay silent.
        "retries": False,
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": bundle,
    }
    proxy = getproxies().get(url.scheme, "")
    if not proxy or proxy_bypass(url.netloc):
        return urllib3.PoolManager(**settings), ""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        login = unquote(f"{parts.username}:{parts.password or ''}") if parts.username else None
        address = f"{parts.scheme}://{parts.hostname}:{parts.port or 80}"
        headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
        return urllib3.ProxyManager(address, proxy_headers=headers, **settings), f" by the proxy {address}"
    except (ValueError, urllib3.exceptions.HTTPError) as error:
        raise ConfigError(
            f"{url.scheme}_proxy = {shown(proxy)!r}: no address of a proxy: {error}; give http://host:port, or name "
            f"{url.hostname} in no_proxy"
        ) from error


def _checksum(data: bytes) -> dict[str, str | list[str] | tuple[str]]:
    """The header by which the server refuses bytes that changed on the way."""
    return {"Content-MD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}
