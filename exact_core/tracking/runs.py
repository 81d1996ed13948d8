"""Runs, parameters and metrics in MLflow.

A stage needs MLflow when it starts and when it ends. While MLflow is away in between, records wait on disk (`outbox`).
A stage that fails reports why, even if its record cannot be sent.

A pipeline run is one MLflow run with the tag `exact.pipeline_run`. Each stage is a run nested under it. Tags identify
both, so a repeated stage continues its run. `MLFLOW_TRACKING_URI` names the server. Without it, runs go to `mlflow.db`
in the current folder, which `mlflow ui` shows by default. If `MLFLOW_RUN_ID` names a run that exists, the stage uses
it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exact_core.environment import (
    RUNNER_VARIABLE,
    STATE_VARIABLE,
    machine_name,
    patience,
    process_name,
    shown,
    variable,
)
from exact_core.errors import ConfigError, DataError, ExactError, ServiceError, in_a_line
from exact_core.scratch import scratch_folder
from exact_core.termination import TerminatedError
from exact_core.tracking.errors import check_address, database_file, explained, patiently, refused, tracking_uri
from exact_core.tracking.kfp_plugin import PARENT_TAG, RUN_VARIABLE, given_run, outermost
from exact_core.tracking.outbox import Outbox
from exact_core.undefined import defined

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = [
    "EXPERIMENT",
    "FIRST",
    "PIPELINE_RUN_VARIABLE",
    "STAGE_TAG",
    "MlflowTracker",
    "NoTracker",
    "Tracker",
    "finish_pipeline_run",
    "metric_name",
    "open_client",
    "run_facts",
    "run_identity",
    "run_page",
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
FACTS = tuple(
    f"exact.{name}" for name in ("work", "work_reason", "transfer", "map", "model", "version", "promoted", "reason")
)
"""Tags of stages that are copied to the run of the pipeline and to the webhook."""
PIPELINE_RUN_VARIABLE = "EXACT_PIPELINE_RUN"
"""Identity of the pipeline run, where the runner knows a better one than KFP's job id."""
PROCESS_TAG = "exact.process"
"""Of a run that has not ended: HOST/PID/START of the process whose end is its own."""
FIRST = "preflight"
"""Stage that only checks."""
PARAMS_PER_CALL = 100
KILLED = (
    "was killed before it could report the reason. It was most likely out of memory (signal 9, exit code 137). Or it "
    "was evicted or out of time, or its node was lost"
)
KILLED_BY_TERMINATION = "was killed when the run was terminated"
TRAINING_VIEW = "workflowType=machine_learning"
LOGIN_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
GRACE_SECONDS = 10.0
"""What a stage that has failed waits for its record: a pod that is asked to end has 30 in all."""


class Tracker(Protocol):
    """What a stage may record."""

    def log_metrics(self, metrics: dict[str, float], *, step: int, at: int | None = None) -> None:
        """Metrics of an epoch. A value that is not finite is left out.

        `at`: of an epoch that a repeated stage may record again, when it was complete, milliseconds since 1970.
        """

    def log_summary(self, metrics: dict[str, float]) -> None:
        """Final metrics."""

    def log_headline(self, metrics: dict[str, float]) -> None:
        """Final metrics that represent the whole pipeline run: logged to the stage, and to that run."""

    def log_params(self, params: dict[str, Any]) -> None:
        """Settings, nested dictionaries flattened to dotted keys."""

    def set_tags(self, tags: dict[str, str]) -> None:
        """Facts that a repeated stage may change, such as the URI of its results."""

    def place(self, folder: Path, uri: str) -> None:
        """The URI of a folder of the stage in the store. If empty, it is set when the stage has succeeded."""

    def log_dataset(self, folder: Path, *, name: str, digest: str, source: str, whole: bool = False) -> None:
        """The dataset in a folder that the stage used: by its URI in the store or, without one, its source.

        `whole`: of the whole pipeline run, too.
        """

    def log_file(self, path: Path, *, folder: str = "", whole: bool = False) -> None:
        """A file as an artifact. `whole`: of the whole pipeline run, too."""


class NoTracker:
    """Records nothing: for use of the stages as a library."""

    def log_metrics(self, metrics: dict[str, float], *, step: int, at: int | None = None) -> None:
        """See `Tracker`."""

    def log_summary(self, metrics: dict[str, float]) -> None:
        """See `Tracker`."""

    def log_headline(self, metrics: dict[str, float]) -> None:
        """See `Tracker`."""

    def log_params(self, params: dict[str, Any]) -> None:
        """See `Tracker`."""

    def set_tags(self, tags: dict[str, str]) -> None:
        """See `Tracker`."""

    def place(self, folder: Path, uri: str) -> None:
        """See `Tracker`."""

    def log_dataset(self, folder: Path, *, name: str, digest: str, source: str, whole: bool = False) -> None:
        """See `Tracker`."""

    def log_file(self, path: Path, *, folder: str = "", whole: bool = False) -> None:
        """See `Tracker`."""


