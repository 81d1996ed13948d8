"""One crop per field, where outlines of fields are known: the pixels of a field vote (not in the paper).

Outlines group pixels and contain no crops. The scores of the pixels are averaged over each field. Every pixel counts
once, even if several windows contain it or their edges cut the field. The field gets the crop of the highest mean among
the crops that the tags of its windows allow.

Some windows then have a tag that none of their fields shows, since a rare crop that looks like a common one is nowhere
the likeliest. One field after the other gets such a crop, until no change would show another tag. The next field is the
one where the crop is least behind the likeliest, for each tag that the change shows.

Outlines can be wrong. A field keeps the labels of its pixels

- if the images do not show its outline: neighbouring pixels differ no more across it than inside, as far as can be told
  from this field and the others (`exact_core.clues.outline_contrast`);
- if the tags exclude every crop, or allow background alone.

Axes are K crop classes, H W pixels of a window, F fields of all scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exact_core.clues.outline_contrast import OutlineContrast
from exact_core.clues.overlaps import OverlapTags
from exact_core.data.season.outlines import beside_fields
from exact_core.data.windows.dataset import VOID, WindowDataset

__all__ = ["Fields"]

Scores = Callable[[int], NDArray[np.float64]]
"""Scores (H, W, K + 1) of the pixels of the window at a position."""

SIDES = ((0, 1), (1, 0))
"""Steps to the neighbours that share a side: the first two of `field_borders.OFFSETS`."""
LEFT = 0.75
"""Share of a field's pixels and windows whose tags must contain a crop before the field can get it: a small part of a
field in a window's corner gets no tag. Chosen on flanders_2018, seed 0."""


