"""What every stage shares: its frame, its state folder, and models as folders."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

import exact_core
from exact_core.config import RunConfig, SegmenterConfig, Settings, describe, load_config
from exact_core.data.dataset import FileEntry, Statistics, WindowDataset, sha256_of, verify
from exact_core.errors import ConfigError, DataError, ExactError
from exact_core.files import publish_text
from exact_core.models.classifier import TagClassifier
from exact_core.models.segmenter import AnySegmenter, build_segmenter
from exact_core.tracking import NoTracker, Tracker, tracked_stage
from exact_core.training.checkpoint import Checkpoints, Progress, load_weights, save_weights
from exact_core.training.distributed import is_first_process

__all__ = [
    "FAILURE_VARIABLE",
    "RUNNER_VARIABLE",
    "STATE_VARIABLE",
    "ModelManifest",
    "checkpoints_for",
    "code_version",
    "fresh_folder",
    "load_classifier",
    "load_segmenter",
    "open_stage",
    "read_metrics",
    "save_model",
]

log = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"

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


def checkpoints_for(stage: str, *digests: str) -> Checkpoints:
    """Checkpoints of the training that these digests and this code identify, under EXACT_STATE_DIR."""
    root = os.environ.get(STATE_VARIABLE)
    if not root:
        return Checkpoints(None)
    key = hashlib.sha256("\0".join([stage, code_version(), *digests]).encode()).hexdigest()[:16]
    return Checkpoints(Path(root) / f"{stage}-{key}")


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


class ModelManifest(Settings):
    """`model.json`, written last: what is needed beside the weights to use a model, and where it comes from."""

    schema_version: Literal[1] = 1
    kind: Literal["classifier", "segmenter"]
    bands: tuple[str, ...]
    classes: tuple[str, ...]
    window: int
    statistics: Statistics
    dataset_digest: str
    supervision: Literal["tags", "dense"]
    code_version: str
    weights: FileEntry


def save_model(
    out: Path,
    model: TagClassifier | AnySegmenter,
    *,
    config: RunConfig,
    dataset: WindowDataset,
    progress: Progress,
    supervision: Literal["tags", "dense"] = "tags",
) -> None:
    """Write a model folder: weights, resolved configuration, metrics, and last the manifest."""
    manifest = dataset.manifest
    save_weights(model, out / WEIGHTS)
    config.save(out / "config.yaml")
    metrics = {"best_epoch": progress.best_epoch, "best": progress.best, "history": progress.history}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    record = ModelManifest(
        kind="classifier" if isinstance(model, TagClassifier) else "segmenter",
        bands=manifest.bands,
        classes=manifest.classes,
        window=manifest.window,
        statistics=manifest.statistics,
        dataset_digest=manifest.digest,
        supervision=supervision,
        code_version=code_version(),
        weights=FileEntry(
            name=WEIGHTS,
            sha256=sha256_of(out / WEIGHTS),
            bytes=(out / WEIGHTS).stat().st_size,
            windows=manifest.splits["train"],
        ),
    )
    publish_text(out / "model.json", record.model_dump_json(indent=2))


def load_classifier(folder: Path, dataset: WindowDataset) -> tuple[TagClassifier, ModelManifest, RunConfig]:
    """A trained classifier for this dataset, with the configuration it was trained under.

    Raises:
        DataError, CorruptError: no such model there, or it does not fit the dataset.
    """
    manifest, config = _open_model(folder, "classifier", dataset)
    model = TagClassifier(
        config.classifier, bands=len(manifest.bands), classes=len(manifest.classes), window=manifest.window
    )
    load_weights(model, folder / WEIGHTS)
    return model.eval(), manifest, config


def load_segmenter(folder: Path, dataset: WindowDataset) -> tuple[AnySegmenter, ModelManifest, RunConfig]:
    """A trained segmenter for this dataset; see `load_classifier`."""
    manifest, config = _open_model(folder, "segmenter", dataset)
    model = build_segmenter(
        config.segmenter, bands=len(manifest.bands), classes=len(manifest.classes), window=manifest.window
    )
    load_weights(model, folder / WEIGHTS)
    return model.eval(), manifest, config


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows, one an epoch, of a model's training."""
    history: list[dict[str, float]] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["history"]
    return history


def _open_model(folder: Path, kind: str, dataset: WindowDataset) -> tuple[ModelManifest, RunConfig]:
    path = folder / "model.json"
    if not path.is_file():
        raise DataError(f"{path}: no {kind} here; train one with `exact train-{kind}`")
    try:
        manifest = ModelManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(describe(error, where=str(path), model=ModelManifest)) from error
    if manifest.kind != kind:
        raise DataError(f"{path}: this is a {manifest.kind}, expected a {kind}")
    for name in ("bands", "classes", "window"):
        has, wants = getattr(dataset.manifest, name), getattr(manifest, name)
        if has != wants:
            raise ConfigError(f"{path}: the model wants {name} {wants}, the dataset {dataset.root} has {has}")
    verify(folder, manifest.weights)
    return manifest, load_config(folder / "config.yaml")
