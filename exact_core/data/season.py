"""A season of Sentinel-2 L2A on disk, as windows: one scene, its labels, and what a region says in `season.yaml`.

    acquisitions            a STAC catalogue, a folder a date, or flat files: exact_core.data.season_files
    labels/                 a raster of crop codes or parcels, and a legend: exact_core.data.season_labels
    season.yaml             optional: any key of SeasonConfig, and `stride`; the run's own configuration goes first

Axes: T dates, C bands, H W pixels.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import Field, ValidationError

from exact_core.config import DataConfig, SeasonConfig, describe
from exact_core.data.dataset import CLEAR_PATCH
from exact_core.data.rasters import Grid
from exact_core.data.season_files import Acquisition, check_files, clip_to_season, find_acquisitions
from exact_core.data.season_images import (
    SeasonImages,
    choose_dates,
    choose_grid,
    describe_counts,
    merge_days,
    settle_offsets,
)
from exact_core.data.season_labels import read_labels
from exact_core.data.windows import (
    MIN_DATES,
    Area,
    Scene,
    add_scene,
    check_shares,
    has_window,
    mark_self_scored,
    origins,
    split_names,
)
from exact_core.data.writer import DatasetWriter
from exact_core.errors import ConfigError, DataError

__all__ = ["SeasonFile", "SeasonImages", "ingest_season", "open_season", "survey_season"]

BLOCK_WINDOWS = (4, 3, 2)
"""Sides of a split's blocks in windows, largest first: large blocks keep neighbouring fields in one split."""
FEWEST_BLOCKS = 9
"""Fewer blocks are no spatial split: one or two cannot show the crops of the rest."""


class SeasonFile(SeasonConfig):
    """`season.yaml`: what belongs to the region rather than to a run."""

    stride: int | None = Field(None, ge=1, description="step between windows, pixels; None: as data.stride")


def ingest_season(source: Path, config: DataConfig, out: Path, *, seed: int) -> None:
    """Read a season from disk and write it as a dataset of windows.

    A scene of enough blocks is split by blocks, and no window leaves its block, so that splits share no pixel. A
    smaller scene, or any with both shares at 0, is used whole: it is trained and scored on itself, and the manifest
    says so. Windows that fewer than two dates measured, as beyond the edge of a swath, are left out.

    Args:
        source: the folder, or the collection.json in it.
        config: window, stride, max_dates, shares and the `season` part; a value that is not the default wins over
            season.yaml.
        out: folder of the dataset.
        seed: draws the blocks of the splits.

    Raises:
        ConfigError: season.yaml has an unknown key or a wrong value, or there is a validation share but no test share.
        DataError: no acquisitions, a missing band, two acquisitions on one date, unusable files or unknown crop codes,
            or no window that two dates measured.
    """
    check_shares(validation=config.validation_share, test=config.test_share)
    folder = source.parent if source.is_file() else source
    settings = _settings(folder, config)
    notes: list[str] = []
    images = _open(source, settings, config, notes)
    grid = images.grid
    names, labels = read_labels(folder, settings, grid, notes)
    pixels, clear, counts = images.read_counted(0, grid.height)
    notes.extend(describe_counts(counts))
    scene = Scene(
        name=images.name,
        pixels=pixels,
        days=images.days.astype(np.int16),
        labels=labels,
        clear=clear.astype(np.uint8),
        crs=grid.crs.to_string(),
        transform=tuple(grid.transform)[:6],
        origin=str(source),
    )
    with DatasetWriter(
        out,
        name="season",
        source=f"season:{source}",
        bands=settings.bands,
        classes=names,
        window=config.window,
        season_start=images.start,
        season_days=images.length,
        shard_windows=config.shard_windows,
    ) as writer:
        writer.notes.extend(notes)
        _write_windows(writer, scene, config, stride=config.stride or settings.stride, seed=seed)


def open_season(source: Path, config: DataConfig) -> SeasonImages:
    """The season as `ingest_season` would read it, without its labels.

    Raises:
        ConfigError, DataError: as `ingest_season`.
    """
    settings = _settings(source.parent if source.is_file() else source, config)
    return _open(source, settings, config, [])


def _open(source: Path, settings: SeasonConfig, config: DataConfig, notes: list[str]) -> SeasonImages:
    """The dates to read, their offsets settled, on their grid."""
    name, start, length, found, grid = _find(source, settings, notes)
    settled = settle_offsets(found, grid, settings, source, notes)
    chosen, shares = choose_dates(
        merge_days(settled, notes),
        grid,
        settings,
        start=start,
        length=length,
        limit=config.max_dates,
        source=source,
        notes=notes,
    )
    return SeasonImages(name, start, length, settings, grid, chosen, shares, notes)


def _find(source: Path, settings: SeasonConfig, notes: list[str]) -> tuple[str, dt.date, int, list[Acquisition], Grid]:
    """Name of the scene, first day and days of the season, all its acquisitions, checked, and their grid."""
    name, found = find_acquisitions(source, settings.bands)
    start, length, acquisitions = clip_to_season(found, settings, source, notes)
    check_files(acquisitions, settings.bands)
    return name, start, length, acquisitions, choose_grid(acquisitions[0], settings.bands)


