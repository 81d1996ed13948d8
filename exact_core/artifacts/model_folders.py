"""Trained models as folders, and the checkpoints of their training."""

from __future__ import annotations

import atexit
import datetime as dt
import hashlib
import logging
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from exact_core.artifacts.folders import STATE_VARIABLE, code_version
from exact_core.artifacts.stage_files import STORE_VARIABLE
from exact_core.config import EncoderConfig, RunConfig, load_config
from exact_core.data.windows.dataset import FileEntry, Statistics, WindowDataset, sha256_of, verify
from exact_core.data.windows.day_zero import check_day_zero
from exact_core.data.windows.series_sample import SAMPLES_FILE, SeasonSamples, load_season_samples, save_season_samples
from exact_core.environment import variable
from exact_core.errors import ConfigError, CorruptError, DataError, ServiceError
from exact_core.manifest import Manifest, publish_record, read_record
from exact_core.mapping.calibration import NOT_FITTED, Calibration, DatedCalibration
from exact_core.models.classifier import TagClassifier
from exact_core.models.segmenter import AnySegmenter, build_segmenter
from exact_core.storage import (
    Pointer,
    Store,
    StoreOptions,
    content_key,
    default_cache,
    fetch_folder,
    open_store,
    publish_folder,
    read_pointer,
)
from exact_core.termination import at_failure
from exact_core.training.checkpoint import Checkpoints, Progress, load_weights, save_weights
from exact_core.undefined import defined

__all__ = [
    "ModelManifest",
    "StoredCheckpoints",
    "checkpoints_for",
    "load_classifier",
    "load_segmenter",
    "open_season_samples",
    "open_segmenter",
    "read_manifest",
    "read_metrics",
    "save_model",
]

log = logging.getLogger(__name__)

WEIGHTS, CONFIG = "weights.safetensors", "config.yaml"
LATEST = "latest.json"
"""Pointer to the newest checkpoint of a training in the store."""


UPLOAD_SECONDS = 300.0
"""Checkpoints go to a store at most this often: what a lost machine may cost beside its last epoch. The first goes at
once, and so does the newest when the process is asked to end."""
AGAIN_SECONDS = 60.0
"""Pause after an upload that failed, or `UPLOAD_SECONDS` if that is shorter."""
FEW_TRIES = StoreOptions(attempts=3, timeout=20.0)
"""An upload holds up the training, and the next is not far."""


