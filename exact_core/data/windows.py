"""Cutting scenes into windows, and windows into splits that share no pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exact_core.config import DataConfig
from exact_core.data.dataset import VOID, DatasetWriter, Window, WindowRecord
from exact_core.errors import DataError

__all__ = ["Scene", "add_scene", "origins", "split_names", "tags_from_labels", "thin_dates", "window_transform"]


@dataclass(frozen=True)
class Scene:
    """A scene's series on one grid.

    pixels int16 (T, C, H, W), reflectance x 10,000; days int16 (T,); labels uint8 (H, W) or None; clear uint8
    (T, H/2, W/2) or None; transform of the scene's upper left corner in units of crs.
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


def origins(height: int, width: int, *, window: int, stride: int) -> list[tuple[int, int]]:
    """Upper left corners of the windows that fit, row-major; what does not fill a window is dropped."""
    return [
        (row, col)
        for row in range(0, height - window + 1, stride)
        for col in range(0, width - window + 1, stride)
    ]


def tags_from_labels(labels: NDArray[np.uint8], *, classes: int, share: float) -> NDArray[np.uint8]:
    """Image-level tags (K,): 1 where a crop covers more than `share` of the window (paper: 1 %).

    Background and void never count as a tag but count as area.
    """
    counts = np.bincount(labels.reshape(-1), minlength=VOID + 1)[1 : classes + 1]
    return (counts > share * labels.size).astype(np.uint8)


def window_transform(transform: tuple[float, ...], row: int, col: int) -> tuple[float, ...]:
    """Affine transform of a window whose upper left pixel is (row, col)."""
    a, b, c, d, e, f = transform
    return (a, b, c + col * a + row * b, d, e, f + col * d + row * e)


def thin_dates(clear_share: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Positions of at most `limit` of T dates, spread over the whole series: the clearest of each of `limit` runs."""
    if len(clear_share) <= limit:
        return np.arange(len(clear_share))
    return np.array([run[np.argmax(clear_share[run])] for run in np.array_split(np.arange(len(clear_share)), limit)])


def split_names(count: int, *, validation: float, test: float, seed: int, what: str) -> list[str]:
    """A split for each of `count` scenes or blocks, at random by `seed`.

    Every split with a share above 0 gets at least one.

    Raises:
        DataError: too few to give every split one.
    """
    sizes = {"validation": validation, "test": test}
    numbers = {name: max(1, round(share * count)) if share > 0 else 0 for name, share in sizes.items()}
    if count - sum(numbers.values()) < 1:
        raise DataError(
            f"{count} {what} cannot fill train, validation ({validation:g}) and test ({test:g}); "
            f"give more {what} or set data.validation_share / data.test_share to 0"
        )
    names = ["train"] * count
    order = np.random.default_rng(seed).permutation(count)
    for name in ("test", "validation"):
        for _ in range(numbers[name]):
            names[order[0]] = name
            order = order[1:]
    return names


def add_scene(
    writer: DatasetWriter,
    scene: Scene,
    config: DataConfig,
    *,
    split: str,
    area: tuple[int, int, int, int] | None = None,
    stride: int | None = None,
) -> None:
    """Cut a scene, or the part of it with the corners (row0, col0, row1, col1), into windows of one split."""
    if scene.labels is None:
        raise DataError(f"{scene.origin}: no labels to take image-level tags from; name them by data.season.labels")
    window, classes = config.window, len(writer.classes)
    row0, col0, row1, col1 = area or (0, 0, *scene.labels.shape)
    for row, col in origins(row1 - row0, col1 - col0, window=window, stride=stride or config.stride or window):
        row, col = row + row0, col + col0
        here = np.s_[row : row + window, col : col + window]
        labels = np.ascontiguousarray(scene.labels[here])
        pixels = scene.pixels[(slice(None), slice(None), *here)]
        # A date without a single measured pixel in this window (nodata 0) says nothing about it.
        seen = pixels.any(axis=(1, 2, 3))
        if not seen.any():
            raise DataError(
                f"{scene.origin}: the window at row {row}, column {col} is 0 (nodata) on all {len(seen)} dates; "
                f"leave this area out or add acquisitions that cover it"
            )
        clear = None
        if scene.clear is not None:
            clear = scene.clear[seen, row // 2 : (row + window) // 2, col // 2 : (col + window) // 2]
        tags = tags_from_labels(labels, classes=classes, share=config.tag_share)
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
            ),
            Window(
                pixels=np.ascontiguousarray(pixels[seen]), days=scene.days[seen], tags=tags, labels=labels, clear=clear
            ),
            origin=scene.origin,
        )
