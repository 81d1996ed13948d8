"""Gathering a preview from a window dataset. `preview_season` does so from images.

What is read is bounded: some windows of some scenes, spread over all of them. Axes as in `preview`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.choice import evenly_chosen
from exact_core.data.windows.cutting import thin_dates
from exact_core.data.windows.dataset import SPLITS, Statistics, Window, WindowDataset
from exact_core.evaluation.palette import colours_of, true_colour
from exact_core.evaluation.preview.content import (
    BandSums,
    Gap,
    Preview,
    SceneDates,
    Strip,
    count_tags,
    find_gaps,
)
from exact_core.evaluation.preview.footprints import footprints, read_index

__all__ = ["NamedStatistics", "counted", "longest_first", "preview_dataset", "strip_dates", "strip_of"]

T = TypeVar("T")

SCENES = 200
"""Scenes in the calendar, at most. Evenly drawn from more."""
WINDOWS = 600
"""Windows of a dataset whose pixels are read, about."""

STRIPS = 4
STRIP_DATES = 10
CLOUD_FREE = 0.95
"""Clear share from which a window's date is taken for a strip before all others."""


@dataclass(frozen=True)
class NamedStatistics:
    """Statistics of training to compare with, and what they are called."""

    statistics: Statistics
    name: str


def preview_dataset(dataset: WindowDataset, *, seed: int, reference: NamedStatistics | None = None) -> Preview:
    """A preview of a window dataset.

    Args:
        dataset: the windows.
        seed: draws the windows that are shown over time.
        reference: statistics to compare with. If None, the dataset's own, those of its training split.
    """
    manifest, index = dataset.manifest, read_index(dataset)
    groups: dict[str, list[int]] = {}
    for position, scene in enumerate(index.scenes):
        groups.setdefault(scene, []).append(position)
    shown = _spread(sorted(groups), SCENES)
    known = reference or NamedStatistics(manifest.statistics, "the training split of this dataset")
    sums = BandSums(manifest.bands, known.statistics)
    calendar, looked = [], []
    for scene in shown:
        some = _spread(groups[scene], max(2, WINDOWS // len(shown)))
        calendar.append(_read_scene(dataset, scene, some, sums, index.splits))
        looked.extend(some)
    members = {split: dataset.indices(split) for split in SPLITS}
    gaps = [gap for row in calendar for gap in find_gaps(row, start=manifest.season_start, length=manifest.season_days)]
    present = {index.splits[position] for position in looked}
    single = next(iter(groups)) if len(groups) == 1 else ""
    return Preview(
        title=f"{manifest.name}: {single}" if single else manifest.name,
        kind="dataset",
        classes=manifest.classes,
        colours=tuple(colours_of(manifest.classes, manifest.colours)),
        season_start=manifest.season_start,
        season_days=manifest.season_days,
        footprints=footprints(index, manifest.window),
        calendar=calendar,
        scenes=len(groups),
        clouds_known=manifest.has_clear,
        gaps=longest_first(gaps),
        bands=sums.figures(compare=reference is not None or len(present) > 1),
        reference=known.name,
        tags=count_tags(dataset.tags, {split: rows for split, rows in members.items() if len(rows)}, manifest.classes),
        strips=[_strip_at(dataset, position, index.splits[position]) for position in _varied(dataset, looked, seed)],
        sampled=f"{counted(len(looked), len(dataset), 'windows')} of {counted(len(shown), len(groups), 'scenes')}",
        facts=_dataset_facts(dataset),
        notes=manifest.notes,
    )


def _read_scene(
    dataset: WindowDataset, scene: str, positions: Sequence[int], sums: BandSums, splits: Sequence[str]
) -> SceneDates:
    """Dates and clear shares of a scene by some of its windows, whose pixels are counted on the way."""
    found: dict[int, list[float]] = {}
    for position in positions:
        window = dataset.window(position)
        sums.add(splits[position], window.pixels)
        for day, share in zip(window.days.tolist(), _shares(window).tolist(), strict=True):
            found.setdefault(day, []).append(share)
    days = sorted(found)
    # A window that lacks a date does not see it: it counts as not clear.
    clear = [sum(found[day]) / len(positions) for day in days]
    return SceneDates(scene, np.array(days, np.int64), np.array(clear))


def _shares(window: Window) -> NDArray[np.float64]:
    """Clear share of each date (T,). Where clouds are not known, the share that was measured."""
    if window.clear is not None:
        return np.asarray(window.clear.mean((1, 2)), np.float64)
    return np.asarray(window.pixels.any(1).mean((1, 2)), np.float64)


def _varied(dataset: WindowDataset, looked: Sequence[int], seed: int) -> list[int]:
    """Windows to show: drawn by seed, each the one of the next that adds most crops not shown yet."""
    order = np.random.default_rng(seed).permutation(np.array(looked))[: 50 * STRIPS].tolist()
    chosen: list[int] = []
    seen = np.zeros(dataset.classes, bool)

    def gain(position: int) -> tuple[int, bool]:
        own = dataset.tags[position].astype(bool)
        return int((own & ~seen).sum()), bool(own.any())

    while order and len(chosen) < STRIPS:
        best = max(order, key=lambda position: gain(position))
        order.remove(best)
        chosen.append(best)
        seen |= dataset.tags[best].astype(bool)
    return chosen


def _strip_at(dataset: WindowDataset, position: int, split: str) -> Strip:
    manifest, record, window = dataset.manifest, dataset.records[position], dataset.window(position)
    names = tuple(name for name, tag in zip(manifest.classes, dataset.tags[position], strict=True) if tag)
    return strip_of(
        title=record.scene,
        place=f"row {record.row}, column {record.col}, {split}",
        tags=names,
        start=manifest.season_start,
        bands=manifest.bands,
        window=window,
        labels=dataset.labels(position) if manifest.has_labels else None,
    )


def strip_of(
    *,
    title: str,
    place: str,
    tags: tuple[str, ...],
    start: dt.date,
    bands: tuple[str, ...],
    window: Window,
    labels: NDArray[np.uint8] | None,
) -> Strip:
    """A window over time: at most STRIP_DATES of its dates."""
    shares = _shares(window)
    chosen = strip_dates(shares, STRIP_DATES)
    # One stretch for all dates, or the season would not show.
    wide = true_colour(np.concatenate(list(window.pixels[chosen]), axis=-1), bands)
    side = window.pixels.shape[-1]
    return Strip(
        title=title,
        place=place,
        tags=tags,
        dates=tuple(start + dt.timedelta(days=int(window.days[date])) for date in chosen),
        clear=tuple(float(shares[date]) for date in chosen),
        images=tuple(wide[:, number * side : (number + 1) * side] for number in range(len(chosen))),
        labels=labels,
    )


def strip_dates(shares: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """At most `limit` of T dates, ascending: cloud-free ones spread over the season, else the clearest as well."""
    free = np.flatnonzero(shares >= CLOUD_FREE)
    if len(free) >= limit:
        return free[thin_dates(shares[free], limit)]
    return np.sort(np.argsort(-shares, kind="stable")[:limit])


def _dataset_facts(dataset: WindowDataset) -> dict[str, str]:
    manifest = dataset.manifest
    size = sum(entry.bytes for entry in (*manifest.shards, manifest.index))
    counts = ", ".join(f"{count} {split}" for split, count in manifest.splits.items() if count)
    return {
        "Source": manifest.source,
        "Windows": f"{len(dataset)} of {manifest.window} × {manifest.window} pixels ({counts})",
        "Dates a window": _range(dataset.dates),
        "Bands": ", ".join(manifest.bands),
        "Dense labels": "yes" if manifest.has_labels else "no",
        "Clouds": "known" if manifest.has_clear else "not known",
        "Size": f"{size / 1e6:.1f} MB in {len(manifest.shards)} {'shard' if len(manifest.shards) == 1 else 'shards'}",
        "Statistics": manifest.statistics.origin,
        "Digest": manifest.digest,
    }


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spaced."""
    return [items[place] for place in evenly_chosen(len(items), count)]


def counted(some: int, every: int, what: str) -> str:
    """How many of how many, in words."""
    if every == 1:
        return f"1 {what.removesuffix('s')}"
    return f"all {every} {what}" if some == every else f"{some} of {every} {what}"


def longest_first(gaps: list[Gap]) -> list[Gap]:
    """Gaps in the order of the page."""
    return sorted(gaps, key=lambda gap: (-gap.weeks, gap.scene, gap.first))


def _range(values: NDArray[np.int64]) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