class StoredCheckpoints(Checkpoints):
    """Checkpoints that are also in a store: a retry on another machine continues from them.

    Args:
        folder: where they are written. Empty at first.
        store: a store for this training alone.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        super().__init__(folder)
        self._local, self._store = folder, store
        self._sent: Pointer | None = None
        self._next = 0.0
        self._newer = False
        at_failure(self._send)

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, *, best: bool, write: bool = True
    ) -> None:
        """See `Checkpoints`."""
        super().save(model, optimizer, progress, best=best, write=write)
        if not write:
            return
        self._newer = True
        if time.monotonic() < self._next:
            return
        try:
            self._send()
        except ServiceError as error:
            # The one on this machine is good.
            self._next = time.monotonic() + min(AGAIN_SECONDS, UPLOAD_SECONDS)
            log.warning("the checkpoint of epoch %d is not in the store: %s", progress.epoch, error)

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """See `Checkpoints`."""
        try:
            if self._store.head(LATEST) is not None:
                self._sent = read_pointer(self._store.uri_of(LATEST))
                fetch_folder(self._sent, self._local)
        except DataError as error:
            # Parts of it have expired there, or another run of the same training has moved on.
            log.warning("no checkpoint can be used of %s, so training starts anew: %s", self._store.uri, error)
            self._sent = None
            shutil.rmtree(self._local, ignore_errors=True)
        return super().resume(model, optimizer)

    def _send(self) -> None:
        """Put the newest checkpoint into the store, if it is not there."""
        if not self._newer:
            return
        before = self._sent
        self._sent = publish_folder(self._local, "state.json", self._store.uri)
        self._store.write(LATEST, self._sent.text().encode())
        self._newer, self._next = False, time.monotonic() + UPLOAD_SECONDS
        if before is not None and before.digest != self._sent.digest:
            kept = {file.sha256 for file in (*self._sent.files, self._sent.manifest)}
            gone = {file.sha256 for file in (*before.files, before.manifest)} - kept
            for key in [f"folders/{before.digest}.json", *map(content_key, gone)]:
                self._store.delete(key)


def checkpoints_for(stage: str, *digests: str) -> Checkpoints:
    """Checkpoints of the training that these digests and this code identify.

    They are stored under EXACT_STATE_DIR. Without it they are stored under EXACT_STORE, through a folder of this
    process. With neither, there are none.
    """
    key = hashlib.sha256("\0".join([stage, code_version(), *digests]).encode()).hexdigest()[:16]
    if root := variable(STATE_VARIABLE):
        return Checkpoints(Path(root) / f"{stage}-{key}")
    if store := variable(STORE_VARIABLE):
        # In the cache, which clears away what killed processes left.
        held = ExitStack()
        folder = held.enter_context(default_cache().scratch())
        atexit.register(held.close)
        return StoredCheckpoints(folder, open_store(store, options=FEW_TRIES).below(f"state/{stage}-{key}"))
    return Checkpoints(None)


class ModelManifest(Manifest):
    """`model.json`, written last: what is needed beside the weights to use a model, and where it comes from."""

    schema_version: Literal[1] = 1
    kind: Literal["classifier", "segmenter"]
    bands: tuple[str, ...]
    classes: tuple[str, ...]
    window: int
    statistics: Statistics
    dataset_digest: str
    season_start: dt.date | None = Field(None, description="day 0 of the season it was trained on")
    season_days: int | None = Field(None, description="length of that season, days")
    colours: dict[str, str] = Field({}, description="#rrggbb of the classes that were given one")
    supervision: Literal["tags", "dense"]
    code_version: str
    weights: FileEntry
    config: FileEntry | None = Field(None, description="config.yaml; null in models of older versions")
    calibration: Calibration = Field(NOT_FITTED, description="of a segmenter's confidence")
    by_date: tuple[DatedCalibration, ...] = Field((), description="the same within the season, for maps until a date")
    expected_mask_oa: float | None = Field(
        None, description="OA expected of the masks that a segmenter learned from; null: unknown, or dense labels"
    )
    pixel_days: tuple[int, ...] = Field(
        (),
        description="parts of the season, days, that the regression of single pixels was fitted to; none: without it",
    )
    reference: FileEntry | None = Field(None, description="sample of the training season; segmenters have one")

    def day_zero(self, encoder: EncoderConfig) -> tuple[dt.date, int] | None:
        """First day and days of its season. None where it goes by the day of the year, or does not say."""
        if encoder.dates != "season_day" or self.season_start is None or self.season_days is None:
            return None
        return self.season_start, self.season_days


def save_model(
    out: Path,
    model: TagClassifier | AnySegmenter,
    *,
    config: RunConfig,
    dataset: WindowDataset,
    progress: Progress,
    supervision: Literal["tags", "dense"] = "tags",
    calibration: Calibration = NOT_FITTED,
    by_date: tuple[DatedCalibration, ...] = (),
    expected_mask_oa: float | None = None,
    reference: SeasonSamples | None = None,
    statistics: Statistics | None = None,
) -> None:
    """Write a model folder: weights, configuration, metrics, the season's sample, and last the manifest.

    The statistics are those that the model normalises with. If None, the dataset's.
    """
    manifest = dataset.manifest
    if reference is not None:
        save_season_samples(out / SAMPLES_FILE, reference)
    save_weights(model, out / WEIGHTS)
    config.save(out / CONFIG)
    metrics = {"best_epoch": progress.best_epoch, "best": progress.best, "history": progress.history}
    publish_record(out / "metrics.json", metrics)
    record = ModelManifest(
        kind="classifier" if isinstance(model, TagClassifier) else "segmenter",
        bands=manifest.bands,
        classes=manifest.classes,
        window=manifest.window,
        statistics=statistics or manifest.statistics,
        dataset_digest=manifest.digest,
        season_start=manifest.season_start,
        season_days=manifest.season_days,
        colours=manifest.colours,
        supervision=supervision,
        code_version=code_version(),
        weights=_entry(out / WEIGHTS, manifest.splits["train"]),
        config=_entry(out / CONFIG, manifest.splits["train"]),
        calibration=calibration,
        by_date=by_date,
        expected_mask_oa=expected_mask_oa,
        pixel_days=_pixel_days(model),
        reference=None if reference is None else _entry(out / SAMPLES_FILE, manifest.splits["train"]),
    )
    record.write(out / "model.json")


def _pixel_days(model: TagClassifier | AnySegmenter) -> tuple[int, ...]:
    return () if isinstance(model, TagClassifier) or model.pixels is None else model.pixels.days


def _entry(path: Path, windows: int) -> FileEntry:
    return FileEntry(name=path.name, sha256=sha256_of(path), bytes=path.stat().st_size, windows=windows)


def load_classifier(folder: Path, dataset: WindowDataset) -> tuple[TagClassifier, ModelManifest, RunConfig]:
    """A trained classifier for this dataset, with the configuration it was trained under.

    Raises:
        DataError, CorruptError: no such model there, or it does not fit the dataset.
    """
    manifest, config = _open_model(folder, "classifier")
    check_fit(manifest, folder, dataset, config.classifier.encoder)
    model = TagClassifier(
        config.classifier, bands=len(manifest.bands), classes=len(manifest.classes), window=manifest.window
    )
    load_weights(model, folder / WEIGHTS)
    return model.eval(), manifest, config


def load_segmenter(folder: Path, dataset: WindowDataset) -> tuple[AnySegmenter, ModelManifest, RunConfig]:
    """A trained segmenter for this dataset. See `load_classifier`."""
    manifest, config = _open_model(folder, "segmenter")
    check_fit(manifest, folder, dataset, config.segmenter.reading)
    return _segmenter(folder, manifest, config), manifest, config


def open_segmenter(folder: Path) -> tuple[AnySegmenter, ModelManifest, RunConfig]:
    """A trained segmenter, for use on any dataset. See `load_classifier`."""
    manifest, config = _open_model(folder, "segmenter")
    return _segmenter(folder, manifest, config), manifest, config


def open_season_samples(folder: Path, manifest: ModelManifest) -> SeasonSamples | None:
    """The sample of the season that a model was trained on. If None, it carries none.

    Raises:
        CorruptError: it is not what was written.
    """
    if manifest.reference is None:
        return None
    verify(folder, manifest.reference)
    return load_season_samples(folder / manifest.reference.name)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows, one an epoch, of a model's training.

    Raises:
        CorruptError, DataError: there is none, or it is not what was written.
    """
    path = folder / "metrics.json"
    try:
        return [defined(epoch) for epoch in read_record(path)["history"]]
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise CorruptError(f"{path}: corrupt: holds no history of metrics. Train the model again") from error


