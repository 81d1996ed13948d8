"""Areas of a map's classes with honest errors: what a probability sample of references says of the whole map.

Counting pixels gives the area that the map shows, wrong by whatever it confuses. The true class at places that chance
chose gives an unbiased estimate with a standard error, of areas as of accuracies (Olofsson et al. 2014, Remote Sensing
of Environment 148:42). The estimators are those of Stehman (2014, International Journal of Remote Sensing 35:4923),
which hold whatever the strata are. With the map's classes as strata they are those of Olofsson et al., but for the
finite population correction, which these leave out; with one stratum, those of a simple random sample.

Intervals are those of Wilson (1927, Journal of the American Statistical Association 22:209) with the effective number
of samples, that of a simple random sample that would be as sure (Franco et al. 2019, Journal of Survey Statistics and
Methodology 7:334). At few samples and near 0 and 1 they hold the truth as often as they say, and have a width where no
error was seen.

Axes: n samples, H strata, K + 1 classes with background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from exact_core.errors import ConfigError, DataError

__all__ = ["AreaEstimates", "ClassEstimate", "Estimate", "ProbabilitySample", "estimate_areas"]


@dataclass(frozen=True)
class ProbabilitySample:
    """References at pixels that chance alone chose, without replacement.

    strata: names (H,); a simple random sample has one. sizes: pixels of each stratum (H,). stratum: of each sample,
    0..H-1 (n,). mapped, reference: labels 0..K of the map and in truth (n,).
    """

    strata: tuple[str, ...]
    sizes: tuple[int, ...]
    stratum: NDArray[np.int64]
    mapped: NDArray[np.int64]
    reference: NDArray[np.int64]

    def counts(self) -> NDArray[np.int64]:
        """Samples of each stratum (H,)."""
        return np.bincount(self.stratum, minlength=len(self.strata))


@dataclass(frozen=True)
class Estimate:
    """A share, 0..1, with its standard error and confidence interval, which need not be symmetric."""

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassEstimate:
    """What the sample says of a class.

    name: of the class. references: samples that are of it in truth. share: of the map's area. users: of what the map
    shows as this class, how much is; producers: of what is this class, how much the map shows. None where the sample
    holds nothing of the denominator.
    """

    name: str
    references: int
    share: Estimate
    users: Estimate | None
    producers: Estimate | None


@dataclass(frozen=True)
class AreaEstimates:
    """Estimates of a map's classes.

    classes: background first. overall: overall accuracy. matrix: area shares, rows as mapped, columns in truth
    (K + 1, K + 1). confidence: of the intervals. notes: where errors are less sure than they look.
    """

    classes: tuple[ClassEstimate, ...]
    overall: Estimate
    matrix: NDArray[np.float64]
    confidence: float
    notes: tuple[str, ...]


def estimate_areas(sample: ProbabilitySample, classes: tuple[str, ...], *, confidence: float = 0.95) -> AreaEstimates:
    """Areas and accuracies from a probability sample.

    Args:
        sample: the references.
        classes: names of labels 0..K.
        confidence: of the intervals.

    Raises:
        ConfigError: a confidence that is none.
        DataError: a stratum with fewer than two samples that is not sampled whole, with more samples than pixels, or of
            no size.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence {confidence}: expected a share between 0 and 1, as 0.95")
    _check_strata(sample)
    totals = _Totals(sample)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    agrees = sample.mapped == sample.reference
    found, cells = [], np.zeros((len(classes), len(classes)))
    for label, name in enumerate(classes):
        mapped, true = sample.mapped == label, sample.reference == label
        both = mapped & true
        found.append(
            ClassEstimate(
                name=name,
                references=int(true.sum()),
                share=totals.estimate(true, z),
                users=totals.ratio(both, mapped, z),
                producers=totals.ratio(both, true, z),
            )
        )
        for other in range(len(classes)):
            cells[label, other] = totals.share(mapped & (sample.reference == other))[0]
    overall = totals.estimate(agrees, z)
    return AreaEstimates(tuple(found), overall, cells, confidence, _notes(sample, agrees, found))


