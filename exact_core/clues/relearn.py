"""Pixel self-training: masks are made anew by regressions on single pixels (not in the paper).

CAMs are confident inside fields and blurred at edges, where a patch covers two fields. They also treat each window
separately. But a crop has a similar series everywhere in a season. A regression on the series of single pixels learns
from the confident pixels of all windows (`exact_core.clues.pixels`).

Where CAMs are wrong about whole fields, this regression is, too. So two more learn from the tags alone
(`exact_core.clues.tag_pixels`). The three err in different places. What the mean of their probabilities says of the
training windows teaches a last one, and its labels are the masks. Where windows are few, the mean is no better, and it
is taught by those confident pixels of the CAMs that competition gives the same label. A pixel can only get a tag of its
window, or background. How far the three agree says what to expect of the masks (`exact_core.clues.quality`).

A tag says that its crop grows in the window. But a rare crop that looks like a common one is nowhere the likeliest, and
the last regression would never see it. So what teaches it shows each tag of each window.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from exact_core.clues.overlaps import OverlapTags
from exact_core.clues.pixels import FirstMask, PixelModel, PixelTable, taught_by_masks
from exact_core.clues.quality import Opinions
from exact_core.clues.tag_pixels import TaggedPixels, by_competition, by_frequency
from exact_core.config import RelearnConfig
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.errors import TrainingError

__all__ = ["Relearned", "relearn"]


@dataclass(frozen=True)
class Relearned:
    """What pixel self-training ends with.

    model: labels the pixels of all windows. teachers: the three that taught it, each alone. opinions: of each training
    window, by position, the masks of each of them. Where CAMs alone taught it, there are none.
    """

    model: PixelModel
    teachers: tuple[PixelModel, ...] = ()
    opinions: Opinions = field(default_factory=dict)


def relearn(
    windows: WindowDataset,
    first_masks: Iterable[FirstMask],
    settings: RelearnConfig,
    *,
    overlaps: OverlapTags,
    tag_share: float,
    seed: int,
) -> Relearned:
    """What labels the pixels of all windows, with its teachers.

    Args:
        windows: the dataset.
        first_masks: the training windows' masks from CAMs.
        settings: of pixel self-training.
        overlaps: what each pixel may be.
        tag_share: share of a window that a tagged crop exceeds.
        seed: of the choice of pixels.

    Raises:
        TrainingError: no pixel of the first masks is sure or, of few windows, confirmed.
    """
    first, table = list(first_masks), PixelTable(windows, overlaps.allowed)
    teach = partial(taught_by_masks, table, settings=settings, count=len(first), seed=seed)
    cams = teach(first)
    if not settings.tags:
        return Relearned(PixelModel(table, cams))
    # Half as many pixels do: with all of them the masks were not better.
    drawn = TaggedPixels.drawn(table, [each.index for each in first], pixels=settings.pixels // 2, seed=seed)
    teachers = (cams, by_competition(drawn, settings), by_frequency(drawn, settings))
    three = PixelModel(table, *teachers)
    few, taught, opinions = len(first) < settings.few_windows, [], {}
    for each in first:
        mask, opinions[each.index] = three.opinions(each.index)
        if few:
            _, competition, _ = opinions[each.index]
            taught.append(replace(each, sure=each.sure & (competition == each.mask)))
        else:
            taught.append(FirstMask(each.index, mask, np.ones_like(each.sure)))
    if not any((each.sure & (each.mask != VOID)).any() for each in taught):
        raise TrainingError(
            "the labels of single pixels by the tags alone and those of the CAMs agree on no pixel. Train the "
            "classifier longer, check the tags, or set masks.relearn.few_windows=0."
        )
    showing = (three.showing_tags(each, share=tag_share) for each in taught)
    return Relearned(PixelModel(table, teach(showing)), tuple(PixelModel(table, each) for each in teachers), opinions)
