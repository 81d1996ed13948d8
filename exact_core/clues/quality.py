"""How good pseudo masks are, as far as that shows without any truth.

Signs in reach of whoever has tags alone: whether the masks of one half of the dates agree with those of the other
(stability), whether each tagged crop is found at all (tag agreement), and whether it matters just where the threshold
stands (sharpness). What they promise is calibrated on generated seasons of varied difficulty (`benchmarks.selection`);
there sharpness adds nothing to the other two, and is reported all the same.

These are signs of the CAMs. What became of them is looked at too: a crop that the masks, as they are delivered, do not
show where it is tagged is lost, whatever the CAMs said of it.

Axes: B windows, K classes, T dates, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.clues.maps import CamMaker
from exact_core.clues.masks import pseudo_masks
from exact_core.data.batches import BatchLoader, Series
from exact_core.data.maskset import MaskQuality
from exact_core.metrics import Scores, confusion_matrix

__all__ = ["QualitySigns", "every_other_date", "expected_miou", "judge", "shares_shown", "tag_agreement"]

Shares = list[float | None]
"""Of each crop's windows; None for a crop that is tagged in none."""

STEP = 0.1
"""How far below and above the threshold sharpness looks, CAM units."""


@dataclass(frozen=True)
class QualitySigns:
    """What the expectation is computed from, each in [0, 1]."""

    stability: float
    tag_agreement: float


CONSTANT, STABILITY, TAG_AGREEMENT = 0.972, 0.159, 2.767
"""Expected mIoU = CONSTANT - STABILITY (1 - stability) - TAG_AGREEMENT (1 - tag agreement): non-negative least squares
over 19 sets of default masks from 13 generated seasons (docs/results.md)."""
CALIBRATION_ERROR = 0.043
"""Root mean square error of the expectation for the seasons left out of the fit, one at a time."""

LOST = 0.5
"""A crop is lost where fewer than this share of the masks of its windows show it."""


def expected_miou(signs: QualitySigns, *, lost: float = 0.0) -> float:
    """MIoU to be expected of masks with these signs, in [0, 1].

    Args:
        signs: of the CAMs.
        lost: share of the classes, background among them, that are lost: their IoU is next to 0.
    """
    expected = CONSTANT - STABILITY * (1 - signs.stability) - TAG_AGREEMENT * (1 - signs.tag_agreement)
    return min(max(expected, 0.0), 1.0) * (1 - lost)


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
        maker: makes the CAMs; here without shifted windows, which would only cost time.
        loader: windows to judge by; a few hundred suffice.
        threshold: background plane of the masks.
        border_contrast: from `selection.border_threshold`; NaN where unknown.
        relearn_agreement: share of pixels that kept their label when masks were learned again; None: they were not.
        tag_share: share of a window from which a crop counts as found.
        shown: of the masks as they are delivered, from `shares_shown`.
    """
    classes, names = loader.dataset.classes, loader.dataset.manifest.classes
    quick = maker.without_shifts()
    between, around = (np.zeros((classes + 1, classes + 1), np.int64) for _ in range(2))
    found: list[NDArray[np.bool_]] = []
    for batch in loader:

        def masks(cams: torch.Tensor, at: float = threshold) -> NDArray[np.uint8]:
            return np.asarray(pseudo_masks(cams, at).cpu().numpy())

        cams = quick(batch.series, batch.tags).clue
        halves = [masks(quick(every_other_date(batch.series, first), batch.tags).clue) for first in (0, 1)]
        between += confusion_matrix(halves[0], halves[1], classes=classes)
        low, high = max(threshold - STEP, 0.0), min(threshold + STEP, 1.0)
        around += confusion_matrix(masks(cams, low), masks(cams, high), classes=classes)
        found.append(tag_agreement(masks(cams), batch.tags.cpu().numpy(), share=tag_share))
    shares = shares_shown(np.concatenate(found), loader.dataset.tags[loader.indices])
    lost = tuple(name for name, share in zip(names, shown, strict=True) if share is not None and share < LOST)
    signs = QualitySigns(
        stability=Scores(between).miou_macro,
        tag_agreement=float(np.mean([share for share in shares if share is not None])),
    )
    return MaskQuality(
        border_contrast=None if np.isnan(border_contrast) else border_contrast,
        stability=signs.stability,
        relearn_agreement=relearn_agreement,
        sharpness=Scores(around).miou_macro,
        tag_agreement=signs.tag_agreement,
        tag_agreement_by_class=dict(zip(names, shares, strict=True)),
        shown_by_class=dict(zip(names, shown, strict=True)),
        lost=lost,
        expected_miou=expected_miou(signs, lost=len(lost) / (1 + sum(share is not None for share in shown))),
        expected_error=CALIBRATION_ERROR,
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
