"""A season of Sentinel-2 L2A on disk, as windows: one scene, its labels, and what a region says in `season.yaml`.

    acquisitions            a STAC catalogue, a folder a date, or flat files: exact_core.data.season.files
    labels/                 a raster of crop codes or parcels, and a legend: exact_core.data.season.labels
                            or tags of squares: exact_core.data.season.tag_tables
                            outlines of fields beside them, if any: exact_core.data.season.outlines
    season.yaml             optional: any key of SeasonConfig, and `stride`. The run's own configuration goes first

Axes are T dates, C bands, H W pixels.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
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
from exact_core.data.season.labels import ClassNumbers, LabelLayer, find_labels, open_labels
from exact_core.data.season.outlines import field_numbers, open_outlines
from exact_core.data.season.rasters import Grid, pixel_metres
from exact_core.data.season.scene import SeasonScene
from exact_core.data.season.segments import SEGMENTS, season_segments
from exact_core.data.season.tag_checks import check_places, check_sizes, contradictions
from exact_core.data.season.tags import Placed, TagTable
from exact_core.data.season.windows import FEWEST_BLOCKS, write_labelled, write_scene_of, write_tagged
from exact_core.data.vectors import VectorLayer
from exact_core.data.windows.cutting import (
    TagNoise,
    check_shares,
    mark_self_scored,
    origins,
    split_names,
    tags_from_labels,
)
from exact_core.data.windows.dataset import CLEAR_PATCH, VOID
from exact_core.data.windows.dates import MIN_DATES
from exact_core.data.windows.day_zero import nearest_start
from exact_core.data.windows.tag_support import ALWAYS, tag_findings
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import ConfigError, DataError
from exact_core.json_values import read_json
from exact_core.yaml_values import read_yaml

__all__ = [
    "SeasonFile",
    "SeasonImages",
    "check_one_crs",
    "ingest_season",
    "merged",
    "open_season",
    "open_tags",
    "survey_season",
    "survey_tags",
    "window_side",
]


SMALLEST = 4
"""Pixels on a side of the smallest window."""


class SeasonFile(SeasonConfig):
    """`season.yaml`: what belongs to the region rather than to a run."""

    stride: int | None = Field(None, ge=1, description="step between windows, pixels; None: as data.stride")


def ingest_season(source: Path, config: DataConfig, out: Path, *, seed: int, origin: str = "") -> None:
    """Read a season from disk and write it as a dataset of windows.

    A scene with labels is cut into windows by its grid. A table of tags states its own windows. Splits share no pixel:
    a scene of enough blocks is split by blocks, squares by groups that share no pixel, several cells by cell. A square
    of several windows is in one split, also where cells divide it. A scene that is too small, or one with both shares
    at 0, is used whole. It is trained and scored on itself, and the manifest says so. Windows measured on fewer than
    two dates, as beyond the edge of a swath, are left out.

    Args:
        source: the folder, the collection.json in it, or a folder of cells (`exact fetch --cell`).
        config: window, stride, max_dates, shares and the `season` part. Changed settings (`model_fields_set`) take
            precedence over season.yaml.
        out: folder of the dataset.
        seed: draws the splits.
        origin: the source to record in the dataset. If empty, the folder.

    Raises:
        ConfigError: season.yaml has an unknown key or a wrong value, or there is a validation share but no test share.
        DataError: no acquisitions, a missing band, unusable files, unknown crop codes, too few cells for splits, or no
            window that two dates measured.
    """
    check_shares(validation=config.validation_share, test=config.test_share)
    folder = _folder(source)
    settings, config = _settings(folder, config), merged(source, config)
    cells = list(_cells(folder))
    splits = _splits_of(cells, config, seed) if cells else [None]
    notes: list[str] = []
    seasons = _one_season([_find(place, settings, notes) for place in cells or [source]])
    config = _sized(config, seasons[0].grid, notes)
    layer = open_labels(folder, settings, notes)
    outlines = None if settings.outlines == SEGMENTS else open_outlines(folder, settings.outlines)
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
            _write_one(
                writer, season.source, images, config, layer, found, outlines, split=split, seed=seed, noise=noise
            )
        if noted := noise.note(config.tag_share):
            writer.notes.append(noted)
        if cells:
            writer.keep_squares_whole()
            _check_splits(writer, config)


def window_side(metres: float, pixel: float) -> int:
    """Pixels along a window of about so many metres, of pixels of so many: whole patches of clouds."""
    return max(SMALLEST, round(metres / pixel / CLEAR_PATCH) * CLEAR_PATCH)


def _sized(config: DataConfig, grid: Grid, notes: list[str]) -> DataConfig:
    """The configuration with the window's side in pixels of this grid."""
    if config.window_metres is None:
        return config
    pixel = pixel_metres(grid)
    side = window_side(config.window_metres, pixel)
    if abs(side * pixel - config.window_metres) > pixel:
        notes.append(
            f"windows are of {side} pixels of {pixel:g} m, {side * pixel:g} m, the nearest to data.window_metres = "
            f"{config.window_metres:g} that there is"
        )
    return config.model_copy(update={"window": side})


