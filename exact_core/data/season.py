"""A season of Sentinel-2 L2A on disk, as windows: one scene, its labels, and what a region says in `season.yaml`.

    acquisitions            a STAC catalogue, a folder a date, or flat files: exact_core.data.season_files
    labels/                 a raster of crop codes or parcels, and a legend: exact_core.data.season_labels
                            or a table of tags: exact_core.data.tags
    season.yaml             optional: any key of SeasonConfig, and `stride`; the run's own configuration goes first

Axes: T dates, C bands, H W pixels.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import Field, ValidationError

from exact_core.config import DataConfig, SeasonConfig, describe
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
from exact_core.data.season_labels import ClassNumbers, LabelLayer, open_labels
from exact_core.data.season_windows import FEWEST_BLOCKS, write_labelled, write_scene_of, write_tagged
from exact_core.data.tags import Placed, TagTable
from exact_core.data.windows import Scene, TagNoise, check_shares, mark_self_scored, split_names
from exact_core.data.writer import DatasetWriter
from exact_core.errors import ConfigError, DataError

__all__ = ["SeasonFile", "SeasonImages", "ingest_season", "open_season", "survey_season"]


class SeasonFile(SeasonConfig):
    """`season.yaml`: what belongs to the region rather than to a run."""

    stride: int | None = Field(None, ge=1, description="step between windows, pixels; None: as data.stride")


def ingest_season(source: Path, config: DataConfig, out: Path, *, seed: int) -> None:
    """Read a season from disk and write it as a dataset of windows.

    Windows are cut from a scene with labels by its grid, and taken where a table of tags says. A scene of enough blocks
    is split by blocks, squares by groups that share no pixel, several cells by cell, so that splits share no pixel. Too
    small a scene, or any with both shares at 0, is used whole: it is trained and scored on itself, and the manifest
    says so. Windows that fewer than two dates measured, as beyond the edge of a swath, are left out.

    Args:
        source: the folder, the collection.json in it, or a folder of cells (`exact fetch --cell`).
        config: window, stride, max_dates, shares and the `season` part; a value that is not the default wins over
            season.yaml.
        out: folder of the dataset.
        seed: draws the splits.

    Raises:
        ConfigError: season.yaml has an unknown key or a wrong value, or there is a validation share but no test share.
        DataError: no acquisitions, a missing band, unusable files, unknown crop codes, too few cells for splits, or no
            window that two dates measured.
    """
    check_shares(validation=config.validation_share, test=config.test_share)
    folder = source.parent if source.is_file() else source
    settings = _settings(folder, config)
    notes: list[str] = []
    cells = _cells(folder)
    scenes = cells or [source]
    splits = _splits_of(cells, config, seed) if cells else [None]
    settings, (start, length) = _one_season(scenes, settings)
    layer = open_labels(folder, settings)
    found = layer if isinstance(layer, TagTable) else layer.classes(_present(scenes, layer, settings), notes)
    with DatasetWriter(
        out,
        name="season",
        source=f"season:{source}",
        bands=settings.bands,
        classes=found.classes,
        colours=found.colours,
        window=config.window,
        season_start=start,
        season_days=length,
        shard_windows=config.shard_windows,
        min_support=config.min_support,
    ) as writer:
        writer.notes.extend(notes)
        noise = TagNoise()
        for place, split in zip(scenes, splits, strict=True):
            _write_one(writer, place, config, settings, layer, found, split=split, seed=seed, noise=noise)
        if noted := noise.note(config.tag_share):
            writer.notes.append(noted)
        if cells:
            _check_splits(writer, config)


def _write_one(
    writer: DatasetWriter,
    source: Path,
    config: DataConfig,
    settings: SeasonFile,
    layer: LabelLayer | TagTable,
    found: ClassNumbers | TagTable,
    *,
    split: str | None,
    seed: int,
    noise: TagNoise,
) -> None:
    """The windows of one scene; `split`: of all of them, where there are several scenes."""
    images = _open(source, settings, config, writer.notes)
    grid = images.grid
    labels, placed = None, list[Placed]()
    if isinstance(found, TagTable):
        placed, outside = found.place(images.name, grid, window=config.window)
        if split is None:
            _check_placed(found, placed, outside, writer.notes, source)
        if not placed:
            return
    elif isinstance(layer, LabelLayer):
        labels = layer.labels(found, grid, writer.notes)
    pixels, clear, counts = images.read_counted(0, grid.height)
    writer.notes.extend(describe_counts(counts))
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
    stride = config.stride or settings.stride
    if isinstance(found, TagTable):
        write_tagged(writer, scene, config, placed, split=split, seed=seed)
    elif split is not None:
        write_scene_of(writer, scene, config, split=split, stride=stride, noise=noise)
    else:
        write_labelled(writer, scene, config, stride=stride, seed=seed, noise=noise)


def _check_placed(table: TagTable, placed: list[Placed], outside: int, notes: list[str], source: Path) -> None:
    if not placed:
        raise DataError(
            f"{table.path}: none of its {len(table.rows)} squares lies in the images of {source}; check the columns "
            f"(lon,lat are degrees, x,y are in the CRS of the images), or the area"
        )
    if outside:
        notes.append(f"{outside} of {len(table.rows)} squares of {table.path.name} do not lie in the images")


# Several scenes


def _cells(folder: Path) -> list[Path]:
    """Folders of the cells of a large area, in the order of their names; none for an ordinary season."""
    path = folder / "cells.json"
    if not path.is_file() or (folder / "collection.json").is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = sorted(cell["name"] for cell in content["cells"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a readable list of cells: {error}; run exact fetch again") from error
    found = [folder / name for name in names if (folder / name / "collection.json").is_file()]
    if not found:
        raise DataError(f"{path}: no cell has images; run exact fetch again")
    return found


def _splits_of(cells: list[Path], config: DataConfig, seed: int) -> list[str]:
    shares = {"validation": config.validation_share, "test": config.test_share}
    if len(cells) < FEWEST_BLOCKS and any(shares.values()):
        raise DataError(
            f"{cells[0].parent}: {len(cells)} cells with images; a split by cells needs {FEWEST_BLOCKS}: fetch smaller "
            f"cells, ingest one as season:{cells[0]}, or set data.validation_share and data.test_share to 0"
        )
    return split_names(len(cells), **shares, seed=seed, what="cells")


def _one_season(scenes: list[Path], settings: SeasonFile) -> tuple[SeasonFile, tuple[dt.date, int]]:
    """The settings with the season that all scenes are read in: from the first acquisition of any to the last."""
    spans = [clip_to_season(find_acquisitions(place, settings.bands)[1], settings, place, []) for place in scenes]
    start = min(span[0] for span in spans)
    length = max((span[0] - start).days + span[1] for span in spans)
    if len(scenes) > 1:
        settings = settings.model_copy(update={"start": start, "days": length})
    return settings, (start, length)


def _present(scenes: list[Path], layer: LabelLayer, settings: SeasonFile) -> set[int]:
    """Codes of labels that occur in any scene."""
    found: set[int] = set()
    for place in scenes:
        found |= set(np.unique(layer.codes(_find(place, settings, [])[-1], [])).tolist())
    return found


def _check_splits(writer: DatasetWriter, config: DataConfig) -> None:
    """Raise DataError if a split that was asked for has got no window; without splits, say that it scores itself."""
    shares = {"train": 1.0, "validation": config.validation_share, "test": config.test_share}
    empty = [name for name, share in shares.items() if share > 0 and not writer.counts[name]]
    if empty:
        raise DataError(
            f"{writer.source}: no cell of the split {', '.join(empty)} has a window that could be used; choose another "
            f"seed, or give more cells"
        )
    if config.test_share == 0:
        mark_self_scored(writer, "data.validation_share and data.test_share are 0")


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
    places = _cells(source.parent if source.is_file() else source) or [source]
    dates = [{acquisition.date for acquisition in _find(place, settings, [])[3]} for place in places]
    return max(map(len, dates)), len(settings.bands)


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
