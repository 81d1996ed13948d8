"""Cutting scenes into windows, and windows into splits that share no pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exact_core.config import DataConfig
from exact_core.data.windows.dataset import CLEAR_PATCH, VOID, Window, WindowRecord
from exact_core.data.windows.dates import MIN_DATES, measured_dates
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import ConfigError, DataError

__all__ = [
    "Area",
    "LeftOut",
    "Scene",
    "TagNoise",
    "add_scene",
    "add_window",
    "check_shares",
    "has_window",
    "mark_self_scored",
    "open_tags",
    "origins",
    "seen_dates",
    "split_names",
    "tags_from_labels",
    "thin_dates",
    "window_transform",
]

Area = tuple[int, int, int, int]
"""A part of a scene in pixels: row0, col0, row1, col1."""


@dataclass(frozen=True)
class LeftOut:
    """Windows that were not cut. unseen: measured on too few dates. void: nothing is known of any of their pixels."""

    unseen: int = 0
    void: int = 0

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(self.unseen + other.unseen, self.void + other.void)

    @property
    def total(self) -> int:
        """All of them."""
        return self.unseen + self.void


@dataclass(frozen=True)
class Scene:
    """A scene's series on one grid, or some rows of it.

    pixels int16 (T, C, h, W), reflectance x 10,000. days int16 (T,). labels uint8 (H, W) of the whole scene or None.
    fields int32 (H, W) of the whole scene, 0 outside of all outlines, or None.
    clear uint8 (T, h/2, W/2) or None. Transform of the scene's upper left corner in units of crs. first: the row of the
    scene, even, that pixels and clear begin with.
    """

    name: str
    pixels: NDArray[np.int16]
    days: NDArray[np.int16]
    labels: NDArray[np.uint8] | None
    clear: NDArray[np.uint8] | None
    crs: str
    transform: tuple[float, ...]
    origin: str
    fold: int = 0
    first: int = 0
    fields: NDArray[np.int32] | None = None


def origins(height: int, width: int, *, window: int, stride: int) -> list[tuple[int, int]]:
    """Upper left corners of the windows that fit, row-major. What does not fill a window is dropped."""
    return [(row, col) for row in range(0, height - window + 1, stride) for col in range(0, width - window + 1, stride)]


def tags_from_labels(labels: NDArray[np.uint8], *, classes: int, share: float) -> NDArray[np.uint8]:
    """Image-level tags (K,): 1 where a crop covers more than `share` of the window (paper: 1 %).

    Background and void never count as a tag but count as area.
    """
    return (_crop_pixels(labels, classes) > share * labels.size).astype(np.uint8)


def open_tags(labels: NDArray[np.uint8], *, classes: int, share: float) -> NDArray[np.uint8]:
    """Crops (K,) whose tag in a window is undecided: 1 where the void pixels decide it."""
    pixels = _crop_pixels(labels, classes)
    void = int((labels == VOID).sum())
    return ((pixels <= share * labels.size) & (pixels + void > share * labels.size)).astype(np.uint8)


def _crop_pixels(labels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Pixels of each crop (K,)."""
    return np.bincount(labels.reshape(-1), minlength=VOID + 1)[1 : classes + 1]


def window_transform(transform: tuple[float, ...], row: int, col: int) -> tuple[float, ...]:
    """Affine transform of a window whose upper left pixel is (row, col)."""
    a, b, c, d, e, f = transform
    return (a, b, c + col * a + row * b, d, e, f + col * d + row * e)


