"""Distances between two samples of pixel series, by bands, series and timing, and the weight of each day.

Axes are N pixels, G days of the calendar, C bands, D = G * C, K crops. Series are NaN on days without a clear
observation nearby.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from exact_core.data.windows.choice import evenly_chosen
from exact_core.data.windows.dataset import VOID

__all__ = [
    "band_distance",
    "best_lag",
    "class_curves",
    "curve_lag",
    "importance",
    "neighbour_distances",
    "normalised_difference",
]

QUERIES = 512
"""Series whose distances to all others are in memory at a time."""
LAG_STEP, LAG_LIMIT = 5, 60
"""Days between the lags that are tried, and the largest."""
LAG_QUERIES, LAG_TRAIN = 384, 1536
RISE, ALIKE = 0.1, 0.03
"""NDVI by which a curve must rise to give a time, and the difference below which two curves are the same."""
CURVE_GAIN = 0.7
"""As LAG_GAIN, for single curves, which a few lucky days bring together more easily."""
LAG_GAIN = 0.9
"""A lag counts only where it makes the distance smaller than this share of what it is without."""
FEWEST = 20
"""Series of a class that make a curve."""

Floats = NDArray[np.float64]
Series = NDArray[np.float32]


def band_distance(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> tuple[float, float]:
    """How far a band's values (n,) are from training's (m,), in standard deviations of training's.

    Returns:
        Shift of the mean (theirs less ours), and Wasserstein-1 distance (area between the distribution functions). NaN
        where either has no value.
    """
    ours, theirs = ours[~np.isnan(ours)], theirs[~np.isnan(theirs)]
    if not len(ours) or not len(theirs):
        return np.nan, np.nan
    std = float(ours.std()) or 1.0
    return float(theirs.mean() - ours.mean()) / std, float(wasserstein_distance(ours, theirs)) / std


def neighbour_distances(query: Series, train: Series, std: Floats, *, neighbours: int) -> Floats:
    """Distance of each series to its n-th nearest series of training.

    Args:
        query: (N, G, C).
        train: (M, G, C).
        std: of the bands (C,). What distances are measured in.
        neighbours: n.

    Returns:
        (N,): root mean square over the days and bands that both series have, in standard deviations. NaN where a series
        shares no day with training.
    """
    size = train.shape[1] * train.shape[2]
    ours, known = _filled((train / std).reshape(len(train), size))
    place = min(neighbours, len(train)) - 1
    found = np.full(len(query), np.nan)
    for first in range(0, len(query), QUERIES):
        theirs, seen = _filled((query[first : first + QUERIES] / std).reshape(-1, size))
        # The square of a difference, over what both have: three products of matrices, an eighth of the time of
        # sklearn's nan_euclidean_distances.
        common = seen @ known.T
        squares = np.square(theirs) @ known.T + seen @ np.square(ours).T - 2 * theirs @ ours.T
        mean = np.where(common > 0, np.maximum(squares, 0) / np.maximum(common, 1), np.inf)
        found[first : first + QUERIES] = np.sqrt(np.partition(mean, place, 1)[:, place])
    return np.where(np.isinf(found), np.nan, found)


def _filled(values: NDArray[np.floating]) -> tuple[Series, Series]:
    """Values (N, D) with 0 for what is not known, and 1 for what is."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).astype(np.float32), known.astype(np.float32)