def survey_season(source: Path, config: DataConfig) -> tuple[int, int]:
    """What `ingest_season` would read, without a look at a pixel: the numbers of dates and of bands.

    Raises:
        ConfigError, DataError: as `ingest_season`.
    """
    settings = _settings(source.parent if source.is_file() else source, config)
    found = _find(source, settings, [])[3]
    return len({acquisition.date for acquisition in found}), len(settings.bands)


# Settings


def _settings(folder: Path, config: DataConfig) -> SeasonFile:
    """`season.yaml` under the values of the run that are not the default."""
    path = folder / "season.yaml"
    data: Any = {}
    if path.exists():
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not valid YAML: {error}; save it as UTF-8") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not valid YAML: {error}") from error
        except ValueError as error:
            # YAML makes a date of anything like 2018-13-01, and does not say which line it was.
            raise ConfigError(f"{path}: no such date: {error}; write a day of the calendar, as 2018-04-01") from error
        except OSError as error:
            raise ConfigError(
                f"{path}: not a readable file: {error.strerror}; write the settings to a text file, or take it away"
            ) from error
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected a mapping of settings, got {type(data).__name__}")
    try:
        settings = SeasonFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(describe(error, where=str(path), model=SeasonFile)) from error
    changed = {
        key: getattr(config.season, key)
        for key, field in SeasonConfig.model_fields.items()
        if getattr(config.season, key) != field.default
    }
    return settings.model_copy(update=changed)


# Splits


def _write_windows(writer: DatasetWriter, scene: Scene, config: DataConfig, *, stride: int | None, seed: int) -> None:
    """Windows by blocks, or of the whole scene if it has too few blocks for the splits."""
    step = stride or config.window
    blocks, empty = _blocks(scene, config, stride=step)
    if blocks:
        shares = {"validation": config.validation_share, "test": config.test_share}
        splits = split_names(len(blocks), **shares, seed=seed, what="blocks of the scene")
        skipped = sum(_count(block, window=config.window, stride=step) for block in empty)
        for block, split in zip(blocks, splits, strict=True):
            skipped += add_scene(writer, scene, config, split=split, area=block, stride=step, skip_unseen=True)
        counts = ", ".join(f"{splits.count(split)} {split}" for split in dict.fromkeys(splits))
        writer.notes.append(f"the scene was split by {len(blocks)} blocks: {counts}")
    else:
        skipped = _write_whole(writer, scene, config, stride=stride)
    if skipped:
        writer.notes.append(f"{skipped} windows without at least {MIN_DATES} measured dates were left out")


def _write_whole(writer: DatasetWriter, scene: Scene, config: DataConfig, *, stride: int | None) -> int:
    """All windows of the scene, to train and to score on; returns the number left out."""
    height, width = scene.pixels.shape[-2:]
    wanted = not config.validation_share == config.test_share == 0
    # A small scene has few windows: steps of a third make nine of each, and few fields are cut by all of them. Even,
    # because clear patches are 2x2.
    dense = max(CLEAR_PATCH, config.window // 3 // CLEAR_PATCH * CLEAR_PATCH)
    step = stride or (dense if wanted else config.window)
    skipped = add_scene(writer, scene, config, split="train", stride=step, skip_unseen=True)
    if skipped and skipped == _count((0, 0, height, width), window=config.window, stride=step):
        raise DataError(
            f"{scene.origin}: none of {skipped} windows of {config.window} pixels is measured on at least {MIN_DATES} "
            f"dates: the dates show different parts of the scene; add acquisitions that cover the same ground"
        )
    if not wanted:
        reason = "data.validation_share and data.test_share are 0"
    else:
        part = "the measured part of the scene" if skipped else "the scene"
        reason = f"{part} of {height} x {width} pixels is too small for a spatial split"
    mark_self_scored(writer, reason)
    return skipped


def _blocks(scene: Scene, config: DataConfig, *, stride: int) -> tuple[list[Area], list[Area]]:
    """Blocks that tile the scene: those with a window to use, and those without one (beyond the edge of a swath).

    None if the scene has fewer than FEWEST_BLOCKS, or there are no splits. Only blocks with a window are
    drawn for the splits, so that none of these is empty.
    """
    if config.validation_share == config.test_share == 0:
        return [], []
    for windows in BLOCK_WINDOWS:
        blocks = _tile(*scene.pixels.shape[-2:], side=windows * config.window)
        used = [block for block in blocks if has_window(scene, block, window=config.window, stride=stride)]
        if len(used) >= FEWEST_BLOCKS:
            return used, [block for block in blocks if block not in used]
    return [], []


def _tile(height: int, width: int, *, side: int) -> list[Area]:
    """As many blocks of at least `side` pixels as fit; together they cover the scene."""
    rows, cols = height // side, width // side
    row_edges, col_edges = _edges(height, rows), _edges(width, cols)
    return [(row_edges[i], col_edges[j], row_edges[i + 1], col_edges[j + 1]) for i in range(rows) for j in range(cols)]


def _edges(length: int, parts: int) -> list[int]:
    """Edges of equal parts, at even pixels: clear patches are 2x2."""
    return [length * part // parts // CLEAR_PATCH * CLEAR_PATCH for part in range(parts)] + [length]


def _count(block: Area, *, window: int, stride: int) -> int:
    row0, col0, row1, col1 = block
    return len(origins(row1 - row0, col1 - col0, window=window, stride=stride))
