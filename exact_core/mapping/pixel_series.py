"""Pixel series sampled from a dataset or from a season's images, with what a segmenter says of them.

Axes are T dates, C bands, S window side, G days of the calendar.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from exact_core.config import TransferConfig
from exact_core.data.season.folder import SeasonImages
from exact_core.data.windows.choice import evenly_chosen
from exact_core.data.windows.dataset import VOID, Window, WindowDataset
from exact_core.data.windows.dates import MIN_DATES, measured_dates
from exact_core.data.windows.regular_series import calendar_of
from exact_core.data.windows.series_sample import (
    DateMeans,
    ReferenceSeason,
    SampleBuilder,
    SeasonSamples,
    SeriesSample,
    some_dates,
)
from exact_core.errors import DataError
from exact_core.mapping.predict import Predictor
from exact_core.mapping.rows import Predict, window_starts

__all__ = ["label_by_tags", "sample_dataset", "sample_season", "sample_training_season"]

VOTES = 9
"""Neighbours that vote on a pixel's class where there is no segmenter."""


def sample_training_season(
    windows: WindowDataset, predictor: Predictor | None, settings: TransferConfig, *, seed: int
) -> SeasonSamples:
    """A sample of a dataset's training windows, and one of windows that were held out.

    Held out are the validation and test splits. Of a dataset without them, windows that share no pixel with those
    sampled for training. Their series are made of a part of their dates (`held_out_dates`): windows of one scene share
    its list of dates, which no other season does.

    Args:
        windows: the training dataset.
        predictor: the segmenter that gives classes. If None, tags do, by way of windows with a single crop.
        settings: `windows`, `pixels` and `held_out_dates` apply.
        seed: of the draw of pixels and dates.
    """
    train, held_out, origin = _divided(windows)
    calendar = calendar_of(windows)
    samples = [
        sample_dataset(windows, indices, predictor, settings, calendar=calendar, seed=seed + number, dates=dates)[0]
        for number, (indices, dates) in enumerate(((train, 1.0), (held_out, settings.held_out_dates)))
    ]
    labelled = "the segmenter"
    if predictor is None:
        labelled = "windows with a single tag"
        teacher = _single_tags(windows, train, settings, calendar, seed=seed)
        samples = [label_by_tags(sample, teacher) for sample in samples]
    manifest = windows.manifest
    season = ReferenceSeason(
        start=manifest.season_start,
        days=manifest.season_days,
        bands=manifest.bands,
        classes=manifest.classes,
        calendar=tuple(calendar.tolist()),
        held_out=origin,
        held_out_dates=settings.held_out_dates,
        labelled=labelled,
    )
    return SeasonSamples(season, *samples)


def sample_dataset(
    windows: WindowDataset,
    indices: NDArray[np.int64],
    predictor: Predictor | None,
    settings: TransferConfig,
    *,
    calendar: NDArray[np.float64],
    seed: int,
    dates: float = 1.0,
) -> tuple[SeriesSample, NDArray[np.float64]]:
    """Pixels of evenly chosen windows, and the mean of each band (C,) over the measured pixel-dates that were used.

    Args:
        windows: the dataset.
        indices: positions to choose from.
        predictor: gives classes and confidence, by all dates of a window. If None, pixels get no class.
        settings: `windows` and `pixels` apply.
        calendar: days since the season's start (G,).
        seed: of the draw of pixels and dates.
        dates: share of each window's dates that its series are made of.
    """
    chosen = _spread(indices, settings.windows)
    builder = SampleBuilder(calendar, per_window=_per_window(settings, len(chosen)), seed=seed)
    told: Iterable[tuple[int, NDArray[np.float32] | None]] = (
        ((index, None) for index in chosen.tolist()) if predictor is None else predictor.stream(chosen.tolist())
    )
    for index, probabilities in told:
        window = windows.window(index)
        if dates < 1:
            window = some_dates(window, dates, np.random.default_rng((seed, index)))
        builder.add(window, probabilities)
    return builder.finish(), builder.measured()[0]


