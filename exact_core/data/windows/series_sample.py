"""A sample of a season's pixel series on a regular calendar: the model's training data, small enough to go with it.

    reference.safetensors, beside a segmenter's weights. Of each sample (train_, held_out_)
        series      int16 (N, G, C)    reflectance x 10,000 on the calendar, linear between clear observations
        gap         int16 (N, G)       days from the calendar's day to the nearest clear observation
        label       uint8 (N,)         class that the segmenter gave, VOID: none
        confidence  float32 (N,)       its probability, NaN: not known
        window      int32 (N,)         which of the sampled windows the pixel comes from
    and the season (`ReferenceSeason`) as JSON in the file's metadata

Axes are N pixels, T dates, C bands, H W pixels of a window, G days of the calendar.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from exact_core.config import Settings, describe
from exact_core.data.windows.clear_looks import all_of_patches
from exact_core.data.windows.dataset import CLEAR_PATCH, VOID, Window
from exact_core.data.windows.dates import MIN_DATES
from exact_core.data.windows.regular_series import calendar_series
from exact_core.errors import CorruptError
from exact_core.files import publishing_tensors
from exact_core.json_values import read_json

__all__ = [
    "NEVER",
    "SAMPLES_FILE",
    "DateMeans",
    "ReferenceSeason",
    "SampleBuilder",
    "SeasonSamples",
    "SeriesSample",
    "clear_looks",
    "load_season_samples",
    "look_gaps",
    "save_season_samples",
    "some_dates",
]

SAMPLES_FILE = "reference.safetensors"
NEVER = 9999
"""Gap of a pixel without any clear observation, days."""


class ReferenceSeason(Settings):
    """The season that a reference was sampled from."""

    start: dt.date
    days: int = Field(description="length of the season, days")
    bands: tuple[str, ...]
    classes: tuple[str, ...] = Field(description="names of crops 1..K; 0 is background")
    calendar: tuple[float, ...] = Field(description="days of the calendar, since season start")
    held_out: str = Field(description="which windows the held-out sample is of")
    held_out_dates: float = Field(
        1.0, description="share of their dates that the series of the held-out sample use; 1 in older files"
    )
    labelled: str = Field(description="where labels and confidence come from")


@dataclass(frozen=True)
class SeriesSample:
    """Pixels of a season. Arrays as in the module's docstring, series in float32."""

    series: NDArray[np.float32]
    gap: NDArray[np.int16]
    label: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    window: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.series)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> SeriesSample:
        """Some of the pixels."""
        return SeriesSample(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})

    def supported(self, reach: int) -> NDArray[np.float32]:
        """The series (N, G, C) with NaN on days without a clear observation within `reach` days."""
        return np.where((self.gap <= reach)[:, :, None], self.series, np.float32(np.nan))


@dataclass(frozen=True)
class SeasonSamples:
    """The training pixels of a model (`train`), and other pixels of the same season (`held_out`)."""

    season: ReferenceSeason
    train: SeriesSample
    held_out: SeriesSample

    @property
    def calendar(self) -> NDArray[np.float64]:
        """Days since the season's start (G,)."""
        return np.array(self.season.calendar)

    def first(self, days: int) -> SeasonSamples:
        """The first days of the calendar. Confidence is that of the whole season, so it is not known of a part."""
        if days == len(self.season.calendar):
            return self
        season = self.season.model_copy(update={"calendar": self.season.calendar[:days]})
        cut = [
            replace(
                each,
                series=each.series[:, :days],
                gap=each.gap[:, :days],
                confidence=np.full_like(each.confidence, np.nan),
            )
            for each in (self.train, self.held_out)
        ]
        return SeasonSamples(season, *cut)


@dataclass(frozen=True)
class DateMeans:
    """Means of a season's dates over their clear looks at the sampled windows.

    days: since the season's start (T,), ascending. mean: of each band (T, C), as stored.
    """

    days: NDArray[np.int64]
    mean: NDArray[np.float64]


