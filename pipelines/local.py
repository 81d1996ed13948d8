"""Running a pipeline on this machine with KFP's own SubprocessRunner."""

from __future__ import annotations

import copy
import datetime as dt
import fcntl
import io
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal, TextIO

from exact_kubeflow.components.images import IMAGES, image
from exact_kubeflow.pipelines.containers import NOBODY, docker_runner, honest_exit_codes
from exact_kubeflow.pipelines.forked_steps import STORES, forked_steps, import_what_is_there
from exact_kubeflow.pipelines.new_season import SCHEDULE_TIME
from exact_kubeflow.pipelines.train_exact import train_dense, train_exact
from kfp import local

from exact_core.artifacts.folders import STATE_VARIABLE, code_version
from exact_core.data.sources import absolute_source, short_name
from exact_core.environment import RUNNER_VARIABLE, TERMINAL_VARIABLE
from exact_core.errors import ConfigError, ServiceError
from exact_core.files import full_disk, publish_text
from exact_core.stages.lifecycle import FAILURE_VARIABLE
from exact_core.stages.stage import stage_table
from exact_core.storage import fetch_folder, read_pointer
from exact_core.termination import TerminatedError
from exact_core.tracking.runs import PIPELINE_RUN_VARIABLE, finish_pipeline_run, run_page, tracking_uri

__all__ = ["default_workdir", "run"]

MANGLED = "python3"
"""Text that SubprocessRunner replaces by the interpreter's path wherever it stands in an argument."""
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**28)}
"""glibc keeps freed memory: training on a CPU frees and asks again for the same large arrays at every step, and giving
their pages back in between cost 5 % of the time at equal peak memory. Other allocators ignore it."""
ANSI = re.compile(r"\x1b\[[0-9;]*m")
BETWEEN = ("seasons", "season_row", "transfer")
"""Folders that steps hand on, and that a run does not deliver."""
RESULTS = {
    output: names[0]
    for stage in stage_table().values()
    for output, names in stage.writes.items()
    if output not in BETWEEN
}
"""Folders that a run delivers, and the manifest that each of ours holds."""
REPORT = "report"
"""The one output that is a file."""


def run(
    workdir: Path,
    *,
    source: str,
    recipe: str,
    season: str,
    seed: int,
    overrides: list[str],
    supervision: Literal["tags", "dense"],
    model: str = "",
    in_containers: bool = False,
    force: bool = False,
) -> tuple[Path, str]:
    """Run the pipeline and put what it delivers into `workdir`.

    Results of an earlier run there are replaced only by `force`, and when this one has succeeded. Checkpoints stay in
    `workdir/.state` until then, so a killed run, started again, continues its training. Stages are processes of this
    environment or, `in_containers`, containers of the images that components/images.lock names.

    Returns:
        The report, and the address of the run's page in MLflow. If empty, it has none.

    Raises:
        ConfigError: a value that the runner would garble, or a folder whose content would be lost.
        ServiceError: a stage failed. Its own message is above.
    """
    # Absolute, but not resolved: a symbolic link is the way round a path that the runner would garble.
    workdir = workdir.absolute()
    source = absolute_source(source)
    for value in (str(workdir), source, season, recipe, *overrides):
        if MANGLED in value:
            raise ConfigError(
                f"{value!r} holds the text {MANGLED!r}, which KFP's local runner would replace. "
                f"Use a path or value without it (a symbolic link will do)"
            )
    pipeline = train_exact if supervision == "tags" else train_dense
    if model and supervision == "dense":
        raise ConfigError(f"--model {model}: a model from dense labels is not registered; leave --model out")
    arguments = {"recipe": recipe, "source": source, "season": season, "seed": seed, "overrides": overrides}
    arguments |= {"model": model} if model else {}
    _check_workdir(workdir, force=force or _unfinished(workdir, arguments, supervision) is not None)
    with _alone(workdir):
        identity = _run(workdir, pipeline, arguments, supervision, in_containers=in_containers)
    return workdir / "report.html", run_page(identity)