class MlflowTracker:
    """Records into one MLflow run.

    Args:
        client: of the server.
        run_id: the run.
        folder: where records wait while MLflow is away.
        parent: the pipeline run that it is nested in. If empty, none.
    """

    def __init__(self, client: MlflowClient, run_id: str, folder: Path, *, parent: str = "") -> None:
        self.client, self.run_id, self.parent = client, run_id, parent
        self._places: dict[Path, str] = {}
        self._waiting: dict[Path, tuple[str, str, bool]] = {}
        self.recorded = False
        """Whether there is a metric or a file of it: what was refused has none."""
        self._epochs: set[int] | None = None
        """Recorded before this process sent any: by a machine that was lost before it kept its checkpoint."""
        self._outbox = Outbox(folder, self._send)

    def log_metrics(self, metrics: dict[str, float], *, step: int, at: int | None = None) -> None:
        """See `Tracker`."""
        self.recorded = True
        kind, moment = ("metrics", int(time.time() * 1000)) if at is None else ("epoch", at)
        self._outbox.add({"kind": kind, "values": defined(metrics), "time": moment, "step": step})

    def log_summary(self, metrics: dict[str, float]) -> None:
        """See `Tracker`."""
        self.log_metrics(metrics, step=0)

    def log_headline(self, metrics: dict[str, float]) -> None:
        """See `Tracker`."""
        self.log_summary(metrics)
        if self.parent:
            moment = int(time.time() * 1000)
            self._outbox.add(
                {"kind": "metrics", "values": defined(metrics), "time": moment, "step": 0, "run": self.parent}
            )

    def log_params(self, params: dict[str, Any], *, whole: bool = False) -> None:
        """See `Tracker`. At once: settings that the run does not take end the stage before it costs anything.

        `whole`: of the pipeline run, too.
        """
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        flat = [Param(key, str(value)) for key, value in _flatten(params)]
        try:
            for run in self._runs(whole=whole):
                for start in range(0, len(flat), PARAMS_PER_CALL):
                    self.client.log_batch(run, params=flat[start : start + PARAMS_PER_CALL])
        except MlflowException as error:
            if not refused(error):
                raise
            raise ServiceError(
                f"MLflow run {self.run_id} refuses these settings: {error}. A repeated stage must have the settings "
                f"and code of its first try. Start a new pipeline run for others"
            ) from error

    def set_tags(self, tags: dict[str, str]) -> None:
        """See `Tracker`."""
        self._outbox.add({"kind": "tags", "values": {key: shown(value) for key, value in tags.items()}})

    def place(self, folder: Path, uri: str) -> None:
        """See `Tracker`."""
        self._places[folder] = uri
        if uri and folder in self._waiting:
            name, digest, whole = self._waiting.pop(folder)
            self.log_dataset(folder, name=name, digest=digest, source=uri, whole=whole)

    def log_dataset(self, folder: Path, *, name: str, digest: str, source: str, whole: bool = False) -> None:
        """See `Tracker`."""
        place = self._places.get(folder)
        if place == "":
            # MLflow keeps the first source that it hears of a digest, for all runs of an experiment.
            self._waiting[folder] = name, digest, whole
            return
        # MLflow keeps at most 36 characters of a digest.
        record = {"name": name, "digest": digest[:36], "source_type": "exact", "source": place or source}
        for run in self._runs(whole=whole):
            self._outbox.add({"kind": "dataset", "values": record, "run": run})
        if place:
            self.set_tags({DATASET_TAG: place})

    def log_file(self, path: Path, *, folder: str = "", whole: bool = False) -> None:
        """See `Tracker`."""
        self.recorded = True
        for run in self._runs(whole=whole):
            self._outbox.add({"kind": "file", "folder": folder, "run": run}, file=path)

    def _runs(self, *, whole: bool) -> list[str]:
        """The stage's run and, of what the whole pipeline run gets too, that one."""
        return [self.run_id, *([self.parent] if whole and self.parent else [])]

    def end(self, status: str, *, seconds: float, failure: str = "") -> None:
        """Record how the stage ended, after all else, and why, if it failed.

        Raises:
            AwayError: MLflow has not accepted all of it after this many seconds.
        """
        # One record: what is left of it when MLflow is away is not sent by the stage's next try.
        why = {FAILURE_TAG: shown(failure)} if failure else {}
        self._outbox.add({"kind": "end", "status": status, "values": why})
        self._outbox.drain(seconds)

    def close(self) -> None:
        """Send nothing more."""
        self._outbox.close()

    def _send(self, record: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, Metric, RunTag

        kind, values, run = record["kind"], record.get("values", {}), record.get("run", self.run_id)
        if kind == "epoch" and values:
            if self._epochs is None:
                history = self.client.get_metric_history(run, next(iter(values)))
                self._epochs = {each.step for each in history}
            if record["step"] in self._epochs:
                return
        if kind in ("metrics", "epoch"):
            metrics = [Metric(key, value, record["time"], record["step"]) for key, value in values.items()]
            self.client.log_batch(run, metrics=metrics)
        elif kind in ("tags", "end"):
            if kind == "end":
                self.client.set_terminated(self.run_id, record["status"])
            self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in values.items()])
        elif kind == "dataset":
            self.client.log_inputs(run, datasets=[DatasetInput(Dataset(**values))])
        elif kind == "file":
            self.client.log_artifact(run, record["path"], record["folder"] or None)


