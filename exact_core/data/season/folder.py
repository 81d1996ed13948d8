"""A season of Sentinel-2 L2A on disk, as windows: one scene, its labels, and what a region says in `season.yaml`.

    acquisitions            a STAC catalogue, a folder a date, or flat files: exact_core.data.season.files
    labels/                 a raster of crop codes or parcels, and a legend: exact_core.data.season.labels
                            or a table of tags: exact_core.data.season.tags
    season.yaml             optional: any key of SeasonConfig, and `stride`; the run's own configuration goes first

Axes: T dates, C bands, H W pixels.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from exact_core.config import DataConfig, SeasonConfig, describe
from exact_core.data.season.files import Acquisition, check_files, clip_to_season, find_acquisitions
from exact_core.data.season.images import (
    SeasonImages,
    choose_dates,
    choose_grid,
    describe_counts,
    merge_days,
    settle_offsets,
)
from exact_core.data.season.labels import ClassNumbers, LabelLayer, open_labels
from exact_core.data.season.rasters import Grid
from exact_core.data.season.scene import SeasonScene
from exact_core.data.season.tags import Placed, TagTable
from exact_core.data.season.windows import FEWEST_BLOCKS, write_labelled, write_scene_of, write_tagged
from exact_core.data.windows.cutting import TagNoise, check_shares, mark_self_scored, split_names
from exact_core.data.windows.day_zero import nearest_start
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import ConfigError, DataError
from exact_core.json_values import read_json
from exact_core.yaml_values import read_yaml

__all__ = ["SeasonFile", "SeasonImages", "ingest_season", "merged", "open_season", "survey_season"]


class SeasonFile(SeasonConfig):
    """`season.yaml`: what belongs to the region rather than to a run."""

    stride: int | None = Field(None, ge=1, description="step between windows, pixels; None: as data.stride")


def ingest_season(source: Path, config: DataConfig, out: Path, *, seed: int, origin: str = "") -> None:
    """Read a season from disk and write it as a dataset of windows.

    Windows are cut from a scene with labels by its grid, and taken where a table of tags says. A scene of enough blocks
    is split by blocks, squares by groups that share no pixel, several cells by cell, so that splits share no pixel. Too
    small a scene, or any with both shares at 0, is used whole: it is trained and scored on itself, and the manifest
    says so. Windows that fewer than two dates measured, as beyond the edge of a swath, are left out.

    Args:
        source: the folder, the collection.json in it, or a folder of cells (`exact fetch --cell`).
        config: window, stride, max_dates, shares and the `season` part; what is set there (`model_fields_set`) goes
            before season.yaml.
        out: folder of the dataset.
        seed: draws the splits.
        origin: what the dataset says it was made of; empty: the folder.

    Raises:
        ConfigError: season.yaml has an unknown key or a wrong value, or there is a validation share but no test share.
        DataError: no acquisitions, a missing band, unusable files, unknown crop codes, too few cells for splits, or no
            window that two dates measured.
    """
    check_shares(validation=config.validation_share, test=config.test_share)
    folder = _folder(source)
    settings, config = _settings(folder, config), merged(source, config)
    cells = _cells(folder)
    splits = _splits_of(cells, config, seed) if cells else [None]
    notes: list[str] = []
    seasons = _one_season([_find(place, settings, notes) for place in cells or [source]])
    layer = open_labels(folder, settings)
    found = layer if isinstance(layer, TagTable) else layer.classes(_present(seasons, layer), notes)
    with DatasetWriter(
        out,
        name="season",
        source=origin or f"season:{source}",
        bands=settings.bands,
        classes=found.classes,
        colours=found.colours,
        window=config.window,
        season_start=seasons[0].start,
        season_days=seasons[0].length,
        shard_windows=config.shard_windows,
        min_support=config.min_support,
    ) as writer:
        writer.notes.extend(notes)
        noise = TagNoise()
        opened = _opened(seasons, settings, config)
        for season, images, split in zip(seasons, opened, splits, strict=True):
            _write_one(writer, season.source, images, config, layer, found, split=split, seed=seed, noise=noise)
        if noted := noise.note(config.tag_share):
            writer.notes.append(noted)
        if cells:
            _check_splits(writer, config)


def _write_one(
    writer: DatasetWriter,
    source: Path,
    images: SeasonImages,
    config: DataConfig,
    layer: LabelLayer | TagTable,
    found: ClassNumbers | TagTable,
    *,
    split: str | None,
    seed: int,
    noise: TagNoise,
) -> None:
    """The windows of one scene; `split`: of all of them, where there are several scenes."""
    writer.notes.extend(images.notes)
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
    scene = SeasonScene(images, labels, window=config.window, folder=writer.out, origin=str(source))
    noted = len(writer.notes)
    if isinstance(found, TagTable):
        write_tagged(writer, scene, config, placed, split=split, seed=seed)
    elif split is not None:
        write_scene_of(writer, scene, config, split=split, noise=noise)
    else:
        write_labelled(writer, scene, config, seed=seed, noise=noise)
    writer.notes[noted:noted] = describe_counts(scene.changed)


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
        content = read_json(path.read_text(encoding="utf-8"))
        names = sorted(cell["name"] for cell in content["cells"])
        if any(Path(name).name != name or "\0" in name for name in names):
            raise ValueError("a cell that is no name of a folder beside it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a readable list of cells: {error}; run exact fetch again") from error
    found = [folder / name for name in names if (folder / name / "collection.json").is_file()]
    if not found:
        raise DataError(f"{path}: no cell has images; run exact fetch again")
    return found


def _opened(seasons: list[_Season], settings: SeasonFile, config: DataConfig) -> Iterator[SeasonImages]:
    """The images of each season; those of the next are opened while the windows of one are written."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(_open, seasons[0], settings, config, [])
        for season in [*seasons[1:], None]:
            images = following.result()
            if season is not None:
                following = pool.submit(_open, season, settings, config, [])
            yield images


