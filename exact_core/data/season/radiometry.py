"""Scale and offset of Sentinel-2 values.

Products of processing baseline 04.00 and later (from 2022-01-25 on, and older seasons processed again) store
reflectance x 10,000 + 1000. Some archives subtract the offset, some do not, and metadata about it are not always
true. So the metadata are checked against the pixels. Shadows and dense vegetation reflect 0 to 5 % of visible light.
With the offset, no clear pixel is far below 1000. Without it, some are. A few pixels far below it are
no evidence: products have artifacts at the edges of their detectors.

Source of the offset: ESA, Sentinel-2 Products Specification Document, processing baseline 04.00 (BOA_ADD_OFFSET).
Axes are N sampled pixels of a date.
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
    "NO_REFLECTANCE",
    "OFFSET",
    "VISIBLE",
    "Look",
    "Stated",
    "baseline_in",
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
TEST_BASELINES = 90
"""Baselines from here on, as 99.99, mark products that were processed for tests, and say nothing."""
NO_REFLECTANCE = -500
"""Reflectance x 10,000 from here down is an artifact, or a mark of missing data: noise of dark surfaces is less far
below 0."""
VISIBLE = ("B02", "B03", "B04")
SHORTWAVE = ("B11", "B12")
"""Shortwave infrared, which haze does not brighten."""
DARK_SHARE = 0.01
"""Quantile that stands for the darkest pixels. The very darkest may be noise."""
DARKEST = 100
"""Darker pixels in visible light are left out: without an offset they are rare, with one they are artifacts."""
WITHOUT = 800
"""A dark level below this shows that no offset is in: with it, 1 % of the pixels would reflect less than -2 %."""
WITH = 950
"""A dark level from this on may mean an offset, or a scene without anything dark."""
FEWEST = 50
"""Fewer clear pixels show nothing."""
NEAR = 45
"""Days within which two dates are compared: fields change little enough."""
STEP = (600, 1400)
"""Median difference of two dates, in visible and shortwave bands, that only an offset of 1000 explains."""
SPREAD = 400
"""Interquartile range of that difference: a constant shifts all pixels equally, haze and growth do not."""
SCALE_RATIO = 8.0
"""Near-infrared medians of clear dates of one season are within this factor for all crops."""
SCALE_BOUNDS = (500, 9000)
"""The near-infrared median of a season's clear land, x 10,000 and with or without the offset: 5 % to 80 %."""

_WITHOUT_OFFSET = re.compile(r"HLS\.S30\.|SENTINEL2[A-D]_\d{8}-\d{6}-\d{3}_L2A_")
"""Products of other makers (HLS, Theia), whose reflectance x 10,000 has no offset in any year."""
_BASELINE_IN_NAME = re.compile(r"_N(\d\d)(\d\d)_")
_TAKEN_OFF = "boa_offset_applied"
_ADDED = ("boa_add_offset", "radio_add_offset")
_BASELINE = "processing_baseline"
_PRODUCT = ("product_uri", "product_id", "product_identifier", "product_name", "title")


@dataclass(frozen=True)
class Stated:
    """The metadata's statements about an acquisition's values.

    offset: reflectance x 10,000 to be taken off, None where nothing states it. by: what states it. factor: reflectance
    x 10,000 of a stored 1, None where nothing states it.
    """

    offset: int | None
    by: str
    factor: float | None = None


NOTHING_STATED = Stated(None, "nothing")


@dataclass(frozen=True)
class Look:
    """A date as sampled for the checks.

    name, date: of the acquisition. stated: by its metadata. visible: reflectance x 10,000 with whatever offset is in it
    (3, N), NaN where not clear, not measured or beside what was not measured. None without the three bands. shortwave:
    the same of SHORTWAVE (2, N). infrared: the same of a near-infrared band, (N,). is_empty: nothing was measured.
    lacking: bands that have no data at places where others have. The N places are the same for all dates.
    """

    name: str
    date: dt.date
    stated: Stated
    visible: NDArray[np.float32] | None
    shortwave: NDArray[np.float32] | None
    infrared: NDArray[np.float32] | None
    is_empty: bool = False
    lacking: tuple[str, ...] = ()

    @property
    def is_early(self) -> bool:
        """Whether it is from before baseline 04.00: unless it was processed again, no offset is in it."""
        return self.date < OFFSET_FROM


