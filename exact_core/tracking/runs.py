"""Runs, parameters and figures in MLflow.

A pipeline run is one MLflow run with the tag `exact.pipeline_run`; each stage is a run nested under it. Both are found
again by their tags, so a repeated stage continues its run. `MLFLOW_TRACKING_URI` names the server; without it, runs go
to `mlflow.db` in the current folder, where `mlflow ui` finds them. A run that `MLFLOW_RUN_ID` names is the stage's,
if it is there.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exact_core.errors import ServiceError
from exact_core.tracking.kfp_plugin import PARENT_TAG, given_run, outermost
from exact_core.undefined import defined

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = [
    "EXPERIMENT",
    "PIPELINE_RUN_VARIABLE",
    "PIPELINE_TAG",
    "STAGE_TAG",
    "MlflowTracker",
    "NoTracker",
    "Tracker",
    "finish_pipeline_run",
    "open_client",
    "server_answers",
    "tracked_stage",
    "tracking_uri",
]

log = logging.getLogger(__name__)

EXPERIMENT = "exact"
PIPELINE_TAG = "exact.pipeline_run"
STAGE_TAG = "exact.stage"
FAILURE_TAG = "exact.failure"
DATASET_TAG = "exact.dataset"
ENDED_TAG = "exact.ended"
"""On a pipeline run whose end has been recorded: the status that it got. A stage that starts after it re-opens it."""
PIPELINE_RUN_VARIABLE = "EXACT_PIPELINE_RUN"
"""Identity of the pipeline run, where the runner knows a better one than KFP's job id."""
PARAMS_PER_CALL = 100
KILLED = (
    "was killed before it could say why: most likely out of memory (signal 9, exit code 137), else evicted, out of "
    "time, or its node was lost"
)
KILLED_BY_TERMINATION = "was killed when the run was terminated"


class Tracker(Protocol):
    """What a stage may record."""

    def log_metrics(self, metrics: dict[str, float], *, step: int) -> None:
        """Figures of an epoch; one that is not finite is left out."""

    def log_summary(self, metrics: dict[str, float]) -> None:
        """Final figures."""

    def log_params(self, params: dict[str, Any]) -> None:
        """Settings, nested dictionaries flattened to dotted keys."""

    def set_tags(self, tags: dict[str, str]) -> None:
        """Facts that a repeated stage may change, such as where its results lie."""

    def place(self, folder: Path, uri: str) -> None:
        """Where a folder of the stage lies in the store; empty: it will, when the stage has succeeded."""

    def log_dataset(self, folder: Path, *, name: str, digest: str, source: str) -> None:
        """The dataset in a folder that the stage used: by its place in the store or, where it has none, its source."""

    def log_file(self, path: Path, *, folder: str = "") -> None:
        """A file as an artifact."""


class NoTracker:
    """Records nothing: for use of the stages as a library."""

    def log_metrics(self, metrics: dict[str, float], *, step: int) -> None:
        """See `Tracker`."""

    def log_summary(self, metrics: dict[str, float]) -> None:
        """See `Tracker`."""

    def log_params(self, params: dict[str, Any]) -> None:
        """See `Tracker`."""

    def set_tags(self, tags: dict[str, str]) -> None:
        """See `Tracker`."""

    def place(self, folder: Path, uri: str) -> None:
        """See `Tracker`."""

    def log_dataset(self, folder: Path, *, name: str, digest: str, source: str) -> None:
        """See `Tracker`."""

    def log_file(self, path: Path, *, folder: str = "") -> None:
        """See `Tracker`."""


class MlflowTracker:
    """Records into one MLflow run."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.run_id = client, run_id
        self._places: dict[Path, str] = {}
        self._waiting: dict[Path, tuple[str, str]] = {}

    def log_metrics(self, metrics: dict[str, float], *, step: int) -> None:
        """See `Tracker`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        known = [Metric(key, value, now, step) for key, value in defined(metrics).items()]
        self.client.log_batch(self.run_id, metrics=known)

    def log_summary(self, metrics: dict[str, float]) -> None:
        """See `Tracker`."""
        self.log_metrics(metrics, step=0)

    def log_params(self, params: dict[str, Any]) -> None:
        """See `Tracker`."""
        from mlflow.entities import Param

        flat = [Param(key, str(value)) for key, value in _flatten(params)]
        from mlflow.exceptions import MlflowException

        try:
            for start in range(0, len(flat), PARAMS_PER_CALL):
                self.client.log_batch(self.run_id, params=flat[start : start + PARAMS_PER_CALL])
        except MlflowException as error:
            raise ServiceError(
                f"MLflow run {self.run_id} does not take these settings: {error}; a repeated stage must have the "
                f"settings and code of its first try: start a new pipeline run for others"
            ) from error

    def set_tags(self, tags: dict[str, str]) -> None:
        """See `Tracker`."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def place(self, folder: Path, uri: str) -> None:
        """See `Tracker`."""
        self._places[folder] = uri
        if uri and folder in self._waiting:
            name, digest = self._waiting.pop(folder)
            self.log_dataset(folder, name=name, digest=digest, source=uri)

    def log_dataset(self, folder: Path, *, name: str, digest: str, source: str) -> None:
        """See `Tracker`."""
        from mlflow.entities import Dataset, DatasetInput

        place = self._places.get(folder)
        if place == "":
            # MLflow keeps the first source that it hears of a digest, for all runs of an experiment.
            self._waiting[folder] = name, digest
            return
        # MLflow keeps at most 36 characters of a digest.
        dataset = Dataset(name=name, digest=digest[:36], source_type="exact", source=place or source)
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset)])
        if place:
            self.set_tags({DATASET_TAG: place})

    def log_file(self, path: Path, *, folder: str = "") -> None:
        """See `Tracker`."""
        self.client.log_artifact(self.run_id, str(path), folder or None)


def tracking_uri() -> str:
    """Where runs go: `MLFLOW_TRACKING_URI`, or a sqlite file in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"


