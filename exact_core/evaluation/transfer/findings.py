"""Whether a model trained on one season will hold on another: findings, each with a level and its reason in words.

What is compared are samples of pixel series on one calendar (`data.windows.series_sample`): of the windows that the
model learned from, of windows of the same season that were held out, and of the new season, of which nothing is
labelled. The held-out windows say how far apart two samples of one season lie. What is beyond that is the new season's.

Axes are N pixels, G days of the calendar, C bands, K crops.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from exact_core.config import TransferConfig
from exact_core.data.season.radiometry import OFFSET
from exact_core.data.windows.dataset import Statistics
from exact_core.data.windows.series_sample import SeasonSamples, SeriesSample
from exact_core.evaluation.transfer.distances import (
    band_distance,
    best_lag,
    class_curves,
    curve_lag,
    importance,
    neighbour_distances,
    normalised_difference,
)

__all__ = [
    "BandRow",
    "ClassRow",
    "Finding",
    "Level",
    "Transfer",
    "compare_seasons",
    "compare_statistics",
    "level_of",
    "part_dates",
    "worst",
]

HELD_OUT_QUANTILE = 0.95
"""Quantile of the distances of held-out series. Series beyond that distance are outside training."""
"""What products of processing baseline 04.00 and later add to reflectance x 10,000."""
FEWEST_PIXELS = 50
KEY = 1.0
"""Days whose importance is above this many times the mean are key times."""
SEEN_SHARE = 0.5
"""A day is missing where the new season shows less than this share of what training showed on it."""


class Level(StrEnum):
    """What a finding asks for, in ascending order."""

    fine = "fine"
    look = "look"
    do_not_publish = "do_not_publish"

    @property
    def rank(self) -> int:
        """Its place in that order."""
        return list(Level).index(self)

    @property
    def words(self) -> str:
        """As a person says it."""
        return self.value.replace("_", " ")

    @property
    def way_out(self) -> str:
        """What to do."""
        return WAYS_OUT[self.value]


WAYS_OUT = {
    "fine": "Map this season with the model.",
    "look": "Look at the report before you publish the map.",
    "do_not_publish": "Mend the images, leave out the dates that spoil them (data.season.leave_out), or train on this "
    "season.",
}


def worst(levels: Sequence[Level]) -> Level:
    """The highest of some levels."""
    return max(levels, key=lambda level: level.rank, default=Level.fine)


@dataclass(frozen=True)
class Finding:
    """One finding, with its level, the value behind it (None if unknown), and the reason in words."""

    name: str
    title: str
    level: Level
    value: float | None
    reason: str


@dataclass(frozen=True)
class BandRow:
    """A band's reflectance against training's, in standard deviations of training. own: that of held-out windows.

    part: the part of the season, from 0. If None, all of it. shift: of the mean. distance: Wasserstein-1.
    """

    band: str
    part: int | None
    shift: float
    distance: float
    own: float
    offset: float
    """Shift of the mean in stored units."""

    @property
    def beyond(self) -> float:
        """Distance beyond that of held-out windows, at least 0."""
        return max(self.distance - (0.0 if np.isnan(self.own) else self.own), 0.0)


@dataclass(frozen=True)
class ClassRow:
    """A class of the new season, as the model sees it, against held-out windows of training. If None, not known."""

    name: str
    level: Level
    share: float
    own_share: float
    outside: float | None
    own_outside: float | None
    confidence: float | None
    own_confidence: float | None
    shift: float | None
    reason: str


@dataclass(frozen=True)
class Transfer:
    """All findings."""

    findings: list[Finding]
    bands: list[BandRow] = field(default_factory=list)
    classes: list[ClassRow] = field(default_factory=list)
    days: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Days of the calendar since the new season's start (G,)."""
    importance: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    seen: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 0)))
    """Share of pixels with a clear look nearby, in training and in the new season (2, G)."""

    @property
    def verdict(self) -> Level:
        """The worst level."""
        return worst([each.level for each in self.findings])


