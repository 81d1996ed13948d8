"""What a Sentinel-2 value is worth: its scale, and the offset that may or may not still lie in it.

Products of processing baseline 04.00 and later (from 2022-01-25 on, and older seasons processed again) store
reflectance x 10,000 + 1000. Some archives take the offset off, some do not, and what metadata say of it is not always
true. So what is stated is checked against the pixels: shadows and dense vegetation reflect 0 to 5 % of visible light;
where the offset is in, no clear pixel is far below 1000, and where it is not, some are.

Source of the offset: ESA, Sentinel-2 Products Specification Document, processing baseline 04.00 (BOA_ADD_OFFSET).
Axes: N sampled pixels of a date.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exact_core.config import OffsetRule
from exact_core.errors import DataError

__all__ = [
    "NOTHING_STATED",
    "OFFSET",
    "VISIBLE",
    "Look",
    "Stated",
    "check_scales",
    "dark_level",
    "settle",
    "stated_offset",
]

OFFSET = 1000
"""What baseline 04.00 adds to a stored value."""
OFFSET_BASELINE = 4.0
OFFSET_FROM = dt.date(2022, 1, 25)
"""First day of baseline 04.00 in operation."""
VISIBLE = ("B02", "B03", "B04")
SHORTWAVE = ("B11", "B12")
"""Shortwave infrared, which haze does not brighten."""
DARK_SHARE = 0.01
"""Quantile that stands for the darkest pixels; the very darkest may be noise."""
WITHOUT = 800
"""A dark level below this shows that no offset is in: with it, 1 % of the pixels would reflect less than -2 %."""
WITH = 950
"""A dark level from this on may mean an offset, or a scene without anything dark."""
FEWEST = 50
"""Fewer clear pixels show nothing."""
NEAR = 45
"""Days within which two dates are compared: fields change little enough."""
STEP = (600, 1400)
"""Median difference of two dates, in visible and shortwave bands alike, that only an offset of 1000 explains."""
SPREAD = 400
"""Interquartile range of that difference: a constant shifts all pixels alike, haze and growth do not."""
SCALE_RATIO = 8.0
"""Near-infrared medians of clear dates of one season lie within this factor, whatever grows."""

_BASELINE_IN_NAME = re.compile(r"_N(\d\d)(\d\d)_")


@dataclass(frozen=True)
class Stated:
    """An offset by the metadata: 0 or OFFSET, or None where nothing states it; and what states it."""

    offset: int | None
    by: str


NOTHING_STATED = Stated(None, "nothing")


@dataclass(frozen=True)
class Look:
    """A date as sampled for the checks.

    name, date: of the acquisition. stated: by its metadata. visible: reflectance as stored, x 10,000 (3, N), NaN
    where not clear or not measured; None without the three bands. shortwave: the same of SHORTWAVE (2, N). infrared:
    the same of a near-infrared band, (N,). The N places are the same for all dates.
    """

    name: str
    date: dt.date
    stated: Stated
    visible: NDArray[np.float32] | None
    shortwave: NDArray[np.float32] | None
    infrared: NDArray[np.float32] | None


def stated_offset(properties: Mapping[str, Any], bands: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Stated:
    """What metadata say of the offset; the more particular statement wins.

    Args:
        properties: of the STAC item, or the tags of the raster.
        bands: `raster:bands`, `bands` or GDAL's scale and offset of the rasters.
        names: of item, product and files; a product's name holds its baseline, as in _N0400_.

    Returns:
        That the offset was taken off (Earth Search says so), what scale and offset of the bands say, what
        BOA_ADD_OFFSET says, or what follows from the processing baseline.
    """
    if properties.get("earthsearch:boa_offset_applied") is True:
        return Stated(0, "earthsearch:boa_offset_applied")
    for band in bands:
        scale, offset = _number(band.get("scale")), _number(band.get("offset"))
        if scale and offset is not None and scale != 1:
            # Reflectance = scale x value + offset.
            return Stated(OFFSET if round(-offset / scale) == OFFSET else 0, f"scale {scale:g} and offset {offset:g}")
    for key in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET", "boa_add_offset"):
        value = _number(properties.get(key))
        if value is not None:
            return Stated(OFFSET if round(-value) == OFFSET else 0, f"{key} {value:g}")
    for key in ("s2:processing_baseline", "processing:version", "PROCESSING_BASELINE"):
        baseline = _number(properties.get(key))
        if baseline is not None:
            return Stated(OFFSET if baseline >= OFFSET_BASELINE else 0, f"processing baseline {properties[key]}")
    for name in names:
        match = _BASELINE_IN_NAME.search(name)
        # N9999 is the mark of products that were processed for tests.
        if match and int(match[1]) < 90:
            baseline = int(match[1]) + int(match[2]) / 100
            return Stated(OFFSET if baseline >= OFFSET_BASELINE else 0, f"N{match[1]}{match[2]} in {name}")
    return NOTHING_STATED


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def dark_level(visible: NDArray[np.float32] | None) -> float | None:
    """The darkest 1 % of the clear pixels, in the darkest of the visible bands; None where too few are clear."""
    if visible is None or np.isfinite(visible).all(0).sum() < FEWEST:
        return None
    return float(np.nanquantile(visible, DARK_SHARE, axis=1).min())


def settle(looks: Sequence[Look], rule: OffsetRule, *, source: object, notes: list[str]) -> list[int]:
    """The offset to take off each date.

    A dark level below WITHOUT shows that none is in. One from WITH on shows that it is in if the same places are
    brighter by about 1000 than on a near date without it, alike in all bands and all over, and so does every date of
    the run of bright dates around it; or, where nothing states an offset and no date of the season is dark, if the
    date is from baseline 04.00's time. Other dates show nothing: what is stated holds; where nothing is, what holds
    for the nearest date.

    Args:
        looks: of the season, by date.
        rule: `correct`: what the pixels show wins and is noted; `refuse`: metadata and pixels must agree, and an offset
            that nothing states is refused; `stated`: metadata are believed, unchecked.
        source: named in messages.
        notes: gets what was found.

    Raises:
        DataError: under `refuse`, a date whose pixels contradict its metadata.
    """
    if rule == "stated":
        return [look.stated.offset or 0 for look in looks]
    shown = _shown(looks)
    settled: list[int | None] = []
    wrong: dict[tuple[int | None, int], list[Look]] = {}
    for look, pixels in zip(looks, shown, strict=True):
        if pixels is not None and pixels != (look.stated.offset or 0):
            wrong.setdefault((look.stated.offset, pixels), []).append(look)
        settled.append(look.stated.offset if pixels is None else pixels)
    for (stated, pixels), found in wrong.items():
        message = _disagreement(stated, pixels, found)
        if rule == "refuse":
            raise DataError(
                f"{source}: {message}; correct the metadata, or set data.season.offset to 'correct' to follow the "
                f"pixels or to 'stated' to follow the metadata"
            )
        notes.append(f"{message}: they are read as their pixels show")
    unknown = [place for place, offset in enumerate(settled) if offset is None]
    known = [place for place, offset in enumerate(settled) if offset is not None]
    if unknown and any(settled[place] for place in known):
        notes.append(
            f"{len(unknown)} of {len(looks)} dates neither state an offset nor show enough of the ground to check: "
            f"they are read as the nearest date is"
        )
    days = np.array([look.date.toordinal() for look in looks])
    for place in unknown:
        settled[place] = settled[min(known, key=lambda other: abs(days[other] - days[place]))] if known else 0
    offsets = [offset or 0 for offset in settled]
    if any(offsets):
        notes.append(f"an offset of {OFFSET} was taken off {sum(map(bool, offsets))} of {len(looks)} dates")
    return offsets


def _shown(looks: Sequence[Look]) -> list[int | None]:
    """The offset that the pixels of each date show; None: they show nothing."""
    dark = [dark_level(look.visible) for look in looks]
    shown: list[int | None] = [0 if level is not None and level < WITHOUT else None for level in dark]
    bright = [place for place, level in enumerate(dark) if level is not None and level >= WITH]
    if 0 not in shown:
        for place in bright:
            if looks[place].stated.offset is None and looks[place].date >= OFFSET_FROM:
                shown[place] = OFFSET
        return shown
    without = [place for place, offset in enumerate(shown) if offset == 0]
    runs = itertools.groupby((place for place, level in enumerate(dark) if level is not None), bright.__contains__)
    for is_bright, run in runs:
        places = list(run)
        if is_bright and any(_steps_up(looks[other], looks[place]) for place in places for other in without):
            shown = [OFFSET if place in places else offset for place, offset in enumerate(shown)]
    return shown


def _steps_up(without: Look, candidate: Look) -> bool:
    """Whether a date is brighter than a near one by about OFFSET, alike in all bands and all over."""
    bands = [(without.visible, candidate.visible), (without.shortwave, candidate.shortwave)]
    known = [(one, other) for one, other in bands if one is not None and other is not None]
    if not known or abs((candidate.date - without.date).days) > NEAR:
        return False
    step = np.concatenate([other - one for one, other in known])
    step = step[:, np.isfinite(step).all(0)]
    if step.shape[1] < FEWEST:
        return False
    low, middle, high = np.quantile(step, (0.25, 0.5, 0.75), axis=1)
    return bool((middle >= STEP[0]).all() and (middle <= STEP[1]).all() and (high - low <= SPREAD).all())


def _disagreement(stated: int | None, pixels: int, found: Sequence[Look]) -> str:
    first = found[0]
    level = dark_level(first.visible)
    says = "state no offset" if stated is None else f"state an offset of {stated} (by {first.stated.by})"
    return (
        f"{len(found)} dates, the first {first.name} ({first.date}), {says}, but their pixels show {pixels}: the "
        f"darkest clear pixels of that date are at {level:.0f} in visible light"
    )


def check_scales(looks: Sequence[Look], *, source: object) -> None:
    """Raise DataError if the dates of a season are not all on one scale.

    The near-infrared median of a date's clear pixels must lie within SCALE_RATIO of the season's.
    """
    medians = [
        (look, float(np.nanmedian(look.infrared)))
        for look in looks
        if look.infrared is not None and np.isfinite(look.infrared).sum() >= FEWEST
    ]
    if len(medians) < 3:
        return
    usual = float(np.median([median for _, median in medians]))
    for look, median in medians:
        if usual > 0 and not usual / SCALE_RATIO <= median <= usual * SCALE_RATIO:
            raise DataError(
                f"{source}: {look.name} ({look.date}) has another scale than the season: its near-infrared median is "
                f"{median:.0f}, that of the season {usual:.0f}; bring it to reflectance x 10,000, or leave it out"
            )