@contextmanager
def tracked_stage(stage: str, *, pipeline_run: str, name: str) -> Iterator[MlflowTracker]:
    """The MLflow run of a stage, nested under its pipeline run unless `pipeline_run` is empty.

    Args:
        stage: name of the stage.
        pipeline_run: identity of the pipeline run, equal for all its stages.
        name: what the pipeline run is called in MLflow.

    Raises:
        ServiceError: MLflow is not installed or the server does not answer.
    """
    client, experiment = open_client()
    pipeline_run = os.environ.get(PIPELINE_RUN_VARIABLE) or pipeline_run
    given = given_run(client)
    tags = {STAGE_TAG: stage}
    reopened = False
    if given is not None:
        run_id = str(given.info.run_id)
        _tell(client, run_id, {**tags, PIPELINE_TAG: pipeline_run})
    else:
        if pipeline_run:
            tags |= {PIPELINE_TAG: pipeline_run, PARENT_TAG: _parent(client, experiment, pipeline_run, name)}
            reopened = _reopen(client, tags[PARENT_TAG])
        run_id = _find_or_create(client, experiment, tags, name=stage, reuse=bool(pipeline_run))
    client.update_run(run_id, status="RUNNING")
    _forget(client, run_id, FAILURE_TAG)
    try:
        yield MlflowTracker(client, run_id)
    except BaseException as error:
        _tell(client, run_id, {FAILURE_TAG: f"{error or type(error).__name__}"})
        client.set_terminated(run_id, "FAILED")
        if reopened:
            _close(client, tags[PARENT_TAG])
        raise
    client.set_terminated(run_id, "FINISHED")
    if reopened:
        _close(client, tags[PARENT_TAG])


def open_client() -> tuple[MlflowClient, str]:
    """A client, and the identity of our experiment.

    Raises:
        ServiceError: MLflow is not installed or the server does not answer.
    """
    with _one_at_a_time(_database_folder()):
        client = _client()
        return client, _experiment(client)


def server_answers() -> str:
    """Where runs go, once it has answered.

    Raises:
        ServiceError: it does not answer, or MLflow is not installed.
    """
    open_client()
    return f"{tracking_uri()} answers"


def finish_pipeline_run(pipeline_run: str, *, succeeded: bool, reason: str = "", status: str = "") -> str:
    """Record how a pipeline run ended, and why; nothing to do if no stage had started.

    A stage whose run is still open was killed: it could not say so itself. Its run becomes KILLED.

    Args:
        pipeline_run: its identity.
        succeeded: whether it succeeded.
        reason: why not; empty: what its stages say.
        status: MLflow's word for the end where it is neither FINISHED nor FAILED: KILLED.

    Returns:
        The reason; empty where it succeeded, or nobody knows.

    On a cluster with KFP's MLflow plugin, its run of the whole pipeline gets the reason too. The plugin ends that run
    when KFP has: it gets a status here only while it has none, and KFP's word comes later.
    """
    from mlflow.exceptions import MlflowException

    here = os.environ.get(PIPELINE_RUN_VARIABLE)
    client = _client()
    status = status or ("FINISHED" if succeeded else "FAILED")
    try:
        for run in _pipeline_runs(client, here or pipeline_run):
            stages = _end_stages(client, run, status)
            reason = reason or _reason(stages, status)
            _tell(client, run.info.run_id, {FAILURE_TAG: reason, ENDED_TAG: status})
            client.set_terminated(run.info.run_id, status)
        # Of a run on this machine no plugin knows: what is given is a person's own, and so is what it is nested in.
        given = None if here else given_run(client)
        if given is not None:
            whole = outermost(client, given)
            _tell(client, whole.info.run_id, {FAILURE_TAG: reason, PIPELINE_TAG: pipeline_run})
            if whole.info.status == "RUNNING":
                client.set_terminated(whole.info.run_id, status)
    except (MlflowException, ServiceError) as error:
        # The run itself is over; how it ended must not be hidden by a server that has gone.
        log.warning("MLflow at %s did not take the end of the run: %s", tracking_uri(), error)
    return reason


