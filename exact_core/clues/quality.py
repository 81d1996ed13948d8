"""The quality of pseudo masks, estimated without ground truth.

All indicators need tags alone. From the final masks: whether each crop appears where it is tagged, and the share of
pixels that keep their label in pixel self-training. From the CAMs: whether the masks of one half of the dates agree
with those of the other (stability), whether each tagged crop is detected at all (tag agreement), and how much the
threshold matters (sharpness, which adds nothing to the others and is only reported). The expected mIoU is calibrated on
synthetic seasons of varied difficulty (`benchmarks.selection`). For real land, where the masks are worse than the
indicators suggest, it is calibrated on real scenes by stability.

Axes are B windows, K classes, T dates, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.clues.maps import CamMaker
from exact_core.clues.masks import pseudo_masks
from exact_core.data.windows.batches import BatchLoader, Series
from exact_core.data.windows.mask_dataset import MaskQuality
from exact_core.metrics import Scores, confusion_matrix

__all__ = [
    "ClassSigns",
    "can_tell",
    "every_other_date",
    "expected_miou",
    "judge",
    "real_miou",
    "shares_shown",
    "tag_agreement",
]

Shares = list[float | None]
"""Of each crop's windows. None for a crop that is tagged in none."""

GENERATED = "synthetic"
"""Name of datasets that are generated."""
STEP = 0.1
"""How far below and above the threshold sharpness looks, CAM units."""


@dataclass(frozen=True)
class ClassSigns:
    """Indicators of a crop or, with the defaults, of background. Shares in [0, 1].

    stability: IoU between the CAMs' masks of every other date and those of the dates between.
    found, shown: share of the windows with the crop's tag whose mask contains it. Of the CAMs, and of the final masks.
    windows: training windows with its tag.
    """

    stability: float
    found: float = 1.0
    shown: float = 1.0
    windows: float = math.inf


@dataclass(frozen=True)
class Calibration:
    """Expected IoU = constant - sum of weight * (1 - sign).

    error: of the mIoU so expected, root mean square over the seasons left out of the fit, one at a time.
    """

    constant: float
    weights: tuple[float, float]
    error: float


RELEARNED = Calibration(0.974, (1.025, 0.785), 0.027)
"""For masks after pixel self-training: crops shown, pixels that kept their label. Non-negative least squares over 28
sets of masks from 14 synthetic seasons (docs/results.md)."""
FROM_CAMS = Calibration(1.007, (0.610, 0.687), 0.058)
"""For masks from CAMs alone: crops detected, stability. The same seasons."""
RAREST = 26
"""Training windows of the least tagged crop of those seasons. A rarer crop is less of a promise: its IoU is expected to
be smaller in proportion."""
REAL = Calibration(0.901, (0.0, 1.006), 0.081)
"""For masks of real land, with and without pixel self-training: stability alone. Least squares over seven mask sets of
five real scenes: Flanders 2019 (windows of 12 at 10 m and 20 m, of 6 at 20 m), Flanders 2018, Belgium 2021, Tanzania
2021 and Slovenia, seed 0, all of them in view. The error is that of a mask set left out. The calibration of synthetic
seasons was 25 points off on real land, and up to 45 too high."""
REAL_STABILITY = (0.31, 0.76)
"""Stability of the least and the most stable of those mask sets. Below it nothing is known of masks of real land. Above
it they are expected to be no better than the most stable."""
WIDEST_MISS = {"generated": 0.07, "real": 0.15}
"""The largest error of a mask set left out of the fit, of either calibration: half the width of the interval."""
LOST = 0.5
"""A crop is lost where fewer than this share of the masks of its windows show it."""


def expected_miou(classes: Sequence[ClassSigns], relearn_agreement: float | None) -> float:
    """Expected mIoU of masks with these indicators, in [0, 1].

    Args:
        classes: background, and the crops that are tagged at all.
        relearn_agreement: share of pixels that kept their label in pixel self-training. If None, it did not run.
    """
    total = 0.0
    for each in classes:
        if relearn_agreement is None:
            fit, signs = FROM_CAMS, (each.found, each.stability)
        else:
            fit, signs = RELEARNED, (each.shown, relearn_agreement)
        expected = fit.constant - sum(weight * (1 - sign) for weight, sign in zip(fit.weights, signs, strict=True))
        total += min(each.windows / RAREST, 1.0) * expected
    return min(max(total / len(classes), 0.0), 1.0)


def real_miou(generated: float, stability: float) -> float:
    """Expected mIoU of masks of real land, in [0, 1].

    Args:
        generated: the result of `expected_miou`, which is calibrated on synthetic seasons. It is the upper limit.
        stability: mIoU between the masks of every other date and those of the dates between. NaN: none.
    """
    steady = 0.0 if math.isnan(stability) else min(stability, REAL_STABILITY[1])
    return min(generated, max(REAL.constant - REAL.weights[1] * (1 - steady), 0.0))


