"""Intervals that hold at every look at a growing sample, with any number of looks and any rule to stop.

A sample is drawn without replacement, in random order. For each composition of the population, the chance of what was
seen under a uniform prior, over its chance under that composition, has the mean 1 if the composition is the true one.
So, by Ville's inequality, it ever reaches 1 / alpha with a probability of at most alpha (prior-posterior ratio:
Waudby-Smith and Ramdas 2020, Confidence sequences for sampling without replacement, NeurIPS). The interval holds all
compositions for which it has not. Strata are independent, so their ratios are multiplied. Compositions are taken as
real numbers, which makes an interval a hair wider.

Axes are H strata.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

__all__ = ["difference_at_every_look", "edge", "share_at_every_look"]

STEPS = 40
"""Halvings of a search: to a millionth of a millionth."""


def share_at_every_look(
    sizes: NDArray[np.int64], counts: NDArray[np.int64], seen: NDArray[np.int64], *, confidence: float
) -> tuple[float, float]:
    """Interval of the share of a population that is so, from strata of which `seen` of `counts` samples are so.

    Args:
        sizes: units of each stratum (H,).
        counts: samples (H,), at most the size.
        seen: samples that are so (H,).
        confidence: that the interval holds at all looks together.
    """
    population, drawn, hits = (np.asarray(each, np.float64) for each in (sizes, counts, seen))
    misses = drawn - hits
    least = _threshold(confidence) + float((_lgamma1(hits) + _lgamma1(misses) - _lgamma1(drawn + 1)).sum())

    def likelihood(so: NDArray[np.float64]) -> float:
        chance = _falling(so, hits) + _falling(population - so, misses) - _falling(population, drawn)
        return float(chance.sum())

    def best(slope: float) -> NDArray[np.float64]:
        """The composition that maximises log chance + slope x number that are so. Each stratum's term is concave."""
        low, high = hits.copy(), population - misses
        for _ in range(STEPS):
            middle = (low + high) / 2
            rises = _falling_slope(middle, hits) - _falling_slope(population - middle, misses) + slope > 0
            low, high = np.where(rises, middle, low), np.where(rises, high, middle)
        return (low + high) / 2

    ends = []
    for sign in (-1, 1):
        # The steeper the slope, the further from the most likely composition, and the less likely.
        gentle, steep = -60.0, 60.0
        for _ in range(STEPS):
            middle = (gentle + steep) / 2
            if likelihood(best(sign * float(np.exp(middle)))) >= least:
                gentle = middle
            else:
                steep = middle
        ends.append(float(best(sign * float(np.exp(steep))).sum() / population.sum()))
    return max(0.0, ends[0]), min(1.0, ends[1])


def difference_at_every_look(
    size: int, first: int, second: int, neither: int, *, confidence: float
) -> tuple[float, float]:
    """Interval of the share of a population that is of a first kind, less that of a second kind.

    Args:
        size: units of the population.
        first: samples of the first kind.
        second: samples of the second kind.
        neither: all other samples.
        confidence: that the interval holds at all looks together.
    """
    seen = np.array([first, second, neither], np.float64)
    drawn = float(seen.sum())
    # Ordered draws under a uniform prior over the compositions of three kinds.
    least = _threshold(confidence) + float(_lgamma1(seen).sum() + np.log(2) - gammaln(drawn + 3))
    whole = float(gammaln(size + 1) - gammaln(size - drawn + 1))

    def likelihood(difference: float) -> float:
        """The largest log chance among compositions of a difference: concave in the number of the second kind."""
        low = max(second, first - difference)
        high = (size - difference - neither) / 2

        def kinds(number: float) -> NDArray[np.float64]:
            return np.array([number + difference, number, size - 2 * number - difference])

        for _ in range(STEPS):
            middle = (low + high) / 2
            slopes = _falling_slope(kinds(middle), seen)
            low, high = (middle, high) if slopes[0] + slopes[1] - 2 * slopes[2] > 0 else (low, middle)
        return float(_falling(kinds((low + high) / 2), seen).sum()) - whole

    # All that was not drawn may be of one kind.
    rest = size - drawn
    inside = min(max(size * (first - second) / max(drawn, 1.0), first - second - rest), first - second + rest)
    ends = [edge(likelihood, inside, first - second + sign * rest, least) / size for sign in (-1, 1)]
    return ends[0], ends[1]


def edge(likelihood: Callable[[float], float], inside: float, outside: float, least: float) -> float:
    """Where a concave function falls below a value, to a millionth of a millionth of the way.

    Args:
        likelihood: the function.
        inside: where it is not below the value.
        outside: where it may be; returned if it is not.
        least: the value.
    """
    if likelihood(outside) >= least:
        return outside
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if likelihood(middle) >= least else (inside, middle)
    return outside


def _threshold(confidence: float) -> float:
    return float(np.log(1 - confidence))


def _lgamma1(number: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the factorial."""
    return np.asarray(gammaln(number + 1))


def _falling(number: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of number x (number - 1) x ..., so many factors."""
    return np.asarray(gammaln(number + 1) - gammaln(number - times + 1))


def _falling_slope(number: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(digamma(number + 1) - digamma(number - times + 1))