class SampleBuilder:
    """Collects pixels of windows.

    Args:
        calendar: days since season start (G,).
        per_window: pixels taken of a window, at random, of those with at least two clear observations.
        seed: of the draw.
    """

    def __init__(self, calendar: NDArray[np.float64], *, per_window: int, seed: int) -> None:
        self._calendar, self._per_window, self._seed = calendar, per_window, seed
        self._parts: list[SeriesSample] = []
        self._windows = 0
        self._moments: NDArray[np.float64] | None = None
        self._looks: dict[int, NDArray[np.float64]] = {}

    def add(self, window: Window, probabilities: NDArray[np.float32] | None = None) -> None:
        """Take pixels of a window. `probabilities` (K + 1, H, W) give them a class and its confidence."""
        clear = clear_looks(window)
        measured = window.pixels.any(1)
        values = window.pixels.transpose(1, 0, 2, 3)[:, measured].astype(np.float64)
        moments = np.stack([np.full(len(values), values.shape[1], np.float64), values.sum(1), np.square(values).sum(1)])
        self._moments = moments if self._moments is None else self._moments + moments
        self._add_looks(window, clear)
        number, self._windows = self._windows, self._windows + 1
        usable = np.flatnonzero(_per_pixel(clear.sum(0) >= MIN_DATES))
        if not len(usable):
            return
        rng = np.random.default_rng((self._seed, number))
        chosen = np.sort(rng.permutation(usable)[: self._per_window])
        series = calendar_series(replace(window, clear=clear.astype(np.uint8)), self._calendar)[chosen]
        gap = look_gaps(window.days, clear, self._calendar)
        label, confidence = np.full(len(chosen), VOID, np.uint8), np.full(len(chosen), np.nan, np.float32)
        if probabilities is not None:
            flat = probabilities.reshape(len(probabilities), -1)[:, chosen]
            label, confidence = flat.argmax(0).astype(np.uint8), flat.max(0).astype(np.float32)
        # Rounded as it is stored: a sample compares alike before and after it was saved.
        self._parts.append(
            SeriesSample(
                np.rint(series), _per_pixel(gap)[chosen], label, confidence, np.full(len(chosen), number, np.int32)
            )
        )

    def _add_looks(self, window: Window, clear: NDArray[np.bool_]) -> None:
        """Add up, date by date, how many pixels are clear and their values: (1 + C,)."""
        seen = clear.repeat(CLEAR_PATCH, 1).repeat(CLEAR_PATCH, 2)
        counts = seen.sum((1, 2))
        for place in np.flatnonzero(counts).tolist():
            values = window.pixels[place][:, seen[place]].sum(1, dtype=np.float64)
            day = int(window.days[place])
            self._looks[day] = self._looks.get(day, 0.0) + np.concatenate([[counts[place]], values])

    def date_means(self) -> DateMeans:
        """Of every date with a clear look."""
        days = sorted(self._looks)
        sums = np.array([self._looks[day] for day in days]).reshape(len(days), -1)
        return DateMeans(np.array(days, np.int64), sums[:, 1:] / sums[:, :1])

    def finish(self) -> SeriesSample:
        """All pixels taken so far. The sample may be empty."""
        if not self._parts:
            days, bands = len(self._calendar), 0 if self._moments is None else self._moments.shape[1]
            return SeriesSample(
                np.zeros((0, days, bands), np.float32),
                np.zeros((0, days), np.int16),
                np.zeros(0, np.uint8),
                np.zeros(0, np.float32),
                np.zeros(0, np.int32),
            )
        return SeriesSample(
            **{
                each.name: np.concatenate([getattr(part, each.name) for part in self._parts])
                for each in fields(SeriesSample)
            }
        )

    def measured(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each band (C,) over all measured pixel-dates, clouds included."""
        if self._moments is None:
            return np.zeros(0), np.zeros(0)
        count, total, squares = self._moments
        mean = total / np.maximum(count, 1)
        return mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))


def clear_looks(window: Window) -> NDArray[np.bool_]:
    """Where a patch was measured completely and, if clouds are known, has none: (T, H/2, W/2)."""
    clear = all_of_patches(np.asarray(window.pixels.any(1)))
    return clear if window.clear is None else np.asarray(clear & (window.clear > 0))


def some_dates(window: Window, share: float, rng: np.random.Generator) -> Window:
    """A window with another list of dates: a random share of its own, in order.

    Args:
        window: of T dates.
        share: of the dates, of 1. At least two remain, as a series needs.
        rng: draws them.
    """
    dates = len(window.days)
    count = min(dates, max(MIN_DATES, round(share * dates)))
    chosen = np.sort(rng.permutation(dates)[:count])
    return replace(
        window,
        pixels=window.pixels[chosen],
        days=window.days[chosen],
        clear=None if window.clear is None else window.clear[chosen],
    )


def look_gaps(days: NDArray[np.int16], clear: NDArray[np.bool_], calendar: NDArray[np.float64]) -> NDArray[np.int16]:
    """Days from each day of the calendar to a patch's nearest clear observation: (H/2, W/2, G). Else NEVER."""
    apart = np.abs(days.astype(np.float64)[:, None] - calendar)
    gaps = np.where(clear[..., None], apart[:, None, None, :], NEVER).min(0)
    return np.asarray(np.rint(gaps), np.int16)


def _per_pixel(patches: NDArray[Any]) -> NDArray[Any]:
    """Values of patches (h, w, ...) for each of their pixels, row-major (H * W, ...)."""
    pixels = patches.repeat(CLEAR_PATCH, 0).repeat(CLEAR_PATCH, 1)
    return pixels.reshape(-1, *pixels.shape[2:])


def save_season_samples(path: Path, reference: SeasonSamples) -> None:
    """Write a reference, all of it or nothing."""
    tensors = {}
    for name in ("train", "held_out"):
        sample = getattr(reference, name)
        for each in fields(SeriesSample):
            values = getattr(sample, each.name)
            stored = np.clip(values, -(2**15), 2**15 - 1).astype(np.int16) if each.name == "series" else values
            tensors[f"{name}_{each.name}"] = np.ascontiguousarray(stored)
    with publishing_tensors(path, size=sum(each.nbytes for each in tensors.values())) as partial:
        save_file(tensors, partial, metadata={"reference": reference.season.model_dump_json()})


def load_season_samples(path: Path) -> SeasonSamples:
    """Read a reference.

    Raises:
        CorruptError: no such file, or one of another kind.
    """
    try:
        with safe_open(path, "numpy") as file:
            season = ReferenceSeason.model_validate(read_json((file.metadata() or {})["reference"]))
            samples = [
                SeriesSample(
                    **{
                        each.name: file.get_tensor(f"{name}_{each.name}").astype(
                            np.float32 if each.name == "series" else file.get_tensor(f"{name}_{each.name}").dtype
                        )
                        for each in fields(SeriesSample)
                    }
                )
                for name in ("train", "held_out")
            ]
    except ValidationError as error:
        raise CorruptError(describe(error, where=str(path), model=ReferenceSeason)) from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CorruptError(f"{path}: not a readable reference sample: {error}. Train the segmenter again") from error
    return SeasonSamples(season, *samples)
