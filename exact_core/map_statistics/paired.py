"""Which of two maps of the same land is better, from a random sample of the pixels where they differ.

Where both maps show the same class, both are right or both are wrong. So the difference of their accuracies is that
where they differ, times the share of the land that differs, and every sample that is drawn there counts (Foody 2004,
Photogrammetric Engineering and Remote Sensing 70:627, compares maps by the pixels on which only one is right).

    test        exact McNemar test: of the samples on which one map is right, half are each map's by chance (McNemar
                1947, Psychometrika 12:153; in its binomial form)
    interval    score interval of the difference of paired shares (Tango 1998, Statistics in Medicine 17:891)
    every look  interval that holds however often a growing sample is looked at (`exact_core.map_statistics.every_look`)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from exact_core.data.windows.dataset import VOID
from exact_core.errors import ConfigError, DataError
from exact_core.map_statistics.every_look import difference_at_every_look, edge
from exact_core.map_statistics.map_folder import BAND_PIXELS, CropMap
from exact_core.map_statistics.sample_design import Allocation

__all__ = ["DIFFER", "Differences", "PairedComparison", "compare_maps", "paired_difference"]

DIFFER = "differ"
"""Stratum of the pixels where two maps differ."""


@dataclass(frozen=True)
class Differences:
    """The pixels of which two maps show different classes, to be drawn from as from a map (1 differs, 0 does not).

    first, second: the maps, on the same pixels.

    Raises:
        DataError: other pixels.
    """

    first: CropMap
    second: CropMap

    def __post_init__(self) -> None:
        """Refuse maps whose pixels are not the same."""
        one, other = self.first, self.second
        same = (one.height, one.width, one.crs) == (other.height, other.width, other.crs)
        if not same or not one.transform.almost_equals(other.transform, precision=1e-6):
            raise DataError(
                f"{other.folder}: other pixels than {one.folder} ({other.height} x {other.width}, "
                f"{other.crs.to_string()}, and {one.height} x {one.width}, {one.crs.to_string()}). Map the same images"
            )

    @property
    def folder(self) -> Path:
        """Of the first map."""
        return self.first.folder

    @property
    def width(self) -> int:
        """Pixels."""
        return self.first.width

    @property
    def crs(self) -> Any:
        """Of both."""
        return self.first.crs

    @property
    def transform(self) -> Any:
        """Of both."""
        return self.first.transform

    def rows(self, *, pixels: int = BAND_PIXELS) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """First row, and for each pixel 1 where the maps show two classes, 0 where the same, else VOID."""
        number = {name: label for label, name in enumerate(self.first.classes)}
        # A class that the first map has not differs from all of its classes.
        translated = np.full(VOID + 1, VOID, np.int64)
        for label, name in enumerate(self.second.classes):
            translated[label] = number.get(name, VOID + 1)
        for (first, one), (_, other) in zip(
            self.first.rows(pixels=pixels), self.second.rows(pixels=pixels), strict=True
        ):
            differs = one != translated[other]
            yield first, np.where((one == VOID) | (other == VOID), VOID, differs).astype(np.uint8)

    @cached_property
    def counts(self) -> tuple[int, int]:
        """Pixels that differ, and pixels that both maps show.

        Raises:
            DataError: none does.
        """
        total = np.zeros(VOID + 1, np.int64)
        for _, label in self.rows():
            total += np.bincount(label.ravel(), minlength=VOID + 1)
        if not total[1]:
            raise DataError(
                f"{self.first.folder} and {self.second.folder} show the same class at every pixel that both have: "
                f"neither is better"
            )
        return int(total[1]), int(total[0] + total[1])

    def stratum(self, size: int) -> list[Allocation]:
        """The one stratum of a sample, of so many pixels or all there are.

        Raises:
            ConfigError: no sample.
        """
        if size < 1:
            raise ConfigError(f"{size} samples: expected at least 1")
        differing, _ = self.counts
        return [Allocation(1, DIFFER, differing, min(size, differing))]


@dataclass(frozen=True)
class PairedComparison:
    """What a sample of the pixels where two maps differ says.

    differing, both: pixels that differ, and that both maps show. first, second, neither: samples on which the first map
    is right, the second, and none. difference: of the overall accuracies, first less second, -1..1. low, high: its
    interval; always_low, always_high: the interval that holds at every look. p_value: of the exact McNemar test.
    """

    differing: int
    both: int
    first: int
    second: int
    neither: int
    confidence: float
    difference: float
    low: float
    high: float
    always_low: float
    always_high: float
    p_value: float

    @property
    def better(self) -> int | None:
        """1 or 2, the map that is better by the exact test. If None, the sample cannot decide."""
        if self.first + self.second + self.neither == self.differing:
            # All that differ were visited, and nothing is left to chance.
            return None if self.first == self.second else 1 if self.first > self.second else 2
        if self.p_value >= 1 - self.confidence:
            return None
        return 1 if self.first > self.second else 2


def compare_maps(
    differences: Differences,
    first: Sequence[str],
    second: Sequence[str],
    reference: Sequence[str],
    *,
    confidence: float,
) -> PairedComparison:
    """Compare two maps by a simple random sample of the pixels where they differ.

    Args:
        differences: of the maps.
        first: class of each sample on the first map.
        second: class on the second map.
        reference: class in truth.
        confidence: of the intervals and the test.

    Raises:
        ConfigError: a confidence that is none.
        DataError: no sample, more samples than pixels, or one where the maps agree.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence {confidence}: expected a share between 0 and 1, as 0.95")
    differing, both = differences.counts
    alike = [place for place, (one, other) in enumerate(zip(first, second, strict=True)) if one == other]
    if alike:
        raise DataError(
            f"sample {alike[0] + 1}: both maps show {first[alike[0]]!r} there. Draw the sample where they differ: "
            f"exact sample MAP --other MAP"
        )
    if not 0 < len(reference) <= differing:
        raise DataError(f"{len(reference)} samples of {differing} pixels. Give at least 1, each pixel once")
    one = sum(map(str.__eq__, first, reference))
    other = sum(map(str.__eq__, second, reference))
    neither, share = len(reference) - one - other, differing / both
    low, high = paired_difference(one, other, neither, size=differing, confidence=confidence)
    always = difference_at_every_look(differing, one, other, neither, confidence=confidence)
    return PairedComparison(
        differing=differing,
        both=both,
        first=one,
        second=other,
        neither=neither,
        confidence=confidence,
        difference=share * (one - other) / len(reference),
        low=share * low,
        high=share * high,
        always_low=share * always[0],
        always_high=share * always[1],
        p_value=float(binomtest(one, one + other).pvalue) if one + other else 1.0,
    )


