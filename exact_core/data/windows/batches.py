"""From windows to batches on the device: ragged dates padded and masked, int16 normalised there, augmentation.

Axes are B batch, T dates, C bands, H W pixels, P patches, K crop classes.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exact_core.config import EncoderConfig
from exact_core.data.windows.dataset import CLEAR_PATCH, VOID, Statistics, Window, WindowDataset
from exact_core.data.windows.dates import MIN_DATES, stack_dates
from exact_core.data.windows.tag_support import FEW_WINDOWS

__all__ = [
    "Augmentation",
    "Batch",
    "BatchLoader",
    "Series",
    "Targets",
    "clear_patches",
    "count_targets",
    "days_of",
    "make_series",
    "model_dates",
    "seen_until",
]

Targets = Callable[[int], NDArray[np.uint8]]
"""Dense targets (H, W) of the window at a position of the dataset."""
PREFETCH = 2


@dataclass(frozen=True)
class Series:
    """The model's input of a batch.

    pixels: float (B, T, C, H, W), normalised, 0 on padding.
    dates: int64 (B, T), days since season start or day of year, depending on the encoder's configuration; (1, T) where
        all windows share them.
    seen: bool (B, P, T) or (B, 1, T), True where a patch has a usable acquisition on that date. If None, all are.
    padding: int64 (B,), how many rows of zeros and day 0 follow each window's dates and are attended to, as published.
        They are not stored. If None, no padding is attended to.
    until: days of the season that have been seen. If None, all.
    """

    pixels: Tensor
    dates: Tensor
    seen: Tensor | None
    padding: Tensor | None = None
    until: int | None = None

    def windows(self, part: slice) -> Series:
        """The series of some of its windows."""
        return Series(
            pixels=self.pixels[part],
            dates=self.dates if len(self.dates) == 1 else self.dates[part],
            seen=None if self.seen is None else self.seen[part],
            padding=None if self.padding is None else self.padding[part],
            until=self.until,
        )


@dataclass(frozen=True)
class Batch:
    """A batch on the device: tags float (B, K). target int64 (B, H, W) or None. index (B,) positions in the dataset.

    tagged: how many (window, class) pairs are tagged, known without a device read. If None, read it.
    known: float (B, K), 0 where it is unknown whether a crop without a tag grows in the window. If None, all is known.
    teaching: bool (B, P), False for patches with a pixel without ground truth. If None, all count in training.
    shares: of a batch that several processes share, how many windows each has. This one holds its own windows, or one
        of another process where it has none.
    """

    series: Series
    tags: Tensor
    target: Tensor | None
    index: NDArray[np.int64]
    tagged: int | None = None
    shares: tuple[int, ...] = ()
    known: Tensor | None = None
    teaching: Tensor | None = None


@dataclass(frozen=True)
class Augmentation:
    """What may change from epoch to epoch: one of the 8 orientations of a window, and dates left out at random.

    prefixes: share of the windows that are seen from the season's start to a random day, none sooner than `shortest`,
    a share of the season.
    """

    flips: bool = False
    keep_dates: float = 1.0
    prefixes: float = 0.0
    shortest: float = 0.3


@dataclass(frozen=True)
class _Sent:
    """Arrays of a batch on their way to the device. Ready once the event has passed.

    whole: no date is padding. tagged: number of tags.
    """

    tensors: dict[str, Tensor]
    whole: bool
    tagged: int
    ready: torch.cuda.Event | None


class BatchLoader:
    """Batches of chosen windows of a dataset.

    A thread reads and collates the next batch while the present one is used. Order and augmentation depend on
    (seed, epoch) alone, so a resumed run gets the same batches as an uninterrupted one.

    Args:
        dataset: where windows come from.
        indices: positions in it.
        batch: windows a batch. The last may be smaller.
        encoder: which dates the model needs, and what it masks.
        device: where batches end up.
        targets: dense targets (H, W) by position. If None, no targets.
        statistics: normalisation constants. If None, the dataset's own. A trained model uses those of its training.
        until: days of the season that windows are seen for, by `seen_until`. If None, all.
        share: of the windows that an epoch takes, drawn anew for each. Those of a crop that few have come first.
    """

    def __init__(
        self,
        dataset: WindowDataset,
        indices: NDArray[np.int64],
        *,
        batch: int,
        encoder: EncoderConfig,
        device: torch.device,
        targets: Targets | None = None,
        statistics: Statistics | None = None,
        until: int | None = None,
        share: float = 1.0,
    ) -> None:
        self.drawn = math.ceil(share * len(indices))
        """Windows of an epoch."""
        self.dataset, self.indices, self.batch, self.encoder = dataset, indices, batch, encoder
        self._until = until
        self.device, self.targets = device, targets
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        statistics = statistics or dataset.manifest.statistics
        self._mean = torch.tensor(statistics.mean, device=device)
        self._std = torch.tensor(statistics.std, device=device)
        self._calendar = dataset.manifest.season_start, dataset.manifest.season_days

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-self.drawn // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        """All windows once, in order, unchanged."""
        yield from self._run(self.indices, Augmentation(), np.random.default_rng(0))

    def epoch(
        self, number: int, *, seed: int, augmentation: Augmentation, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """The epoch's windows once, shuffled and augmented for it, in share part[0] of part[1] of every batch."""
        rng = np.random.default_rng((seed, number))
        order = rng.permutation(self.indices)
        if self.drawn < len(order):
            order = rng.permutation(self._first_few(order)[: self.drawn])
        yield from self._run(order, augmentation, rng, part)

    def _first_few(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """These windows, first those of a crop that few have: with half of them such a crop is not learned."""
        tags = self.dataset.tags[order]
        few = tags[:, tags.sum(0, dtype=np.int64) < FEW_WINDOWS].any(1)
        return np.concatenate([order[few], order[~few]])

    def _run(
        self,
        order: NDArray[np.int64],
        augmentation: Augmentation,
        rng: np.random.Generator,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        chunks = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]

        def prepare(chunk: NDArray[np.int64]) -> _Sent:
            return self._send(self._collate(chunk, augmentation, rng, part))

        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(prepare, chunk) for chunk in chunks[:PREFETCH]]
            for position, chunk in enumerate(chunks):
                sent = waiting.pop(0).result()
                if position + PREFETCH < len(chunks):
                    waiting.append(pool.submit(prepare, chunks[position + PREFETCH]))
                batch = self._batch(sent, chunk[_own(len(chunk), part)])
                yield replace(batch, shares=_shares(len(chunk), part[1]))

    def _collate(
        self, chunk: NDArray[np.int64], augmentation: Augmentation, rng: np.random.Generator, part: tuple[int, int]
    ) -> dict[str, NDArray[np.generic]]:
        """Arrays of this part of a batch, dates padded to its longest series. valid (B, T) marks real dates."""
        windows = []
        targets = []
        own = range(len(chunk))[_own(len(chunk), part)]
        for position, index in enumerate(chunk):
            # Drawn for the whole batch: every process takes the same numbers from the one random stream.
            kept = _kept_dates(self.dataset.records[int(index)].dates, augmentation.keep_dates, rng)
            until = _prefix(self._calendar[1], augmentation, rng)
            turn = int(rng.integers(8)) if augmentation.flips else 0
            if position not in own:
                continue
            window = _take_dates(self.dataset.window(int(index)), kept)
            for end in (until, self._until):
                if end is not None:
                    window = _take_dates(window, np.arange(seen_until(window.days, end)))
            windows.append(_orient_window(window, turn))
            if self.targets is not None:
                targets.append(_orient(self.targets(int(index)), turn))
        valid = stack_dates([np.ones(len(window.days), np.bool_) for window in windows], False)
        days = stack_dates([window.days.astype(np.int64) for window in windows], 0)
        arrays: dict[str, NDArray[np.generic]] = {
            "pixels": stack_dates([window.pixels for window in windows], 0),
            "dates": model_dates(days, self.encoder, *self._calendar) * valid,
            "valid": valid,
            "tags": np.stack([window.tags for window in windows]).astype(np.float32),
        }
        if self.dataset.open is not None:
            arrays["known"] = 1 - self.dataset.open[chunk[_own(len(chunk), part)]].astype(np.float32)
            side = self.dataset.manifest.window
            unknown = [np.zeros((side, side), np.uint8) if each.unknown is None else each.unknown for each in windows]
            arrays["unknown"] = np.stack(unknown).astype(np.bool_)
        if self.dataset.manifest.has_clear and self.encoder.mask_clouds:
            known = [window.clear for window in windows if window.clear is not None]
            arrays["clear"] = stack_dates([clear.astype(np.bool_) for clear in known], False)
        if targets:
            arrays["target"] = np.stack(targets).astype(np.int64)
        return arrays

    def _send(self, arrays: dict[str, NDArray[np.generic]]) -> _Sent:
        """Start moving a batch's arrays, pixels still int16, to the device. Runs in the reading thread.

        To CUDA they go from pinned memory on a separate stream while the model computes. torch keeps the pinned memory
        until the copy is done.
        """
        whole, tagged = bool(arrays["valid"].all()), int(arrays["tags"].sum())
        if self._stream is None:
            return _Sent({name: torch.from_numpy(array) for name, array in arrays.items()}, whole, tagged, None)
        with torch.cuda.stream(self._stream):
            tensors = {
                name: torch.from_numpy(array).pin_memory().to(self.device, non_blocking=True)
                for name, array in arrays.items()
            }
            return _Sent(tensors, whole, tagged, self._stream.record_event())

    def _batch(self, sent: _Sent, chunk: NDArray[np.int64]) -> Batch:
        """Normalise and mask on the device, once the arrays are there."""
        tensors = sent.tensors
        if sent.ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(sent.ready)
            for tensor in tensors.values():
                tensor.record_stream(stream)
        series = make_series(
            tensors["pixels"],
            tensors["dates"],
            None if sent.whole else tensors["valid"],
            clear=clear_patches(tensors["clear"], self.encoder) if "clear" in tensors else None,
            mean=self._mean,
            std=self._std,
            encoder=self.encoder,
            until=self._until,
        )
        return Batch(
            series=series,
            tags=tensors["tags"],
            target=tensors.get("target"),
            index=chunk,
            tagged=sent.tagged,
            known=tensors.get("known"),
            teaching=_teaching(tensors["unknown"], self.encoder.patch) if "unknown" in tensors else None,
        )


