"""The connection to a KFP server: the SDK's client, with time limits, patience and errors that name the way out.

KFP_HOST        address of the API, as http://127.0.0.1:8888 or https://kubeflow.example.org/pipeline
KFP_TOKEN       bearer token, if the server requires one
KFP_NAMESPACE   namespace, on a server with several users
KFP_CA_CERT     certificate file of a private authority
KFP_UI          address of the UI, for links. Not needed where KFP_HOST is the UI's, which passes the API on
"""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import kfp
import kfp_server_api as api
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError

from exact_core.environment import authorities_file, variable
from exact_core.errors import ConfigError, ServiceError
from exact_core.json_values import read_json

__all__ = ["ATTEMPTS", "PAGE", "TIMEOUT", "Connection", "LoggedOutError", "MissingError", "UnansweredError"]

T = TypeVar("T")

TIMEOUT = (10, 60)
"""Seconds to connect and to answer: the SDK itself would wait without end."""
PAGE = 100
ATTEMPTS = 6
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
FIRST_DELAY = 0.5
"""Seconds before the second attempt. Each wait doubles, up to half a minute."""


class MissingError(ServiceError):
    """What was asked for is not, or no longer, on the server."""


class LoggedOutError(ServiceError):
    """The server requires a token, or a newer one."""


class UnansweredError(ServiceError):
    """The server was at fault, or could not be reached, at every attempt."""

    def __init__(self, message: str, *, last: str) -> None:
        super().__init__(message)
        self.last = last