def _write_one(
    writer: DatasetWriter,
    source: Path,
    images: SeasonImages,
    config: DataConfig,
    layer: LabelLayer | TagTable,
    found: ClassNumbers | TagTable,
    outlines: VectorLayer | None,
    *,
    split: str | None,
    seed: int,
    noise: TagNoise,
) -> None:
    """The windows of one scene. `split`: of all of them, where there are several scenes."""
    writer.notes.extend(images.notes)
    grid = images.grid
    labels, placed = None, list[Placed]()
    if isinstance(found, TagTable):
        if split is None:
            writer.notes.extend(check_sizes(found, grid, window=config.window))
        placed, outside = found.place(images.name, grid, window=config.window)
        if split is None:
            writer.notes.extend(check_places(found, outside, grid, window=config.window, source=str(source)))
        writer.notes.extend(contradictions(found, grid, window=config.window))
        if not placed:
            return
    elif isinstance(layer, LabelLayer):
        labels = layer.labels(found, grid, writer.notes)
    fields = None if outlines is None else field_numbers(outlines, grid, writer.notes)
    scene = SeasonScene(images, labels, window=config.window, folder=writer.out, origin=str(source), fields=fields)
    if config.season.outlines == SEGMENTS:
        hectares = config.season.segment_hectares
        scene.fields = season_segments(scene, images, hectares=hectares, notes=writer.notes)
    noted = len(writer.notes)
    if isinstance(found, TagTable):
        write_tagged(writer, scene, config, placed, split=split, seed=seed)
    elif split is not None:
        write_scene_of(writer, scene, config, split=split, noise=noise)
    else:
        write_labelled(writer, scene, config, seed=seed, noise=noise)
    writer.notes[noted:noted] = describe_counts(scene.changed)


# Several scenes