def can_tell(stability: float) -> bool:
    """Whether masks of real land this stable, or more, were among those that the expectation was fitted to."""
    return not math.isnan(stability) and stability >= REAL_STABILITY[0]


def judge(
    maker: CamMaker,
    loader: BatchLoader,
    *,
    threshold: float,
    border_contrast: float,
    relearn_agreement: float | None,
    tag_share: float,
    shown: Shares,
) -> MaskQuality:
    """The quality of the masks of the loader's windows.

    Args:
        maker: makes the CAMs. Here without shifted windows, which would only cost time.
        loader: windows to judge by. A few hundred suffice.
        threshold: background plane of the masks.
        border_contrast: from `selection.border_threshold`. NaN where unknown.
        relearn_agreement: share of pixels that kept their label in pixel self-training. If None, it did not run.
        tag_share: share of a window from which a crop counts as detected.
        shown: of the masks as they are delivered, from `shares_shown`.
    """
    classes, names = loader.dataset.classes, loader.dataset.manifest.classes
    quick = maker.without_shifts()
    between, around = (np.zeros((classes + 1, classes + 1), np.int64) for _ in range(2))
    found: list[NDArray[np.bool_]] = []
    for batch in loader:

        def masks(cams: torch.Tensor, at: float = threshold) -> NDArray[np.uint8]:
            return np.asarray(pseudo_masks(cams, at).cpu().numpy())

        cams = quick.chosen(batch.series, batch.tags)
        halves = [masks(quick.chosen(every_other_date(batch.series, first), batch.tags)) for first in (0, 1)]
        between += confusion_matrix(halves[0], halves[1], classes=classes)
        low, high = max(threshold - STEP, 0.0), min(threshold + STEP, 1.0)
        around += confusion_matrix(masks(cams, low), masks(cams, high), classes=classes)
        found.append(tag_agreement(masks(cams), batch.tags.cpu().numpy(), share=tag_share))
    shares = shares_shown(np.concatenate(found), loader.dataset.tags[loader.indices])
    agreed = Scores(between)
    stability = [None if np.isnan(iou) else float(iou) for iou in agreed.iou]
    tagged = loader.dataset.manifest.tag_counts
    signs = [ClassSigns(stability[0] or 0.0)]
    for name, steady, part, visible in zip(names, stability[1:], shares, shown, strict=True):
        if visible is not None:
            # A crop that none of the judged windows is tagged with shows, or does not, in the others.
            signs.append(ClassSigns(steady or 0.0, visible if part is None else part, visible, tagged[name]))
    expected, error = expected_miou(signs, relearn_agreement), (FROM_CAMS if relearn_agreement is None else RELEARNED)
    kind = "generated" if loader.dataset.manifest.name == GENERATED else "real"
    if kind == "real":
        expected, error = real_miou(expected, agreed.miou_macro), REAL
    return MaskQuality(
        border_contrast=None if np.isnan(border_contrast) else border_contrast,
        stability=agreed.miou_macro,
        stability_by_class=dict(zip(("background", *names), stability, strict=True)),
        relearn_agreement=relearn_agreement,
        sharpness=Scores(around).miou_macro,
        tag_agreement=float(np.mean([share for share in shares if share is not None])),
        tag_agreement_by_class=dict(zip(names, shares, strict=True)),
        shown_by_class=dict(zip(names, shown, strict=True)),
        lost=tuple(name for name, share in zip(names, shown, strict=True) if share is not None and share < LOST),
        rare=tuple(name for name in names if 0 < tagged[name] < RAREST),
        expected_miou=expected,
        expected_error=error.error,
        expected_low=max(expected - WIDEST_MISS[kind], 0.0),
        expected_high=min(expected + WIDEST_MISS[kind], 1.0),
        expected_from=kind,
        expected_known=kind != "real" or can_tell(agreed.miou_macro),
    )


def every_other_date(series: Series, first: int) -> Series:
    """The series with every second date, from position `first` (0 or 1)."""
    seen = series.seen
    return replace(
        series,
        pixels=series.pixels[:, first::2],
        dates=series.dates[:, first::2],
        seen=None if seen is None else seen[..., first::2],
    )


def tag_agreement(masks_BHW: NDArray[np.uint8], tags_BK: NDArray[np.floating], *, share: float) -> NDArray[np.bool_]:
    """Where a tagged crop covers more than `share` of its window's mask, bool (B, K)."""
    area = (masks_BHW[:, None] == np.arange(1, tags_BK.shape[1] + 1)[:, None, None]).mean((2, 3))
    return np.asarray((area > share) & (tags_BK > 0))


def shares_shown(shown_NK: NDArray[np.bool_], tags_NK: NDArray[np.uint8]) -> Shares:
    """Of each crop, the share of its windows where `tag_agreement` finds it."""
    tagged = tags_NK.astype(bool)
    return [float(shown_NK[tagged[:, k], k].mean()) if tagged[:, k].any() else None for k in range(tagged.shape[1])]
