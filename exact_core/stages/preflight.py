"""Stage `preflight`: everything that a run needs, tried before anything that costs. `exact doctor` asks the same.

Each check has one of three answers: it is there and works, it is not set up (which some runs do not mind), or it fails.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import platform
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from exact_core.artifacts.folders import code_version
from exact_core.artifacts.stage_files import STORE_VARIABLE
from exact_core.config import RunConfig
from exact_core.data.sources import Survey, local_path, parse_season, parse_source, source_of, with_season
from exact_core.environment import shown, variable
from exact_core.errors import ConfigError, ExactError, ServiceError
from exact_core.stages.fetch import survey_source
from exact_core.stages.map_layers import Layers
from exact_core.stages.stage import Stage
from exact_core.storage import open_store
from exact_core.storage.cache import default_cache
from exact_core.tracking.errors import check_address
from exact_core.tracking.runs import Tracker, server_answers, tracking_uri

__all__ = ["STAGE", "Check", "checks", "preflight", "survey", "training_size"]

STAGE = Stage(name="preflight", size="small", minutes=30, retries=0, reads_source=True)

log = logging.getLogger(__name__)

LIKELY_CLASSES = 20
"""Classes of a source that has not been read yet, for the memory estimate: PASTIS has 18."""
MIB = 2**20


@dataclass(frozen=True)
class Check:
    """The answer to one question."""

    name: str
    state: Literal["ok", "not set", "failed"]
    detail: str


class NotSetError(Exception):
    """What a check asks for is not set up here."""


def preflight(
    config: RunConfig,
    *,
    source: str,
    season: str,
    tracker: Tracker,
    here: bool = True,
    look: Callable[[], Survey] | None = None,
) -> dict[str, float]:
    """Check everything that the run needs.

    Args:
        config: the resolved configuration.
        source: as stage `ingest` takes it.
        season: as stage `ingest` takes it. Not checked while it is `auto`.
        tracker: gets the metrics.
        here: whether the run's steps will have this machine. Then its memory must do.
        look: `survey` of the source, if it serves the caller too: of a catalogue it is a search.

    Returns:
        Estimated and available memory of the trainings, in GB, if torch is installed.

    Raises:
        ServiceError: something failed. The message names all that did.
    """
    look = look or cache(lambda: survey(config, source, season))
    found = checks(config, source=source, season=season, here=here, look=look)
    for check in found:
        log.info("preflight: %s: %s: %s", check.name, check.state, check.detail)
    failed = [check for check in found if check.state == "failed"]
    if failed:
        raise ServiceError("\n".join(f"{check.name}: {check.detail}" for check in failed))
    figures: dict[str, float] = {}
    if here and _has_torch():
        estimated, available = _memory(config, look)
        figures = {"estimated_gb": estimated / 1e9, "available_gb": available / 1e9}
        tracker.log_summary(figures)
    return figures


def checks(
    config: RunConfig | None = None,
    *,
    source: str = "",
    season: str = "",
    here: bool = True,
    look: Callable[[], Survey] | None = None,
) -> list[Check]:
    """The results of the checks, in order of importance.

    Args:
        config: of the run. If None, only the machine and its services are checked.
        source: the source to be read. If empty, none.
        season: the season to be read. `auto` and empty: the source's own.
        here: whether it will run on this machine, whose GPU and memory are then checked.
        look: as for `preflight`.
    """
    asked: dict[str, Callable[[], str]] = {
        "code": _code,
        "folder for temporary files": lambda: _writable(Path(tempfile.gettempdir())),
        "object store": _store,
        "MLflow": _tracking,
    }
    if config is None:
        # A run says itself where it writes.
        asked |= {"current folder": lambda: _writable(Path.cwd()), "cache": _cache}
    if here:
        asked["GPU"] = lambda: _device("auto" if config is None else config.device)
    if config is not None and (config.mapping.cropland or config.mapping.outlines):
        asked["mask and outlines of the map"] = lambda: _layers(config, season)
    if config is not None and source:
        promised = look or cache(lambda: survey(config, source, season))
        asked["data"] = lambda: _data(source, promised)
        asked["tags"] = lambda: _tags(config, source, season)
        if here:
            asked["memory"] = lambda: _fits(config, promised)
    return [_answer(name, ask) for name, ask in asked.items()]


def _answer(name: str, ask: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", ask())
    except NotSetError as nothing:
        return Check(name, "not set", str(nothing))
    except (ExactError, OSError) as error:
        return Check(name, "failed", str(error))
    except Exception as error:  # noqa: BLE001 - what a driver or a library without its files raises is the answer
        return Check(name, "failed", f"{type(error).__name__}: {error}")


def _code() -> str:
    named = [f"exact {code_version()}", f"Python {platform.python_version()}"]
    for package in ("torch", "rasterio", "mlflow-skinny", "kfp"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    import rasterio

    if not rasterio.drivers.raster_driver_extensions().get("tif"):
        raise ServiceError("rasterio reads no GeoTIFF. Install its wheel: pip install --force-reinstall rasterio")
    return ", ".join(named)


def _writable(folder: Path) -> str:
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise ServiceError(f"{folder} cannot be written: {error.strerror or error}. Work in another folder") from error
    disk = os.statvfs(folder)
    return f"{folder} can be written, {disk.f_bavail * disk.f_frsize / 1e9:,.1f} GB free"


def _cache() -> str:
    cache = default_cache()
    return f"{_writable(cache.root)}. EXACT_CACHE_DIR names another"


def _layers(config: RunConfig, season: str) -> str:
    layers = Layers.of(config.mapping)
    named = [each for each in (layers.cropland, layers.outlines) if each]
    start = config.data.season.start or (parse_season(season)[0] if season not in ("", "auto") else None)
    if start is None and any("{year}" in each for each in named):
        raise NotSetError("the year of {year} is known when images are read")
    layers.here(start or dt.date.today())
    return ", ".join(map(shown, named))


def _store() -> str:
    uri = variable(STORE_VARIABLE)
    if not uri:
        raise NotSetError(f"{STORE_VARIABLE}: folders pass from step to step as the runner's own artifacts")
    store, key, content = open_store(uri).below("preflight"), f"check-{uuid.uuid4().hex}", os.urandom(64)
    store.write(key, content)
    try:
        if store.read(key) != content:
            raise ServiceError(f"{store.uri_of(key)}: what was written is not what was read")
    finally:
        store.delete(key)
    return f"{shown(uri)} can be written, read and deleted from"


def _tracking() -> str:
    if not variable("MLFLOW_TRACKING_URI"):
        check_address(tracking_uri())
        # Asking further would make the file.
        raise NotSetError(f"MLFLOW_TRACKING_URI: runs go to {tracking_uri()}")
    return server_answers()


def _device(wanted: str) -> str:
    if not _has_torch():
        raise NotSetError("no torch here: this image reads images only")
    import torch

    from exact_core.training.loop import choose_device

    device = choose_device(wanted)
    if device.type == "cpu" and Path("/dev/nvidiactl").exists():
        raise ServiceError(
            f"a GPU is attached, but torch {torch.__version__} cannot use it: its driver is too old or torch is a CPU "
            f"build. Renew either, or set device=cpu to train without"
        )
    if device.type == "cpu":
        raise NotSetError(
            f"no CUDA device. torch {torch.__version__} computes on {torch.get_num_threads()} CPU threads"
        )
    # Used, not only seen: a driver that is too old shows its devices.
    torch.ones(8, device=device).sum().item()
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{', '.join(names)}; torch {torch.__version__}"


def _data(source: str, look: Callable[[], Survey]) -> str:
    found = look()
    return f"{source}: {found.dates} dates, {found.bands} bands"


def _tags(config: RunConfig, source: str, season: str) -> str:
    """Warnings about the tags, from labels on this disk. The user decides, so they are no failure."""
    kind, _ = parse_source(source)
    place = local_path(source)
    config = with_season(config, "" if season == "auto" else season, kind=kind)
    said = None if place is None else source_of(kind).warnings(place, config.data)
    if said is None:
        raise NotSetError(f"{source}: unknown before it is read. `exact ingest` and `exact inspect` report it")
    return " ".join(said) or "no crop is in nearly all windows, in few, or always beside another"


def _fits(config: RunConfig, look: Callable[[], Survey]) -> str:
    if not _has_torch():
        raise NotSetError("no torch here")
    estimated, available = _memory(config, look)
    told = f"training takes about {estimated / 1e9:.2f} GB, {available / 1e9:.1f} GB are free"
    if estimated > available:
        raise ConfigError(
            f"{told}. Lower classifier.training.batch and segmenter.training.batch, set "
            f"classifier.encoder.checkpointing, or give the step more memory"
        )
    return told


def _memory(config: RunConfig, look: Callable[[], Survey]) -> tuple[int, int]:
    """Bytes that the larger training takes, and bytes that are free."""
    from exact_core.training.loop import choose_device
    from exact_core.training.memory import available_bytes

    return training_size(config, look()), available_bytes(choose_device(config.device))


def training_size(config: RunConfig, found: Survey) -> int:
    """Bytes that the larger of the two trainings takes on its device, on what a source promises."""
    from exact_core.training.memory import training_bytes

    shape = {
        "bands": found.bands,
        "classes": found.classes or LIKELY_CLASSES,
        "dates": min(found.dates, config.data.max_dates),
    }
    return max(training_bytes(config, kind=kind, **shape) for kind in ("classifier", "segmenter"))


def survey(config: RunConfig, source: str, season: str) -> Survey:
    """What a source promises.

    Raises:
        ConfigError, DataError: as `preflight` for the source.
    """
    kind, _ = parse_source(source)
    # A season that a schedule will name is not known yet; where the source has its own, none is given.
    config = with_season(config, "" if season == "auto" else season, kind=kind)
    return survey_source(config, source)


def _has_torch() -> bool:
    if "torch" in sys.modules:
        return sys.modules["torch"] is not None
    try:
        version("torch")
    except PackageNotFoundError:
        return False
    return True
