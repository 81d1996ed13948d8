"""What every stage shares, without torch: its frame, its code version, its output folder."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import exact_core
from exact_core.config import RunConfig, SegmenterConfig
from exact_core.errors import DataError, ExactError
from exact_core.tracking import NoTracker, Tracker, tracked_stage
from exact_core.training.ranks import is_first_process

__all__ = [
    "FAILURE_VARIABLE",
    "RUNNER_VARIABLE",
    "STATE_VARIABLE",
    "code_version",
    "fresh_folder",
    "open_stage",
]

log = logging.getLogger(__name__)

IMAGE_VARIABLE = "EXACT_CONTAINER"
"""The image's own name, set in it; a stage that runs in no container of ours has none."""
RUNNER_VARIABLE = "EXACT_RUNNER_PID"
"""Process that runs the pipeline on this machine; a stage whose runner has died ends itself. May be unset."""
STATE_VARIABLE = "EXACT_STATE_DIR"
"""Folder in which training keeps checkpoints, so that a killed run continues; unset: it starts again."""


FAILURE_VARIABLE = "EXACT_FAILURE_FILE"
"""File that receives the message of an ExactError, for a runner to repeat after its own output; may be unset."""


FOLLOW_SECONDS = 1.0


@functools.cache
def code_version() -> str:
    """Package version and a digest of its sources: two runs with one code version ran the same code."""
    package = Path(exact_core.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{exact_core.__version__}+{digest.hexdigest()[:10]}"


@contextmanager
def open_stage(name: str, config: RunConfig, *, pipeline_run: str = "", tracking: bool = True) -> Iterator[Tracker]:
    """The frame of a stage: log lines on stdout, a tracked run, its settings and its duration.

    Args:
        name: the stage, as in its component.
        config: the whole configuration; it becomes the run's parameters.
        pipeline_run: identity of the pipeline run that this stage belongs to; empty for a stage run alone.
        tracking: False records nothing.
    """
    # Of the processes that torchrun starts, one speaks and is tracked.
    level = logging.INFO if is_first_process() else logging.WARNING
    tracking = tracking and is_first_process()
    # Not at import: only a process that runs stages wants its lines there. Harmless where logging is set up already.
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    if runner := os.environ.get(RUNNER_VARIABLE):
        threading.Thread(target=_follow, args=(int(runner),), daemon=True).start()
        log.info("%s: stage process %d", name, os.getpid())
    started = time.perf_counter()
    try:
        if not tracking:
            yield NoTracker()
            return
        title = f"{config.recipe} seed {config.seed}"
        if config.segmenter.model != SegmenterConfig().model:
            title += f", {config.segmenter.title}"
        with tracked_stage(name, pipeline_run=pipeline_run, name=title) as tracker:
            tracker.log_params({**config.model_dump(mode="json"), "code_version": code_version()})
            tracker.set_tags({"exact.image": os.environ.get(IMAGE_VARIABLE, "none")})
            yield tracker
            tracker.log_summary({"seconds": time.perf_counter() - started})
    except Exception as error:
        if failure := os.environ.get(FAILURE_VARIABLE):
            said = str(error) if isinstance(error, ExactError) else f"{type(error).__name__}: {error}"
            Path(failure).write_text(f"{name}: {said}", encoding="utf-8")
        raise


def _follow(runner: int) -> None:
    """End this process when the runner has: a killed run must not go on writing checkpoints beside the next one."""
    while True:
        time.sleep(FOLLOW_SECONDS)
        try:
            os.kill(runner, 0)
        except ProcessLookupError:
            os._exit(1)


def fresh_folder(out: Path, manifest: str) -> Path:
    """An output folder ready to be written.

    Raises:
        DataError: it holds a finished result, which is not overwritten.
    """
    if (out / manifest).exists():
        raise DataError(f"{out} already holds a finished result ({manifest}); choose another folder or delete this one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot write there: {error}; choose another folder") from error
    return out
