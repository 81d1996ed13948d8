"""Clear observations of a season, by pixel and over the calendar.

Axes are T dates, H W pixels.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.dataset import CLEAR_PATCH
from exact_core.errors import DataError

__all__ = ["all_of_patches", "calendar_text", "check_gaps", "ground_between", "longest_gap"]


def ground_between(hidden: NDArray[np.bool_], *, erosion: int = 0, dilation: int = 0) -> NDArray[np.bool_]:
    """Where the ground shows, by what a mask of clouds hides.

    Args:
        hidden: (H, W). Beyond its edges nothing is known, and nothing is taken for cloud.
        erosion: pixels by which what is hidden is shrunk first: specks narrower than twice this are misjudged roofs and
            sand more often than clouds.
        dilation: pixels by which the rest is grown: the thin edges of clouds.

    Returns:
        bool (H, W).
    """
    if erosion:
        hidden = ~_grown(~hidden, erosion)
    # Opened, not only shrunk: clouds that remain keep their size.
    return ~_grown(hidden, erosion + dilation)


def _grown(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """A mask grown by a square of side 2 x steps + 1."""
    for axis in (0, 1):
        grown = mask.copy()
        for step in range(1, min(steps, mask.shape[axis] - 1) + 1):
            here, there = [slice(None)] * 2, [slice(None)] * 2
            here[axis], there[axis] = slice(step, None), slice(None, -step)
            grown[tuple(here)] |= mask[tuple(there)]
            grown[tuple(there)] |= mask[tuple(here)]
        mask = grown
    return mask


def all_of_patches(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(..., H, W) -> (..., H/2, W/2): patches of which every pixel is set. One cloudy pixel spoils the spectrum.

    Raises:
        ValueError: a side that is no multiple of a patch's.
    """
    height, width = mask.shape[-2:]
    if height % CLEAR_PATCH or width % CLEAR_PATCH:
        raise ValueError(f"the mask has shape {mask.shape}, expected multiples of {CLEAR_PATCH}")
    # Whole rows at a time: numpy's reduction over two short axes takes forty times as long.
    rows = np.logical_and.reduce([mask[..., first::CLEAR_PATCH, :] for first in range(CLEAR_PATCH)])
    return np.asarray(np.logical_and.reduce([rows[..., first::CLEAR_PATCH] for first in range(CLEAR_PATCH)]))


LOOK = 0.95
"""Sum of clear shares that counts as one observation of an average pixel: 1.0 in the calendar."""
CLEAR = 0.8
"""Clear share from which a date alone is one observation: # in the calendar."""


def longest_gap(days: NDArray[np.int64], shares: NDArray[np.float64], length: int) -> tuple[int, int]:
    """The longest part of a season with less than one clear observation of an average pixel.

    Args:
        days: of the dates (T,), since the season's start, ascending.
        shares: clear share of each date (T,), of 1.
        length: of the season, days.

    Returns:
        Its first day, and the day after its last: no date in between is clear on CLEAR of the area, and together they
        show less than LOOK of it.
    """
    edges = [-1, *days.tolist(), length]
    looks = [0.0, *(1.0 if share >= CLEAR else share for share in shares.tolist()), 0.0]
    best, last, inside = (0, 0), 1, 0.0
    for first in range(len(edges) - 1):
        while last < len(edges) - 1 and inside + looks[last] < LOOK:
            inside += looks[last]
            last += 1
        if edges[last] - edges[first] - 1 > best[1] - best[0]:
            best = (edges[first] + 1, edges[last])
        if first + 1 < last:
            inside = max(0.0, inside - looks[first + 1])
        else:
            last, inside = first + 2, 0.0
    return best


def check_gaps(
    days: NDArray[np.int64],
    shares: NDArray[np.float64],
    *,
    start: dt.date,
    length: int,
    limit: int,
    source: object,
) -> None:
    """Raise DataError, with the season's calendar, if too long a part of it is not seen.

    Args:
        days: as for `longest_gap`.
        shares: as for `longest_gap`.
        start: of the season.
        length: of the season, days.
        limit: days allowed without one clear observation of an average pixel.
        source: named in the message.
    """
    first, last = longest_gap(days, shares, length)
    if last - first <= limit:
        return
    ends = start + dt.timedelta(days=first), start + dt.timedelta(days=last - 1)
    inside = (days >= first) & (days < last)
    raise DataError(
        f"{source}: from {ends[0]} to {ends[1]}, {last - first} days, {inside.sum()} dates give "
        f"{shares[inside].sum():.1f} clear observations of an average pixel. At least one is needed in {limit} days "
        f"(data.season.longest_gap). Add acquisitions, choose another season by data.season.start and "
        f"data.season.days, or raise the limit if crops do not change in that time. "
        f"The season:\n{calendar_text(days, shares, start=start, length=length)}"
    )


def calendar_text(days: NDArray[np.int64], shares: NDArray[np.float64], *, start: dt.date, length: int) -> str:
    """One line per month: its dates and clear observations, and a mark per date: # clear, + partly, . cloudy."""
    lines = []
    month = start.replace(day=1)
    end = start + dt.timedelta(days=length)
    dates = [start + dt.timedelta(days=int(day)) for day in days]
    while month < end:
        following = (month + dt.timedelta(days=32)).replace(day=1)
        inside = [share for date, share in zip(dates, shares, strict=True) if month <= date < following]
        marks = "".join("#" if share >= CLEAR else "+" if share >= 0.2 else "." for share in inside)
        lines.append(
            f"  {month:%Y-%m}  {len(inside):3d} dates  {sum(inside):5.1f} clear observations  {marks}".rstrip()
        )
        month = following
    return "\n".join(lines)
