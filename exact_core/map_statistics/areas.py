"""Areas of a map's classes with honest errors: what a probability sample of references says of the whole map.

Counting pixels gives the area that the map shows, including its errors. The true class at places that chance
chose gives an unbiased estimate with a standard error, of areas as of accuracies (Olofsson et al. 2014, Remote Sensing
of Environment 148:42). The estimators are those of Stehman (2014, International Journal of Remote Sensing 35:4923),
which hold for any strata. With the map's classes as strata they are those of Olofsson et al., but for the
finite population correction, which these leave out. With one stratum, those of a simple random sample.

Intervals start from that of Wilson (1927, Journal of the American Statistical Association 22:209) in each stratum,
which has a width where no error was seen, too. MOVER (Zou and Donner 2008, Statistics in Medicine 27:1693) puts them
together: the distances of the strata's limits from their estimates add up as standard errors do. Of a ratio the limits
are where the interval of numerator - ratio x denominator begins and ends (Donner and Zou 2012, Statistical Methods in
Medical Research 21:347). At few samples and near 0 and 1 they hold the truth about as often as they say, however the
errors are spread over the strata.

Axes are n samples, H strata, K + 1 classes with background.
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

    strata: names (H,). A simple random sample has one. sizes: pixels of each stratum (H,). stratum: of each sample,
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

    def right(self) -> NDArray[np.int64]:
        """Samples of each stratum at which the map is right (H,)."""
        return np.bincount(self.stratum[self.mapped == self.reference], minlength=len(self.strata))


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
    shows as this class, how much is. producers: of what is this class, how much the map shows. None where the sample
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
                users=totals.ratio(both, mapped & ~true, z, could=(mapped, mapped)),
                # What the map does not show as the class can be it in truth wherever that was not seen.
                producers=totals.ratio(both, true & ~mapped, z, could=(mapped, ~mapped)),
            )
        )
        for other in range(len(classes)):
            cells[label, other] = totals.share(mapped & (sample.reference == other))[0]
    overall = totals.estimate(agrees, z)
    return AreaEstimates(tuple(found), overall, cells, confidence, _notes(sample, agrees, found))


def _check_strata(sample: ProbabilitySample) -> None:
    for name, size, count in zip(sample.strata, sample.sizes, sample.counts().tolist(), strict=True):
        if size < 1:
            raise DataError(f"stratum {name!r}: size {size}. Give the number of its pixels on the map")
        if count > size:
            raise DataError(
                f"stratum {name!r}: {count} samples of {size} pixels; each pixel counts once, and the size is in pixels"
            )
        if count < 2 and count != size:
            raise DataError(
                f"stratum {name!r}: {count} samples of {size} pixels, and its error cannot be known from fewer than 2. "
                f"Draw more there at random, or draw the sample anew with fewer strata (`exact sample`)"
            )


class _Totals:
    """Shares of the population and their variances, from what was seen at the samples (Stehman 2014, eq. 1, 25-28)."""

    def __init__(self, sample: ProbabilitySample) -> None:
        self._stratum = sample.stratum
        self._counts = sample.counts().astype(np.float64)
        sizes = np.array(sample.sizes, np.float64)
        self._weights = sizes / sizes.sum()
        # Squared weight, finite population correction and the divisor of the variance, one figure a stratum.
        degrees = np.maximum(self._counts - 1, 1)
        self._spread = self._weights**2 * (1 - self._counts / sizes) / (self._counts * degrees)
        left = 1 - self._counts / sizes
        self._sampled, self._known = left / degrees, left / self._counts

    def share(self, seen: NDArray[np.bool_] | NDArray[np.float64]) -> tuple[float, float]:
        """Mean of a quantity over the population, and its variance."""
        values, means = seen.astype(np.float64), self._shares(seen)
        squares = np.bincount(self._stratum, (values - means[self._stratum]) ** 2, len(self._counts))
        return float(self._weights @ means), float(self._spread @ squares)

    def _shares(self, seen: NDArray[np.bool_] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean of a quantity in each stratum (H,)."""
        return np.bincount(self._stratum, seen, len(self._counts)) / self._counts

    def estimate(self, seen: NDArray[np.bool_], z: float) -> Estimate:
        """The share of the population that is so."""
        value, variance = self.share(seen)
        below, above = self._distances(seen, z)
        return _estimate(value, variance, value - math.sqrt(below @ below), value + math.sqrt(above @ above))

    def _distances(self, seen: NDArray[np.bool_], z: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances of Wilson's limits below and above the share of each stratum, times its weight (H,)."""
        shares = self._shares(seen)
        # The variance of a share over p (1 - p); at 0 and 1 the samples tell none, and it is that of a known p.
        mixed = (shares > 0) & (shares < 1)
        unsure = np.where(mixed, self._sampled, self._known)
        middle = (shares + z**2 * unsure / 2) / (1 + z**2 * unsure)
        spread = shares * (1 - shares) * unsure + (z * unsure / 2) ** 2
        reach = z / (1 + z**2 * unsure) * np.sqrt(spread)
        return self._weights * (shares - middle + reach), self._weights * (middle + reach - shares)

    def ratio(
        self,
        part: NDArray[np.bool_],
        rest: NDArray[np.bool_],
        z: float,
        *,
        could: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    ) -> Estimate | None:
        """Share of `part` in `part` and `rest`. None where neither was seen.

        Its variance is that of part - ratio x whole. could: samples that might be part, and that might be rest. In a
        stratum without any, as one of another class of the map, it is known that there is none.
        """
        whole = part | rest
        below = self.share(whole)[0]
        if not below:
            return None
        inside, outside = self.share(part)[0], self.share(rest)[0]
        value = inside / below
        variance = self.share(part - value * whole.astype(np.float64))[1] / below**2
        possible = [np.bincount(self._stratum, each, len(self._counts)) > 0 for each in could]
        (part_low, part_high), (rest_low, rest_high) = (
            [distance * known for distance in self._distances(seen, z)]
            for seen, known in zip((part, rest), possible, strict=True)
        )
        together = _correlation(self._shares(part), self._shares(rest))
        low = _ratio_limit(inside, outside, part_low, rest_high, together, low=True)
        high = _ratio_limit(inside, outside, part_high, rest_low, together, low=False)
        return _estimate(value, variance, low, high)


def _correlation(part: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of two shares of each stratum that exclude each other, as in a multinomial sample."""
    free = (1 - part) * (1 - rest)
    found = -np.sqrt(np.divide(part * rest, free, out=np.zeros_like(part), where=free > 0))
    return np.where(part + rest >= 1 - 1e-12, -1.0, found)


def _ratio_limit(
    inside: float,
    outside: float,
    part: NDArray[np.float64],
    rest: NDArray[np.float64],
    together: NDArray[np.float64],
    *,
    low: bool,
) -> float:
    """The ratio R at which (1 - R) inside - R outside is as far from 0 as the distances of both shares allow."""
    whole, value = inside + outside, inside / (inside + outside)
    first, second, both = float(part @ part), float(rest @ rest), float((together * part) @ rest)
    # (inside - R whole)^2 = (1 - R)^2 first + R^2 second - 2 R (1 - R) both, a quadratic in R.
    lead = whole**2 - first - second - 2 * both
    middle, end = inside * whole - first - both, inside**2 - first
    if abs(lead) < 1e-12 * whole**2:
        roots = [end / (2 * middle)] if middle else []
    else:
        root = math.sqrt(max(0.0, middle**2 - lead * end))
        roots = [(middle - root) / lead, (middle + root) / lead]
    if low:
        return min((each for each in roots if -1e-9 <= each <= value + 1e-9), default=0.0)
    return max((each for each in roots if value - 1e-9 <= each <= 1 + 1e-9), default=1.0)


def _estimate(value: float, variance: float, low: float, high: float) -> Estimate:
    # At the ends the formulas give 0 and 1, but for rounding.
    return Estimate(value, math.sqrt(variance), min(max(0.0, low), value), max(min(1.0, high), value))


def _notes(sample: ProbabilitySample, agrees: NDArray[np.bool_], found: list[ClassEstimate]) -> tuple[str, ...]:
    """Where a standard error of 0 says only that the sample was small."""
    notes = []
    for number, (name, size) in enumerate(zip(sample.strata, sample.sizes, strict=True)):
        here = agrees[sample.stratum == number]
        if len(here) < size and (here.all() or not here.any()):
            notes.append(
                f"stratum {name}: the map is {'right' if here.all() else 'wrong'} at all {len(here)} samples, so its "
                f"standard error counts as 0. Up to {min(1, 3 / len(here)):.1%} may still differ (rule of three)"
            )
    missing = [each.name for each in found if not each.references]
    if missing:
        notes.append(
            f"{', '.join(missing)}: at no sample, so the area is estimated as 0 without a usable error. It is small, "
            f"but not zero"
        )
    return tuple(notes)