def _stages(client: MlflowClient, parent: Run) -> list[Run]:
    """The runs of a pipeline run's stages, in the order in which they began."""
    children = client.search_runs(
        [parent.info.experiment_id], _having({PARENT_TAG: parent.info.run_id}), order_by=["attributes.start_time"]
    )
    return [run for run in children if STAGE_TAG in run.data.tags]


def _end_stages(client: MlflowClient, parent: Run, status: str) -> list[Run]:
    """Close the runs of stages that were killed; those of all stages, as they are then."""
    said = KILLED_BY_TERMINATION if status == "KILLED" else KILLED
    for run in _stages(client, parent):
        if run.info.status == "RUNNING":
            _tell(client, run.info.run_id, {FAILURE_TAG: f"{run.info.run_name} {said}"})
            client.set_terminated(run.info.run_id, "KILLED")
    return _stages(client, parent)


def _reason(stages: list[Run], status: str) -> str:
    """What the stages that did not end well say."""
    if status == "FINISHED":
        return ""
    bad = [run for run in stages if run.info.status in ("FAILED", "KILLED")]
    return "\n".join(_said(run.info.run_name, run.data.tags.get(FAILURE_TAG, "failed")) for run in bad)


def _said(stage: str, words: str) -> str:
    return words if words.startswith(stage) else f"{stage}: {words}"


def _reopen(client: MlflowClient, parent: str) -> bool:
    """Open a pipeline run whose end was recorded before: KFP's Retry repeats a step, and then no exit task."""
    if ENDED_TAG not in client.get_run(parent).data.tags:
        return False
    client.update_run(parent, status="RUNNING")
    return True


def _close(client: MlflowClient, parent: str) -> None:
    """End a pipeline run that was opened again, if none of its stages is at work: which is the last nobody knows."""
    run = client.get_run(parent)
    stages = _stages(client, run)
    if any(stage.info.status == "RUNNING" for stage in stages):
        return
    status = "FINISHED" if all(stage.info.status == "FINISHED" for stage in stages) else "FAILED"
    _forget(client, parent, FAILURE_TAG)
    _tell(client, parent, {FAILURE_TAG: _reason(stages, status), ENDED_TAG: status})
    client.set_terminated(parent, status)


def _forget(client: MlflowClient, run_id: str, tag: str) -> None:
    if tag in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, tag)


def _pipeline_runs(client: MlflowClient, pipeline_run: str) -> list[Run]:
    """Our own run of a pipeline run: one, or none if no stage had started."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found = client.search_runs([experiment.experiment_id], _having({PIPELINE_TAG: pipeline_run}))
    return [run for run in found if STAGE_TAG not in run.data.tags]


def _tell(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    """Set the tags that say something."""
    for key, value in tags.items():
        if value:
            client.set_tag(run_id, key, value[:5000])


def _client() -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # MLflow's own 7 tries with growing pauses keep a user waiting for minutes before the reason shows.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ServiceError(
            "mlflow is not installed: pip install 'exact-kubeflow[local]' (or [tracking] with a server), "
            "or run the stage with --no-tracking"
        ) from error
    return MlflowClient(tracking_uri=tracking_uri())


def _database_folder() -> Path | None:
    """The folder of the database file that runs go to; None where a server has them."""
    uri = tracking_uri()
    return Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:") else None


@contextmanager
def _one_at_a_time(folder: Path | None) -> Iterator[None]:
    """Of processes that come upon a new database at once, one makes its tables and our experiment, and the others wait.

    MLflow makes the tables when it is first asked; two that do so together fail on each other's.
    """
    held = None if folder is None or not folder.is_dir() else os.open(folder, os.O_RDONLY)
    try:
        if held is not None:
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        if held is not None:
            os.close(held)


def _experiment(client: MlflowClient) -> str:
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        # With a server the server decides where artifacts go; with a file they lie beside it.
        folder = _database_folder()
        local = None if folder is None else f"{folder}/mlartifacts"
        return str(client.create_experiment(EXPERIMENT, artifact_location=local))
    except MlflowException as error:
        raise ServiceError(
            f"MLflow at {tracking_uri()} does not answer: {error}; check MLFLOW_TRACKING_URI, or run the stage with "
            f"--no-tracking"
        ) from error


def _parent(client: MlflowClient, experiment: str, pipeline_run: str, name: str) -> str:
    return _find_or_create(client, experiment, {PIPELINE_TAG: pipeline_run}, name=name, reuse=True)


def _find_or_create(client: MlflowClient, experiment: str, tags: dict[str, str], *, name: str, reuse: bool) -> str:
    """The run that carries these tags (and, without a stage tag among them, is no stage's)."""
    if reuse:
        for run in client.search_runs([experiment], _having(tags)):
            if (STAGE_TAG in run.data.tags) == (STAGE_TAG in tags):
                return str(run.info.run_id)
    return str(client.create_run(experiment, tags=tags, run_name=name).info.run_id)


def _having(tags: dict[str, str]) -> str:
    """MLflow's filter for runs with these tags."""
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def _flatten(params: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