def _cells(folder: Path) -> dict[Path, str]:
    """Folders of the cells of a large area and their CRS, in the order of their names. None for an ordinary season."""
    path = folder / "cells.json"
    if not path.is_file() or (folder / "collection.json").is_file():
        return {}
    try:
        content = read_json(path.read_text(encoding="utf-8"))
        listed = {cell["name"]: str(cell.get("crs", "")) for cell in content["cells"]}
        names = sorted(listed)
        if any(Path(name).name != name or "\0" in name for name in names):
            raise ValueError("a cell that is no name of a folder beside it")
        found = {folder / name: listed[name] for name in names if (folder / name / "collection.json").is_file()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a readable list of cells: {error}. Run exact fetch again") from error
    if not found:
        empty = all(cell.get("state") == "empty" for cell in content["cells"])
        help_ = "Fetch other days, more clouds or another area" if empty else "Run exact fetch again"
        raise DataError(f"{path}: no cell has images. {help_}")
    return found


def _opened(seasons: list[_Season], settings: SeasonFile, config: DataConfig) -> Iterator[SeasonImages]:
    """The images of each season. Those of the next are opened while the windows of one are written."""
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
            f"{cells[0].parent}: {len(cells)} cells with images, but a split by cells needs {FEWEST_BLOCKS}. Fetch "
            f"smaller cells, ingest one as season:{cells[0]}, or set data.validation_share and data.test_share to 0"
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
    """Raise DataError if a split that was asked for has got no window. Without splits, say that it scores itself."""
    shares = {"train": 1.0, "validation": config.validation_share, "test": config.test_share}
    empty = [name for name, share in shares.items() if share > 0 and not writer.counts[name]]
    if empty:
        raise DataError(
            f"{writer.source}: no cell of the split {', '.join(empty)} has a window that could be used. Choose another "
            f"seed, or give more cells"
        )
    if config.test_share == 0:
        mark_self_scored(writer, "data.validation_share and data.test_share are 0")


def open_season(source: Path, config: DataConfig, *, trained: tuple[dt.date, int] | None = None) -> SeasonImages:
    """The season as `ingest_season` would read it, without its labels. Cells of one CRS are one scene.

    Args:
        source: as for `ingest_season`.
        config: as for `ingest_season`.
        trained: first day and days of the season that a model was trained on: days count from the same day of the year,
            and earlier dates, which the model has not seen, are left out. If None, as the season itself states.

    Raises:
        ConfigError: fewer than two dates of the season are of a time of the year that the model was trained on, or
            cells of several CRS, otherwise as `ingest_season`. DataError: as `ingest_season`.
    """
    settings = _settings(_folder(source), config)
    notes: list[str] = []
    cells = _cells(_folder(source))
    season = _together(source, cells, settings, notes) if cells else _find(source, settings, notes)
    if trained is not None:
        season = _as_trained(season, *trained, notes)
    return _open(season, settings, config, notes, whole=None if trained is None else trained[1])


def open_tags(source: Path, config: DataConfig) -> tuple[TagTable | None, list[str]]:
    """The tags of squares that `ingest_season` would read, None where its labels are others, and what it would note.

    Raises:
        ConfigError, DataError: as `ingest_season`.
    """
    folder = _folder(source)
    notes: list[str] = []
    labels = open_labels(folder, _settings(folder, config), notes)
    return labels if isinstance(labels, TagTable) else None, notes


def _as_trained(season: _Season, start: dt.date, days: int, notes: list[str]) -> _Season:
    """The season with its days counted as in a model's."""
    dates = [each.date for each in season.acquisitions]
    first = nearest_start(start, days, dates, season.start)
    if sum(0 <= (date - first).days < days for date in dates) < 2:
        raise ConfigError(
            f"{season.source}: images from {dates[0]} to {dates[-1]}, but the model was trained on the {days} days "
            f"from {start:%d %B} on and knows no other time of the year. Add images of that time, or train on this one"
        )
    if first == season.start:
        return season
    kept = [each for each in season.acquisitions if each.date >= first]
    notes.append(
        f"days count from {first}, as in the model's season ({start}), not from {season.start}"
        + (
            f". {len(dates) - len(kept)} dates before it, which the model has not seen, were left out"
            * (len(kept) < len(dates))
        )
    )
    end = season.start + dt.timedelta(days=season.length)
    return replace(season, start=first, length=(end - first).days, asked=max(first, season.asked), acquisitions=kept)


def _open(
    season: _Season, settings: SeasonConfig, config: DataConfig, notes: list[str], *, whole: int | None = None
) -> SeasonImages:
    """The dates to read, their offsets settled, on their grid. `whole`: days of the season that a model knows."""
    settled = settle_offsets(season.acquisitions, season.grid, settings, season.source, notes)
    length, limit = season.length, config.max_dates
    if settings.until is not None:
        # What comes later is no gap: it is not there yet.
        length = min(length, (settings.until - season.start).days + 1)
        # As dense as in the whole season, which models are trained on: docs/results.md, "Within the season".
        limit = min(limit, max(MIN_DATES, round(limit * length / (whole or season.length))))
    chosen, shares = choose_dates(
        merge_days(settled, notes),
        season.grid,
        settings,
        start=season.asked,
        length=length - (season.asked - season.start).days,
        limit=limit,
        source=season.source,
        notes=notes,
    )
    return SeasonImages(season.name, season.start, season.length, settings, season.grid, chosen, shares, notes)


@dataclass(frozen=True)
class _Season:
    """Content of a season's folder: name of the scene, first day and days, all its acquisitions, and their grid.

    asked: the first day requested: the one that is set or, without one, the first image's.
    """

    source: Path
    name: str
    start: dt.date
    length: int
    asked: dt.date
    acquisitions: list[Acquisition]
    grid: Grid


def _find(source: Path, settings: SeasonConfig, notes: list[str]) -> _Season:
    """The season in a folder, its files checked. No pixel is read."""
    name, start, length, acquisitions = _listed(source, settings, notes)
    asked = settings.start or acquisitions[0].date
    return _Season(source, name, start, length, asked, acquisitions, choose_grid(acquisitions, settings.bands))


def _together(source: Path, cells: dict[Path, str], settings: SeasonConfig, notes: list[str]) -> _Season:
    """The cells of an area as one scene, whose images of a day complete each other.

    Raises:
        ConfigError: cells of several CRS.
    """
    check_one_crs(f"season:{source}", tuple(cells.values()))
    found = [_listed(place, settings, notes) for place in cells]
    start = min(each[1] for each in found)
    length = max((first - start).days + days for _, first, days, _ in found)
    acquisitions = sorted((each for part in found for each in part[3]), key=lambda each: each.date)
    grid = choose_grid(acquisitions, settings.bands)
    # A cell's scene is named after the collection and the cell.
    name = found[0][0].removesuffix(f"-{next(iter(cells)).name}")
    return _Season(source, name, start, length, settings.start or acquisitions[0].date, acquisitions, grid)


def check_one_crs(source: str, crs: Iterable[str]) -> None:
    """Accept an area that can be one scene, by the CRS of its cells.

    Raises:
        ConfigError: its cells are of several CRS.
    """
    several = sorted(set(crs))
    if len(several) > 1:
        raise ConfigError(
            f"{source}: its cells are in {', '.join(several)}, and a map has one CRS. Give crs={several[0]} in the "
            f"address (--crs of exact fetch), or map cell by cell (exact map season:FOLDER/CELL)"
        )


def _listed(source: Path, settings: SeasonConfig, notes: list[str]) -> tuple[str, dt.date, int, list[Acquisition]]:
    """Name of a folder's scene, first day and days of its season, and the acquisitions. No image is opened."""
    name, found = find_acquisitions(source, settings.bands)
    start, length, acquisitions = clip_to_season(found, settings, source, notes)
    check_files(acquisitions, settings.bands)
    return name, start, length, acquisitions


def survey_season(source: Path, config: DataConfig, *, names: bool = False) -> tuple[int, int, None, tuple[str, ...]]:
    """What `ingest_season` would read, without reading a pixel: numbers of dates and bands, and the CRS of each cell.

    Args:
        source: as for `ingest_season`.
        config: as for `ingest_season`.
        names: the images are names only and cannot be opened. Otherwise they are checked against each other.

    Raises:
        ConfigError, DataError: as `ingest_season`.
    """
    folder = _folder(source)
    settings, cells = _settings(folder, config), _cells(folder)
    found = [
        _listed(place, settings, [])[3] if names else _find(place, settings, []).acquisitions
        for place in cells or [source]
    ]
    dates = max(len({each.date for each in dates}) for dates in found)
    return dates, len(settings.bands), None, tuple(cells.values())


def survey_tags(source: Path, config: DataConfig) -> list[str]:
    """Warnings about the tags that `ingest_season` would use, from labels alone: no image is read.

    Returns:
        Sentences as those of `tag_findings`, and a window size that would help, if any. None without labels.

    Raises:
        ConfigError, DataError: as `ingest_season`.
    """
    folder = _folder(source)
    settings, config = _settings(folder, config), merged(source, config)
    if find_labels(folder, settings.labels) is None:
        return []
    seasons = _one_season([_find(place, settings, []) for place in _cells(folder) or [source]])
    config = _sized(config, seasons[0].grid, [])
    layer = open_labels(folder, settings, [])
    if isinstance(layer, TagTable):
        placed = [layer.place(each.name, each.grid, window=config.window)[0] for each in seasons]
        tags = [each.tags for squares in placed for each in squares]
        return tag_findings(np.array(tags), layer.classes) if tags else []
    classes = layer.classes(_present(seasons, layer), [])
    scenes = [layer.labels(classes, each.grid, []) for each in seasons]
    cut = _tags_of(scenes, classes, config, config.window)
    advice = [] if _teach(cut) else _advised(scenes, classes, config, pixel_metres(seasons[0].grid))
    return [*tag_findings(cut, classes.classes), *advice]


def _tags_of(
    scenes: list[NDArray[np.uint8]], classes: ClassNumbers, config: DataConfig, window: int
) -> NDArray[np.uint8]:
    """Tags (N, K) of the windows of a side that fit beside each other and are not all void."""
    parts = (
        labels[row : row + window, col : col + window]
        for labels in scenes
        for row, col in origins(*labels.shape, window=window, stride=window)
    )
    count = len(classes.classes)
    found = [tags_from_labels(part, classes=count, share=config.tag_share) for part in parts if (part != VOID).any()]
    return np.array(found, np.uint8).reshape(-1, count)


def _teach(tags: NDArray[np.uint8]) -> bool:
    """Whether no crop is in nearly all of the windows with these tags (N, K)."""
    return not len(tags) or float(tags.mean(0).max(initial=0)) <= ALWAYS


def _advised(scenes: list[NDArray[np.uint8]], classes: ClassNumbers, config: DataConfig, pixel: float) -> list[str]:
    """The largest window smaller than that of `config` in which no crop is nearly always there."""
    smaller = range(config.window - 2, SMALLEST - 1, -2)
    side = next((side for side in smaller if _teach(_tags_of(scenes, classes, config, side))), None)
    if side is None:
        return [f"No smaller window would teach more, down to {SMALLEST} pixels: add land without that crop."]
    return [
        f"Windows of {side} pixels, {side * pixel:g} m (data.window_metres={side * pixel:g}), are the largest in which "
        f"no crop is nearly always there."
    ]


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
            raise ConfigError(f"{path}: not valid YAML: {error}. Save it as UTF-8") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not valid YAML: {error}") from error
        except OSError as error:
            raise ConfigError(
                f"{path}: not a readable file: {error.strerror}. Write the settings to a text file, or take it away"
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