def _segmenter(folder: Path, manifest: ModelManifest, config: RunConfig) -> AnySegmenter:
    model = build_segmenter(
        config.segmenter,
        bands=len(manifest.bands),
        classes=len(manifest.classes),
        window=manifest.window,
        pixel_days=manifest.pixel_days,
    )
    load_weights(model, folder / WEIGHTS)
    return model.eval()


def read_manifest(folder: Path, kind: str) -> ModelManifest:
    """What a model's folder says of it. The weights are left alone.

    Raises:
        DataError: no model of this kind there.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise DataError(f"{path}: no {kind} here. Train one with `exact train-{kind}`")
    manifest = ModelManifest.read(path)
    if manifest.kind != kind:
        raise DataError(f"{path}: this is a {manifest.kind}, expected a {kind}")
    return manifest


def _open_model(folder: Path, kind: str) -> tuple[ModelManifest, RunConfig]:
    manifest = read_manifest(folder, kind)
    verify(folder, manifest.weights)
    if manifest.config is not None:
        verify(folder, manifest.config)
    return manifest, load_config(folder / CONFIG)


def check_fit(manifest: ModelManifest, folder: Path, dataset: WindowDataset, encoder: EncoderConfig) -> None:
    """Raise ConfigError unless a dataset has the bands, classes, window side and day 0 that a model was trained on."""
    if season := manifest.day_zero(encoder):
        check_day_zero(dataset.manifest.season_start, season[0], what=str(dataset.root), other=f"the model {folder}")
    for name in ("bands", "classes", "window"):
        has, wants = getattr(dataset.manifest, name), getattr(manifest, name)
        if has != wants:
            raise ConfigError(f"{folder}: the model needs {name} {wants}, but the dataset {dataset.root} has {has}")
