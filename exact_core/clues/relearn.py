"""Pixel self-training: masks are made anew by regressions on single pixels (not in the paper).

CAMs are confident inside fields and blurred at edges, where a patch covers two fields. They also treat each window
separately. But a crop has a similar series everywhere in a season. A regression on the series of single pixels learns
from the confident pixels of all windows (`exact_core.clues.pixels`).

Where CAMs are wrong about whole fields, this regression is, too. So two more learn from the tags alone
(`exact_core.clues.tag_pixels`). The three err in different places. What the mean of their probabilities says of the
training windows teaches a last one, and its labels are the masks. A pixel can only get a tag of its window, or
background. How far the three agree says what to expect of the masks (`exact_core.clues.quality`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from exact_core.clues.overlaps import OverlapTags
from exact_core.clues.pixels import FirstMask, PixelModel, PixelTable, taught_by_masks
from exact_core.clues.quality import Committee
from exact_core.clues.tag_pixels import TaggedPixels, by_competition, by_frequency
from exact_core.config import RelearnConfig
from exact_core.data.windows.dataset import WindowDataset

__all__ = ["relearn"]


def relearn(
    windows: WindowDataset,
    first_masks: Iterable[FirstMask],
    settings: RelearnConfig,
    *,
    overlaps: OverlapTags,
    seed: int,
) -> tuple[PixelModel, Committee | None]:
    """What labels the pixels of all windows, and how far the three agree. None where CAMs alone teach.

    Args:
        windows: the dataset. Its training split teaches.
        first_masks: the training windows' masks from CAMs. Read once.
        settings: of pixel self-training.
        overlaps: what each pixel may be.
        seed: of the choice of pixels.

    Raises:
        TrainingError: no pixel of the first masks is sure.
    """
    table, train = PixelTable(windows, overlaps.allowed), windows.indices("train").tolist()
    teach = partial(taught_by_masks, table, settings=settings, count=len(train), seed=seed)
    model = PixelModel(table, teach(first_masks))
    if not settings.tags:
        return model, None
    # Half as many pixels do: with all of them the masks were not better.
    drawn = TaggedPixels.drawn(table, train, pixels=settings.pixels // 2, seed=seed)
    model = model.beside(by_competition(drawn, settings), by_frequency(drawn, settings))
    committee = Committee(windows.classes)

    def masks() -> Iterator[FirstMask]:
        for index in train:
            mask, each = model.opinions(index)
            committee.look(each)
            yield FirstMask(index, mask, np.ones(mask.shape, bool))

    return PixelModel(table, teach(masks())), committee
