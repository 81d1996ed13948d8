"""Stage `gather_seasons`: a dataset a season -> all of them as one folder, from which each can be left out."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exact_core.artifacts.folders import fresh_folder
from exact_core.data.windows.combined import check_alike
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, DataError
from exact_core.files import link_or_copy
from exact_core.manifest import publish_record, read_record
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker

__all__ = ["GATHERED", "STAGE", "Fold", "check_seasons", "gather_seasons", "open_fold"]

STAGE = Stage(name="gather_seasons", size="data", minutes=240, image="data", writes={"seasons": ("seasons.json",)})

log = logging.getLogger(__name__)

GATHERED = "seasons.json"


@dataclass(frozen=True)
class Fold:
    """One season that is left out, and those that are learned from. All folders of window datasets."""

    left_out: Path
    seen: tuple[Path, ...]


def gather_seasons(*, datasets: Sequence[Path], out: Path, tracker: Tracker) -> list[str]:
    """Put the datasets side by side, in the order of their first days.

    Files are linked, not copied, where the file system can.

    Args:
        datasets: folders, one a season, of equal bands, classes and window.
        out: folder. NN/ for each dataset, and last seasons.json.
        tracker: gets the list.

    Returns:
        Names I/N of the folds, for a step each: the I-th leaves out the I-th season.

    Raises:
        ConfigError: fewer than two datasets, they differ, or one is there twice.
    """
    windows = [WindowDataset(folder) for folder in datasets]
    check_seasons(windows)
    windows.sort(key=lambda each: (each.manifest.season_start, each.manifest.digest))
    fresh_folder(out, GATHERED)
    seasons = []
    for number, each in enumerate(windows):
        folder = out / f"{number:02d}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(each.root, folder, copy_function=link_or_copy)
        manifest = each.manifest
        seasons.append(
            {"folder": folder.name, "season_start": str(manifest.season_start), "source": manifest.source}
            | {"digest": manifest.digest, "windows": sum(manifest.splits.values())}
        )
        log.info("gather_seasons: %s: %s, starts %s", folder.name, manifest.source, manifest.season_start)
    publish_record(out / GATHERED, {"seasons": seasons})
    tracker.log_file(out / GATHERED)
    tracker.log_summary({"seasons": float(len(seasons))})
    return _names(len(seasons))


def open_fold(folder: Path, fold: str) -> Fold:
    """The fold of that name.

    Raises:
        ConfigError: there is none.
        DataError: the folder holds no gathered seasons.
    """
    path = folder / GATHERED
    if not path.is_file():
        raise DataError(f"{folder}: no {GATHERED} there, so no gathered seasons")
    seasons = [folder / each["folder"] for each in read_record(path)["seasons"]]
    names = _names(len(seasons))
    if fold not in names:
        raise ConfigError(f"fold = {fold!r}: expected one of {', '.join(names)}")
    left_out = seasons.pop(names.index(fold))
    return Fold(left_out, tuple(seasons))


def check_seasons(datasets: Sequence[WindowDataset]) -> None:
    """Accept datasets that can be left out in turn.

    Raises:
        ConfigError: fewer than two, they differ in bands, classes or window, or one is there twice.
    """
    if len(datasets) < 2:
        raise ConfigError(f"{len(datasets)} dataset: give two seasons or more, one to be left out in turn")
    check_alike(datasets)
    for number, each in enumerate(datasets):
        for other in datasets[:number]:
            if each.manifest.digest == other.manifest.digest:
                raise ConfigError(
                    f"{other.root} and {each.root} are the same dataset ({each.manifest.source}, season from "
                    f"{each.manifest.season_start}): it would be in training and in the test. Give each season once"
                )


def _names(count: int) -> list[str]:
    return [f"{number}/{count}" for number in range(1, count + 1)]
