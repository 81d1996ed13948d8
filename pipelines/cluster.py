"""The connection to a KFP server: the SDK's client, with time limits, patience and errors that name the way out.

KFP_HOST        address of the API, as http://127.0.0.1:8888 or https://kubeflow.example.org/pipeline
KFP_TOKEN       bearer token, if the server wants one
KFP_NAMESPACE   namespace, on a server with several users
KFP_CA_CERT     certificate file of a private authority
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import kfp
import kfp_server_api as api
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError

from exact_core.errors import ConfigError, ServiceError
from pipelines.package import Package

__all__ = ["Cluster", "MissingError"]

T = TypeVar("T")

TIMEOUT = (10, 60)
"""Seconds to connect and to answer: the SDK itself would wait without end."""
PAGE = 100
ATTEMPTS = 6
FIRST_DELAY = 0.5
"""Seconds before the second attempt; each wait doubles, up to half a minute."""
SCHEDULE_TIME_SINCE = (2, 17)
"""First release that fills in the schedule's time (its driver reads the label workflowEpoch)."""


class MissingError(ServiceError):
    """What was asked for is not, or no longer, on the server."""


class UnansweredError(ServiceError):
    """The server was at fault, or could not be reached, at every attempt."""

    def __init__(self, message: str, *, last: str) -> None:
        super().__init__(message)
        self.last = last