def stated_offset(
    properties: Mapping[str, Any],
    bands: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    where: object = "metadata",
) -> Stated:
    """Scale and offset by the metadata. The more specific statement counts.

    Keys may have any prefix (`s2:`, `sentinel:`, `sentinel2:`, `earthsearch:`, none) and either case.

    Args:
        properties: of the STAC item, or the tags of the raster.
        bands: `scale` and `offset`, or `raster:scale` and `raster:offset`, of each band: entries of `raster:bands` and
            `bands`, fields of an asset, or GDAL's of the rasters.
        names: of item, product and files. A product's name holds its baseline, as in _N0400_.
        where: named in messages.

    Returns:
        That the offset was taken off (`boa_offset_applied`), what scale and offset of the bands say, what
        BOA_ADD_OFFSET says, or what follows from the processing baseline.

    Raises:
        DataError: bands of different scales or offsets.
    """
    plain = {str(key).rsplit(":", 1)[-1].lower(): (str(key), value) for key, value in properties.items()}
    described = _described(bands, where)
    factor = described.factor
    key, value = plain.get(_TAKEN_OFF, ("", None))
    if str(value).lower() in ("true", "1"):
        return Stated(0, key, factor)
    if described.offset is not None:
        return described
    for name, (key, value) in sorted(plain.items()):
        # Earth Engine states one a band.
        if name.startswith(_ADDED) and (number := _number(value)) is not None:
            return Stated(round(-number), f"{key} {number:g}", factor)
    version = ("processing:version", properties.get("processing:version"))
    for _, value in (plain.get(_BASELINE, ("", None)), version):
        number = _number(value)
        if number is not None and number < TEST_BASELINES:
            return Stated(OFFSET if number >= OFFSET_BASELINE else 0, f"processing baseline {value}", factor)
    for name in (*(str(plain[each][1]) for each in _PRODUCT if each in plain), *names):
        number = baseline_in(name)
        if number is not None and number < TEST_BASELINES:
            by = f"N{round(100 * number):04d} in {name}"
            return Stated(OFFSET if number >= OFFSET_BASELINE else 0, by, factor)
        if others := _WITHOUT_OFFSET.search(name):
            return Stated(0, f"the name {others[0]}", factor)
    return Stated(None, NOTHING_STATED.by, factor)


def baseline_in(name: str) -> float | None:
    """The processing baseline in a product's name, as 5.09 in _N0509_. None where there is none."""
    match = _BASELINE_IN_NAME.search(name)
    return int(match[1]) + int(match[2]) / 100 if match else None