def paired_difference(first: int, second: int, neither: int, *, size: int, confidence: float) -> tuple[float, float]:
    """Tango's score interval of the share that only the first has, less that which only the second has.

    Args:
        first: pairs that only the first has.
        second: pairs that only the second has.
        neither: all other pairs.
        size: pairs of the population. The sample counts as so much larger as it leaves less of it open.
        confidence: of the interval.
    """
    count = first + second + neither
    estimate = (first - second) / count
    if count == size:
        return estimate, estimate
    # The finite population correction: the variance is so much smaller.
    enlarged = (size - 1) / (size - count) if size > 1 else 1.0
    one, other, pairs = first * enlarged, second * enlarged, count * enlarged
    z = NormalDist().inv_cdf(0.5 + confidence / 2)

    def score(difference: float) -> float:
        """Standard errors from the estimate to a difference, with the other share at its most likely value."""
        # Of 2 n q^2 + B q + C = 0 for the share q of the second, given the difference.
        linear = -one - other + (2 * pairs - one + other) * difference
        constant = -other * difference * (1 - difference)
        likely = (math.sqrt(max(0.0, linear**2 - 8 * pairs * constant)) - linear) / (4 * pairs)
        variance = pairs * (2 * likely + difference * (1 - difference))
        away = one - other - pairs * difference
        return away / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, away) if away else 0.0

    return edge(lambda at: -score(at), estimate, -1.0, -z), edge(score, estimate, 1.0, -z)
