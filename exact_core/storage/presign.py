"""Addresses of S3 objects that carry a signature, so that a reader of web addresses can read them.

The files that a catalogue names may be on another server than EXACT_STORE. Each variable is looked for as
EXACT_STAC_S3_NAME first, then as AWS_NAME: ENDPOINT_URL, ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN, REGION.
EXACT_STAC_S3_REQUESTER_PAYS=1 agrees to pay for the requests. Without keys, objects are read as public ones.
"""

from __future__ import annotations

import functools
from urllib.parse import quote

from exact_core.environment import variable
from exact_core.storage.client import AMAZON, Client, Connection, server_address
from exact_core.storage.clients import CLIENT_VARIABLE, make_client

__all__ = ["presigned"]

ENDPOINTS = ("EXACT_STAC_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
VALID = 3600
"""Seconds."""


def presigned(bucket: str, key: str) -> str:
    """An http(s) address of an object that can be read (GET) for an hour.

    Raises:
        ConfigError: a variable is wrong.
        ServiceError: the client's package is not installed.
    """
    keys = (_variable("ACCESS_KEY_ID"), _variable("SECRET_ACCESS_KEY"))
    name = next((each for each in ENDPOINTS if variable(each)), ENDPOINTS[-1])
    endpoint = variable(name, AMAZON)
    url = server_address(name, endpoint)
    if not all(keys):
        return f"{url.scheme}://{url.netloc}/{bucket}/{quote(key)}"
    client = _client(name, endpoint, *keys, _variable("SESSION_TOKEN"), _variable("REGION"), variable(CLIENT_VARIABLE))
    pays = variable("EXACT_STAC_S3_REQUESTER_PAYS") not in ("", "0", "false")
    return client.presigned(bucket, key, seconds=VALID, requester_pays=pays)


@functools.cache
def _client(name: str, endpoint: str, access: str, secret: str, token: str, region: str, library: str) -> Client:  # noqa: ARG001 - another library is another client
    return make_client(Connection.at(name, endpoint, keys=(access, secret), token=token, region=region))


def _variable(name: str) -> str:
    return variable(f"EXACT_STAC_S3_{name}") or variable(f"AWS_{name}")