@contextmanager
def tracked_stage(
    stage: str,
    *,
    pipeline_run: str,
    name: str,
    params: dict[str, Any] | None = None,
    whole: bool = False,
    patient: bool = False,
) -> Iterator[MlflowTracker]:
    """The MLflow run of a stage, nested under its pipeline run unless `pipeline_run` is empty.

    Args:
        stage: name of the stage.
        pipeline_run: identity of the pipeline run, equal for all its stages.
        name: what the pipeline run is called in MLflow.
        params: its settings.
        whole: they are those of the pipeline run, too.
        patient: wait for an MLflow that is away when the stage begins. At its end that is always done.

    Raises:
        ServiceError: MLflow is not installed, does not answer, or has not taken everything at the end.
    """

    def begin() -> tuple[MlflowClient, str, str]:
        client, run_id, reopened = _begin(stage, run_identity(pipeline_run), name)
        client.update_run(run_id, status="RUNNING")
        _forget(client, run_id, FAILURE_TAG)
        return client, run_id, reopened

    with ExitStack() as stack:
        client, run_id, reopened = patiently(begin, seconds=patience() if patient else 0.0)
        root = variable(STATE_VARIABLE) or stack.enter_context(scratch_folder())
        parent = client.get_run(run_id).data.tags.get(PARENT_TAG, "") if pipeline_run else ""
        tracker = MlflowTracker(client, run_id, Path(root) / f"mlflow-{run_id}", parent=parent)
        stack.callback(tracker.close)
        try:
            patiently(lambda: tracker.log_params(params or {}, whole=whole), seconds=patience() if patient else 0.0)
            yield tracker
        except BaseException as error:
            try:
                # What a person has stopped has not failed; nor, of a command, has what its end by a signal stopped.
                stopped = isinstance(error, KeyboardInterrupt) or (
                    not pipeline_run and isinstance(error, TerminatedError)
                )
                status = "KILLED" if stopped else "FAILED"
                tracker.end(status, seconds=GRACE_SECONDS, failure=in_a_line(error)[:5000])
                refused_input = isinstance(error, ConfigError | DataError) and not tracker.recorded
                if refused_input and not pipeline_run and run_id != os.environ.get(RUN_VARIABLE):
                    # A command that was refused has done nothing: its message is all there is to keep.
                    patiently(lambda: client.delete_run(run_id), seconds=GRACE_SECONDS)
                if reopened:
                    patiently(lambda: _close(client, reopened), seconds=GRACE_SECONDS)
            except ServiceError as problem:
                # What ended the stage is what its user needs to read.
                log.warning("how %s ended is not recorded: %s", stage, problem)
            raise
        tracker.end("FINISHED", seconds=patience())
        if reopened:
            patiently(lambda: _close(client, reopened), seconds=patience())


