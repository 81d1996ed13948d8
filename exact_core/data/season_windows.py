"""The windows of a season's scenes, and splits that share no pixel.

Axes: H W pixels.
"""

from __future__ import annotations

from exact_core.config import DataConfig
from exact_core.data.dataset import CLEAR_PATCH
from exact_core.data.tags import Placed, groups
from exact_core.data.windows import (
    MIN_DATES,
    Area,
    Scene,
    TagNoise,
    add_scene,
    add_window,
    has_window,
    mark_self_scored,
    origins,
    seen_dates,
    split_names,
)
from exact_core.data.writer import DatasetWriter
from exact_core.errors import DataError

__all__ = ["FEWEST_BLOCKS", "write_labelled", "write_scene_of", "write_tagged"]

BLOCK_WINDOWS = (4, 3, 2)
"""Sides of a split's blocks in windows, largest first: large blocks keep neighbouring fields in one split."""
FEWEST_BLOCKS = 9
"""Fewer blocks are no spatial split: one or two cannot show the crops of the rest."""


def write_tagged(
    writer: DatasetWriter, scene: Scene, config: DataConfig, placed: list[Placed], *, split: str | None, seed: int
) -> None:
    """The windows of a scene that a table of tags speaks of.

    Args:
        writer: gets them.
        scene: without labels.
        config: window and shares.
        placed: windows with their tags.
        split: of all of them; None: windows that share a pixel go into one split, and where there are too few of such
            groups for splits, all are used to train and to score on.
        seed: draws the splits.

    Raises:
        DataError: none of them was measured on two dates.
    """
    seen = [seen_dates(scene, each.row, each.col, window=config.window) for each in placed]
    measured = [(each, dates) for each, dates in zip(placed, seen, strict=True) if dates.sum() >= MIN_DATES]
    _note_skipped(writer, len(placed) - len(measured), f" of {scene.name}")
    if placed and not measured and split is None:
        raise DataError(
            f"{scene.origin}: none of the {len(placed)} windows that the tags speak of is measured on {MIN_DATES} "
            f"dates; add acquisitions that cover them"
        )
    if split is not None:
        names = [split] * len(measured)
    else:
        of = groups([(each.row, each.col) for each, _ in measured], window=config.window)
        count = max(of, default=-1) + 1
        shares = {"validation": config.validation_share, "test": config.test_share}
        if any(shares.values()) and count >= FEWEST_BLOCKS:
            drawn = split_names(count, **shares, seed=seed, what="squares apart from each other")
            names = [drawn[group] for group in of]
        else:
            names = ["train"] * len(measured)
            mark_self_scored(writer, f"{count} squares apart from each other are too few for splits")
    for (each, dates), name in zip(measured, names, strict=True):
        add_window(writer, scene, each.row, each.col, seen=dates, tags=each.tags, split=name)


def write_scene_of(
    writer: DatasetWriter, scene: Scene, config: DataConfig, *, split: str, stride: int | None, noise: TagNoise
) -> None:
    """All windows of one of several scenes, in one split; what fewer than two dates measured is left out."""
    step = stride or config.window
    skipped = add_scene(writer, scene, config, split=split, stride=step, skip_unseen=True, noise=noise)
    _note_skipped(writer, skipped, f" of {scene.name}")


def _note_skipped(writer: DatasetWriter, count: int, where: str = "") -> None:
    if count:
        writer.notes.append(f"{count} windows{where} without at least {MIN_DATES} measured dates were left out")


def write_labelled(
    writer: DatasetWriter, scene: Scene, config: DataConfig, *, stride: int | None, seed: int, noise: TagNoise
) -> None:
    """Windows of a scene with labels, by blocks; or of the whole scene if it has too few blocks for the splits.

    Raises:
        DataError: no window that two dates measured.
    """
    step = stride or config.window
    blocks, empty = _blocks(scene, config, stride=step)
    if blocks:
        shares = {"validation": config.validation_share, "test": config.test_share}
        splits = split_names(len(blocks), **shares, seed=seed, what="blocks of the scene")
        skipped = sum(_count(block, window=config.window, stride=step) for block in empty)
        for block, split in zip(blocks, splits, strict=True):
            skipped += add_scene(
                writer, scene, config, split=split, area=block, stride=step, skip_unseen=True, noise=noise
            )
        counts = ", ".join(f"{splits.count(split)} {split}" for split in dict.fromkeys(splits))
        writer.notes.append(f"the scene was split by {len(blocks)} blocks: {counts}")
    else:
        skipped = _write_whole(writer, scene, config, stride=stride, noise=noise)
    _note_skipped(writer, skipped)


def _write_whole(
    writer: DatasetWriter, scene: Scene, config: DataConfig, *, stride: int | None, noise: TagNoise
) -> int:
    """All windows of the scene, to train and to score on; returns the number left out."""
    height, width = scene.pixels.shape[-2:]
    wanted = not config.validation_share == config.test_share == 0
    # A small scene has few windows: steps of a third make nine of each, and few fields are cut by all of them. Even,
    # because clear patches are 2x2.
    dense = max(CLEAR_PATCH, config.window // 3 // CLEAR_PATCH * CLEAR_PATCH)
    step = stride or (dense if wanted else config.window)
    skipped = add_scene(writer, scene, config, split="train", stride=step, skip_unseen=True, noise=noise)
    if skipped and skipped == _count((0, 0, height, width), window=config.window, stride=step):
        raise DataError(
            f"{scene.origin}: none of {skipped} windows of {config.window} pixels is measured on at least {MIN_DATES} "
            f"dates: the dates show different parts of the scene; add acquisitions that cover the same ground"
        )
    if not wanted:
        reason = "data.validation_share and data.test_share are 0"
    else:
        part = "the measured part of the scene" if skipped else "the scene"
        reason = f"{part} of {height} x {width} pixels is too small for a spatial split"
    mark_self_scored(writer, reason)
    return skipped


def _blocks(scene: Scene, config: DataConfig, *, stride: int) -> tuple[list[Area], list[Area]]:
    """Blocks that tile the scene: those with a window to use, and those without one (beyond the edge of a swath).

    None if the scene has fewer than FEWEST_BLOCKS, or there are no splits. Only blocks with a window are
    drawn for the splits, so that none of these is empty.
    """
    if config.validation_share == config.test_share == 0:
        return [], []
    for windows in BLOCK_WINDOWS:
        blocks = _tile(*scene.pixels.shape[-2:], side=windows * config.window)
        used = [block for block in blocks if has_window(scene, block, window=config.window, stride=stride)]
        if len(used) >= FEWEST_BLOCKS:
            return used, [block for block in blocks if block not in used]
    return [], []


def _tile(height: int, width: int, *, side: int) -> list[Area]:
    """As many blocks of at least `side` pixels as fit; together they cover the scene."""
    rows, cols = height // side, width // side
    row_edges, col_edges = _edges(height, rows), _edges(width, cols)
    return [(row_edges[i], col_edges[j], row_edges[i + 1], col_edges[j + 1]) for i in range(rows) for j in range(cols)]


def _edges(length: int, parts: int) -> list[int]:
    """Edges of equal parts, at even pixels: clear patches are 2x2."""
    return [length * part // parts // CLEAR_PATCH * CLEAR_PATCH for part in range(parts)] + [length]


def _count(block: Area, *, window: int, stride: int) -> int:
    row0, col0, row1, col1 = block
    return len(origins(row1 - row0, col1 - col0, window=window, stride=stride))
