"""Stage `ingest`: a source of images and tags -> a window dataset."""

from __future__ import annotations

import calendar
import datetime as dt
import logging
import re
from pathlib import Path

from exact_core.config import RunConfig
from exact_core.data.germany.tiles import ingest_germany
from exact_core.data.pastis.patches import ingest_pastis
from exact_core.data.season.folder import ingest_season
from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker

__all__ = ["KINDS", "STAGE", "ingest", "parse_season", "parse_source", "with_season"]

STAGE = Stage(
    name="ingest", size="data", minutes=240, image="data", reads_source=True, writes={"dataset": ("dataset.json",)}
)

log = logging.getLogger(__name__)

KINDS = ("synthetic", "pastis", "germany", "season")
"""Of sources; all but the first want a path."""


def ingest(config: RunConfig, *, source: str, season: str, out: Path, tracker: Tracker) -> dict[str, float]:
    """Read a source and write its windows to `out`.

    Args:
        config: `config.data` says how windows, tags and splits are made.
        source: `synthetic`, `pastis:PATH`, `germany:PATH` or `season:PATH`.
        season: for a `season:` source, a year or START/DAYS; empty: what the source or the configuration says.
        out: folder of the dataset.
        tracker: gets the dataset's name and digest.

    Returns:
        Numbers of windows, of training windows and of classes.

    Raises:
        ConfigError: unknown kind of source.
        DataError: the source is not what it should be.
    """
    kind, place = parse_source(source)
    config = with_season(config, season, kind=kind)
    if kind == "synthetic":
        ingest_synthetic(config.data, out, seed=config.seed)
    elif kind == "pastis":
        ingest_pastis(Path(place), config.data, out)
    elif kind == "germany":
        ingest_germany(Path(place), config.data, out)
    else:
        ingest_season(Path(place), config.data, out, seed=config.seed)
    manifest = WindowDataset(out).manifest
    tracker.log_dataset(out, name=manifest.name, digest=manifest.digest, source=source)
    tracker.log_file(out / "dataset.json")
    for note in manifest.notes:
        log.info("ingest: note: %s", note)
    log.info(
        "ingest: %s windows (train %d, validation %d, test %d), %d crops, digest %s",
        sum(manifest.splits.values()),
        *(manifest.splits[split] for split in ("train", "validation", "test")),
        len(manifest.classes),
        manifest.digest[:12],
    )
    summary = {
        "windows": float(sum(manifest.splits.values())),
        "training_windows": float(manifest.splits["train"]),
        "classes": float(len(manifest.classes)),
    }
    tracker.log_summary(summary)
    return summary


def parse_source(source: str) -> tuple[str, str]:
    """Kind and place of a source: `synthetic`, `pastis:PATH`, `germany:PATH` or `season:PATH`.

    Raises:
        ConfigError: text of another form.
    """
    kind, _, place = source.partition(":")
    if kind not in KINDS or bool(place) != (kind != "synthetic"):
        raise ConfigError(f"unknown source {source!r}; expected synthetic, pastis:PATH, germany:PATH or season:PATH")
    # A path on the command line loses the second slash.
    if kind == "season" and (address := re.match(r"(https?):/+(.*)", place)):
        raise ConfigError(
            f"{source!r}: the images are not on this disk; fetch them first, then name the folder: exact fetch "
            f"{address[1]}://{address[2]} FOLDER --collection NAME --bbox W S E N --start YYYY-MM-DD --end YYYY-MM-DD"
        )
    return kind, place


def with_season(config: RunConfig, season: str, *, kind: str) -> RunConfig:
    """The configuration for one season: a year (1 January, whole year) or START/DAYS, as 2021-09-01/300.

    Raises:
        ConfigError: a season for a source that has its own, or text of another form.
    """
    if not season:
        return config
    if kind != "season":
        raise ConfigError(f"season = {season!r}: a {kind} source has its own season; leave the parameter empty")
    start, days = parse_season(season)
    chosen = config.data.season.model_copy(update={"start": start, "days": days})
    return config.model_copy(update={"data": config.data.model_copy(update={"season": chosen})})


def parse_season(season: str) -> tuple[dt.date, int]:
    """First day and length in days of a season: a year (1 January, whole year) or START/DAYS, as 2021-09-01/300.

    Raises:
        ConfigError: text of another form.
    """
    match = re.fullmatch(r"(\d{4})(?:-(\d\d)-(\d\d)/(\d+))?", season, re.ASCII)
    try:
        if match is None:
            raise ValueError("expected a year (2021) or START/DAYS (2021-09-01/300)")
        year, month, day, days = match.groups()
        start = dt.date(int(year), int(month or 1), int(day or 1))
        length = int(days) if days else 365 + calendar.isleap(int(year))
        if length < 1:
            raise ValueError("a season has at least 1 day")
    except ValueError as error:
        raise ConfigError(f"season = {season!r}: {error}") from error
    return start, length