def _run(
    workdir: Path, pipeline: Any, arguments: dict[str, Any], supervision: str, *, in_containers: bool = False
) -> str:
    """Run a pipeline, and deliver its results to `workdir`. The identity of the run."""
    # A fresh folder a run: stages never meet what a killed run left.
    for leftover in workdir.glob(".run-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    root = Path(tempfile.mkdtemp(prefix=".run-", dir=workdir))
    state = workdir / ".state"
    failure = root / "failure.txt"
    identity = _identity(workdir, arguments, supervision)
    settings = {
        "MLFLOW_TRACKING_URI": tracking_uri(),
        PIPELINE_RUN_VARIABLE: identity,
        FAILURE_VARIABLE: str(failure),
        STATE_VARIABLE: str(state),
        **{name: value for name, value in ALLOCATOR.items() if name not in os.environ},
    }
    runner = _runner(workdir, root, arguments["source"], settings, in_containers=in_containers)
    succeeded, reason, status = False, "", ""
    # To record the end, while this process waits for the steps.
    threading.Thread(target=import_what_is_there, args=(STORES,), daemon=True).start()
    try:
        with (
            _log(workdir / "run.log") as everything,
            redirect_stdout(_Console(everything, sys.stdout)),
            _environment(settings),
            honest_exit_codes() if in_containers else forked_steps(everything),
            warnings.catch_warnings(),
        ):
            # KFP warns at every step that it passes over what a cluster would be asked for.
            warnings.filterwarnings("ignore", r"(?s)Task '.*': settings")
            # KFP makes the workspace where temporary files go, and leaves it.
            workspace = str(root / "workspace")
            local.init(runner, pipeline_root=str(root / "run"), workspace_root=workspace, raise_on_error=True)
            _for_here(pipeline)(**arguments)
        _publish(_delivered(root), workdir)
        succeeded = True
    except KeyboardInterrupt:
        status, reason = "KILLED", "stopped by the person who started it"
        raise
    except TerminatedError as error:
        status, reason = "KILLED", str(error)
        raise
    except RuntimeError as error:
        said = failure.read_text(encoding="utf-8", errors="replace").strip() if failure.is_file() else ""
        reason = said or ANSI.sub("", str(error))
        raise ServiceError(f"the run failed: {reason}\n(everything the stages printed: {workdir}/run.log)") from error
    except OSError as error:
        if not (full := full_disk(error, workdir)):
            raise
        reason = str(full)
        raise full from error
    finally:
        shutil.rmtree(root, ignore_errors=True)
        with _environment(settings):
            finish_pipeline_run(identity, succeeded=succeeded, reason=reason, status=status, keep_refused=False)
    shutil.rmtree(state, ignore_errors=True)
    return identity


@contextmanager
def _log(path: Path) -> Iterator[TextIO]:
    """The log of a run. Its end is no error where the disk is full."""
    file = path.open("a", encoding="utf-8")
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            if not full_disk(error):
                raise


def _runner(
    workdir: Path, root: Path, source: str, settings: dict[str, str], *, in_containers: bool
) -> local.SubprocessRunner | local.DockerRunner:
    """The runner of the steps. `settings` gets what depends on it."""
    if not in_containers:
        settings[RUNNER_VARIABLE] = str(os.getpid())
        if sys.stdout.isatty():
            settings[TERMINAL_VARIABLE] = "1"
        # KFP's steps make folders there and leave them. This process keeps to its own, which outlasts the run.
        tempfile.gettempdir()
        settings["TMPDIR"] = str(root / "tmp")
        (root / "tmp").mkdir()
        return local.SubprocessRunner(use_venv=False)
    # Steps see the work folder and nothing else of this machine's disks.
    settings["EXACT_CACHE_DIR"] = str(root / "cache")
    runner = docker_runner(workdir, source=source, settings=settings)
    for folder in (root, root / "run", root / "workspace", root / "cache", workdir / ".state"):
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
    return runner


def _for_here(pipeline: Any) -> Any:
    """The pipeline without what is meant for a cluster and KFP's local runner does not pass over.

    Retries: here a person waits, and starts it again themselves to continue. The time of the schedule: it is now. The
    image is a parameter, which KFP's local runner does not fill in: each step gets the smallest that it runs in.
    """
    pipeline = copy.deepcopy(pipeline)
    spec = pipeline.pipeline_spec
    for component in (spec.root, *spec.components.values()):
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")
            for given in task.inputs.parameters.values():
                if given.runtime_value.constant.string_value == SCHEDULE_TIME:
                    given.runtime_value.constant.string_value = ""
    for executor in spec.deployment_spec["executors"].values():
        container = executor["container"]
        container["image"] = image(IMAGES[stage_table()[container["args"][0]].image])
    return pipeline


@contextmanager
def _alone(workdir: Path) -> Iterator[None]:
    """Hold the work folder: a second run there would write the same checkpoints. The lock ends with the process."""
    with (workdir / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"--workdir {workdir}: another run is at work there. Wait for it, or choose another"
            ) from None
        try:
            yield
        finally:
            (workdir / ".lock").unlink(missing_ok=True)


class _Console(io.TextIOBase):
    """Writes all output to a log, and the progress of the stages to the screen.

    KFP prints each stage's input as JSON, and its own steps, in between. On a terminal, progress within an epoch takes
    one line, which the next one overwrites; the log has none of it. A full disk costs lines of the log, not the run:
    what the steps write says which bytes it lacks.
    """

    TASK = re.compile(r"Executing task .*'([\w-]+)'")
    SAID = re.compile(r"\s*\[exact \S+ (\d\d:\d\d:\d\d)[^\]]*\]: (.*)")
    LOG_ONLY = re.compile(r"executor_input of |\w+: stage process \d")
    WITHIN = re.compile(r"\w+ \d+/\d+: \d+ of \d+ batches")
    CLEAR = "\r\x1b[K"
    """To a terminal: back to the start of the line, and empty it."""

    def __init__(self, everything: TextIO, screen: TextIO) -> None:
        self._everything, self._screen, self._line = everything, screen, ""
        self._clear = ""

    def write(self, text: str) -> int:
        """Keep everything. Show whole lines that matter."""
        *lines, self._line = (self._line + text).split("\n")
        passing = False
        for line in lines:
            said = self.SAID.match(line)
            passing = bool(said and self._screen.isatty() and self.WITHIN.match(said.group(2)))
            if said and passing:
                self._screen.write(f"{self.CLEAR}{said.group(1)} {said.group(2)}")
                self._clear = self.CLEAR
            elif task := self.TASK.search(line):
                self._show(f"== {task.group(1)} ({dt.datetime.now():%H:%M:%S})")
            elif said and not self.LOG_ONLY.match(said.group(2)):
                self._show(f"{said.group(1)} {said.group(2)}")
        try:
            if not passing:
                self._everything.write(text)
            self._everything.flush()
        except OSError as error:
            if not full_disk(error):
                raise
        self._screen.flush()
        return len(text)

    def _show(self, line: str) -> None:
        self._screen.write(f"{self._clear}{line}\n")
        self._clear = ""

    def flush(self) -> None:
        """The screen. Every `write` flushes both."""
        self._screen.flush()


def _settings(arguments: dict[str, Any], supervision: str) -> dict[str, Any]:
    """What makes a run the same run.

    The code is part of it: other code may record other settings, which MLflow does not let a run change.
    """
    return {**arguments, "supervision": supervision, "code_version": code_version()}


def _unfinished(workdir: Path, arguments: dict[str, Any], supervision: str) -> str | None:
    """The identity of a killed run with these settings, which the next one continues. If None, there is none."""
    path = workdir / ".state" / "run.json"
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return str(record["identity"]) if record["settings"] == _settings(arguments, supervision) else None


def _identity(workdir: Path, arguments: dict[str, Any], supervision: str) -> str:
    """The identity of this run: that of a killed one that this one continues, or a new one."""
    if found := _unfinished(workdir, arguments, supervision):
        return found
    state = workdir / ".state"
    state.mkdir(parents=True, exist_ok=True)
    identity = uuid.uuid4().hex
    settings = _settings(arguments, supervision)
    publish_text(state / "run.json", json.dumps({"settings": settings, "identity": identity}))
    return identity


def default_workdir(arguments: dict[str, Any], supervision: str) -> Path:
    """A folder here for a run that was given none: that of a killed run with the same settings, or a new one.

    Its name is the source's and the time.
    """
    name = short_name(arguments["source"])
    arguments = {**arguments, "source": absolute_source(arguments["source"])}
    for path in sorted(Path().glob(f"{name}-*")):
        if _unfinished(path, arguments, supervision):
            return path
    now = dt.datetime.now()
    new = Path(f"{name}-{now:%Y%m%d-%H%M}")
    return Path(f"{name}-{now:%Y%m%d-%H%M%S}") if new.exists() else new


def _check_workdir(workdir: Path, *, force: bool) -> None:
    """Make the folder. Refuse it if results would have to replace something.

    Args:
        workdir: the folder.
        force: results of an earlier run there may be replaced.

    Raises:
        ConfigError: it cannot be written, holds a foreign file or folder of a result's name, or results.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()
    except OSError as error:
        raise ConfigError(f"--workdir {workdir}: cannot write there: {error}. Choose another folder") from error
    ours = {workdir / name: workdir / name / manifest for name, manifest in RESULTS.items()}
    ours[workdir / "report.html"] = workdir / "evaluation" / RESULTS["evaluation"]
    for path, manifest in ours.items():
        if path.exists() and not manifest.is_file():
            raise ConfigError(
                f"--workdir {workdir}: {path.name} there is no result of a run (there is no {manifest.name}) and would "
                f"be replaced. Choose another folder, or move it away"
            )
        if path.exists() and not force:
            raise ConfigError(
                f"--workdir {workdir}: holds the results of a run ({path.name}). Choose another folder, or replace "
                f"them by --force"
            )


def _delivered(root: Path) -> dict[str, Path]:
    """What the stages of a run put out: folders, even where a store is used and an output is a pointer. The report.

    KFP lets no task inside an exit handler give a pipeline its outputs, so they are looked up where its local runner
    keeps them: RUN/TASK/OUTPUT.
    """
    found = {}
    for name in (*RESULTS, REPORT):
        # An output that a stage chose not to write is an empty file, or not there.
        for path in root.glob(f"run/*/*/{name}"):
            if name == REPORT and path.is_file():
                found[name] = path
            # A part of a map is under the map's name, with another manifest.
            elif path.is_dir():
                found |= {name: path} if (path / RESULTS[name]).is_file() else {}
            elif path.stat().st_size and read_pointer(path).manifest.name == RESULTS[name]:
                found[name] = fetch_folder(path, root / "fetched" / name)
    return found


def _publish(outputs: dict[str, Path], workdir: Path) -> None:
    """Move the artifacts to `workdir/<output>`, replacing those of an earlier run."""
    for name in RESULTS:
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name, path in outputs.items():
        os.replace(path, workdir / ("report.html" if name == REPORT else name))


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables for the stages' processes, put back afterwards."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
