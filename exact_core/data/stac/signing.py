"""Signatures for files that are not public: SAS tokens of Azure's storage, and objects of S3.

A signature is made when a file is read and is in no record: what is kept of a file is its address without it.

Source: https://planetarycomputer.microsoft.com/docs/concepts/sas/ (one token a storage account and container).
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from exact_core.errors import ServiceError

__all__ = ["PLANETARY_COMPUTER", "S3Signer", "SasTokens", "sas_endpoint"]

PLANETARY_COMPUTER = "planetarycomputer.microsoft.com"
TOKENS = f"https://{PLANETARY_COMPUTER}/api/sas/v1/token"
AZURE = ".blob.core.windows.net"
BEFORE_EXPIRY = 300.0
"""Seconds before its end at which a token is renewed: a large file takes some to read."""

S3Signer = Callable[[str, str], str]
"""Bucket and key -> an address with a signature, which any client can read for a while."""


def sas_endpoint(url: str, given: str = "") -> str:
    """The address that gives tokens for a catalogue's files. Empty where they need none."""
    return given.rstrip("/") or (TOKENS if urlsplit(url).hostname == PLANETARY_COMPUTER else "")


class SasTokens:
    """Tokens of an endpoint, one for each storage account and container, renewed before they end.

    Args:
        endpoint: gives a token at ENDPOINT/ACCOUNT/CONTAINER as JSON of `token` and `msft:expiry`.
        ask: reads an address: (url) -> the JSON document.
    """

    def __init__(self, endpoint: str, ask: Callable[[str], dict[str, Any]]) -> None:
        self.endpoint, self._ask = endpoint, ask
        self._known: dict[tuple[str, str], tuple[str, dt.datetime]] = {}
        self._lock = threading.Lock()

    def signs(self, url: str) -> bool:
        """Whether a file's address gets a token: one of Azure, or any where the endpoint was named for it."""
        parts = urlsplit(url)
        if "sig=" in parts.query:
            return False
        return str(parts.hostname).endswith(AZURE) or self.endpoint != TOKENS

    def sign(self, url: str) -> str:
        """The address with a token.

        Raises:
            ServiceError: the endpoint gives none.
        """
        parts = urlsplit(url)
        account, container = str(parts.hostname).partition(".")[0], parts.path.lstrip("/").partition("/")[0]
        token = self._token(account, container)
        return parts._replace(query=f"{parts.query}&{token}" if parts.query else token).geturl()

    def _token(self, account: str, container: str) -> str:
        with self._lock:
            token, ends = self._known.get((account, container), ("", dt.datetime.min.replace(tzinfo=dt.UTC)))
            if (ends - dt.datetime.now(dt.UTC)).total_seconds() > BEFORE_EXPIRY:
                return token
            place = f"{self.endpoint}/{account}/{container}"
            document = self._ask(place)
            try:
                token, ends = str(document["token"]), dt.datetime.fromisoformat(document["msft:expiry"])
                ends = ends if ends.tzinfo else ends.replace(tzinfo=dt.UTC)
            except (KeyError, TypeError, ValueError) as error:
                raise ServiceError(
                    f"{place}: no SAS token there (token, msft:expiry). Check the address that signs"
                ) from error
            self._known[account, container] = token, ends
            return token
