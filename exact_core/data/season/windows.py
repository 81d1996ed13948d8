"""The windows of a season's scenes, and splits that share no pixel.

Axes are H W pixels.
"""

from __future__ import annotations

import itertools
from contextlib import closing

from exact_core.config import DataConfig
from exact_core.data.season.scene import SeasonScene
from exact_core.data.season.tags import Placed, groups
from exact_core.data.windows.cutting import (
    Area,
    LeftOut,
    TagNoise,
    add_scene,
    add_window,
    has_window,
    mark_self_scored,
    origins,
    seen_dates,
    split_names,
)
from exact_core.data.windows.dataset import CLEAR_PATCH
from exact_core.data.windows.dates import MIN_DATES
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import DataError

__all__ = ["FEWEST_BLOCKS", "write_labelled", "write_scene_of", "write_tagged"]

BLOCK_WINDOWS = (4, 3, 2)
"""Sides of a split's blocks in windows, largest first: large blocks keep neighbouring fields in one split."""
FEWEST_BLOCKS = 9
"""Fewer blocks are no spatial split: one or two cannot show the crops of the rest."""


def write_tagged(
    writer: DatasetWriter, scene: SeasonScene, config: DataConfig, placed: list[Placed], *, split: str | None, seed: int
) -> None:
    """The windows of a scene that a table of tags names.

    Args:
        writer: gets them.
        scene: without labels.
        config: window and shares.
        placed: windows with their tags, row-major.
        split: of all of them. If None, windows that share a pixel or a square go into one split. If there are too few
            such groups for splits, all are used to train and to score on.
        seed: draws the splits.

    Raises:
        DataError: none of them was measured on two dates.
    """
    rows = [list(squares) for _, squares in itertools.groupby(placed, key=lambda each: each.row)]
    spans = [(squares[0].row, squares[0].row + config.window) for squares in rows]
    kept: list[Placed] = []
    for squares, part in zip(rows, scene.parts(spans), strict=True):
        for each in squares:
            seen = seen_dates(part, each.row, each.col, window=config.window)
            if seen.sum() >= MIN_DATES:
                name = split or f"square {len(kept)}"
                add_window(writer, part, each.row, each.col, seen=seen, tags=each.tags, split=name, square=each.square)
                kept.append(each)
    _note_skipped(writer, LeftOut(unseen=len(placed) - len(kept)), f" of {scene.name}")
    if split is None:
        if not kept:
            raise DataError(
                f"{scene.origin}: none of the {len(placed)} windows that the tags speak of is measured on {MIN_DATES} "
                f"dates. Add acquisitions that cover them"
            )
        _split_squares(writer, config, kept, seed=seed)


def _split_squares(writer: DatasetWriter, config: DataConfig, kept: list[Placed], *, seed: int) -> None:
    """Draw the splits of these windows, which were added under their numbers."""
    several: dict[int, list[int]] = {}
    for place, each in enumerate(kept):
        if each.square is not None:
            several.setdefault(each.square, []).append(place)
    of = groups([(each.row, each.col) for each in kept], window=config.window, squares=several.values())
    count = max(of) + 1
    shares = {"validation": config.validation_share, "test": config.test_share}
    if any(shares.values()) and count >= config.fewest_squares:
        drawn = split_names(count, **shares, seed=seed, what="squares apart from each other")
    else:
        drawn = ["train"] * count
        found = "1 square apart from others is" if count == 1 else f"{count} squares apart from each other are"
        few = f"{found} fewer than data.fewest_squares, {config.fewest_squares}"
        mark_self_scored(writer, few if any(shares.values()) else "data.validation_share and data.test_share are 0")
    writer.name_splits({f"square {number}": drawn[group] for number, group in enumerate(of)})


def write_scene_of(
    writer: DatasetWriter, scene: SeasonScene, config: DataConfig, *, split: str, noise: TagNoise
) -> None:
    """All windows of one of several scenes, in one split. What fewer than two dates measured is left out."""
    skipped = _write_rows(writer, scene, config, split=split, stride=config.stride or config.window, noise=noise)
    _note_skipped(writer, skipped, f" of {scene.name}")


def _write_rows(
    writer: DatasetWriter, scene: SeasonScene, config: DataConfig, *, split: str, stride: int, noise: TagNoise
) -> LeftOut:
    """All windows of a scene, a row of them in memory. Returns how many were left out."""
    tops = range(0, scene.height - config.window + 1, stride)
    # What is left below the last windows is too little for another; it counts in what is said of the values.
    spans = [(row, scene.height if row == tops[-1] else row + config.window) for row in tops]
    parts = (
        add_scene(writer, part, config, split=split, stride=stride, skip_unseen=True, noise=noise)
        for part in scene.parts(spans)
    )
    return sum(parts, LeftOut())


def _note_skipped(writer: DatasetWriter, left_out: LeftOut, where: str = "") -> None:
    if left_out.unseen:
        writer.notes.append(
            f"{left_out.unseen} windows{where} without at least {MIN_DATES} measured dates were left out"
        )
    if left_out.void:
        writer.notes.append(f"{left_out.void} windows{where} are wholly void and were left out: they teach nothing")


def write_labelled(
    writer: DatasetWriter, scene: SeasonScene, config: DataConfig, *, seed: int, noise: TagNoise
) -> None:
    """Windows of a scene with labels, by blocks, or of the whole scene if it has too few blocks for the splits.

    Raises:
        DataError: no window that two dates measured.
    """
    step = config.stride or config.window
    rows = _blocks(scene, config, stride=step)
    if rows:
        skipped = _write_blocks(writer, scene, config, rows, stride=step, seed=seed, noise=noise)
    else:
        skipped = _write_whole(writer, scene, config, noise=noise)
    _note_skipped(writer, skipped)