class Fields:
    """The fields of a dataset with outlines.

    Args:
        windows: the dataset.
        indices: positions of the windows that count.
        overlaps: which windows contain which pixels, and the crops that their tags allow.

    Attributes:
        count: number of fields F.
    """

    def __init__(self, windows: WindowDataset, indices: Sequence[int], overlaps: OverlapTags) -> None:
        self._windows, self._indices, self._overlaps = windows, indices, overlaps
        numbers: dict[str, set[int]] = {}
        for index in indices:
            numbers.setdefault(self._scene(index), set()).update(np.unique(self._numbers(index)).tolist())
        self._known: dict[str, NDArray[np.int64]] = {}
        self._first: dict[str, int] = {}
        self.count = 0
        for scene, found in numbers.items():
            self._known[scene] = np.array(sorted(found - {0}), np.int64)
            self._first[scene] = self.count
            self.count += len(self._known[scene])
        self._contrast = OutlineContrast(self.count)

    def of(self, index: int) -> NDArray[np.int64]:
        """Field of each pixel of a window (H, W), 0..F - 1, and -1 outside of all outlines."""
        numbers, scene = self._numbers(index), self._scene(index)
        places = np.searchsorted(self._known[scene], numbers) + self._first[scene]
        return np.where(numbers > 0, places, -1)

    def look(self, index: int, contrast_OHW: NDArray[np.float32]) -> None:
        """Take in how differently the neighbours of a window look (`field_borders.border_contrast`)."""
        fields = self.of(index)
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = np.where(np.isinf(contrast_OHW), np.nan, np.log(contrast_OHW))[: len(SIDES)].astype(np.float64)
        if np.isnan(logs).all():
            return
        logs -= np.nanmean(logs)
        height, width = fields.shape
        # However many windows lie over a pixel, it counts once.
        share = 1 / self._overlaps.count(index)
        for number, (down, right) in enumerate(SIDES):
            here, there = np.s_[: height - down, : width - right], np.s_[down:, right:]
            known = ~np.isnan(logs[number][here])
            pairs = (each[known] for each in (fields[here], fields[there], logs[number][here]))
            self._contrast.add(*pairs, share=share[here][known])

    def shown(self) -> NDArray[np.bool_]:
        """Fields (F,) whose outlines the images show."""
        return self._contrast.shown()

    def crops(self, scores: Scores, *, tag_share: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The label of each field (F,), and the mean score (F, K + 1) that it was chosen by.

        Fields whose outline is not believed have -1, as have those of which nothing is known.

        Args:
            scores: of the pixels.
            tag_share: share of a window that a field must exceed to show one of its tags. 1: no tag has to be shown.
        """
        total = np.zeros((self.count, self._windows.classes + 1))
        for index, (inside, here, over) in zip(self._indices, self._places, strict=True):
            # However many windows lie over a pixel, it counts once.
            for label, values in enumerate(scores(index)[inside].T):
                total[:, label] += np.bincount(here, values / over, self.count)
        told, weight = self._told, self._told[:, 0]
        mean = total / np.maximum(weight, 1e-9)[:, None]
        left = told >= LEFT * weight[:, None]
        # Of windows that have no crop at all a field is background; where each has another, its outline joins fields.
        split = (told[:, 1:] > 0).any(1) & ~left[:, 1:].any(1)
        likeliest = np.where(left, mean, -1).argmax(1)
        labels = np.where(split | ~self.shown() | (weight == 0), -1, likeliest)
        least = tag_share * self._windows.manifest.window**2
        showing = [fields[pixels > least] for fields, pixels in self._pixels]
        return self._showing_tags(labels, np.where(left, mean, 0), showing), mean

    @cached_property
    def _places(self) -> list[tuple[NDArray[np.bool_], NDArray[np.int32], NDArray[np.int16]]]:
        """Of each window: its known pixels in a field (H, W), their fields (n,), and the windows over them (n,)."""
        found = []
        for index in self._indices:
            fields, unknown = self.of(index), self._windows.unknown(index)
            inside = fields >= 0 if unknown is None else (fields >= 0) & ~unknown
            over = self._overlaps.count(index)[inside]
            found.append((inside, fields[inside].astype(np.int32), over.astype(np.int16)))
        return found

    @cached_property
    def _pixels(self) -> list[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Of each window: its fields (n,), and how many known pixels they have in it (n,)."""
        return [np.unique(here, return_counts=True) for _, here, _ in self._places]

    @cached_property
    def _told(self) -> NDArray[np.float64]:
        """Of the known pixels of each field, those whose windows may have a label (F, K + 1). All for background."""
        told = np.zeros((self.count, self._windows.classes + 1))
        for index, (_, here, over) in zip(self._indices, self._places, strict=True):
            told += np.bincount(here, 1 / over, self.count)[:, None] * self._overlaps.told(index)
        return told

    def _showing_tags(
        self, labels: NDArray[np.int64], mean: NDArray[np.float64], showing: list[NDArray[np.int32]]
    ) -> NDArray[np.int64]:
        """Labels of the fields (F,) that show as many tags as single changes of them can.

        Args:
            labels: to begin with. A field of -1 keeps it.
            mean: scores (F, K + 1). 0 for what a field may not be.
            showing: of each window the fields that can show its tags.
        """
        showing = [fields[labels[fields] >= 0] for fields in showing]
        windows: list[list[int]] = [[] for _ in labels]
        for window, fields in enumerate(showing):
            for field in fields.tolist():
                windows[field].append(window)
        tags = np.pad(self._windows.tags[self._indices] > 0, ((0, 0), (1, 0)))
        labels, may_be = labels.copy(), mean > 0
        scores = np.log(mean, where=may_be, out=np.zeros_like(mean))
        # How many fields of a window show each label.
        shown = np.array([np.bincount(labels[fields], minlength=tags.shape[1]) for fields in showing])

        def price(field: int) -> NDArray[np.float64]:
            """How far each label is behind that of a field, for each tag that more would be shown; else infinite."""
            here, label = windows[field], labels[field]
            # Where the field alone shows the crop that it has, its window would lose that one.
            lost = (tags[here, label] & (shown[here, label] == 1)).sum()
            gain = (tags[here] & (shown[here] == 0)).sum(0) - lost
            behind = scores[field, label] - scores[field]
            return np.where(may_be[field] & (gain > 0), behind / np.maximum(gain, 1), np.inf)

        prices = np.full(mean.shape, np.inf)
        changed = np.flatnonzero([bool(each) for each in windows])
        while True:
            for field in changed.tolist():
                prices[field] = price(field)
            if np.isinf(prices).all():
                return labels
            field, label = divmod(int(prices.argmin()), mean.shape[1])
            here = windows[field]
            shown[here, labels[field]] -= 1
            shown[here, label] += 1
            labels[field] = label
            changed = np.unique(np.concatenate([showing[window] for window in here]))

    def mask(
        self, index: int, mask: NDArray[np.uint8], crops: NDArray[np.int64], *, outside: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8]:
        """A window's mask (H, W) in which each accepted field has its crop.

        Args:
            index: of the window.
            mask: the labels of its pixels. They stay where no accepted outline covers them. Void stays void.
            crops: of the fields, from `crops`.
            outside: bool (H, W), pixels that become background because no field covers them. If None, none.
        """
        fields = self.of(index)
        label = np.where(fields >= 0, crops[np.maximum(fields, 0)], -1) if self.count else fields
        if outside is not None:
            label = np.where(outside & (fields < 0), 0, label)
        return np.where((label >= 0) & (mask != VOID), label, mask).astype(np.uint8)

    def beside(self, index: int) -> NDArray[np.bool_]:
        """Pixels (H, W) of a window outside of all outlines that share a side with a field."""
        return beside_fields(np.pad(self.of(index), 1, mode="edge") >= 0)

    def _scene(self, index: int) -> str:
        return self._windows.records[index].scene

    def _numbers(self, index: int) -> NDArray[np.int32]:
        numbers = self._windows.fields(index)
        assert numbers is not None, "a dataset without outlines has no fields"
        return numbers
