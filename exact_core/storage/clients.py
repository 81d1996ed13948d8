"""The libraries that speak to S3 servers: EXACT_S3_CLIENT names `minio` (unset) or `boto3`."""

from __future__ import annotations

from exact_core.environment import variable
from exact_core.errors import ConfigError, ServiceError
from exact_core.storage.client import Client, Connection

__all__ = ["CLIENTS", "CLIENT_VARIABLE", "make_client"]

CLIENT_VARIABLE = "EXACT_S3_CLIENT"
"""Library that speaks to S3 servers: minio or boto3. unset: minio."""
CLIENTS = {"minio": "store", "boto3": "store-boto3"}
"""Libraries, and the extras that install them."""


def make_client(connection: Connection) -> Client:
    """The client that EXACT_S3_CLIENT names.

    Raises:
        ConfigError: it names none, or the region is none.
        ServiceError: its package is not installed.
    """
    name = variable(CLIENT_VARIABLE, "minio")
    if name not in CLIENTS:
        raise ConfigError(f"{CLIENT_VARIABLE} = {name!r}. Give {' or '.join(CLIENTS)}")
    try:
        # Here, not above: each is needed by those alone who use it.
        if name == "boto3":
            from exact_core.storage.boto_client import BotoClient

            return BotoClient(connection)
        from exact_core.storage.minio_client import MinioClient

        return MinioClient(connection)
    except ModuleNotFoundError as error:
        raise ServiceError(
            f"{connection.address}: {name} is not installed: pip install 'exact-kubeflow[{CLIENTS[name]}]'"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{connection.address}: {error}. Check AWS_ENDPOINT_URL and AWS_REGION") from error
