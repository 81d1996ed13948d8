"""Requests to a STAC API and its files: repeated after a temporary failure, with a token where one is needed.

    EXACT_STAC_TOKEN           a bearer token
    EXACT_STAC_TOKEN_COMMAND   a command that prints one, run again when it expires or a server answers 401. Either the
                               bare token or JSON with `access_token` and `expires_in`

A token goes only to the API's own host and to named hosts. Files that need a signature in their address get it when
they
are read: see signing.py.
"""

from __future__ import annotations

import base64
import logging
import math
import shlex
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import MaxRetryError

from exact_core.data.stac import MOST_WORKERS
from exact_core.data.stac.signing import S3Signer, SasTokens, sas_endpoint
from exact_core.environment import variable
from exact_core.errors import ConfigError, DataError, ExactError, ServiceError
from exact_core.json_values import read_json

__all__ = ["Token", "Web", "WebOptions", "without_secrets"]

log = logging.getLogger(__name__)

PASSING = (429, 500, 502, 503, 504)
"""Answers that may be another one when the request is repeated."""
BEFORE_EXPIRY = 30.0
"""Seconds before its end at which a token is no longer used: a request takes some itself."""
COMMAND_TIME = 60
"""Seconds that the token command may take."""
HEAD_BYTES = 1024
"""Bytes read to determine the kind of a file."""


@dataclass(frozen=True)
class WebOptions:
    """How requests are made.

    attempts: tries of one request. first_pause: seconds before the second. Doubles, up to 30. connect_timeout,
    read_timeout: seconds without an answer.
    """

    attempts: int = 6
    first_pause: float = 0.5
    connect_timeout: float = 10.0
    read_timeout: float = 60.0