def compare_seasons(
    reference: SeasonSamples,
    sample: SeriesSample,
    settings: TransferConfig,
    *,
    start: dt.date,
    days: NDArray[np.float64],
) -> Transfer:
    """Hold a new season against the one a model was trained on.

    Args:
        reference: of the training season. Neither of its samples is empty.
        sample: of the new season, not empty, on the reference's calendar.
        settings: what is how bad.
        start: first day of the new season, for dates in words.
        days: the calendar in days since then (G,).
    """
    bands, reach = reference.season.bands, settings.reach
    train, held_out, new = (each.supported(reach) for each in (reference.train, reference.held_out, sample))
    rows = _bands(reference, train, held_out, new, settings)
    std = np.array([np.nanstd(train[..., band], dtype=np.float64) or 1.0 for band in range(len(bands))])
    own = neighbour_distances(held_out, train, std, neighbours=settings.neighbours)
    theirs = neighbour_distances(new, train, std, neighbours=settings.neighbours)
    limit = float(np.nanquantile(own, HELD_OUT_QUANTILE)) if not np.isnan(own).all() else np.inf
    lag, _ = best_lag(new, train, std, reference.calendar, neighbours=settings.neighbours)
    classes = _classes(reference, sample, settings, held_out=own > limit, new=theirs > limit)
    seen = np.stack([(each.gap <= reach).mean(0) for each in (reference.train, sample)])
    # What training hardly saw, the model cannot have learned to rest on.
    weights = seen[0] * importance(train, reference.train.label, bands, classes=len(reference.season.classes))
    weights = weights / weights.sum() if weights.any() else np.full(len(weights), 1 / len(weights))
    findings = [
        _bands_finding(rows, settings),
        _parts_finding(rows, settings, start=start, days=days),
        _series_finding(own, theirs, limit, reference.held_out.window, settings),
        _shift_finding(lag, settings),
        _classes_finding(classes),
        _dates_finding(weights, seen, settings, start=start, days=days),
    ]
    return Transfer(findings, rows, classes, days, weights, seen)


def compare_statistics(
    statistics: Statistics, mean: NDArray[np.float64], bands: tuple[str, ...], settings: TransferConfig
) -> Transfer:
    """Findings for a model without a sample, from the means of its bands over all pixel-dates, clouds included.

    Args:
        statistics: of the training split.
        mean: of the new season's measured pixel-dates (C,), stored units.
        bands: their names.
        settings: `bands` applies.
    """
    rows = [
        BandRow(band, None, (new - old) / std, abs(new - old) / std, 0.0, new - old)
        for band, new, old, std in zip(bands, mean.tolist(), statistics.mean, statistics.std, strict=True)
    ]
    largest = max(rows, key=lambda row: row.distance)
    level = level_of(largest.distance, settings.bands)
    reason = f"{largest.band} is {largest.shift:+.2f} standard deviations from training on average, clouds included"
    missing = Finding(
        "reference",
        "Sample of the training season",
        Level.look,
        None,
        "the model carries no sample of its season, so series, timing, classes and dates cannot be compared. Train it "
        "again, or give its training dataset",
    )
    return Transfer([Finding("bands", "Reflectance", level, largest.distance, reason), missing], rows)


def level_of(value: float, limits: tuple[float, float]) -> Level:
    """The level of a value, by the limits of the two levels above fine. An unknown value (NaN) is fine."""
    if value >= limits[1]:
        return Level.do_not_publish
    return Level.look if value >= limits[0] else Level.fine


# Reflectance


def _bands(
    reference: SeasonSamples,
    train: NDArray[np.float32],
    held_out: NDArray[np.float32],
    new: NDArray[np.float32],
    settings: TransferConfig,
) -> list[BandRow]:
    """All bands over the season, then in each of its parts."""
    count = train.shape[1]
    parts: list[tuple[int | None, NDArray[np.int64]]] = [(None, np.arange(count))]
    if settings.parts > 1:
        parts += list(enumerate(np.array_split(np.arange(count), min(settings.parts, count))))
    rows = []
    for part, places in parts:
        for number, band in enumerate(reference.season.bands):
            ours, own, theirs = (each[:, places, number].ravel() for each in (train, held_out, new))
            shift, distance = band_distance(ours, theirs)
            offset = float(np.nanmean(theirs) - np.nanmean(ours)) if not np.isnan(distance) else np.nan
            rows.append(BandRow(band, part, shift, distance, band_distance(ours, own)[1], offset))
    return rows


def _bands_finding(rows: list[BandRow], settings: TransferConfig) -> Finding:
    known = [row for row in rows if row.part is None and not np.isnan(row.distance)]
    if not known:
        return Finding(
            "bands", "Reflectance", Level.do_not_publish, None, "no day of the season has clear pixels to compare"
        )
    largest = max(known, key=lambda row: row.beyond)
    level = level_of(largest.beyond, settings.bands)
    reason = (
        f"largest in {largest.band}: {largest.distance:.2f} training standard deviations "
        f"(held-out windows {largest.own:.2f}), mean {largest.shift:+.2f}"
    )
    offsets = np.array([row.offset for row in known])
    middle = float(np.median(offsets))
    if level != Level.fine and np.abs(np.abs(middle) - OFFSET) < 250 and (np.sign(offsets) == np.sign(middle)).all():
        reason += (
            f"; every band is {'brighter' if middle > 0 else 'darker'}, by {abs(middle):.0f} in the median. Is this "
            f"the offset of {OFFSET} of processing baseline 04.00, "
            f"{'not taken off' if middle > 0 else 'taken off twice'}?"
        )
    return Finding("bands", "Reflectance", level, largest.beyond, reason)


