"""The operations that a store in a bucket needs of an S3 client, and the connection to the server.

`clients.py` chooses the library. All libraries send the same requests: each object and each part with its MD5, so that
the server refuses bytes that changed in transit, and with every x-amz- header signed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi

from exact_core.environment import authorities_file, shown
from exact_core.errors import ConfigError
from exact_core.storage.base import ObjectInfo

__all__ = [
    "AMAZON",
    "RECORD",
    "Client",
    "Connection",
    "FailedRequestError",
    "Found",
    "server_address",
]

AMAZON = "https://s3.amazonaws.com"
RECORD = "sha256"
"""Name of the metadata of an object that records its SHA-256."""
CONNECT_SECONDS = 10.0


class FailedRequestError(Exception):
    """A request was refused, or got no answer.

    Args:
        said: text of the answer, or what happened instead.
        code: of the answer, as S3 names it. Empty where there is none.
        status: HTTP status. 0 where there is none.
        region: where the server says that the bucket is.
        passes: without an answer: whether a retry may succeed.
    """

    def __init__(self, said: str, *, code: str = "", status: int = 0, region: str = "", passes: bool = True) -> None:
        super().__init__(said)
        self.said, self.code, self.status, self.region, self.passes = said, code, status, region, passes


@dataclass(frozen=True)
class Found:
    """An object in a bucket's listing."""

    name: str
    size: int
    """Bytes."""
    etag: str


class Client(Protocol):
    """Single requests to one server. Each raises FailedRequestError. Names are whole: prefix and key."""

    def may_list(self, bucket: str, prefix: str) -> None:
        """Ask for the first page below a prefix."""

    def has_bucket(self, bucket: str) -> bool:
        """Whether there is such a bucket."""

    def listed(self, bucket: str, prefix: str) -> Iterator[Found]:
        """The objects whose names begin so, page by page."""

    def head(self, bucket: str, name: str) -> ObjectInfo:
        """Size and recorded SHA-256 of an object. A missing one is a FailedRequestError with status 404."""

    def get(self, bucket: str, name: str, *, start: int = 0, length: int = 0) -> bytes:
        """An object, or `length` bytes of it from `start` on, less where it ends earlier."""

    def put(self, bucket: str, name: str, content: bytes, sha256: str) -> None:
        """Write an object in one request."""

    def delete(self, bucket: str, name: str) -> None:
        """Delete an object if it is there."""

    def begin_upload(self, bucket: str, name: str, sha256: str) -> str:
        """Begin an upload in parts. Returns its identity."""

    def uploads(self, bucket: str, name: str) -> list[str]:
        """Identities of the uploads of exactly this name that are not finished."""

    def parts(self, bucket: str, name: str, upload: str) -> dict[int, str]:
        """ETags of the parts that have arrived, by number, without quotes."""

    def put_part(self, bucket: str, name: str, upload: str, number: int, content: bytes) -> str:
        """Send a part, numbered from 1. Returns its ETag without quotes."""

    def finish_upload(self, bucket: str, name: str, upload: str, tags: dict[int, str]) -> None:
        """Join all the parts."""

    def abort_upload(self, bucket: str, name: str, upload: str) -> None:
        """Drop an upload and its parts."""

    def presigned(self, bucket: str, name: str, *, seconds: int, requester_pays: bool) -> str:
        """An address at which anyone may read an object for a time. Makes no request."""


@dataclass(frozen=True)
class Connection:
    """How to reach a server."""

    url: SplitResult
    """Scheme and host."""
    access_key: str
    secret_key: str
    token: str
    region: str
    bundle: str
    """PEM file of the certificates to trust."""
    proxy: str = ""
    """http://host:port. Empty for none."""
    proxy_login: str = ""
    """user:password."""
    connect_timeout: float = CONNECT_SECONDS
    """Seconds."""
    read_timeout: float = 60.0
    """Seconds without a byte."""
    connections: int = 10
    """Kept open at most."""

    @property
    def address(self) -> str:
        """scheme://host:port."""
        return f"{self.url.scheme}://{self.url.netloc}"

    @classmethod
    def at(
        cls,
        name: str,
        address: str,
        *,
        keys: tuple[str, str],
        token: str = "",
        region: str = "",
        timeout: float = 60.0,
        connections: int = 10,
    ) -> Connection:
        """A connection to an address that the variable `name` gives, by way of a proxy where the environment names one.

        Raises:
            ConfigError: the address, the proxy's address or a file of certificates is none.
        """
        url = server_address(name, address)
        proxy, login = _proxy(url)
        return cls(
            url,
            *keys,
            token,
            # Named, the region need not be asked for, which a limited user may not do.
            region or "us-east-1",
            _bundle(),
            proxy,
            login,
            connect_timeout=min(CONNECT_SECONDS, timeout),
            read_timeout=timeout,
            connections=connections,
        )


def server_address(name: str, address: str) -> SplitResult:
    """The address of a server that the variable `name` gives, in parts.

    Raises:
        ConfigError: it is none.
    """
    try:
        url = urlsplit(address)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 80) > 0
    except ValueError:  # a port above 65535
        valid = False
    if not valid or url.path.strip("/") or url.query or url.fragment or re.search(r"[\s_]", url.netloc):
        raise ConfigError(
            f"{name} = {shown(address)!r}: no address of a server. Give http://host:port or https://host, without a "
            f"path, the port up to 65535, the host without underscores"
        )
    if "@" in url.netloc:
        raise ConfigError(
            f"{name} = {shown(address)!r}: has a login in it. Give http://host:port, and the login in "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return url


def _bundle() -> str:
    return authorities_file("AWS_CA_BUNDLE") or authorities_file("SSL_CERT_FILE") or certifi.where()


def _proxy(url: SplitResult) -> tuple[str, str]:
    """Address and login of the proxy for a server. Empty for none."""
    proxy = getproxies().get(url.scheme, "")
    if not proxy or proxy_bypass(url.netloc):
        return "", ""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or 80
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("neither http:// nor https://, or without a host")
    except ValueError as error:
        raise ConfigError(
            f"{url.scheme}_proxy = {shown(proxy)!r}: no address of a proxy: {error}. Give http://host:port, or name "
            f"{url.hostname} in no_proxy"
        ) from error
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    login = unquote(f"{parts.username}:{parts.password or ''}") if parts.username else ""
    return f"{parts.scheme}://{host}:{port}", login
