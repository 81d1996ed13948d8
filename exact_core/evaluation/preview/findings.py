"""Warnings about data before training: shifted bands, gaps between dates, uninformative tags."""

from __future__ import annotations

import numpy as np

from exact_core.data.windows.tag_support import ALWAYS, FEW_WINDOWS, findings_of_counts, listed
from exact_core.evaluation.preview.content import ALL, GAP_WEEKS, USABLE, Preview, Squares, TagFigures

__all__ = ["ALWAYS", "FEW_WINDOWS", "LARGE_SHIFT", "few", "findings"]

LARGE_SHIFT = 1.0
"""Difference of means, in standard deviations of training, from which a band is flagged."""


def findings(preview: Preview) -> list[str]:
    """What stands out, a sentence or two each, with the way out."""
    return [
        *preview.remarks,
        *_shifted(preview),
        *_gaps(preview),
        *([] if preview.tags is None else _tags(preview.tags)),
        *([] if preview.squares is None else _squares(preview.squares)),
    ]


def few(tags: TagFigures) -> list[int]:
    """Positions of crops with little support in training: fewer than FEW_WINDOWS windows."""
    return np.flatnonzero(tags.counts.get("train", np.zeros(len(tags.classes))) < FEW_WINDOWS).tolist()


def _shifted(preview: Preview) -> list[str]:
    found: dict[str, dict[str, float]] = {}
    for figures in preview.bands:
        for group, shift in figures.shifts.items():
            if abs(shift) > LARGE_SHIFT:
                found.setdefault(group, {})[figures.band] = shift
    return [
        f"In {_place(group)}, {_bands(shifts)} {'differ' if len(shifts) > 1 else 'differs'} by more than "
        f"{LARGE_SHIFT:g} standard deviation from training. Check the scaling and offset of the reflectances and the "
        f"dates. If both are right, train on similar data."
        for group, shifts in found.items()
    ]


def _bands(shifts: dict[str, float]) -> str:
    """The shifted bands, each with its shift. If there are many, only the farthest."""
    if len(shifts) > 4:
        farthest = max(shifts, key=lambda band: abs(shifts[band]))
        return f"{len(shifts)} bands ({farthest} {shifts[farthest]:+.1f} the farthest)"
    return listed([f"{band} ({shift:+.1f})" for band, shift in shifts.items()])


def _place(group: str) -> str:
    return "this data" if group == ALL else f"the {group} split"


def _gaps(preview: Preview) -> list[str]:
    if preview.kind == "season":
        return _season_gaps(preview)
    if not preview.gaps:
        return []
    longest = preview.gaps[0]
    where = f" in {longest.scene}" if preview.scenes > 1 else ""
    shown, with_gaps = len(preview.calendar), len({gap.scene for gap in preview.gaps})
    share = f"All {shown}" if with_gaps == shown else f"{with_gaps} of the {shown}"
    many = f"{share} scenes shown have" if preview.scenes > 1 else ""
    counted = f"{many} a gap of more than {GAP_WEEKS:g} weeks. The longest:" if many else "The longest gap:"
    usable = f"with {100 * USABLE:.0f} % of the scene {'clear' if preview.clouds_known else 'measured'}"
    return [
        f"{counted} {longest.first} to {longest.last}{where}, {longest.weeks:.1f} weeks without a date {usable}. Add "
        f"acquisitions, raise data.max_dates if ingest thinned them out, or shorten the season. Changes of a crop in "
        f"that time are invisible."
    ]


def _season_gaps(preview: Preview) -> list[str]:
    """For images: separates gaps due to thinning from those without acquisitions."""
    usable = f"with {100 * USABLE:.0f} % of it {'clear' if preview.clouds_known else 'measured'}"
    real = [gap for gap in preview.gaps if gap.scene == preview.calendar[0].name]
    made = [gap for gap in preview.gaps if gap.scene != preview.calendar[0].name]
    made = [gap for gap in made if not any(each.first <= gap.first and gap.last <= each.last for each in real)]
    said = [
        f"No acquisition shows the area {usable} from {gap.first} to {gap.last} ({gap.weeks:.1f} weeks). Add "
        f"acquisitions, or shorten the season. Changes of a crop in that time are invisible."
        for gap in real[:1]
    ]
    said += [
        f"Thinning to {len(preview.calendar[-1].days)} dates leaves {gap.weeks:.1f} weeks, {gap.first} to {gap.last}, "
        f"without a usable date where there are acquisitions. Raise data.max_dates, or shorten the season."
        for gap in made[:1]
    ]
    return said


def _tags(tags: TagFigures) -> list[str]:
    """What training windows' tags show. Which crops come together is asked of the windows of all splits."""
    train = tags.counts.get("train", np.zeros(len(tags.classes), np.int64))
    return findings_of_counts(train, tags.together, int(tags.density.sum()), tags.classes)


def _squares(squares: Squares) -> list[str]:
    """The same of a table of squares, as if all of its windows were used for training."""
    return findings_of_counts(squares.together.diagonal(), squares.together, squares.windows, tuple(squares.counts))