def sample_season(
    images: SeasonImages,
    predict: Predict | None,
    settings: TransferConfig,
    *,
    calendar: NDArray[np.float64],
    side: int,
    batch: int,
    seed: int,
) -> tuple[SeriesSample, NDArray[np.float64], DateMeans]:
    """Pixels of windows spread evenly over a season's area. Only bands of `side` rows of the images are in memory.

    Args:
        images: the season.
        predict: the segmenter. If None, pixels get no class.
        settings: `windows` and `pixels` apply.
        calendar: days since the season's start (G,).
        side: S.
        batch: windows a call of `predict`.
        seed: of the draw of pixels.

    Returns:
        The sample, the mean of each band (C,) over all measured pixel-dates, and those of each date's clear looks.

    Raises:
        DataError: the images are smaller than a window, or no pixel has two clear observations.
    """
    grid = images.grid
    if min(grid.height, grid.width) < side:
        raise DataError(
            f"{grid.file}: {grid.height} x {grid.width} pixels, smaller than the model's window of {side}. "
            f"Give a larger area, or a model of smaller windows"
        )
    places = _places(grid.height, grid.width, side, settings.windows)
    count = sum(map(len, places.values()))
    builder = SampleBuilder(calendar, per_window=_per_window(settings, count), seed=seed)
    for row, columns in places.items():
        pixels, clear = images.read(row, row + side)
        found = []
        for column in columns:
            part = pixels[..., column : column + side]
            # As windows are cut for training: a date that measured nothing of a window is none of its dates.
            if measured_dates(part).sum() >= MIN_DATES:
                found.append((part, clear[..., column // 2 : (column + side) // 2]))
        for first in range(0, len(found), batch):
            chosen = found[first : first + batch]
            probabilities = (
                [None] * len(chosen) if predict is None else [*predict(*map(list, zip(*chosen, strict=True)))]
            )
            for (part, seen), values in zip(chosen, probabilities, strict=True):
                builder.add(_window(part, images.days, seen), values)
    sample = builder.finish()
    if not len(sample):
        raise DataError(
            f"{grid.file}: none of {count} sampled windows has a pixel with two clear observations. Add acquisitions, "
            f"or check the scene classification"
        )
    return sample, builder.measured()[0], builder.date_means()


def label_by_tags(sample: SeriesSample, teacher: SeriesSample) -> SeriesSample:
    """Each pixel with the class of most of its nearest labelled pixels, and the share of them that agree."""
    # Heavy, and trainings and most reports do without.
    from sklearn.neighbors import KNeighborsClassifier

    teacher = teacher.take(teacher.label != VOID)
    if not len(sample) or not len(teacher):
        return sample
    std = teacher.series.std((0, 1)) + 1e-6
    known, mine = ((each.series / std).reshape(len(each), -1) for each in (teacher, sample))
    voters = KNeighborsClassifier(min(VOTES, len(known))).fit(known, teacher.label)
    votes = voters.predict_proba(mine)
    return SeriesSample(
        sample.series,
        sample.gap,
        voters.classes_[votes.argmax(1)].astype(np.uint8),
        votes.max(1).astype(np.float32),
        sample.window,
    )


def _single_tags(
    windows: WindowDataset,
    train: NDArray[np.int64],
    settings: TransferConfig,
    calendar: NDArray[np.float64],
    *,
    seed: int,
) -> SeriesSample:
    """Pixels of training windows in which a single crop is tagged, all taken for that crop."""
    single = train[windows.tags[train].sum(1) == 1]
    chosen = _spread(single, settings.windows)
    sample, _ = sample_dataset(windows, single, None, settings, calendar=calendar, seed=seed)
    if not len(sample):
        return sample
    label = (windows.tags[chosen].argmax(1) + 1)[sample.window].astype(np.uint8)
    return SeriesSample(sample.series, sample.gap, label, sample.confidence, sample.window)


def _divided(windows: WindowDataset) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Positions to sample for training and as held out, and what the latter are."""
    train = windows.indices("train")
    held_out = np.sort(np.concatenate([windows.indices("validation"), windows.indices("test")]))
    if len(held_out):
        return train, held_out, "the validation and test splits"
    side = windows.manifest.window
    records = [windows.records[int(index)] for index in train]
    scenes = list(dict.fromkeys(record.scene for record in records))
    if len(scenes) > 2:
        away = set(scenes[-(len(scenes) // 3) :])
        chosen = np.array([record.scene in away for record in records])
        return train[~chosen], train[chosen], "the last third of the scenes, which were trained on too"
    for axis in ("col", "row"):
        place = np.array([getattr(record, axis) for record in records])
        cut = place.min() + 2 * (place.max() + side - place.min()) // 3
        ours, theirs = place + side <= cut, place >= cut
        if ours.any() and theirs.any():
            return train[ours], train[theirs], "the last third of the scene, which was trained on too"
    return train, train, "the training windows themselves: the scene is too small to hold any out"


def _window(pixels: NDArray[np.int16], days: NDArray[np.int64], clear: NDArray[np.bool_]) -> Window:
    measured = measured_dates(pixels)
    return Window(
        pixels=pixels[measured],
        days=days[measured].astype(np.int16),
        tags=np.zeros(0, np.uint8),
        labels=None,
        clear=clear[measured].astype(np.uint8),
    )


def _places(height: int, width: int, side: int, count: int) -> dict[int, list[int]]:
    """First rows of bands, and the first columns of windows in each: about `count` windows, evenly over the area."""
    rows, columns = (window_starts(length, side, max(2, side // 4 * 2)) for length in (height, width))
    bands = int(np.clip(round(np.sqrt(count * height / width)), 1, len(rows)))
    across = int(np.clip(-(-count // bands), 1, len(columns)))
    return {
        int(row): [int(column) for column in _spread(np.array(columns), across)]
        for row in _spread(np.array(rows), bands)
    }


def _spread(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the values, in even steps. The middle one where only one is asked for."""
    if len(values) and count == 1:
        return values[[len(values) // 2]]
    return values[evenly_chosen(len(values), count)]


def _per_window(settings: TransferConfig, windows: int) -> int:
    return -(-settings.pixels // max(windows, 1))
