"""How every stage begins and ends: log lines, a tracked run, its settings, its failure. Without torch."""

from __future__ import annotations

import datetime as dt
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from exact_core.artifacts.folders import code_version
from exact_core.artifacts.stage_files import StageFiles, stage_files
from exact_core.config import RunConfig, SegmenterConfig
from exact_core.data.sources import short_name
from exact_core.environment import RUNNER_VARIABLE, variable
from exact_core.errors import in_a_line
from exact_core.files import full_disk
from exact_core.stages.run import Run, read_run
from exact_core.stages.season_lease import renew
from exact_core.stages.stage import Stage, stage_table
from exact_core.termination import TerminatedError, ending_in_order
from exact_core.tracking.runs import FIRST, NoTracker, Tracker, tracked_stage
from exact_core.training.ranks import is_first_process

__all__ = [
    "FAILURE_VARIABLE",
    "Step",
    "open_stage",
    "open_step",
]

log = logging.getLogger(__name__)

IMAGE_VARIABLE = "EXACT_CONTAINER"
"""The image's own name, set in it. A stage that runs in no container of ours has none."""

FAILURE_VARIABLE = "EXACT_FAILURE_FILE"
"""File that receives the message of an ExactError, for a runner to repeat after its own output. May be unset."""


KILLED = (
    "was killed (signal 9): most likely out of memory. Give it more, or lower classifier.training.batch and "
    "segmenter.training.batch"
)
FAILURE_BYTES = 4096
"""Of a message that the runner repeats."""
FOLLOW_SECONDS = 1.0
GRACE_SECONDS = 10.0
"""Time for a stage to end in order after its runner has died."""


@contextmanager
def open_stage(
    name: str,
    config: RunConfig,
    *,
    pipeline_run: str = "",
    source: str = "",
    season: str = "",
    more: Mapping[str, str] = {},
    tracking: bool = True,
) -> Iterator[Tracker]:
    """Open a stage: log lines on stdout, a tracked run, its settings and its duration.

    Args:
        name: the stage, as in its component.
        config: the whole configuration. What of it applies to the stage becomes the run's parameters.
        pipeline_run: identity of the pipeline run that this stage belongs to. Empty for a stage run alone.
        source: of the pipeline run, which is named after it, its season and the time. If empty, after recipe and seed.
        season: of the pipeline run.
        more: further parameters of the pipeline run, which its first stage records.
        tracking: False records nothing.
    """
    # Of the processes that torchrun starts, one speaks and is tracked.
    level = logging.INFO if is_first_process() else logging.WARNING
    tracking = tracking and is_first_process()
    # Not at import: only a process that runs stages wants its lines there. Harmless where logging is set up already.
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    # Where boto3 is installed, rasterio has it look for keys at every file, which it logs each time.
    logging.getLogger("botocore.credentials").setLevel(logging.WARNING)
    if runner := os.environ.get(RUNNER_VARIABLE):
        threading.Thread(target=_follow, args=(int(runner),), daemon=True).start()
        log.info("%s: stage process %d", name, os.getpid())
    failure = variable(FAILURE_VARIABLE)
    if failure:
        # A process that the kernel ends says nothing more. Room for any other end is taken now.
        _state(failure, f"{name}: {KILLED}".ljust(FAILURE_BYTES))
    try:
        with (
            ending_in_order(),
            _tracked(
                name, config, pipeline_run=pipeline_run, about=(source, season), more=more, tracking=tracking
            ) as tracker,
        ):
            yield tracker
    except BaseException as error:
        full = full_disk(error)
        if failure:
            _state(failure, f"{name}: {in_a_line(full or error)}")
        if full is not None:
            raise full from error
        if isinstance(error, TerminatedError):
            # A line instead of a trace, and the exit status of a process that a signal has ended.
            log.error("%s: %s", name, error)
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    if failure:
        Path(failure).unlink(missing_ok=True)