def _parts_finding(
    rows: list[BandRow], settings: TransferConfig, *, start: dt.date, days: NDArray[np.float64]
) -> Finding:
    title = "Reflectance, part by part"
    known = [row for row in rows if row.part is not None and not np.isnan(row.distance)]
    if not known:
        return Finding("parts", title, Level.fine, None, "the season was not divided")
    largest = max(known, key=lambda row: row.beyond)
    assert largest.part is not None
    first, last = part_dates(days, 1 + max(row.part or 0 for row in rows), start=start)[largest.part]
    reason = (
        f"largest in {largest.band}, {first} to {last}: "
        f"{largest.distance:.2f} training standard deviations (held-out windows {largest.own:.2f})"
    )
    return Finding("parts", title, level_of(largest.beyond, settings.part_bands), largest.beyond, reason)


def part_dates(days: NDArray[np.float64], parts: int, *, start: dt.date) -> list[tuple[str, str]]:
    """First and last date of each part of the season, in words: half a step of the calendar beyond its days."""
    half = _half_step(days)
    return [(_day(start, places[0] - half), _day(start, places[-1] + half)) for places in np.array_split(days, parts)]


def _half_step(days: NDArray[np.float64]) -> float:
    return float(days[1] - days[0]) / 2 if len(days) > 1 else 0.0


# Series and timing


def _series_finding(
    own: NDArray[np.float64],
    theirs: NDArray[np.float64],
    limit: float,
    window: NDArray[np.int32],
    settings: TransferConfig,
) -> Finding:
    title = "Series unlike any of training"
    known = ~np.isnan(theirs)
    if not known.any() or np.isinf(limit):
        return Finding("series", title, Level.do_not_publish, None, "no series shares a clear day with training")
    share = float((theirs[known] > limit).mean())
    reason = f"{100 * share:.0f} % of the series are farther from training than 95 % of its held-out ones"
    crossed = _crossed(own, window)
    if crossed is not None:
        reason += f"; held-out halves, each by the limit of the other: {100 * crossed:.0f} %"
    return Finding("series", title, level_of(share - (1 - HELD_OUT_QUANTILE), settings.outside), share, reason)


def _crossed(own: NDArray[np.float64], window: NDArray[np.int32]) -> float | None:
    """Share outside in each half of the held-out windows by the limit of the other: what 5 % is worth."""
    halves = [own[(window % 2 == half) & ~np.isnan(own)] for half in (0, 1)]
    if min(map(len, halves)) < FEWEST_PIXELS:
        return None
    limits = [np.quantile(half, HELD_OUT_QUANTILE) for half in halves]
    return float(np.mean([(halves[0] > limits[1]).mean(), (halves[1] > limits[0]).mean()]))


def _shift_finding(lag: int, settings: TransferConfig) -> Finding:
    reason = (
        f"the season is most similar to training if shifted by {abs(lag)} days. Growth is this "
        f"{'late' if lag > 0 else 'early'}, or the first day of the season is wrong"
        if lag
        else "no shift in time makes the season more like training"
    )
    return Finding("shift", "Timing", level_of(abs(lag), settings.shift), float(lag), reason)


# Classes


def _classes(
    reference: SeasonSamples,
    sample: SeriesSample,
    settings: TransferConfig,
    *,
    held_out: NDArray[np.bool_],
    new: NDArray[np.bool_],
) -> list[ClassRow]:
    """Every class that the model finds in the new season or in training."""
    names = ("background", *reference.season.classes)
    curves, calendar = [], reference.calendar
    for each in (reference.train, sample):
        values = normalised_difference(each.supported(settings.reach), reference.season.bands)
        curves.append(None if values is None else class_curves(values, each.label, classes=len(names) - 1))
    rows = []
    for number, name in enumerate(names):
        mine, ours = sample.label == number, reference.held_out.label == number
        if not mine.any() and not ours.any():
            continue
        old, fresh = curves
        # Background is a mixture: what it is of, not when it grows, moves its curve.
        shift = None
        if number and old is not None and fresh is not None:
            shift = curve_lag(fresh[number], old[number], calendar)
        rows.append(
            _class_row(
                name,
                share=float(mine.mean()),
                own_share=float(ours.mean()),
                outside=_mean(new, mine),
                own_outside=_mean(held_out, ours),
                confidence=_mean(sample.confidence, mine),
                own_confidence=_mean(reference.held_out.confidence, ours),
                shift=shift,
                settings=settings,
            )
        )
    return rows


