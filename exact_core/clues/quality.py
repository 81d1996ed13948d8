"""The quality of pseudo masks, estimated without ground truth.

Three regressions on single pixels label the training windows before masks are made of their mean
(`exact_core.clues.relearn`). One learned from CAMs and two, in different ways, from tags. Where one is wrong, another
one rarely makes the same mistake. So the agreement of two of them, mean over the pairs, is taken as what to expect of
the masks: the share of pixels with the same label for their OA, and the IoU of their labels for their IoU. No constant
is fitted. docs/results.md has the errors on real and on generated land.

Axes are B windows, K classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from exact_core.data.windows.mask_dataset import MaskQuality
from exact_core.metrics import Scores, confusion_matrix

__all__ = ["Committee", "Opinions", "judge", "shares_shown", "tag_agreement"]

Shares = list[float | None]
"""Of each crop's windows. None for a crop that is tagged in none."""

Opinions = dict[int, list[NDArray[np.uint8]]]
"""Masks (H, W) of windows by several labellings, by the position of the window."""

RAREST = 26
"""Training windows of a crop, below which a few fields decide its IoU."""
BELOW, ABOVE = 0.15, 0.25
"""The interval of the mIoU about what is expected. It held 35 of 36 sets of masks (docs/results.md). Where squares are
few, or all are alike, masks are better than their teachers' agreement."""
LOST = 0.5
"""A crop is lost where fewer than this share of the masks of its windows show it."""


class Committee:
    """How far several labellings of the same windows agree.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._pairs: dict[tuple[int, int], NDArray[np.int64]] = {}

    def look(self, labels: Sequence[NDArray[np.uint8]]) -> None:
        """Take in what each member calls the pixels of a window (H, W), void where it is unknown."""
        for one, other in combinations(range(len(labels)), 2):
            found = confusion_matrix(labels[one], labels[other], classes=self._classes)
            self._pairs[one, other] = self._pairs.get((one, other), 0) + found

    @property
    def oa(self) -> float:
        """Share of pixels with the same label, mean over the pairs."""
        return float(np.mean([Scores(pair).oa_micro for pair in self._pairs.values()]))

    def iou(self, expected: NDArray[np.bool_]) -> NDArray[np.float64]:
        """IoU of each class (K + 1,), mean over the pairs.

        0 for a class that is expected, as a tagged crop is (K + 1,), and that both of a pair give to no pixel. NaN for
        any other without a pixel.
        """
        pairs = np.array([Scores(pair).iou for pair in self._pairs.values()])
        return np.asarray(np.where(np.isnan(pairs) & expected, 0, pairs).mean(0))


def judge(
    committee: Committee | None,
    *,
    names: Sequence[str],
    tagged: Sequence[int],
    border_contrast: float,
    relearn_agreement: float | None,
    found: Shares,
    shown: Shares,
) -> MaskQuality:
    """The quality of masks.

    Args:
        committee: the regressions that labelled the training windows. If None, nothing can be expected.
        names: of crops 1..K.
        tagged: training windows with the tag of each.
        border_contrast: from `selection.border_threshold`. NaN where unknown.
        relearn_agreement: share of pixels that kept their label in pixel self-training. If None, it did not run.
        found: from `shares_shown`, of the masks that the CAMs give.
        shown: likewise, of the masks as they are delivered.
    """
    oa, miou, by_class = None, None, {}
    if committee is not None:
        iou = committee.iou(np.array([True, *(count > 0 for count in tagged)]))
        oa, miou = committee.oa, float(np.nanmean(iou))
        known = zip(("background", *names), iou.tolist(), strict=True)
        by_class = {name: None if np.isnan(value) else value for name, value in known}
    return MaskQuality(
        border_contrast=None if np.isnan(border_contrast) else border_contrast,
        relearn_agreement=relearn_agreement,
        tag_agreement=float(np.mean([share for share in found if share is not None])),
        tag_agreement_by_class=dict(zip(names, found, strict=True)),
        shown_by_class=dict(zip(names, shown, strict=True)),
        lost=tuple(name for name, share in zip(names, shown, strict=True) if share is not None and share < LOST),
        rare=tuple(name for name, count in zip(names, tagged, strict=True) if 0 < count < RAREST),
        expected_oa=oa,
        expected_miou=miou,
        expected_by_class=by_class,
        expected_low=None if miou is None else max(miou - BELOW, 0.0),
        expected_high=None if miou is None else min(miou + ABOVE, 1.0),
    )


def tag_agreement(masks_BHW: NDArray[np.uint8], tags_BK: NDArray[np.floating], *, share: float) -> NDArray[np.bool_]:
    """Where a tagged crop covers more than `share` of its window's mask, bool (B, K)."""
    area = (masks_BHW[:, None] == np.arange(1, tags_BK.shape[1] + 1)[:, None, None]).mean((2, 3))
    return np.asarray((area > share) & (tags_BK > 0))


def shares_shown(shown_NK: NDArray[np.bool_], tags_NK: NDArray[np.uint8]) -> Shares:
    """Of each crop, the share of its windows where `tag_agreement` finds it."""
    tagged = tags_NK.astype(bool)
    return [float(shown_NK[tagged[:, k], k].mean()) if tagged[:, k].any() else None for k in range(tagged.shape[1])]