class Cluster:
    """A KFP server that has answered."""

    def __init__(self, host: str | None = None, *, namespace: str | None = None) -> None:
        """Connect.

        Raises:
            ConfigError: no host, or no namespace where one is needed.
            ServiceError: nobody answers, or it is no KFP API, or it wants (another) token.
        """
        self.host = (host or os.environ.get("KFP_HOST") or "").rstrip("/")
        if not self.host.startswith(("http://", "https://")):
            raise ConfigError(
                f"host = {self.host!r}: expected the address of the KFP API in --host or KFP_HOST; with `kubectl -n "
                f"kubeflow port-forward svc/ml-pipeline 8888` it is http://127.0.0.1:8888"
            )
        self.namespace = namespace or os.environ.get("KFP_NAMESPACE") or None
        token, certificate = os.environ.get("KFP_TOKEN") or None, os.environ.get("KFP_CA_CERT") or None
        # urllib3 tells of each of its own attempts; the last error is told here.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        health = self._health(token, certificate)
        tag = re.match(r"v?(\d+)\.(\d+)", str(health.get("tag_name", "")))
        self.release = (int(tag[1]), int(tag[2])) if tag else None
        if health.get("multi_user") and not self.namespace:
            raise ConfigError(f"{self.host} has several users; name your namespace in --namespace or KFP_NAMESPACE")
        with warnings.catch_warnings():
            # The SDK announces at every start that it wants KFP 2.
            warnings.simplefilter("ignore", FutureWarning)
            self._kfp = kfp.Client(
                host=self.host,
                existing_token=token,
                ssl_ca_cert=certificate,
                namespace=self.namespace or "",
            )

    def needs_schedule_time(self) -> str:
        """Refuse a server that would not tell a run its schedule's time.

        Returns:
            A note where the server does not say which release it is, else nothing.

        Raises:
            ServiceError: it is too old.
        """
        if self.release is None:
            return f"note: {self.host} does not name its release; season auto needs KFP 2.17 or newer"
        if self.release < SCHEDULE_TIME_SINCE:
            raise ServiceError(
                f"{self.host} is KFP {'.'.join(map(str, self.release))}, which does not tell a run its schedule's time; "
                f"season auto needs KFP 2.17 or newer. Upgrade it, or give the season itself, such as 2025"
            )
        return ""

    def experiment(self, name: str) -> str:
        """Identity of the experiment of that name, made if there is none."""
        place = {"namespace": self.namespace} if self.namespace else {}

        def find() -> Any:
            return next(self._named("experiments", name, **place), None)

        def make() -> Any:
            wanted = api.V2beta1Experiment(display_name=name, namespace=self.namespace)
            return self._api("experiments").experiment_service_create_experiment(wanted, _request_timeout=TIMEOUT)

        return str(self._create(f"experiment {name!r}", find, make).experiment_id)

    def experiment_name(self, experiment_id: str) -> str:
        """Its name; the identity itself where it is gone."""
        try:
            found = self._call("experiments", "get_experiment", experiment_id=experiment_id)
        except MissingError:
            return experiment_id
        return str(found.display_name)

    def version(self, package: Package) -> tuple[Any, bool]:
        """The uploaded version of a package, and whether it was uploaded just now."""
        pipeline = self._pipeline(package)
        found = self._find_version(pipeline.pipeline_id, package.version)
        if found is not None:
            return found, False

        def find() -> Any:
            return self._find_version(pipeline.pipeline_id, package.version)

        def make() -> Any:
            return self._upload(
                package.text,
                "upload_pipeline_version",
                name=package.version,
                pipelineid=pipeline.pipeline_id,
                description=f"code of {package.version}",
            )

        return self._create(f"version {package.version}", find, make), True

    def version_names(self, pipeline_id: str, version_id: str) -> tuple[str, str]:
        """Names of a pipeline and of its version; the identities themselves where they are gone."""
        try:
            pipeline = self._call("pipelines", "get_pipeline", pipeline_id=pipeline_id).display_name
            version = self._call(
                "pipelines", "get_pipeline_version", pipeline_id=pipeline_id, pipeline_version_id=version_id
            ).display_name
        except MissingError:
            return pipeline_id, version_id
        return str(pipeline), str(version)

    def steps(self, run: Any) -> list[str]:
        """Names of the steps of a run's pipeline; none where its version is gone."""
        reference = run.pipeline_version_reference
        if reference is None:
            return []
        try:
            version = self._call(
                "pipelines",
                "get_pipeline_version",
                pipeline_id=reference.pipeline_id,
                pipeline_version_id=reference.pipeline_version_id,
            )
        except MissingError:
            return []
        spec = version.pipeline_spec or {}
        spec = spec.get("pipeline_spec", spec)
        return list(spec.get("root", {}).get("dag", {}).get("tasks", {}))

    def start(self, name: str, *, experiment_id: str, version: Any, arguments: dict[str, Any]) -> Any:
        """Create a run. `name` must be new: it tells whether an attempt without an answer has created the run."""
        wanted = api.V2beta1Run(
            display_name=name,
            experiment_id=experiment_id,
            pipeline_version_reference=_reference(version),
            runtime_config=api.V2beta1RuntimeConfig(parameters=arguments),
        )

        def find() -> Any:
            return next(self._named("runs", name, experiment_id=experiment_id), None)

        def make() -> Any:
            return self._api("runs").run_service_create_run(wanted, _request_timeout=TIMEOUT)

        return self._create(f"run {name!r}", find, make)

    def run(self, run_id: str, *, attempts: int = ATTEMPTS) -> Any:
        """A run as it stands."""
        return self._call("runs", "get_run", run_id=run_id, attempts=attempts)

    def runs(self, experiment_id: str) -> Iterator[Any]:
        """Every run of an experiment, the newest first."""
        return self._pages("runs", experiment_id=experiment_id, sort_by="created_at desc")

    def recurring(self, name: str | None = None) -> list[Any]:
        """Recurring runs, all or those of a name, the newest first."""
        place = {"namespace": self.namespace} if self.namespace else {}
        if name is None:
            return list(self._pages("recurring_runs", sort_by="created_at desc", **place))
        return list(self._named("recurring_runs", name, sort_by="created_at desc", **place))

    def schedule(self, wanted: api.V2beta1RecurringRun, *, known: set[str]) -> Any:
        """Create a recurring run; `known` are those of its name that were there before."""

        def find() -> Any:
            return next(
                (each for each in self.recurring(wanted.display_name) if each.recurring_run_id not in known), None
            )

        def make() -> Any:
            return self._api("recurring_runs").recurring_run_service_create_recurring_run(
                wanted, _request_timeout=TIMEOUT
            )

        return self._create(f"recurring run {wanted.display_name!r}", find, make)

    def unschedule(self, recurring_run_id: str) -> None:
        """Delete a recurring run, if it is still there; its runs go on.

        Without ORPHAN, Kubernetes deletes a run that is at work together with the schedule that owns it.
        """
        try:
            self._call(
                "recurring_runs",
                "delete_recurring_run",
                recurring_run_id=recurring_run_id,
                propagation_policy="ORPHAN",
            )
        except MissingError:
            return

    def _pipeline(self, package: Package) -> Any:
        place = {"namespace": self.namespace} if self.namespace else {}

        def find() -> Any:
            return next(self._named("pipelines", package.name, **place), None)

        def make() -> Any:
            return self._upload(package.text, "upload_pipeline", name=package.name, **place)

        return self._create(f"pipeline {package.name}", find, make)

    def _find_version(self, pipeline_id: str, name: str) -> Any:
        wanted = {"pipeline_id": pipeline_id, "filter": _named_filter(name)}
        found = self._call("pipelines", "list_pipeline_versions", page_size=PAGE, **wanted).pipeline_versions
        return found[0] if found else None

    def _upload(self, text: str, method: str, **settings: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(text, encoding="utf-8")
            return getattr(self._api("pipeline_uploads"), method)(str(path), _request_timeout=TIMEOUT, **settings)

    def _named(self, what: str, name: str, **settings: Any) -> Iterator[Any]:
        return self._pages(what, filter=_named_filter(name), **settings)

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
        """One of the SDK's generated services, `runs` for example; unlike its own methods they take a time limit."""
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
        """Repeat while the server is at fault or cannot be reached; everything else is an error at once."""
        delay = FIRST_DELAY
        for number in range(1, attempts + 1):
            try:
                return attempt()
            except (api.ApiException, HTTPError) as error:
                if not _passing(error):
                    raise self._explained(what, error) from error
                if number == attempts:
                    raise UnansweredError(
                        f"{self.host}: {what}: failed {number} times, last with {_said(error)}; see whether the server "
                        f"is well, then repeat the command",
                        last=_said(error),
                    ) from error
            time.sleep(delay)
            delay = min(2 * delay, 30.0)
        raise AssertionError(attempts)

    def _explained(self, what: str, error: api.ApiException) -> ServiceError:
        if error.status == 401:
            return ServiceError(f"{self.host}: {what}: not logged in (401): put a valid token into KFP_TOKEN")
        if error.status == 403:
            return ServiceError(
                f"{self.host}: {what}: not allowed (403: {_said(error)}): check --namespace or KFP_NAMESPACE "
                f"({self.namespace or 'not set'}), and the rights of KFP_TOKEN's owner there"
            )
        if error.status == 404:
            return MissingError(f"{self.host}: {what}: not there ({_said(error)})")
        return ServiceError(f"{self.host}: {what}: the server refused it: {_said(error)}")

    def _health(self, token: str | None, certificate: str | None) -> dict[str, Any]:
        """What the server says of itself, asked before the SDK's client is made, which would try for half a minute."""
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
                f"{self.host} cannot be reached ({error.last}); check --host or KFP_HOST, and whether the port-forward or "
                f"VPN to the cluster is up"
            ) from error
        except MissingError as error:
            raise ServiceError(
                f"{self.host} answers, but has no KFP API (404); the address ends before /apis, and behind Kubeflow's "
                f"gateway in /pipeline"
            ) from error
        try:
            health = json.loads(answer.data)
            if not isinstance(health, dict):
                raise ValueError(f"a {type(health).__name__}")
        except ValueError as error:
            raise ServiceError(
                f"{self.host} answers, but not as a KFP API ({error}); if it shows a login page, put a token into KFP_TOKEN"
            ) from error
        return health


def _reference(version: Any) -> api.V2beta1PipelineVersionReference:
    return api.V2beta1PipelineVersionReference(
        pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
    )


def _named_filter(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]})


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
        return f"{error.status}: {json.loads(error.body)['message']}"
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