def _described(bands: Sequence[Mapping[str, Any]], where: object) -> Stated:
    """What scale and offset of the bands say: reflectance = scale x value + offset."""
    found: dict[tuple[int | None, float | None], str] = {}
    for band in bands:
        scale = _number(band.get("raster:scale", band.get("scale")))
        offset = _number(band.get("raster:offset", band.get("offset")))
        if not scale or scale < 0:
            scale = None
        # Without a scale GDAL says 1 and 0, whether or not anything was stated.
        is_default = scale == 1 and not offset
        if is_default or (scale is None and offset is None):
            continue
        unit = 1 if scale in (None, 1) and offset is not None and abs(offset) >= 1 else 10_000
        taken = None if offset is None else round(-offset * unit)
        factor = None if scale in (None, 1) else float(f"{scale * 10_000:.9g}")
        texts = (f"{name} {value:g}" for name, value in (("scale", scale), ("offset", offset)) if value is not None)
        found[taken, factor] = " and ".join(texts)
    if len(found) > 1:
        raise DataError(
            f"{where}: bands of different scales or offsets ({'; '.join(sorted(found.values()))}). Bring "
            f"them to one, or correct the metadata"
        )
    for (taken, factor), text in found.items():
        return Stated(taken, text, factor)
    return NOTHING_STATED


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _darkness(visible: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Of each clear pixel the middle one of its visible bands: an artifact of one band does not move it."""
    if visible is None:
        return np.empty(0, np.float32)
    middle: NDArray[np.float32] = np.median(visible[:, np.isfinite(visible).all(0)], axis=0)
    return middle[middle >= DARKEST]


def dark_level(visible: NDArray[np.float32] | None) -> float | None:
    """The darkest 1 % of the clear pixels, in the middle one of the visible bands. None where too few are clear."""
    middle = _darkness(visible)
    return None if len(middle) < FEWEST else float(np.quantile(middle, DARK_SHARE))


def _is_dark(visible: NDArray[np.float32] | None) -> bool:
    """Whether enough clear pixels, in several bands, are darker than an offset allows."""
    level = dark_level(visible)
    return level is not None and level < WITHOUT and int((_darkness(visible) < WITHOUT).sum()) >= FEWEST


def settle(looks: Sequence[Look], rule: OffsetRule, *, source: object, notes: list[str]) -> list[int]:
    """The offset to take off each date.

    A dark level below WITHOUT shows that none is in. One from WITH on shows that it is in if the same places are
    brighter by about 1000 than on a near date without it, alike in all bands and all over, and so does every date of
    the run of bright dates around it. Other dates show nothing: what is stated holds, unless the same statement is
    shown to be false of other dates. Where nothing holds, a date is read as the nearest on its side of baseline 04.00's
    first day. Where none of that side is known, the offset is guessed: in from that day on, if nothing is dark.

    Args:
        looks: of the season, by date.
        rule: `correct`: what the pixels show wins and is noted. `refuse`: metadata and pixels must agree, and an offset
            that nothing states is refused. `stated`: metadata are believed, unchecked. A number: that, for all dates.
        source: named in messages.
        notes: gets the corrections.

    Raises:
        DataError: under `refuse`, a date whose pixels contradict its metadata, or one whose offset is a guess.
    """
    if isinstance(rule, int):
        return _noted([rule] * len(looks), notes, " (data.season.offset)")
    if rule == "stated":
        silent = sum(look.stated.offset is None for look in looks)
        if silent:
            notes.append(f"{silent} of {len(looks)} dates state no offset: none was taken off them")
        return [look.stated.offset or 0 for look in looks]
    shown = _shown(looks)
    wrong: dict[tuple[int | None, int], list[Look]] = {}
    for look, pixels in zip(looks, shown, strict=True):
        if pixels is not None and pixels != (look.stated.offset or 0):
            wrong.setdefault((look.stated.offset, pixels), []).append(look)
    for (stated, pixels), found in wrong.items():
        message = _disagreement(stated, pixels, found)
        if rule == "refuse":
            raise DataError(
                f"{source}: {message}. Correct the metadata, or set data.season.offset to 'correct' to follow the "
                f"pixels, to 'stated' to follow the metadata, or to 0 or {OFFSET} for all dates"
            )
        notes.append(f"{message}: they are read as their pixels show")
    doubted = _doubted(looks, shown)
    settled = [
        pixels if pixels is not None else None if look.stated.offset in doubted else look.stated.offset
        for look, pixels in zip(looks, shown, strict=True)
    ]
    for early in (True, False):
        places = [place for place, look in enumerate(looks) if look.is_early == early]
        _settle_rest(looks, settled, places, rule, source=source, notes=notes)
    return _noted([offset or 0 for offset in settled], notes)


def _noted(offsets: list[int], notes: list[str], why: str = "") -> list[int]:
    for offset in sorted(set(filter(None, offsets))):
        notes.append(f"an offset of {offset} was taken off {offsets.count(offset)} of {len(offsets)} dates{why}")
    return offsets


def _settle_rest(
    looks: Sequence[Look],
    settled: list[int | None],
    places: Sequence[int],
    rule: OffsetRule,
    *,
    source: object,
    notes: list[str],
) -> None:
    """Fill in, at the places of one side of baseline 04.00's first day, what neither pixels nor metadata say."""
    known = [place for place in places if settled[place] is not None]
    unknown = [place for place in places if settled[place] is None]
    if not unknown:
        return
    is_early = looks[unknown[0]].is_early
    levels = [dark_level(looks[place].visible) for place in unknown]
    bright = any(level is not None and level >= WITH for level in levels)
    guess = OFFSET if bright and not is_early else 0
    for place in unknown:
        near = min(known, key=lambda other: abs((looks[other].date - looks[place].date).days), default=None)
        settled[place] = guess if near is None else settled[near]
    said = [looks[place] for place in unknown if not looks[place].is_empty]
    if not said:
        return
    first = f"{len(said)} of {len(looks)} dates, the first {said[0].name} ({said[0].date}),"
    if known:
        notes.append(
            f"{first} neither state an offset that holds nor show enough of the ground to check: they are read as the "
            f"nearest date is"
        )
        return
    message = f"{first} state no offset that holds, and nothing dark shows whether one is in"
    advice = f"state it by data.season.offset, 0 or {OFFSET}"
    if rule == "refuse":
        raise DataError(f"{source}: {message}; {advice}, or set it to 'correct' to guess by the day")
    when = f"before {OFFSET_FROM}" if is_early else f"from {OFFSET_FROM} on"
    notes.append(f"{message}: {guess} is guessed, as they are {when}; {advice}")


def _doubted(looks: Sequence[Look], shown: Sequence[int | None]) -> set[int | None]:
    """Stated offsets that the pixels show to be false of so many dates that they say nothing of the others."""
    found: set[int | None] = set()
    for stated in (0, OFFSET):
        ours = [(look, pixels) for look, pixels in zip(looks, shown, strict=True) if look.stated.offset == stated]
        false = sum(pixels not in (None, stated) for _, pixels in ours)
        # Of dates without anything dark, an offset may be true.
        likely = sum(pixels != 0 and (dark_level(look.visible) or 0) >= WITH for look, pixels in ours) if stated else 0
        if false > likely:
            found.add(stated)
    return found


def _shown(looks: Sequence[Look]) -> list[int | None]:
    """The offset that the pixels of each date show. If None, they show nothing."""
    # Another offset than that of baseline 04.00 is not to be told by these rules.
    usual = [look.stated.offset in (None, 0, OFFSET) for look in looks]
    dark = [dark_level(look.visible) if is_usual else None for look, is_usual in zip(looks, usual, strict=True)]
    shown: list[int | None] = [
        0 if is_usual and _is_dark(look.visible) else None for look, is_usual in zip(looks, usual, strict=True)
    ]
    bright = [place for place, level in enumerate(dark) if level is not None and level >= WITH]
    _withdraw_artifacts(looks, shown, bright)
    without = [place for place, offset in enumerate(shown) if offset == 0]
    # A run ends at the first day of baseline 04.00: it says nothing of dates on the other side.
    runs = itertools.groupby(
        (place for place, level in enumerate(dark) if level is not None),
        lambda place: (place in bright, looks[place].is_early),
    )
    for (is_bright, _), run in runs:
        places = list(run)
        if is_bright and any(_steps_up(looks[other], looks[place]) for place in places for other in without):
            shown = [OFFSET if place in places else offset for place, offset in enumerate(shown)]
    return shown


def _withdraw_artifacts(looks: Sequence[Look], shown: list[int | None], bright: Sequence[int]) -> None:
    """Dates that state the offset, and have dark pixels, but are no darker as a whole than near ones without any.

    So many dark pixels are artifacts, unless more dates have some than have none.
    """
    dark = [place for place, offset in enumerate(shown) if offset == 0 and looks[place].stated.offset == OFFSET]
    others = [place for place in bright if looks[place].stated.offset == OFFSET and shown[place] is None]
    if len(dark) > len(others):
        return
    for place in dark:
        steps = [_step(looks[place], looks[other]) for other in others]
        known = [step for step in steps if step is not None]
        if known and not any((np.median(step, axis=1) >= STEP[0]).all() for step in known):
            shown[place] = None


def _step(one: Look, other: Look) -> NDArray[np.float32] | None:
    """How much brighter the second of two near dates is, by band and place. None where they are not to be compared."""
    bands = [(one.visible, other.visible), (one.shortwave, other.shortwave)]
    known = [(first, second) for first, second in bands if first is not None and second is not None]
    if not known or abs((other.date - one.date).days) > NEAR:
        return None
    step = np.concatenate([second - first for first, second in known])
    step = step[:, np.isfinite(step).all(0)]
    return None if step.shape[1] < FEWEST else step


def _steps_up(without: Look, candidate: Look) -> bool:
    """Whether a date is brighter than a near one by about OFFSET, alike in all bands and all over."""
    step = _step(without, candidate)
    if step is None:
        return False
    low, middle, high = np.quantile(step, (0.25, 0.5, 0.75), axis=1)
    return bool((middle >= STEP[0]).all() and (middle <= STEP[1]).all() and (high - low <= SPREAD).all())


def _disagreement(stated: int | None, pixels: int, found: Sequence[Look]) -> str:
    first = found[0]
    middle = _darkness(first.visible)
    says = "state no offset" if stated is None else f"state an offset of {stated} (by {first.stated.by})"
    return (
        f"{len(found)} dates, the first {first.name} ({first.date}), {says}, but their pixels show {pixels}: on that "
        f"date {(middle < WITHOUT).mean():.1%} of {len(middle)} clear pixels are below {WITHOUT} in visible light, and "
        f"the darkest 1 % at {dark_level(first.visible):.0f}"
    )


def check_scales(looks: Sequence[Look], *, source: object, bounds: bool = True) -> None:
    """Raise DataError if the dates of a season are not all on one scale, or it is not that of reflectance x 10,000.

    The near-infrared median of a date's clear pixels must be within SCALE_RATIO of the season's, and that of the
    season, with `bounds`, within SCALE_BOUNDS.
    """
    medians = [
        (look, float(np.nanmedian(look.infrared)))
        for look in looks
        if look.infrared is not None and np.isfinite(look.infrared).sum() >= FEWEST
    ]
    if not medians:
        return
    usual = float(np.median([median for _, median in medians]))
    if bounds and not SCALE_BOUNDS[0] <= usual <= SCALE_BOUNDS[1]:
        factors = {look.stated.factor for look, _ in medians} - {None}
        stated = f" by the stated scale {min(filter(None, factors)) / 10_000:g}" if factors else ""
        raise DataError(
            f"{source}: the near-infrared median of the season's clear pixels is {usual:,.0f}{stated}. Reflectance x "
            f"10,000 of land is between {SCALE_BOUNDS[0]:,} and {SCALE_BOUNDS[1]:,}. State the scale by "
            f"data.season.scale (reflectance of a stored 1, 0.0001 where values are reflectance x 10,000)"
        )
    if len(medians) < 3:
        return
    for look, median in medians:
        if usual > 0 and not usual / SCALE_RATIO <= median <= usual * SCALE_RATIO:
            raise DataError(
                f"{source}: {look.name} ({look.date}) has another scale than the season: its near-infrared median is "
                f"{median:.0f}, that of the season {usual:.0f}. Bring it to reflectance x 10,000, or leave it out"
            )