def count_targets(targets: Targets, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels of each label (256,) in the targets of the windows at these positions."""
    pixels = np.zeros(VOID + 1, np.int64)
    for index in indices.tolist():
        pixels += np.bincount(targets(index).ravel(), minlength=VOID + 1)
    return pixels


def _teaching(unknown_BHW: Tensor, patch: int) -> Tensor:
    """Patches (B, P) without an unknown pixel."""
    batch, height, width = unknown_BHW.shape
    cells = unknown_BHW.view(batch, height // patch, patch, width // patch, patch)
    return ~cells.any(4).any(2).flatten(1)


def clear_patches(clear: Tensor, encoder: EncoderConfig) -> Tensor:
    """Clear patches (B, T, H/2, W/2) as an encoder's (B, P, T): one of its patches is clear where all of it is."""
    if encoder.patch == 1:
        clear = clear.repeat_interleave(CLEAR_PATCH, 2).repeat_interleave(CLEAR_PATCH, 3)
    elif encoder.patch > CLEAR_PATCH:
        factor = encoder.patch // CLEAR_PATCH
        rows, cols = clear.shape[2] // factor, clear.shape[3] // factor
        clear = clear.view(*clear.shape[:2], rows, factor, cols, factor).all(5).all(3)
    return clear.flatten(2).transpose(1, 2)


def model_dates(days: NDArray[np.int64], encoder: EncoderConfig, start: dt.date, length: int) -> NDArray[np.int64]:
    """Days since the season's start in the encoder's unit: unchanged, or as days of the year from 1.

    Args:
        days: any shape, 0..length.
        encoder: `dates` applies.
        start: first day of the season.
        length: days of the season.
    """
    if encoder.dates == "season_day":
        return days
    calendar = np.datetime64(start) + np.arange(length + 1)
    day_of_year: NDArray[np.int64] = (calendar - calendar.astype("datetime64[Y]")).astype(np.int64) + 1
    return day_of_year[days]


def make_series(
    pixels: Tensor,
    dates: Tensor,
    valid: Tensor | None,
    *,
    clear: Tensor | None = None,
    mean: Tensor,
    std: Tensor,
    encoder: EncoderConfig,
    until: int | None = None,
) -> Series:
    """The model's input from pixels: normalised, with masks of what is not usable.

    A patch that a date did not measure (all 0) is not seen on it, whether clouds are masked or not. With attended
    padding, as published, it is.

    Args:
        pixels: int16 (B, T, C, H, W), reflectance x 10,000.
        dates: int64 (B, T), in the encoder's unit.
        valid: bool (B, T), True on real dates. If None, all are.
        clear: bool (B, P, T), True where a patch is clear. If None, not known.
        mean: float (C,), of the training split.
        std: float (C,), of the training split.
        encoder: whether padding is masked.
        until: days of the season that have been seen. If None, all.
    """
    if clear is None and encoder.mask_padding:
        clear = _measured_patches(pixels, valid, encoder.patch)
    normalised = pixels.float().sub_(mean[:, None, None]).div_(std[:, None, None])
    seen = clear
    if valid is not None:
        normalised *= valid[:, :, None, None, None]
        seen = valid[:, None] if clear is None else clear & valid[:, None]
    padding = None
    if not encoder.mask_padding:
        count = dates.new_full((len(pixels),), dates.shape[1]) if valid is None else valid.sum(1)
        padding = (encoder.pad_dates - count).clamp(min=0)
    return Series(pixels=normalised, dates=dates, seen=seen, padding=padding, until=until)


def _measured_patches(pixels: Tensor, valid: Tensor | None, patch: int) -> Tensor | None:
    """Patches (B, P, T) of which a date measured something, of pixels (B, T, C, H, W). If None, every real date did."""
    batch, dates, _, height, width = pixels.shape
    cells = (pixels != 0).any(2).view(batch, dates, height // patch, patch, width // patch, patch)
    measured = cells.any(5).any(3).flatten(2).transpose(1, 2)
    every = measured if valid is None else measured | ~valid[:, None]
    return None if bool(every.all()) else measured


def _shares(windows: int, parts: int) -> tuple[int, ...]:
    """How many windows of a batch each part has: equal numbers, the first ones one more where they do not divide."""
    return tuple(windows // parts + (part < windows % parts) for part in range(parts))


def _own(windows: int, part: tuple[int, int]) -> slice:
    """This part's windows of a batch. The last window where there is none, for a pass has to run on something."""
    shares = _shares(windows, part[1])
    start = min(sum(shares[: part[0]]), windows - 1)
    return slice(start, start + max(shares[part[0]], 1))


def _kept_dates(dates: int, keep: float, rng: np.random.Generator) -> NDArray[np.int64] | None:
    """Which of a window's dates stay: a random share of them between `keep` and 1. If None, all."""
    if keep >= 1 or dates <= MIN_DATES:
        return None
    count = max(MIN_DATES, round(dates * rng.uniform(keep, 1)))
    return np.sort(rng.choice(dates, count, replace=False))


def _prefix(length: int, augmentation: Augmentation, rng: np.random.Generator) -> int | None:
    """Days of a season of `length` days that a window is seen for. If None, all of it, and nothing is drawn if off."""
    if augmentation.prefixes <= 0 or rng.random() >= augmentation.prefixes:
        return None
    return round(length * rng.uniform(augmentation.shortest, 1))


def days_of(shares: Sequence[float], length: int) -> tuple[int, ...]:
    """Parts of a season of `length` days in days, ascending, each once."""
    return tuple(sorted({max(1, round(share * length)) for share in shares}))


def seen_until(days: NDArray[np.integer[Any]], until: int) -> int:
    """How many of ascending days (T,) are among the first `until` days of the season, but MIN_DATES at least."""
    return min(len(days), max(MIN_DATES, int(np.searchsorted(days, until))))


def _take_dates(window: Window, chosen: NDArray[np.int64] | None) -> Window:
    if chosen is None:
        return window
    return replace(
        window,
        pixels=window.pixels[chosen],
        days=window.days[chosen],
        clear=None if window.clear is None else window.clear[chosen],
    )


def _orient(array: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """One of the 8 orientations of the last two axes."""
    turned = np.rot90(array, turn % 4, axes=(-2, -1))
    return turned[..., ::-1] if turn >= 4 else turned


def _orient_window(window: Window, turn: int) -> Window:
    if not turn:
        return window
    return replace(
        window,
        pixels=_orient(window.pixels, turn),  # type: ignore[arg-type]
        clear=None if window.clear is None else _orient(window.clear, turn),
        unknown=None if window.unknown is None else _orient(window.unknown, turn),
    )