def best_lag(query: Series, train: Series, std: Floats, calendar: Floats, *, neighbours: int) -> tuple[int, Floats]:
    """The shift in time that makes a season look most like training, for any mix of crops.

    Args:
        query: as for `neighbour_distances`.
        train: likewise.
        std: likewise.
        calendar: days of the series (G,), equally far apart.
        neighbours: as for `neighbour_distances`.

    Returns:
        Days by which the season is late (below 0: early), 0 where no shift makes it much more alike, and the median
        distance at each lag of -LAG_LIMIT..LAG_LIMIT by LAG_STEP, three of them averaged.
    """
    lags = np.arange(-LAG_LIMIT, LAG_LIMIT + 1, LAG_STEP)
    # Reading a series between two days smooths it, and what is smooth is nearer to everything: smooth beforehand.
    query, train = _smooth(_thinned(query, LAG_QUERIES)), _smooth(_thinned(train, LAG_TRAIN))
    medians = []
    for lag in lags:
        distances = neighbour_distances(_shifted(query, calendar, int(lag)), train, std, neighbours=neighbours)
        medians.append(float(np.nanmedian(distances)) if not np.isnan(distances).all() else np.inf)
    # A day of the calendar that falls on one of the season's is less smooth than its neighbours: three lags as one.
    curve = np.convolve(np.pad(medians, 1, mode="edge"), np.ones(3) / 3, "valid")
    best = int(curve.argmin())
    still = curve[len(lags) // 2]
    return (int(lags[best]) if curve[best] < LAG_GAIN * still else 0), curve


def _smooth(series: Series) -> Series:
    """Each day (N, G, C) averaged with half of its neighbours, as far as they are known."""
    known = ~np.isnan(series)
    filled = np.pad(np.where(known, series, 0), ((0, 0), (1, 1), (0, 0)))
    weight = np.pad(known.astype(np.float32), ((0, 0), (1, 1), (0, 0)))

    def spread(values: Series) -> Series:
        return np.asarray(values[:, 1:-1] + (values[:, :-2] + values[:, 2:]) / 2, np.float32)

    return np.where(known, spread(filled) / np.maximum(spread(weight), 1), np.float32(np.nan))


def _thinned(series: Series, count: int) -> Series:
    return np.asarray(series[evenly_chosen(len(series), count)], np.float32)


def _shifted(series: Series, calendar: Floats, lag: int) -> Series:
    """Series (N, G, C) as they are `lag` days later, linear between days. NaN beyond the calendar."""
    step = calendar[1] - calendar[0] if len(calendar) > 1 else 1.0
    place = np.arange(len(calendar)) + lag / step
    inside = (place >= 0) & (place <= len(calendar) - 1)
    low = np.clip(np.floor(place).astype(int), 0, len(calendar) - 1)
    high = np.clip(np.ceil(place).astype(int), 0, len(calendar) - 1)
    share = (place - low)[:, None].astype(np.float32)
    moved = series[:, low] + share * (series[:, high] - series[:, low])
    moved[:, ~inside] = np.nan
    return np.asarray(moved, np.float32)


def normalised_difference(series: Series, bands: tuple[str, ...]) -> Series | None:
    """NDVI (N, G) of series (N, G, C). None without B04 and B08 (or B8A)."""
    near = next((name for name in ("B08", "B8A") if name in bands), None)
    if near is None or "B04" not in bands:
        return None
    infrared, red = series[..., bands.index(near)], series[..., bands.index("B04")]
    return np.asarray((infrared - red) / np.maximum(infrared + red, 1), np.float32)


def class_curves(values: Series, label: NDArray[np.uint8], *, classes: int) -> Floats:
    """Mean of each label 0..K on each day, (K + 1, G). NaN for labels or days of fewer than FEWEST series."""
    curves = np.full((classes + 1, values.shape[1]), np.nan)
    for number in range(classes + 1):
        mine = values[label == number]
        seen = (~np.isnan(mine)).sum(0)
        total = np.nansum(mine, 0, dtype=np.float64)
        curves[number] = np.where(seen >= FEWEST, total / np.maximum(seen, 1), np.nan)
    return curves


def curve_lag(new: Floats, old: Floats, calendar: Floats) -> int | None:
    """Days by which one class's mean NDVI curve (G,) is later than another's (below 0: earlier).

    The shift that brings the curves together, as far as it makes them much more alike than they are. Their heights
    would not do: a season of two summers has two, and which is higher says nothing of time.

    Returns:
        0 where the curves are alike (a root mean square of 0.03) or no shift helps. None where one hardly rises (0.1)
        or is half unknown.
    """
    if any(np.isnan(each).mean() > 0.5 or np.nanmax(each) - np.nanmin(each) < RISE for each in (new, old)):
        return None
    days = np.arange(calendar[0], calendar[-1] + 1)
    fine, fixed = (np.interp(days, calendar[~np.isnan(each)], each[~np.isnan(each)]) for each in (new, old))
    lags = np.arange(-LAG_LIMIT, LAG_LIMIT + 1, LAG_STEP)

    def apart(lag: int) -> float:
        """Over the days that both have once the new curve is read `lag` days later."""
        first, last = max(0, -lag), min(len(days), len(days) - lag)
        return float(np.sqrt(np.mean((fine[first + lag : last + lag] - fixed[first:last]) ** 2)))

    distances = np.array([apart(int(lag)) for lag in lags if abs(lag) < len(days) // 2])
    lags = lags[abs(lags) < len(days) // 2]
    still = float(distances[lags == 0][0])
    best = int(distances.argmin())
    return int(lags[best]) if still > ALIKE and distances[best] < CURVE_GAIN * still else 0


def importance(series: Series, label: NDArray[np.uint8], bands: tuple[str, ...], *, classes: int) -> Floats:
    """Weight of each day of the calendar for telling classes apart (G,). The sum is 1.

    Half of it is how well classes separate on that day (share of a band's variance that lies between classes, mean of
    the bands), half how fast NDVI changes there (mean of the classes). Without labels: change alone.
    """
    values = normalised_difference(series, bands)
    known = label != VOID
    curves = class_curves(series.mean(2) if values is None else values, np.where(known, label, 0), classes=classes)
    curves = curves[~np.isnan(curves).all(1)]
    change = np.zeros(series.shape[1])
    if len(curves) and series.shape[1] > 1:
        places = np.arange(series.shape[1])
        filled = [np.interp(places, places[~np.isnan(curve)], curve[~np.isnan(curve)]) for curve in curves]
        change = np.abs(np.gradient(np.array(filled), axis=1)).mean(0)
    parts = [part / part.sum() for part in (change, _separation(series[known], label[known])) if part.sum() > 0]
    return np.asarray(np.mean(parts, 0)) if parts else np.full(series.shape[1], 1 / series.shape[1])


def _separation(series: Series, label: NDArray[np.uint8]) -> Floats:
    """Share of the variance between classes on each day (G,), mean of the bands. 0 where nothing is known."""
    days, bands = series.shape[1:]
    if not len(series):
        return np.zeros(days)
    seen = ~np.isnan(series)
    count = np.maximum(seen.sum(0), 1)
    mean = np.nansum(series, 0, dtype=np.float64) / count
    total = np.nansum(np.square(series - mean), 0, dtype=np.float64)
    between = np.zeros((days, bands))
    for number in np.unique(label):
        mine = series[label == number]
        size = (~np.isnan(mine)).sum(0)
        centre = np.nansum(mine, 0, dtype=np.float64) / np.maximum(size, 1)
        between += size * np.square(centre - mean) * (size > 0)
    return np.asarray(np.where(total > 0, between / np.where(total > 0, total, 1), 0).mean(1))