def _begin(stage: str, pipeline_run: str, name: str) -> tuple[MlflowClient, str, str]:
    """A client, the identity of the stage's run (existing or new), and that of a parent that it reopened, or none."""
    client, experiment = open_client()
    given = given_run(client)
    tags = {STAGE_TAG: stage}
    if given is not None:
        _tell(client, str(given.info.run_id), {**tags, PIPELINE_TAG: pipeline_run})
        return client, str(given.info.run_id), ""
    _end_killed(client, experiment)
    reopened = ""
    if pipeline_run:
        parent = _parent(client, experiment, pipeline_run, name)
        if runner := variable(RUNNER_VARIABLE):
            _tell(client, parent, {PROCESS_TAG: process_name(int(runner))})
            before = client.get_run(parent)
            if before.info.status == "KILLED" and ENDED_TAG not in before.data.tags:
                # Its runner was killed, and another goes on.
                client.update_run(parent, status="RUNNING")
                _forget(client, parent, FAILURE_TAG)
        tags |= {PIPELINE_TAG: pipeline_run, PARENT_TAG: parent}
        reopened = parent if _reopen(client, parent) else ""
    run_id = _find_or_create(client, experiment, tags, name=stage, reuse=bool(pipeline_run))
    _tell(client, run_id, {PROCESS_TAG: process_name(os.getpid())})
    return client, run_id, reopened


def _end_killed(client: MlflowClient, experiment: str) -> None:
    """Close the runs of this machine's processes that are no more: nobody could, of what was killed."""
    clause = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE '{machine_name()}/%'"
    for run in client.search_runs([experiment], clause):
        name = run.data.tags[PROCESS_TAG]
        if name != process_name(int(name.split("/")[1])):
            _tell(client, run.info.run_id, {FAILURE_TAG: f"{run.info.run_name} {KILLED}"})
            client.set_terminated(run.info.run_id, "KILLED")


def open_client() -> tuple[MlflowClient, str]:
    """A client, and the identity of our experiment.

    Raises:
        ServiceError: MLflow is not installed or the server does not answer.
    """
    check_address(tracking_uri())
    with _one_at_a_time(_database_folder()), explained():
        client = _client()
        return client, _experiment(client)


def run_identity(pipeline_run: str) -> str:
    """The identity of a pipeline run: the runner's where it knows a better one than KFP's, which is given."""
    return os.environ.get(PIPELINE_RUN_VARIABLE) or pipeline_run


def server_answers() -> str:
    """Where runs go, once it has answered.

    Raises:
        ServiceError: it does not answer, or MLflow is not installed.
    """
    open_client()
    return f"{shown(tracking_uri())} answers"


def finish_pipeline_run(
    pipeline_run: str, *, succeeded: bool, reason: str = "", status: str = "", keep_refused: bool = True
) -> str:
    """Record how a pipeline run ended, and why. Without a started stage there is nothing to record.

    A stage whose run is still open was killed and could not report it. Its run becomes FAILED, or KILLED where a user
    terminated the pipeline run.

    Args:
        pipeline_run: its identity.
        succeeded: whether it succeeded.
        reason: why not. If empty, the reasons that its stages recorded.
        status: MLflow's status where it is neither FINISHED nor FAILED: KILLED.
        keep_refused: whether a run is kept that its first stage refused. Nothing was done in it.

    Returns:
        The reason. Empty where it succeeded, or the reason is unknown.

    On a cluster with KFP's MLflow plugin, the plugin's run of the whole pipeline gets the reason too. The plugin ends
    that run after KFP has ended. It gets a status here only while it has none, and KFP sets its own later.
    """
    here = os.environ.get(PIPELINE_RUN_VARIABLE)
    status = status or ("FINISHED" if succeeded else "FAILED")

    def finish() -> str:
        check_address(tracking_uri())
        client = _client()
        why = reason
        for run in _pipeline_runs(client, here or pipeline_run):
            stages = _end_stages(client, run, status)
            if not keep_refused and status == "FAILED" and {each.data.tags[STAGE_TAG] for each in stages} <= {FIRST}:
                for each in (*stages, run):
                    client.delete_run(each.info.run_id)
                return why or _reason(stages, status)
            why = why or _reason(stages, status)
            _tell(client, run.info.run_id, {**_facts(stages), FAILURE_TAG: why, ENDED_TAG: status})
            client.set_terminated(run.info.run_id, status)
        # Of a run on this machine no plugin knows: what is given is a person's own, and so is what it is nested in.
        given = None if here else given_run(client)
        if given is not None:
            whole = outermost(client, given)
            _tell(client, whole.info.run_id, {FAILURE_TAG: why, PIPELINE_TAG: pipeline_run})
            if whole.info.status == "RUNNING":
                client.set_terminated(whole.info.run_id, status)
        return why

    try:
        return patiently(finish, seconds=0.0)
    except ExactError as error:
        # The run itself is over; how it ended must not be hidden by a server that has gone.
        log.warning("MLflow at %s did not take the end of the run: %s", shown(tracking_uri()), error)
    return reason


