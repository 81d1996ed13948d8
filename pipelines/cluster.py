"""What the commands do on a KFP server: pipelines and their versions, experiments, runs and recurring runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import kfp_server_api as api
from exact_kubeflow.pipelines.connection import ATTEMPTS, PAGE, TIMEOUT, Connection, MissingError
from exact_kubeflow.pipelines.package import Package

from exact_core.errors import ServiceError
from exact_core.scratch import scratch_folder

__all__ = ["Cluster"]

SCHEDULE_TIME_SINCE = (2, 17)
"""First release that fills in the schedule's time (its driver reads the label workflowEpoch)."""


class Cluster(Connection):
    """Experiments, pipelines and runs on a server, by name. Created if missing, and never twice."""

    def needs_schedule_time(self) -> str:
        """Refuse a server that would not pass its schedule's time to a run.

        Returns:
            A note where the server does not say which release it is, else nothing.

        Raises:
            ServiceError: it is too old.
        """
        if self.release is None:
            return f"note: {self.host} does not name its release. Season auto needs KFP 2.17 or newer"
        if self.release < SCHEDULE_TIME_SINCE:
            raise ServiceError(
                f"{self.host} is KFP {'.'.join(map(str, self.release))}, which does not pass the schedule's time to "
                f"a run. Season auto needs KFP 2.17 or newer. Upgrade it, or give the season itself, such as 2025"
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
        """Its name. The identity itself where it is gone."""
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
                description=package.description,
            )

        return self._create(f"version {package.version}", find, make), True

    def version_names(self, pipeline_id: str, version_id: str) -> tuple[str, str]:
        """Names of a pipeline and of its version. The identities themselves where they are gone."""
        try:
            pipeline = self._call("pipelines", "get_pipeline", pipeline_id=pipeline_id).display_name
            version = self._call(
                "pipelines", "get_pipeline_version", pipeline_id=pipeline_id, pipeline_version_id=version_id
            ).display_name
        except MissingError:
            return pipeline_id, version_id
        return str(pipeline), str(version)

    def steps(self, run: Any) -> list[str]:
        """Names of the steps of a run's pipeline. None where its version is gone."""
        # A run may have been started without an uploaded version.
        spec = _pipeline_spec(run.pipeline_spec or self._spec(run.pipeline_version_reference))
        return _leaves(spec, spec.get("root", {}))

    def package_name(self, reference: Any) -> str:
        """The pipeline's own name, regardless of its uploaded name. Empty where its version is gone."""
        return str(_pipeline_spec(self._spec(reference)).get("pipelineInfo", {}).get("name", ""))

    def _spec(self, reference: Any) -> dict[str, Any]:
        """The package of a version. Empty where it is gone."""
        if reference is None:
            return {}
        try:
            version = self._call(
                "pipelines",
                "get_pipeline_version",
                pipeline_id=reference.pipeline_id,
                pipeline_version_id=reference.pipeline_version_id,
            )
        except MissingError:
            return {}
        return version.pipeline_spec or {}

    def start(
        self,
        name: str,
        *,
        experiment_id: str,
        version: Any,
        arguments: dict[str, Any],
        service_account: str | None = None,
        description: str = "",
    ) -> Any:
        """Create a run. `name` must be new: it shows whether an attempt without an answer has created the run."""
        wanted = api.V2beta1Run(
            display_name=name,
            description=description or None,
            experiment_id=experiment_id,
            pipeline_version_reference=_reference(version),
            runtime_config=api.V2beta1RuntimeConfig(parameters=arguments),
            service_account=service_account,
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
        """Create a recurring run. `known` are those of its name that were there before."""

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
        """Delete a recurring run, if it still exists. Its runs continue.

        Without ORPHAN, Kubernetes deletes an active run together with the schedule that owns it.
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
            return self._upload(
                package.text, "upload_pipeline", name=package.name, description=package.description, **place
            )

        return self._create(f"pipeline {package.name}", find, make)

    def _find_version(self, pipeline_id: str, name: str) -> Any:
        answer = self._call(
            "pipelines",
            "list_pipeline_versions",
            page_size=PAGE,
            pipeline_id=pipeline_id,
            filter=_named_filter(name),
        )
        found = answer.pipeline_versions
        return found[0] if found else None

    def _upload(self, text: str, method: str, **settings: Any) -> Any:
        with scratch_folder() as folder:
            path = folder / "pipeline.yaml"
            path.write_text(text, encoding="utf-8")
            return getattr(self._api("pipeline_uploads"), method)(str(path), _request_timeout=TIMEOUT, **settings)

    def _named(self, what: str, name: str, **settings: Any) -> Iterator[Any]:
        return self._pages(what, filter=_named_filter(name), **settings)


def _pipeline_spec(package: dict[str, Any]) -> dict[str, Any]:
    """The pipeline of a package, which has two parts where it asks Kubernetes for something."""
    return package.get("pipeline_spec", package)  # type: ignore[no-any-return]


def _leaves(spec: dict[str, Any], component: dict[str, Any]) -> list[str]:
    """Names of the steps of a pipeline, those inside exit handlers and conditions too."""
    names: list[str] = []
    for name, task in component.get("dag", {}).get("tasks", {}).items():
        inner = spec.get("components", {}).get(task["componentRef"]["name"], {})
        names += _leaves(spec, inner) if "dag" in inner else [name]
    return names


def _reference(version: Any) -> api.V2beta1PipelineVersionReference:
    return api.V2beta1PipelineVersionReference(
        pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
    )


def _named_filter(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]})