def _check_strata(sample: ProbabilitySample) -> None:
    for name, size, count in zip(sample.strata, sample.sizes, sample.counts().tolist(), strict=True):
        if size < 1:
            raise DataError(f"stratum {name!r}: size {size}; give the number of its pixels on the map")
        if count > size:
            raise DataError(
                f"stratum {name!r}: {count} samples of {size} pixels; each pixel counts once, and the size is in pixels"
            )
        if count < 2 and count != size:
            raise DataError(
                f"stratum {name!r}: {count} samples of {size} pixels, and its error cannot be known from fewer than 2; "
                f"draw more there at random, or draw the sample anew with fewer strata (`exact sample`)"
            )


class _Totals:
    """Shares of the population and their variances, from what was seen at the samples (Stehman 2014, eq. 1, 25-28)."""

    def __init__(self, sample: ProbabilitySample) -> None:
        self._stratum = sample.stratum
        self._counts = sample.counts().astype(np.float64)
        sizes = np.array(sample.sizes, np.float64)
        self._weights = sizes / sizes.sum()
        # Squared weight, finite population correction and the divisors of both variances, one figure a stratum.
        degrees = np.maximum(self._counts - 1, 1)
        self._spread = self._weights**2 * (1 - self._counts / sizes) / (self._counts * degrees)
        self._unit = self._weights**2 * (1 - self._counts / sizes) / self._counts**2

    def share(self, seen: NDArray[np.bool_] | NDArray[np.float64]) -> tuple[float, float]:
        """Mean of a figure over the population, and its variance."""
        values = seen.astype(np.float64)
        means = np.bincount(self._stratum, values, len(self._counts)) / self._counts
        squares = np.bincount(self._stratum, (values - means[self._stratum]) ** 2, len(self._counts))
        return float(self._weights @ means), float(self._spread @ squares)

    def estimate(self, seen: NDArray[np.bool_], z: float) -> Estimate:
        """The share of the population that is so."""
        return _estimate(*self.share(seen), self._alike(np.ones(len(seen), np.bool_)), z)

    def _alike(self, whole: NDArray[np.bool_]) -> float:
        """The variance of a share among these, over p (1 - p), were p the same in all strata."""
        return float(self._unit @ np.bincount(self._stratum, whole, len(self._counts)))

    def ratio(self, part: NDArray[np.bool_], whole: NDArray[np.bool_], z: float) -> Estimate | None:
        """Share of `whole` that is `part`; None where none was seen. Its variance is that of part - ratio x whole."""
        below = self.share(whole)[0]
        if not below:
            return None
        value = self.share(part)[0] / below
        variance = self.share(part - value * whole.astype(np.float64))[1] / below**2
        return _estimate(value, variance, self._alike(whole) / below**2, z)


def _estimate(value: float, variance: float, alike: float, z: float) -> Estimate:
    """A share with its interval; alike: its variance over p (1 - p), of which the samples tell none at 0 and 1."""
    spread = value * (1 - value)
    # One over the effective number of samples; rounding may bring a share a hair beyond 0 or 1.
    weight = variance / spread if variance > 0 and spread > 0 else alike
    middle = (value + z**2 * weight / 2) / (1 + z**2 * weight)
    reach = z / (1 + z**2 * weight) * math.sqrt(max(0.0, spread * weight + (z * weight / 2) ** 2))
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    # At the ends the formula gives 0 and 1, but for rounding.
    return Estimate(value, math.sqrt(variance), min(low, value), max(high, value))


def _notes(sample: ProbabilitySample, agrees: NDArray[np.bool_], found: list[ClassEstimate]) -> tuple[str, ...]:
    """Where a standard error of 0 says only that the sample was small."""
    notes = []
    for number, (name, size) in enumerate(zip(sample.strata, sample.sizes, strict=True)):
        here = agrees[sample.stratum == number]
        if len(here) < size and (here.all() or not here.any()):
            notes.append(
                f"stratum {name}: the map is {'right' if here.all() else 'wrong'} at all {len(here)} samples, so its "
                f"error counts as 0; up to {min(1, 3 / len(here)):.1%} may still be otherwise (rule of three)"
            )
    missing = [each.name for each in found if not each.references]
    if missing:
        notes.append(
            f"{', '.join(missing)}: at no sample, so the area is estimated as 0 without a usable error; it is small, "
            f"not none"
        )
    return tuple(notes)