def _splits_of(cells: list[Path], config: DataConfig, seed: int) -> list[str]:
    shares = {"validation": config.validation_share, "test": config.test_share}
    if len(cells) < FEWEST_BLOCKS and any(shares.values()):
        raise DataError(
            f"{cells[0].parent}: {len(cells)} cells with images; a split by cells needs {FEWEST_BLOCKS}: fetch smaller "
            f"cells, ingest one as season:{cells[0]}, or set data.validation_share and data.test_share to 0"
        )
    return split_names(len(cells), **shares, seed=seed, what="cells")


def _one_season(seasons: list[_Season]) -> list[_Season]:
    """The seasons of all scenes as one: from the first day of any to the last."""
    start = min(season.start for season in seasons)
    length = max((season.start - start).days + season.length for season in seasons)
    return [replace(season, start=start, length=length) for season in seasons]


def _present(seasons: list[_Season], layer: LabelLayer) -> set[int]:
    """Codes of labels that occur in any scene."""
    return {code for season in seasons for code in layer.present(season.grid)}


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


def open_season(source: Path, config: DataConfig, *, trained: tuple[dt.date, int] | None = None) -> SeasonImages:
    """The season as `ingest_season` would read it, without its labels.

    Args:
        source: as for `ingest_season`.
        config: as for `ingest_season`.
        trained: first day and days of the season that a model was trained on: days count from the same day of the year,
            and dates before it, which the model never saw, are left out. None: as the season itself says.

    Raises:
        ConfigError: fewer than two dates of the season are of a time of the year that the model was trained on; else as
            `ingest_season`. DataError: as `ingest_season`.
    """
    settings = _settings(_folder(source), config)
    notes: list[str] = []
    season = _find(source, settings, notes)
    if trained is not None:
        season = _as_trained(season, *trained, notes)
    return _open(season, settings, config, notes)