def metric_name(name: str) -> str:
    """A class name as MLflow allows it in the name of a metric."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)


def run_page(pipeline_run: str) -> str:
    """The address of a pipeline run's page in MLflow, in its view for training. If empty, it has none.

    Of runs in a file, the command that serves the page comes first. MLflow 3 opens on its pages for traces of language
    models unless the address says otherwise.
    """
    try:
        check_address(tracking_uri())
        found = _pipeline_runs(_client(), pipeline_run)
    except ExactError as error:
        log.warning("MLflow at %s did not say where the run is: %s", shown(tracking_uri()), error)
        return ""
    if not found:
        return ""
    page = f"#/experiments/{found[0].info.experiment_id}/runs/{found[0].info.run_id}?{TRAINING_VIEW}"
    if database_file(tracking_uri()) is None:
        return f"{shown(tracking_uri()).rstrip('/')}/{page}"
    return f"http://127.0.0.1:5000/{page} (serve it with: mlflow ui --backend-store-uri {tracking_uri()})"


def run_facts(pipeline_run: str) -> dict[str, str]:
    """What the stages of a pipeline run have decided and made: FACTS, without their prefix. Those that are known."""

    def ask() -> dict[str, str]:
        check_address(tracking_uri())
        client = _client()
        stages = [stage for run in _pipeline_runs(client, run_identity(pipeline_run)) for stage in _stages(client, run)]
        return {key.removeprefix("exact."): value for key, value in _facts(stages).items()}

    try:
        return patiently(ask, seconds=0.0)
    except ExactError as error:
        log.warning("MLflow at %s did not say what the run has made: %s", shown(tracking_uri()), error)
    return {}


def _facts(stages: list[Run]) -> dict[str, str]:
    """FACTS that these stages have, the latest of each."""
    return {key: stage.data.tags[key] for stage in stages for key in FACTS if key in stage.data.tags}


def _stages(client: MlflowClient, parent: Run) -> list[Run]:
    """The runs of a pipeline run's stages, in the order in which they began."""
    children = client.search_runs(
        [parent.info.experiment_id], _having({PARENT_TAG: parent.info.run_id}), order_by=["attributes.start_time"]
    )
    return [run for run in children if STAGE_TAG in run.data.tags]


def _end_stages(client: MlflowClient, parent: Run, status: str) -> list[Run]:
    """Close the runs of stages that were killed. Those of all stages, as they are then."""
    said = KILLED_BY_TERMINATION if status == "KILLED" else KILLED
    for run in _stages(client, parent):
        if run.info.status == "RUNNING":
            _tell(client, run.info.run_id, {FAILURE_TAG: f"{run.info.run_name} {said}"})
            client.set_terminated(run.info.run_id, "KILLED" if status == "KILLED" else "FAILED")
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
    # Of copies on one disk, a line for each in every log.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow's own 7 tries with growing pauses keep a user waiting for minutes before the reason shows.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    # Its own links to a run repeat the login that the server's address may hold. Ours do not.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in LOGIN_VARIABLES:
        # MLflow reads them itself, and sends a line break along.
        if text := variable(name):
            os.environ[name] = text
    # It logs each error of its database with the whole trace; we say them in a line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ServiceError(
            "mlflow is not installed: pip install 'exact-kubeflow[local]' (or [tracking] with a server), "
            "or run the stage with --no-tracking"
        ) from error
    return MlflowClient(tracking_uri=tracking_uri())


def _database_folder() -> Path | None:
    """The folder of the database file that runs go to. None where a server has them."""
    file = database_file(tracking_uri())
    return None if file is None else file.parent


@contextmanager
def _one_at_a_time(folder: Path | None) -> Iterator[None]:
    """Of processes that come upon a new database at once, one makes its tables and our experiment, and the others wait.

    MLflow makes the tables when it is first asked. Two that do so together fail on each other's.
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
    """Our experiment, made if need be."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        # With a server the server decides where artifacts go; with a file they lie beside it.
        folder = _database_folder()
        local = None if folder is None else f"{folder}/mlartifacts"
        return str(client.create_experiment(EXPERIMENT, artifact_location=local))
    if found.lifecycle_stage == "deleted":
        raise ServiceError(
            f"MLflow at {shown(tracking_uri())}: the experiment {EXPERIMENT!r} is deleted. Bring it back with `mlflow "
            f"experiments restore -x {found.experiment_id}`, or delete it for good with `mlflow gc`"
        )
    return str(found.experiment_id)


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
