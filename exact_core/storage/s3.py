"""A store in a bucket of an S3 server, on top of either client library (client.py)."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from exact_core.environment import variable
from exact_core.errors import ConfigError, DataError
from exact_core.storage.base import (
    FileDigest,
    Listed,
    ObjectInfo,
    Progress,
    Store,
    StoreOptions,
    check_key,
    in_parallel,
    one_at_a_time,
    read_part,
)
from exact_core.storage.client import AMAZON, Client, Connection, FailedRequestError
from exact_core.storage.clients import make_client
from exact_core.storage.retry import DENIED, LostUploadError, Requests

__all__ = ["S3Store"]

log = logging.getLogger(__name__)

UPLOADS = 3
"""How often a lost upload is started again."""


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

    def __init__(self, bucket: str, prefix: str, *, client: Client, endpoint: str, options: StoreOptions) -> None:
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
            ServiceError: the client's package is not installed.
        """
        # The one for S3 goes before that for all of Amazon's services, as Amazon's own tools have it.
        name = "AWS_ENDPOINT_URL_S3" if variable("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"
        endpoint = variable(name, AMAZON)
        keys = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
        connection = Connection.at(
            name,
            endpoint,
            keys=keys,
            token=variable("AWS_SESSION_TOKEN"),
            region=variable("AWS_REGION") or variable("AWS_DEFAULT_REGION"),
            timeout=options.timeout,
            connections=2 * options.workers,
        )
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if missing := [name for name, key in zip(names, keys, strict=True) if not key]:
            raise ConfigError(f"s3://{bucket} at {endpoint} needs {' and '.join(missing)}. Set what is missing")
        way = f" by the proxy {connection.proxy}" if connection.proxy else ""
        return cls(bucket, prefix, client=make_client(connection), endpoint=f"{endpoint}{way}", options=options)

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
                found = self._client.head(self.bucket, self._name(key))
            except FailedRequestError as error:
                if error.status == 404:
                    return None
                # Keys that may list below a prefix only are not told that an object is missing.
                if error.status == 403 and not self._is_listed(key):
                    return None
                raise
            return ObjectInfo(key, found.size, found.sha256)

        self._check_bucket()
        return self._requests.ask("look up", key, ask)

    def listed(self, prefix: str = "") -> list[Listed]:
        """See `Store`."""
        base = f"{self.prefix}/" if self.prefix else ""

        def ask() -> list[Listed]:
            found = self._client.listed(self.bucket, base + prefix)
            return [Listed(each.name.removeprefix(base), each.size, each.etag) for each in found]

        self._check_bucket()
        return sorted(self._requests.ask("list", prefix, ask), key=lambda each: each.key)

    def read(self, key: str) -> bytes:
        """See `Store`."""

        def ask() -> bytes:
            with self._slots:
                return self._client.get(self.bucket, self._name(key))

        self._check_bucket()
        return self._requests.ask("read", key, ask)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """See `Store`."""
        if not length:
            return b""

        def ask() -> bytes:
            with self._slots:
                content = self._client.get(self.bucket, self._name(key), start=start, length=length)
            if len(content) != length:
                raise DataError(f"{self.uri_of(key)}: ends before byte {start + length}: truncated. Publish it again")
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
        reason, said = "", "the server does not keep what it confirmed"
        for _ in range(UPLOADS):
            parts = _Counted(told)
            try:
                if len(digest.md5) == 1:
                    self._put(key, lambda: read_part(path, 0, digest), digest.sha256)
                    sent = digest.size
                else:
                    sent = self._multipart(path, key, digest, parts.add)
            except LostUploadError as lost:
                log.info("%s: this upload no longer exists (%s). Checking the store", self.uri_of(key), lost)
                sent = 0
                if str(lost) == DENIED:
                    reason, said = DENIED, f"{DENIED}: the server takes no part of an upload that it let begin"
            told(digest.size - parts.count)
            if self.head(key) == wanted:
                return sent
            told(-digest.size)
        raise self._requests.failure("upload", key, said, reason, UPLOADS)

    def delete(self, key: str) -> None:
        """See `Store`."""
        self._check_bucket()
        self._requests.ask("delete", key, lambda: self._client.delete(self.bucket, self._name(key)))

    def unfinished(self, key: str) -> list[str]:
        """Identities of uploads of this key that were begun and not finished, sorted."""
        name = self._name(key)

        def ask() -> list[str]:
            try:
                return sorted(self._client.uploads(self.bucket, name))
            except FailedRequestError as error:
                # Without this right an upload that was cut off is begun anew.
                if error.code == DENIED:
                    return []
                raise

        return self._requests.ask("list uploads of", key, ask)

    def _check_bucket(self) -> None:
        """Before the first request, because only here wrong keys and a missing bucket can be recognised.

        An answer to HEAD has no text. So a missing bucket looks like a missing object, and a wrong key like a missing
        permission. Some servers also create a bucket on writing, and list a missing one as empty.
        """
        if self._bucket_seen:
            return
        base = f"{self.prefix}/" if self.prefix else ""
        self._requests.ask("list", "", lambda: self._client.may_list(self.bucket, base))

        def exists() -> bool:
            try:
                return self._client.has_bucket(self.bucket)
            except FailedRequestError as error:
                # Keys for a prefix may not ask about the bucket, and have just listed in it.
                if error.code == DENIED:
                    return True
                raise

        if not self._requests.ask("find", "", exists):
            raise self._requests.failure("find", "", "NoSuchBucket: there is no such bucket", "NoSuchBucket", 1)
        self._bucket_seen = True

    def _is_listed(self, key: str) -> bool:
        name = self._name(key)
        return any(each.name == name for each in self._client.listed(self.bucket, name))

    def _put(self, key: str, content: Callable[[], bytes], sha256: str) -> None:
        def ask() -> None:
            with self._slots:
                self._client.put(self.bucket, self._name(key), content(), sha256)

        self._requests.ask("upload", key, ask)

    def _multipart(self, path: Path, key: str, digest: FileDigest, told: Progress) -> int:
        """Send the parts that the server lacks and join them. Returns the bytes sent."""
        name = self._name(key)
        upload, tags = self._adopt(key, digest)
        sizes = [min(digest.part_bytes, digest.size - i * digest.part_bytes) for i in range(len(digest.md5))]
        missing = [i for i in range(len(sizes)) if i not in tags]
        told(sum(sizes[i] for i in tags))

        def send(i: int) -> None:
            def ask() -> str:
                with self._slots:
                    return self._client.put_part(self.bucket, name, upload, i + 1, read_part(path, i, digest))

            tags[i] = self._requests.ask("upload", key, ask, part=i + 1, of_upload=True)
            told(sizes[i])

        try:
            in_parallel(send, missing, workers=self.options.workers)
        except DataError:
            # Of a changed file no part is of use; after any other failure, the next try goes on from here.
            self._abort(key, upload)
            raise
        numbered = {i + 1: tags[i] for i in range(len(sizes))}

        def finish() -> None:
            self._client.finish_upload(self.bucket, name, upload, numbered)

        self._requests.ask("finish", key, finish, of_upload=True)
        for other in self.unfinished(key):
            self._abort(key, other)
        return sum(sizes[i] for i in missing)

    def _adopt(self, key: str, digest: FileDigest) -> tuple[str, dict[int, str]]:
        """The upload to resume, and the tags of those of its parts (from 0) that have the right bytes.

        An unfinished upload of the key has the same content, because the key is a digest. So it can be resumed, even
        beside a process that is still uploading: both send the same parts.
        """
        name = self._name(key)
        best: tuple[str, dict[int, str]] | None = None
        for upload in self.unfinished(key):
            try:
                there = self._requests.ask(
                    "list parts of",
                    key,
                    lambda upload=upload: self._client.parts(self.bucket, name, upload),  # type: ignore[misc]
                    of_upload=True,
                )
                have = {
                    number - 1: tag
                    for number, tag in there.items()
                    if 0 < number <= len(digest.md5) and tag.lower() == digest.md5[number - 1].hex()
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
            lambda: self._client.begin_upload(self.bucket, name, digest.sha256),
        )
        return upload, {}

    def _abort(self, key: str, upload: str) -> None:
        with suppress(LostUploadError):
            self._requests.ask(
                "abort", key, lambda: self._client.abort_upload(self.bucket, self._name(key), upload), of_upload=True
            )

    def _name(self, key: str) -> str:
        """Key in the bucket."""
        check_key(key)
        return f"{self.prefix}/{key}" if self.prefix else key