def _as_trained(season: _Season, start: dt.date, days: int, notes: list[str]) -> _Season:
    """The season with its days counted as in a model's."""
    dates = [each.date for each in season.acquisitions]
    first = nearest_start(start, days, dates, season.start)
    if sum(0 <= (date - first).days < days for date in dates) < 2:
        raise ConfigError(
            f"{season.source}: images from {dates[0]} to {dates[-1]}, but the model was trained on the {days} days "
            f"from {start:%d %B} on and knows no other time of the year; add images of that time, or train on this one"
        )
    if first == season.start:
        return season
    kept = [each for each in season.acquisitions if each.date >= first]
    notes.append(
        f"days count from {first}, as in the model's season ({start}), not from {season.start}"
        + (
            f"; {len(dates) - len(kept)} dates before it, which the model never saw, were left out"
            * (len(kept) < len(dates))
        )
    )
    end = season.start + dt.timedelta(days=season.length)
    return replace(season, start=first, length=(end - first).days, asked=max(first, season.asked), acquisitions=kept)


def _open(season: _Season, settings: SeasonConfig, config: DataConfig, notes: list[str]) -> SeasonImages:
    """The dates to read, their offsets settled, on their grid."""
    settled = settle_offsets(season.acquisitions, season.grid, settings, season.source, notes)
    chosen, shares = choose_dates(
        merge_days(settled, notes),
        season.grid,
        settings,
        start=season.asked,
        length=season.length - (season.asked - season.start).days,
        limit=config.max_dates,
        source=season.source,
        notes=notes,
    )
    return SeasonImages(season.name, season.start, season.length, settings, season.grid, chosen, shares, notes)


@dataclass(frozen=True)
class _Season:
    """What lies in a season's folder: name of the scene, first day and days, all its acquisitions, and their grid.

    asked: the day from which on it should be seen: the first that is set or, where none is, the first image's.
    """

    source: Path
    name: str
    start: dt.date
    length: int
    asked: dt.date
    acquisitions: list[Acquisition]
    grid: Grid


def _find(source: Path, settings: SeasonConfig, notes: list[str]) -> _Season:
    """The season in a folder, its files checked; no pixel is read."""
    name, found = find_acquisitions(source, settings.bands)
    start, length, acquisitions = clip_to_season(found, settings, source, notes)
    check_files(acquisitions, settings.bands)
    asked = settings.start or acquisitions[0].date
    return _Season(source, name, start, length, asked, acquisitions, choose_grid(acquisitions, settings.bands))


def survey_season(source: Path, config: DataConfig) -> tuple[int, int]:
    """What `ingest_season` would read, without a look at a pixel: the numbers of dates and of bands.

    Raises:
        ConfigError, DataError: as `ingest_season`.
    """
    folder = _folder(source)
    settings = _settings(folder, config)
    found = [_find(place, settings, []).acquisitions for place in _cells(folder) or [source]]
    return max(len({each.date for each in acquisitions}) for acquisitions in found), len(settings.bands)


# Settings


def _folder(source: Path) -> Path:
    """The folder of a source that may be named by its catalogue."""
    return source.parent if source.is_file() else source


def merged(source: Path, config: DataConfig) -> DataConfig:
    """The configuration of a run on a source: a recipe's values, over them season.yaml, over it what the run set.

    Raises:
        ConfigError: season.yaml has an unknown key or a wrong value.
    """
    settings = _settings(_folder(source), config)
    season = SeasonConfig.model_construct(
        _fields_set=set(SeasonConfig.model_fields),
        **{key: getattr(settings, key) for key in SeasonConfig.model_fields},
    )
    stride = config.stride if "stride" in config.model_fields_set else settings.stride or config.stride
    return config.model_copy(update={"season": season, "stride": stride})


def _settings(folder: Path, config: DataConfig) -> SeasonFile:
    """`season.yaml` over the values of the recipe, and under those that the run set."""
    path = folder / "season.yaml"
    data: Any = {}
    if path.exists():
        try:
            data = read_yaml(path.read_text(encoding="utf-8")) or {}
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not valid YAML: {error}; save it as UTF-8") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not valid YAML: {error}") from error
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
    before = {
        key: getattr(config.season, key)
        for key in SeasonConfig.model_fields
        if key in config.season.model_fields_set or key not in settings.model_fields_set
    }
    return settings.model_copy(update=before)