def thin_dates(clear_share: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Positions of at most `limit` of T dates, spread over the whole series: the clearest of each of `limit` runs."""
    if len(clear_share) <= limit:
        return np.arange(len(clear_share))
    return np.array([run[np.argmax(clear_share[run])] for run in np.array_split(np.arange(len(clear_share)), limit)])


def check_shares(*, validation: float, test: float) -> None:
    """Raise ConfigError if there is a validation split but no test split: no window would be left to score on."""
    if test == 0 and validation > 0:
        raise ConfigError(
            f"data.test_share is 0 but data.validation_share is {validation:g}, so no window is left for the final "
            f"metrics. Set data.test_share above 0, or both to 0 to train and score on everything"
        )


def mark_self_scored(writer: DatasetWriter, reason: str) -> None:
    """Have the dataset scored on its training windows, and note why."""
    writer.self_scored = True
    writer.notes.append(
        f"{reason}: every window is used for training, and metrics are computed on the same pixels. They measure the "
        f"fit to these pixels, not the accuracy elsewhere"
    )


def split_names(count: int, *, validation: float, test: float, seed: int, what: str) -> list[str]:
    """A split for each of `count` scenes or blocks, at random by `seed`.

    Every split with a share above 0 gets at least one. If both shares are 0, all is train.

    Raises:
        ConfigError: a share for validation, but none for test.
        DataError: too few to give every split one.
    """
    check_shares(validation=validation, test=test)
    sizes = {"validation": validation, "test": test}
    numbers = {name: max(1, round(share * count)) if share > 0 else 0 for name, share in sizes.items()}
    if count - sum(numbers.values()) < 1:
        raise DataError(
            f"{count} {what} cannot fill train, validation ({validation:g}) and test ({test:g}). "
            f"Give more {what}, or set data.validation_share to 0, or both shares to train and score on everything"
        )
    names = ["train"] * count
    order = np.random.default_rng(seed).permutation(count)
    for name in ("test", "validation"):
        for _ in range(numbers[name]):
            names[order[0]] = name
            order = order[1:]
    return names


def _corners(scene: Scene, area: Area | None, *, window: int, stride: int) -> list[tuple[int, int]]:
    """Upper left corners, in the scene, of the windows of an area. If None, of all that is here."""
    height, width = scene.pixels.shape[-2:]
    row0, col0, row1, col1 = area or (scene.first, 0, scene.first + height, width)
    return [(row0 + row, col0 + col) for row, col in origins(row1 - row0, col1 - col0, window=window, stride=stride)]


def seen_dates(scene: Scene, row: int, col: int, *, window: int) -> NDArray[np.bool_]:
    """`measured_dates` of a window of a scene."""
    row -= scene.first
    return measured_dates(scene.pixels[:, :, row : row + window, col : col + window])


def has_window(scene: Scene, area: Area, *, window: int, stride: int, void: bool = True) -> bool:
    """Whether any window of an area is measured on at least MIN_DATES dates. Without `void`, and not all void."""
    corners = _corners(scene, area, window=window, stride=stride)
    return any(
        seen_dates(scene, row, col, window=window).sum() >= MIN_DATES
        for row, col in corners
        if void or not _is_void(scene, row, col, window=window)
    )


def _is_void(scene: Scene, row: int, col: int, *, window: int) -> bool:
    return scene.labels is not None and bool((scene.labels[row : row + window, col : col + window] == VOID).all())


class TagNoise:
    """How sure tags are that were taken from labels, counted over windows.

    A tag is narrow if its crop covers between half and twice the least share: a field at the edge makes or unmakes it.
    It is loose if it would go, or another come, were the labels shifted by one pixel, which is what images and parcels
    are commonly off by.
    """

    def __init__(self) -> None:
        self.tags = self.narrow = self.loose = self.partly_void = 0

    def add(self, labels: NDArray[np.uint8], row: int, col: int, *, window: int, classes: int, share: float) -> None:
        """Count the tags of a window of a scene's labels (H, W)."""
        height, width = labels.shape
        least = share * window**2

        def pixels(step_row: int, step_col: int) -> NDArray[np.int64]:
            top = min(max(row + step_row, 0), height - window)
            left = min(max(col + step_col, 0), width - window)
            return _crop_pixels(labels[top : top + window, left : left + window], classes)

        self.partly_void += bool((labels[row : row + window, col : col + window] == VOID).any())
        here = pixels(0, 0)
        tags = here > least
        self.tags += int(tags.sum())
        self.narrow += int(((here > share / 2 * window**2) & ~(here > 2 * share * window**2)).sum())
        steps = ((-1, 0), (1, 0), (0, -1), (0, 1))
        self.loose += int(np.any([(pixels(*step) > least) != tags for step in steps], axis=0).sum())

    def note(self, share: float) -> str | None:
        """What a reader should know of it."""
        if not self.tags:
            return None
        void = f". {self.partly_void} windows hold void pixels" if self.partly_void else ""
        return (
            f"of {self.tags} tags, {self.narrow} rest on an area between half and twice {share:.2%} of the window "
            f"(data.tag_share), and {self.loose} would differ with labels shifted by one pixel{void}"
        )


def add_window(
    writer: DatasetWriter,
    scene: Scene,
    row: int,
    col: int,
    *,
    seen: NDArray[np.bool_],
    tags: NDArray[np.uint8],
    split: str,
    untold: NDArray[np.uint8] | None = None,
    unknown: NDArray[np.uint8] | None = None,
    square: int | None = None,
) -> None:
    """Cut one window of a scene, with the dates that measured any of it (`seen_dates`).

    Args:
        writer: gets it.
        scene: the series.
        row: of its upper left corner in the scene.
        col: likewise.
        seen: bool (T,), its dates.
        tags: (K,), 1 where a crop is known to grow.
        split: train, validation or test, or another name for `DatasetWriter.name_splits`.
        untold: (K,), 1 where a crop without a tag may grow all the same. If None, tags are complete.
        unknown: (H, W), 1 where there is no ground truth. If None, nowhere.
        square: number of its square, if that has several windows.
    """
    window = writer.window
    here = np.s_[row : row + window, col : col + window]
    top = row - scene.first
    inside = np.s_[top : top + window, col : col + window]
    patches = np.s_[top // 2 : (top + window) // 2, col // 2 : (col + window) // 2]
    writer.add(
        WindowRecord(
            id=f"{scene.name}/{row:05d}-{col:05d}",
            scene=scene.name,
            row=row,
            col=col,
            crs=scene.crs,
            transform=window_transform(scene.transform, row, col),
            split=split,
            fold=scene.fold,
            dates=int(seen.sum()),
            tags=tuple(int(tag) for tag in tags),
            open=() if untold is None else tuple(int(each) for each in untold),
            square=square,
        ),
        Window(
            pixels=np.ascontiguousarray(scene.pixels[(seen, slice(None), *inside)]),
            days=scene.days[seen],
            tags=tags,
            labels=None if scene.labels is None else np.ascontiguousarray(scene.labels[here]),
            clear=None if scene.clear is None else scene.clear[(seen, *patches)],
            unknown=unknown,
            fields=None if scene.fields is None else np.ascontiguousarray(scene.fields[here]),
        ),
        origin=scene.origin,
    )


def add_scene(
    writer: DatasetWriter,
    scene: Scene,
    config: DataConfig,
    *,
    split: str,
    area: Area | None = None,
    stride: int | None = None,
    skip_unseen: bool = False,
    report: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
    noise: TagNoise | None = None,
) -> LeftOut:
    """Cut a scene, or a part of it, into windows of one split.

    Args:
        writer: gets the windows.
        scene: the series. Labels must be known.
        config: window, stride, tag_share and void_tags.
        split: train, validation or test, or another name for `DatasetWriter.name_splits`.
        area: the part, in pixels of the whole scene. If None, all that is loaded.
        stride: step between windows, pixels. If None, config.stride, or a window.
        skip_unseen: leave out windows that are measured on fewer than MIN_DATES dates, such as those beyond the edge
            of a swath, instead of refusing the scene.
        report: maps a window's true tags (K,) to the tags to write, for synthetic data with wrong tags. If None, the
            true ones.
        noise: counts uncertain tags.

    Returns:
        How many windows were left out.

    Raises:
        ConfigError: a stride that cuts the patches of `clear`.
        DataError: no labels, or, without skip_unseen, a window measured on fewer than MIN_DATES dates.
    """
    if scene.labels is None:
        raise DataError(f"{scene.origin}: no labels to take image-level tags from. Name them by data.season.labels")
    window, classes = config.window, len(writer.classes)
    step = stride or config.stride or window
    if scene.clear is not None and step % CLEAR_PATCH:
        raise ConfigError(
            f"data.stride is {step}, but clouds are known at {CLEAR_PATCH}x{CLEAR_PATCH} patches. "
            f"Give a multiple of {CLEAR_PATCH}"
        )
    unseen = void = 0
    for row, col in _corners(scene, area, window=window, stride=step):
        seen = seen_dates(scene, row, col, window=window)
        if skip_unseen and seen.sum() < MIN_DATES:
            unseen += 1
            continue
        if not seen.any():
            raise DataError(
                f"{scene.origin}: the window at row {row}, column {col} is 0 (nodata) on all {len(seen)} dates. "
                f"Leave this area out or add acquisitions that cover it"
            )
        labels = scene.labels[row : row + window, col : col + window]
        hidden = labels == VOID
        if config.void_tags == "positive" and hidden.all():
            void += 1
            continue
        tags = tags_from_labels(labels, classes=classes, share=config.tag_share)
        untold = unknown = None
        if config.void_tags == "positive" and hidden.any():
            untold, unknown = open_tags(labels, classes=classes, share=config.tag_share), hidden.astype(np.uint8)
        if noise is not None:
            noise.add(scene.labels, row, col, window=window, classes=classes, share=config.tag_share)
        if report is not None:
            tags = report(tags)
        if untold is not None:
            untold &= 1 - tags
        add_window(writer, scene, row, col, seen=seen, tags=tags, split=split, untold=untold, unknown=unknown)
    return LeftOut(unseen, void)