def _state(failure: str, message: str) -> None:
    """Write how a stage ends over what is there, because a full disk has room for no more."""
    try:
        with os.fdopen(os.open(failure, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
            file.write(message.encode()[:FAILURE_BYTES])
            file.truncate()
    except OSError as error:
        # The runner then has less to repeat. The stage goes on, or ends by its own error.
        log.warning("%s: cannot be written: %s", failure, error)


@contextmanager
def _tracked(
    name: str,
    config: RunConfig,
    *,
    pipeline_run: str,
    about: tuple[str, str],
    more: Mapping[str, str],
    tracking: bool,
) -> Iterator[Tracker]:
    started = time.perf_counter()
    if not tracking:
        yield NoTracker()
        return
    source, season = about
    if source:
        title = " ".join(filter(None, (short_name(source), season, f"{dt.datetime.now():%Y-%m-%d %H:%M}")))
    else:
        title = f"{config.recipe} seed {config.seed}"
    if config.segmenter.model != SegmenterConfig().model:
        title += f", {config.segmenter.title}"
    params = {**applying(name, config, source), "code_version": code_version()}
    if name == FIRST and source:
        params |= {"source": source, "season": season, **more}
    # The first stage of a run finds out what is there; the others know that MLflow was.
    patient = bool(pipeline_run) and name != FIRST
    with tracked_stage(
        name, pipeline_run=pipeline_run, name=title, params=params, whole=name == FIRST, patient=patient
    ) as tracker:
        tracker.set_tags({"exact.image": os.environ.get(IMAGE_VARIABLE, "none")})
        yield tracker
        tracker.log_summary({"seconds": time.perf_counter() - started})


SETTINGS_OF = {"stac": "season"}
"""Sections of `data` that are not called as their source."""


def applying(stage: str, config: RunConfig, source: str) -> dict[str, Any]:
    """The settings that apply to a stage, which may be the part of one: those of other sources and segmenters do not.

    Args:
        stage: its name.
        config: all settings.
        source: of the data. If empty, not known.
    """
    values = config.model_dump(mode="json")
    known = stage_table().get(stage.partition(" ")[0])
    if known and known.settings is not None:
        values = {key: value for key, value in values.items() if key in known.settings or not isinstance(value, dict)}
    kind = source.partition(":")[0]
    if kind and "data" in values:
        own = SETTINGS_OF.get(kind, kind)
        values["data"] = {
            key: value for key, value in values["data"].items() if key == own or not isinstance(value, dict)
        }
    if "segmenter" in values and config.segmenter.model != "utae":
        del values["segmenter"]["utae"]
    return values


class Metrics(Protocol):
    """A step's metrics in KFP's format."""

    def log_metric(self, metric: str, value: float) -> None:
        """One metric."""


@dataclass(frozen=True)
class Step:
    """A stage as a step of a pipeline."""

    run: Run
    config: RunConfig
    tracker: Tracker
    files: StageFiles

    @staticmethod
    def show(metrics: Metrics, summary: Mapping[str, float]) -> None:
        """Give KFP a stage's metrics. It accepts no NaN or infinity, and a step with one would fail at its end."""
        for name, value in summary.items():
            if math.isfinite(value):
                metrics.log_metric(name, value)
            else:
                log.info("%s is not defined", name)


@contextmanager
def open_step(stage: Stage, run: Mapping[str, Any], *, tracking: bool = True) -> Iterator[Step]:
    """Open a stage that is a step of a pipeline, with its inputs and outputs. They are published when it succeeds.

    Args:
        stage: its facts.
        run: what the pipeline's first step decided.
        tracking: False records nothing.
    """
    given = read_run(run)
    config = given.config()
    name = f"{stage.name} {given.part}" if stage.in_parts and given.part else stage.name
    with (
        open_stage(
            name,
            config,
            pipeline_run=given.pipeline_run,
            source=given.named_source,
            season=given.season,
            tracking=tracking,
        ) as tracker,
        stage_files(tracker, stage.writes) as files,
    ):
        renew(given, stage)
        yield Step(given, config, tracker, files)


def _follow(runner: int) -> None:
    """End this process after its runner, because a killed run must not write checkpoints beside the next one."""
    while True:
        time.sleep(FOLLOW_SECONDS)
        try:
            os.kill(runner, 0)
        except ProcessLookupError:
            # In order, so that MLflow hears of it and nothing is left in temporary folders.
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(GRACE_SECONDS)
            os._exit(1)