def _mean(values: NDArray[np.float32] | NDArray[np.bool_], chosen: NDArray[np.bool_]) -> float | None:
    if chosen.sum() < FEWEST_PIXELS:
        return None
    mean = float(np.mean(values[chosen], dtype=np.float64))
    return None if np.isnan(mean) else mean


def _class_row(
    name: str,
    *,
    share: float,
    own_share: float,
    outside: float | None,
    own_outside: float | None,
    confidence: float | None,
    own_confidence: float | None,
    shift: float | None,
    settings: TransferConfig,
) -> ClassRow:
    """A class with its level. What is not known does not count."""
    found: list[tuple[Level, str]] = []
    if share >= settings.smallest_class and outside is not None:
        own = 1 - HELD_OUT_QUANTILE if own_outside is None else own_outside
        found.append(
            (level_of(outside - own, settings.outside), f"{100 * outside:.0f} % outside training ({100 * own:.0f} %)")
        )
        if confidence is not None and own_confidence is not None:
            loss = own_confidence - confidence
            found.append(
                (level_of(loss, settings.confidence), f"confidence {confidence:.2f} instead of {own_confidence:.2f}")
            )
        if shift is not None:
            found.append(
                (
                    level_of(abs(shift), settings.shift),
                    f"growth {abs(shift):.0f} days {'later' if shift > 0 else 'earlier'}",
                )
            )
    level = worst([each for each, _ in found])
    reasons = [text for each, text in found if each != Level.fine]
    return ClassRow(
        name=name,
        level=level,
        share=share,
        own_share=own_share,
        outside=outside,
        own_outside=own_outside,
        confidence=confidence,
        own_confidence=own_confidence,
        shift=shift,
        reason="; ".join(reasons) if found else "too few pixels",
    )


def _classes_finding(rows: list[ClassRow]) -> Finding:
    title = "Classes at risk"
    if not rows:
        return Finding("classes", title, Level.look, None, "no class is known of the sampled pixels")
    level = worst([row.level for row in rows])
    bad = [row for row in rows if row.level != Level.fine]
    share = float(sum(row.share for row in bad))
    if not bad:
        return Finding("classes", title, level, 0.0, "every class looks as it did in training")
    first = max(bad, key=lambda row: (row.level.rank, row.share))
    others = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    return Finding("classes", title, level, share, f"{first.name}: {first.reason}{others}")


# Dates


def _dates_finding(
    weights: NDArray[np.float64],
    seen: NDArray[np.float64],
    settings: TransferConfig,
    *,
    start: dt.date,
    days: NDArray[np.float64],
) -> Finding:
    key = key_days(weights)
    missing = key & missing_days(seen)
    share = float(weights[missing].sum() / weights[key].sum())
    level = level_of(share, settings.dates)
    if not missing.any():
        stretches = "; ".join(_stretches(key, start, days))
        return Finding("dates", "Key times", level, share, f"the key times ({stretches}) have clear looks")
    parts = [
        f"{name}: {100 * seen[1, places].mean():.0f} % of the area has a clear look within {settings.reach} days, "
        f"in training {100 * seen[0, places].mean():.0f} %"
        for name, places in _stretches(missing, start, days).items()
    ]
    return Finding("dates", "Key times", level, share, "; ".join(parts))


def key_days(weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Days of the calendar (G,) with more weight than the mean day."""
    key: NDArray[np.bool_] = weights >= KEY * weights.mean()
    return key


def missing_days(seen: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Days (G,) on which the new season shows far less of the area than training did."""
    return np.asarray(seen[1] < SEEN_SHARE * seen[0])


def _stretches(chosen: NDArray[np.bool_], start: dt.date, days: NDArray[np.float64]) -> dict[str, list[int]]:
    """Runs of days, named by their first and last date, half a step of the calendar beyond them."""
    half = _half_step(days)
    found = {}
    for value, run in groupby(range(len(days)), key=lambda place: bool(chosen[place])):
        places = list(run)
        if value:
            found[f"{_day(start, days[places[0]] - half)} to {_day(start, days[places[-1]] + half)}"] = places
    return found


def _day(start: dt.date, day: float) -> str:
    date = start + dt.timedelta(days=round(float(day)))
    return f"{date.day} {date:%B}"