class Connection:
    """A KFP server that has answered, and requests to it."""

    def __init__(self, host: str | None = None, *, namespace: str | None = None) -> None:
        """Connect.

        Raises:
            ConfigError: no host, or no namespace where one is needed.
            ServiceError: the server does not answer, is no KFP API, or requires a (newer) token.
        """
        self.host = (host or variable("KFP_HOST")).rstrip("/")
        if not self.host.startswith(("http://", "https://")):
            raise ConfigError(
                f"host = {self.host!r}: expected the address of the KFP API in --host or KFP_HOST. With `kubectl -n "
                f"kubeflow port-forward svc/ml-pipeline 8888` it is http://127.0.0.1:8888"
            )
        self.namespace = namespace or variable("KFP_NAMESPACE") or None
        token, certificate = variable("KFP_TOKEN") or None, authorities_file("KFP_CA_CERT") or None
        # urllib3 tells of each of its own attempts; the last error is told here.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        health = self._health(token, certificate)
        # The UI passes the API on, and answers for it in words of its own.
        self.through_ui = "apiServerTagName" in health
        tag = re.match(r"v?(\d+)\.(\d+)", str(health.get("apiServerTagName" if self.through_ui else "tag_name", "")))
        self.release = (int(tag[1]), int(tag[2])) if tag else None
        several = health.get("apiServerMultiUser") or health.get("multi_user")
        if several and not self.namespace:
            raise ConfigError(f"{self.host} has several users. Name your namespace in --namespace or KFP_NAMESPACE")
        with warnings.catch_warnings():
            # The SDK announces at every start that it wants KFP 2.
            warnings.simplefilter("ignore", FutureWarning)
            self._kfp = kfp.Client(
                host=self.host,
                existing_token=token,
                ssl_ca_cert=certificate,
                namespace=self.namespace or "",
            )

    def link(self, run_id: str) -> str:
        """A run's page, or how to come to it: the API's own service has no pages."""
        ui = variable("KFP_UI").rstrip("/") or (self.host if self.through_ui else "")
        if ui:
            return f"{ui}/#/runs/details/{run_id}"
        return (
            f"http://127.0.0.1:8080/#/runs/details/{run_id} after kubectl -n kubeflow port-forward svc/ml-pipeline-ui "
            f"8080:80 (or set KFP_UI to the UI's address)"
        )

    def log(self, run_id: str, node: str) -> str:
        """The log of a node of a run, by Argo's identity of the node.

        Raises:
            ServiceError: it is not there: the pod is gone and its log was not archived.
        """
        client = self._api("runs").api_client

        def ask() -> Any:
            return client.call_api(
                f"/apis/v1alpha1/runs/{run_id}/nodes/{node}/log",
                "GET",
                auth_settings=["Bearer"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=TIMEOUT,
            )

        return bytes(self._patiently(f"log of {node}", ask, attempts=2).data).decode(errors="replace")

    def _pages(self, what: str, **settings: Any) -> Iterator[Any]:
        """Every entry of a list, over all its pages."""
        token = ""
        while True:
            page = self._call(what, f"list_{what}", page_size=PAGE, page_token=token, **settings)
            yield from getattr(page, what) or []
            token = page.next_page_token
            if not token:
                return

    def _api(self, what: str) -> Any:
        """One of the SDK's generated services, `runs` for example. Unlike its own methods they take a time limit."""
        return getattr(self._kfp, what)

    def _call(self, what: str, method: str, *, attempts: int = ATTEMPTS, **arguments: Any) -> Any:
        """A request that may be repeated: it reads, or deletes."""
        service = {"experiments": "experiment", "pipelines": "pipeline", "runs": "run"}.get(what, "recurring_run")
        call = getattr(self._api(what), f"{service}_service_{method}")
        subject = next((str(value) for name, value in arguments.items() if name.endswith("_id")), "")
        return self._patiently(
            f"{method} {subject}".strip(), lambda: call(_request_timeout=TIMEOUT, **arguments), attempts=attempts
        )

    def _create(self, what: str, find: Callable[[], T | None], make: Callable[[], T]) -> T:
        """What `find` finds, else what `make` makes, once: an attempt that got no answer may have succeeded."""

        def attempt() -> T:
            found = find()
            if found is not None:
                return found
            try:
                return make()
            except api.ApiException as error:
                # Somebody else made it in between.
                if error.status == 409 and (theirs := find()) is not None:
                    return theirs
                raise

        return self._patiently(f"create {what}", attempt)

    def _patiently(self, what: str, attempt: Callable[[], T], *, attempts: int = ATTEMPTS) -> T:
        """Repeat while the server is at fault or cannot be reached. Everything else is an error at once."""
        delay = FIRST_DELAY
        for number in range(1, attempts + 1):
            try:
                return attempt()
            except (api.ApiException, HTTPError) as error:
                if UNTRUSTED in str(error):
                    raise ServiceError(
                        f"{self.host}: its certificate is not trusted here; set KFP_CA_CERT to the file of its "
                        f"authority"
                    ) from error
                if not _passing(error):
                    raise self._explained(what, error) from error
                if number == attempts:
                    raise UnansweredError(
                        f"{self.host}: {what}: failed {number} times, last with {_said(error)}. See whether the server "
                        f"is well, then repeat the command",
                        last=_said(error),
                    ) from error
            time.sleep(delay)
            delay = min(2 * delay, 30.0)
        raise AssertionError(attempts)

    def _explained(self, what: str, error: api.ApiException) -> ServiceError:
        if error.status == 401:
            return LoggedOutError(f"{self.host}: {what}: not logged in (401): put a valid token into KFP_TOKEN")
        if error.status == 403:
            return ServiceError(
                f"{self.host}: {what}: not allowed (403: {_said(error)}): check --namespace or KFP_NAMESPACE "
                f"({self.namespace or 'not set'}), and the rights of KFP_TOKEN's owner there"
            )
        if error.status == 404:
            return MissingError(f"{self.host}: {what}: not there ({_said(error)})")
        return ServiceError(f"{self.host}: {what}: the server refused it: {_said(error)}")

    def _health(self, token: str | None, certificate: str | None) -> dict[str, Any]:
        """The server's health, checked before the SDK's client, which would retry for half a minute."""
        settings = api.Configuration(host=self.host)
        if certificate:
            settings.ssl_ca_cert = certificate
        if token:
            settings.api_key, settings.api_key_prefix = {"authorization": token}, {"authorization": "Bearer"}
        service = api.HealthzServiceApi(api.ApiClient(settings))

        def ask() -> Any:
            # Unread, because the SDK's model drops the release.
            return service.healthz_service_get_healthz(_preload_content=False, _request_timeout=TIMEOUT)

        try:
            answer = self._patiently("healthz", ask, attempts=3)
        except UnansweredError as error:
            raise ServiceError(
                f"{self.host} cannot be reached ({error.last}). Check --host or KFP_HOST, and whether the "
                f"port-forward or VPN to the cluster is up"
            ) from error
        except MissingError as error:
            raise ServiceError(
                f"{self.host} answers, but has no KFP API (404). The address ends before /apis, and behind Kubeflow's "
                f"gateway in /pipeline"
            ) from error
        try:
            health = read_json(answer.data)
            if not isinstance(health, dict):
                raise ValueError(f"a {type(health).__name__}")
        except ValueError as error:
            raise ServiceError(
                f"{self.host} answers, but not as a KFP API ({error}). If it shows a login page, put a token "
                f"into KFP_TOKEN"
            ) from error
        return health


def _passing(error: api.ApiException | HTTPError) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, api.ApiException):
        return error.status in (429, 500, 502, 503, 504)
    return True


def _said(error: api.ApiException | HTTPError) -> str:
    """The server's own words."""
    if not isinstance(error, api.ApiException):
        reason = error.reason if isinstance(error, MaxRetryError) else error
        return "no connection" if isinstance(reason, NewConnectionError) else f"{type(reason).__name__}: {reason}"
    try:
        body = read_json(error.body)
        # Uploads answer with names of their own.
        return f"{error.status}: {body['message'] if 'message' in body else body['error_message']}"
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