def without_secrets(url: str) -> str:
    """The URL without user, password and query, which may hold a signature."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return url.partition("?")[0]
    return parts._replace(netloc=host, query="", fragment="").geturl()


class Token:
    """A bearer token, from text or from a command.

    Args:
        text: the token. Goes before the command.
        command: prints a token, split as a shell would split it.
    """

    def __init__(self, text: str = "", command: str = "") -> None:
        self._text, self._command = text.strip(), command
        self._ends = math.inf
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls) -> Token:
        """By EXACT_STAC_TOKEN and EXACT_STAC_TOKEN_COMMAND."""
        return cls(variable("EXACT_STAC_TOKEN"), variable("EXACT_STAC_TOKEN_COMMAND"))

    def get(self) -> str:
        """A token that has not expired. Empty where there is none.

        Raises:
            ServiceError: the command failed.
        """
        with self._lock:
            if self._command and (not self._text or time.time() > self._ends - BEFORE_EXPIRY):
                self._run()
            return self._text

    def renew(self, refused: str) -> bool:
        """After a 401 for the token `refused`: whether there is another now."""
        with self._lock:
            if self._text == refused and self._command:
                self._run()
            return self._text not in ("", refused)

    def _run(self) -> None:
        name = "EXACT_STAC_TOKEN_COMMAND"
        try:
            done = subprocess.run(  # noqa: S603 - the user's own command
                shlex.split(self._command), capture_output=True, text=True, timeout=COMMAND_TIME, check=True
            )
        except subprocess.CalledProcessError as error:
            said = (error.stderr or "").strip()[-300:] or "nothing on stderr"
            raise ServiceError(f"{name}: exit code {error.returncode}: {said}. Run the command by hand") from error
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            # The message of a timeout repeats the command, which may hold a password.
            said = f"no end after {COMMAND_TIME} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
            raise ServiceError(f"{name}: {said}. Give a command that prints a bearer token") from error
        self._text, self._ends = _read_token(done.stdout.strip())
        if not self._text or any(mark.isspace() for mark in self._text):
            self._text = ""
            raise ServiceError(f"{name}: expected one bearer token on stdout, or JSON with access_token")


def _read_token(text: str) -> tuple[str, float]:
    """Token and its end in seconds since 1970, from JSON, from the `exp` of a JWT, or without a known end."""
    try:
        if text.startswith("{"):
            found = read_json(text)
            token, seconds = found["access_token"], found.get("expires_in")
            return str(token), math.inf if seconds is None else time.time() + float(seconds)
    except (KeyError, TypeError, ValueError):
        return "", math.inf
    parts = text.split(".")
    if len(parts) == 3:
        try:
            claims = read_json(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
            return text, float(claims["exp"])
        except (KeyError, TypeError, ValueError):
            pass
    return text, math.inf


@dataclass(frozen=True)
class Head:
    """What a server says of a file. size: bytes, None if it does not say. etag and modified: empty likewise."""

    size: int | None
    etag: str
    modified: str
    first: bytes


class Web(StacApiIO):  # type: ignore[misc, unused-ignore]
    """Requests for pages of an API (`request`, as pystac-client calls it) and for the first bytes of files (`head`).

    Args:
        url: of the API or catalogue. Its host gets the token.
        token: If None, by the environment.
        token_hosts: further hosts (`data.example.org`, or with a port) that get the token.
        sign: address that gives SAS tokens. If empty, that of the Planetary Computer for its own catalogue, else none.
        s3: signs addresses of objects that items name by s3://. If None, such items cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        token_hosts: Iterable[str] = (),
        options: WebOptions | None = None,
        sign: str = "",
        s3: S3Signer | None = None,
    ) -> None:
        parts = _split(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"{url!r}: not an address of a STAC API or catalogue, expected http(s)://HOST/...")
        self.options = options or WebOptions()
        self.token = token or Token.from_environment()
        endpoint = sas_endpoint(url, sign)
        self._sas = SasTokens(endpoint, lambda place: _document(self, place)) if endpoint else None
        self._s3 = s3
        self._scheme, self._hosts = parts.scheme, {_host(url), *token_hosts}
        retries = Retry(
            total=self.options.attempts - 1,
            backoff_factor=self.options.first_pause,
            backoff_max=30,
            backoff_jitter=self.options.first_pause / 2,
            status_forcelist=PASSING,
            allowed_methods=None,  # a search is repeatable, also where it is a POST
            raise_on_status=False,
        )
        super().__init__(timeout=(self.options.connect_timeout, self.options.read_timeout), max_retries=retries)
        self._readers: dict[str, threading.RLock] = {}
        for scheme in ("http://", "https://"):
            # One for each thread that asks; by itself requests keeps ten.
            self.session.mount(scheme, HTTPAdapter(max_retries=retries, pool_maxsize=MOST_WORKERS))

    def reading(self, url: str) -> threading.RLock:
        """Held by the thread that reads a file: GDAL's threads wait for each other, for minutes, over one address."""
        return self._readers.setdefault(url, threading.RLock())

    def token_for(self, url: str) -> str:
        """The token that a request for `url` carries. Empty for a host that must not see it."""
        # A token that came in by https never leaves by http.
        safe = _split(url).scheme in ("https", self._scheme)
        return self.token.get() if safe and _host(url) in self._hosts else ""

    @property
    def reads_stores(self) -> bool:
        """Whether s3:// addresses can be read."""
        return self._s3 is not None

    def signed(self, url: str) -> str:
        """The address that a file is read by: with its signature, where it needs one.

        Raises:
            ServiceError: no signature to be had.
        """
        if url.startswith("s3://"):
            assert self._s3 is not None, "make_plan refuses it first"
            bucket, _, key = url.removeprefix("s3://").partition("/")
            return self._s3(bucket, key)
        return self._sas.sign(url) if self._sas is not None and self._sas.signs(url) else url

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The body of an answer.

        Raises:
            ServiceError: no answer after all tries, or one that says no.
        """
        attempt = 1
        renewed = False
        while True:
            token = self.token_for(href)
            given = {**(headers or {}), **_bearer(token)}
            try:
                return str(super().request(href, method, given, parameters))
            except APIError as error:
                if getattr(error, "status_code", None) == 401 and not renewed and token and self.token.renew(token):
                    renewed = True
                elif _broke_off(error.__context__) and attempt < self.options.attempts:
                    log.warning("%s: %s. Trying again", without_secrets(href), _said(error))
                    self.pause(attempt)
                    attempt += 1
                else:
                    raise _failure(href, error, token=bool(token)) from error

    def head(self, url: str, *, where: str) -> Head:
        """What a server says of a file, and its first bytes.

        Raises:
            DataError: the file is not there. ServiceError: the server did not answer, or refuses.
        """
        renewed, attempt = False, 1
        while True:
            token = self.token_for(url)
            wanted = {"Range": f"bytes=0-{HEAD_BYTES - 1}", "Accept-Encoding": "identity", **_bearer(token)}
            try:
                with self.session.get(self.signed(url), headers=wanted, timeout=self.timeout, stream=True) as answer:
                    if answer.status_code == 401 and not renewed and token and self.token.renew(token):
                        renewed = True
                        continue
                    if answer.status_code in (200, 206):
                        return _head(answer, where)
                    raise _refusal(answer.status_code, where, url, token=bool(token), signed=self.signed(url) != url)
            except requests.RequestException as error:
                if not _broke_off(error) or attempt == self.options.attempts:
                    raise ServiceError(
                        f"{where}: no answer after {self.options.attempts} tries: {type(error).__name__}. Check the "
                        f"network and that the server is up"
                    ) from error
            self.pause(attempt)
            attempt += 1

    def pause(self, attempt: int) -> None:
        """Wait before the try after this one, from 1: each time twice as long."""
        time.sleep(min(30.0, self.options.first_pause * 2 ** (attempt - 1)))


def _head(answer: requests.Response, where: str) -> Head:
    first = next(answer.iter_content(HEAD_BYTES), b"")
    size: str | None
    if answer.status_code == 206:
        size = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = answer.headers.get("Content-Length")
        if b"<html" not in first.lower() and size and int(size) > HEAD_BYTES:
            raise DataError(
                f"{where}: its server knows no range requests, so that parts of a file cannot be read. Take the files "
                f"from another server, or download the scene and name its folder"
            )
    return Head(
        size=int(size) if size and size.isdecimal() else None,
        etag=answer.headers.get("ETag", ""),
        modified=answer.headers.get("Last-Modified", ""),
        first=first,
    )


def _document(web: Web, url: str) -> dict[str, Any]:
    try:
        document = read_json(web.request(url))
    except ValueError as error:
        raise ServiceError(f"{without_secrets(url)}: not JSON. Check the address that signs") from error
    return document if isinstance(document, dict) else {}


def _refusal(status: int, where: str, url: str, *, token: bool, signed: bool) -> ExactError:
    if status in (404, 410):
        return DataError(
            f"{where}: no such file (HTTP {status}), though the catalogue names it. Leave the image out by "
            f"--skip, or search again later"
        )
    # Azure answers 409 where its storage account is not public.
    if status in (401, 403, 409):
        return ServiceError(f"{where}: not allowed (HTTP {status}); {_refusal_help(url, token=token, signed=signed)}")
    help_ = (
        "try again later" if status in PASSING else "report it to the files' operator, or leave the image out by --skip"
    )
    return ServiceError(f"{where}: HTTP {status}; {help_}")


def _refusal_help(url: str, *, token: bool, signed: bool) -> str:
    if url.startswith("s3://"):
        return (
            "check EXACT_STAC_S3_ENDPOINT_URL, _ACCESS_KEY_ID, _SECRET_ACCESS_KEY and _REGION (or AWS_...), and set "
            "EXACT_STAC_S3_REQUESTER_PAYS=1 for a bucket whose reader pays"
        )
    if signed:
        return "its address was signed, and the signature is not accepted: check sign= and this machine's clock"
    if token:
        return _token_help(token=token)
    return (
        f"{_token_help(token=token)} (token_host=). Its address was not signed either. Name the address that signs it "
        f"by --sign (sign=), unless it is the Planetary Computer's own catalogue"
    )


def _token_help(*, token: bool) -> str:
    if token:
        return "the token that was sent is not accepted: check EXACT_STAC_TOKEN or EXACT_STAC_TOKEN_COMMAND"
    return (
        "no token was sent: set EXACT_STAC_TOKEN or EXACT_STAC_TOKEN_COMMAND, and name a host beside the API's by "
        "--token-host"
    )


def _failure(href: str, error: APIError, *, token: bool) -> ExactError:
    where, status = without_secrets(href), getattr(error, "status_code", None)
    if isinstance(error.__context__, UnicodeDecodeError):
        return DataError(f"{where}: not JSON. Check the address")
    if status in (401, 403):
        return ServiceError(f"{where}: HTTP {status}: {_said(error)}; {_token_help(token=token)}")
    if status is None:
        return ServiceError(
            f"{where}: no answer: {_said(error)}. Check the address, the network and that the API is up"
        )
    help_ = "try again later" if status in PASSING else "check the address, the collection and the area"
    return ServiceError(f"{where}: HTTP {status}: {_said(error)}; {help_}")


def _said(error: Exception) -> str:
    """What a server said, on one line. Not the exception of the client, which repeats the address with its query."""
    if getattr(error, "status_code", None) is None:
        return type(error.__context__ or error).__name__
    return " ".join(str(error).split())[:200] or "nothing"


def _broke_off(error: BaseException | None) -> bool:
    """Whether an answer began and did not end: the client repeats only what had no answer."""
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return True
    reason = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    return reason is not None and not isinstance(reason, MaxRetryError)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _split(url: str) -> Any:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _host(url: str) -> str:
    return str(_split(url).netloc.rpartition("@")[2])