def _write_blocks(
    writer: DatasetWriter,
    scene: SeasonScene,
    config: DataConfig,
    rows: list[list[Area]],
    *,
    stride: int,
    seed: int,
    noise: TagNoise,
) -> LeftOut:
    """All windows of blocks, a row of these in memory. Returns how many were left out.

    Splits are drawn last, among the blocks that have a window, so that no split is empty. Blocks without a window are
    beyond the edge of a swath, which is not known before reading, or are void.
    """
    used: list[str] = []
    skipped = LeftOut()
    for blocks, part in zip(rows, scene.parts([_span(blocks) for blocks in rows]), strict=True):
        for block in blocks:
            name = f"block {len(used)}"
            left_out = add_scene(
                writer, part, config, split=name, area=block, stride=stride, skip_unseen=True, noise=noise
            )
            skipped += left_out
            if left_out.total < _count(block, window=config.window, stride=stride):
                used.append(name)
        # A row of blocks is much; it goes before the next is read.
        del part
    shares = {"validation": config.validation_share, "test": config.test_share}
    splits = split_names(len(used), **shares, seed=seed, what="blocks of the scene")
    writer.name_splits(dict(zip(used, splits, strict=True)))
    counts = ", ".join(f"{splits.count(split)} {split}" for split in dict.fromkeys(splits))
    writer.notes.append(f"the scene was split by {len(used)} blocks: {counts}")
    return skipped


def _write_whole(writer: DatasetWriter, scene: SeasonScene, config: DataConfig, *, noise: TagNoise) -> LeftOut:
    """All windows of the scene, to train and to score on. Returns how many were left out."""
    wanted = not config.validation_share == config.test_share == 0
    # A small scene has few windows: steps of a third make nine of each, and few fields are cut by all of them. Even,
    # because clear patches are 2x2.
    dense = max(CLEAR_PATCH, config.window // 3 // CLEAR_PATCH * CLEAR_PATCH)
    step = config.stride or (dense if wanted else config.window)
    skipped = _write_rows(writer, scene, config, split="train", stride=step, noise=noise)
    every = _count((0, 0, scene.height, scene.width), window=config.window, stride=step)
    if skipped.void and skipped.total == every:
        raise DataError(
            f"{scene.origin}: the labels of all {skipped.void} windows of {config.window} pixels that are measured are "
            f"void. Give labels of this ground, or fewer of data.season.void_codes"
        )
    if skipped.unseen and skipped.unseen == every:
        raise DataError(
            f"{scene.origin}: none of {skipped.unseen} windows of {config.window} pixels is measured on at least "
            f"{MIN_DATES} dates: the dates show different parts of the scene. Add acquisitions that cover the same "
            f"ground"
        )
    if not wanted:
        reason = "data.validation_share and data.test_share are 0"
    else:
        part = "the measured part of the scene" if skipped.unseen else "the scene"
        reason = f"{part} of {scene.height} x {scene.width} pixels is too small for a spatial split"
    mark_self_scored(writer, reason)
    return skipped


def _blocks(scene: SeasonScene, config: DataConfig, *, stride: int) -> list[list[Area]]:
    """Blocks that tile the scene, row by row, of which at least FEWEST_BLOCKS have a window to use.

    None if there are fewer of any side, or no splits.
    """
    if config.validation_share == config.test_share == 0:
        return []
    for windows in BLOCK_WINDOWS:
        rows = _tile(scene.height, scene.width, side=windows * config.window)
        if _many(scene, rows, config, stride=stride):
            return rows
    return []


def _many(scene: SeasonScene, rows: list[list[Area]], config: DataConfig, *, stride: int) -> bool:
    """Whether at least FEWEST_BLOCKS of the blocks have a window. Reading stops once that is known."""
    missing = FEWEST_BLOCKS
    if sum(map(len, rows)) < missing:
        return False
    # The first row mostly tells; with others behind it, a whole strip would be read.
    for some in (rows[:1], rows[1:]):
        with closing(scene.parts([_span(blocks) for blocks in some])) as parts:
            for blocks, part in zip(some, parts, strict=False):
                missing -= sum(
                    has_window(part, block, window=config.window, stride=stride, void=config.void_tags == "complete")
                    for block in blocks
                )
                if missing <= 0:
                    return True
    return False


def _span(blocks: list[Area]) -> tuple[int, int]:
    """First row, and one past the last, of a row of blocks."""
    row0, _, row1, _ = blocks[0]
    return row0, row1


def _tile(height: int, width: int, *, side: int) -> list[list[Area]]:
    """Rows of as many blocks of at least `side` pixels as fit. Together they cover the scene."""
    rows, cols = height // side, width // side
    row_edges, col_edges = _edges(height, rows), _edges(width, cols)
    return [
        [(row_edges[i], col_edges[j], row_edges[i + 1], col_edges[j + 1]) for j in range(cols)] for i in range(rows)
    ]


def _edges(length: int, parts: int) -> list[int]:
    """Edges of equal parts, at even pixels: clear patches are 2x2."""
    return [length * part // parts // CLEAR_PATCH * CLEAR_PATCH for part in range(parts)] + [length]


def _count(block: Area, *, window: int, stride: int) -> int:
    row0, col0, row1, col1 = block
    return len(origins(row1 - row0, col1 - col0, window=window, stride=stride))
