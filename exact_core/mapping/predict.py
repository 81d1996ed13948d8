"""Class probabilities of windows: of a dataset's, blended to maps of scenes, and of a season's images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exact_core.config import EncoderConfig
from exact_core.data.season.folder import SeasonImages
from exact_core.data.windows.batches import BatchLoader, Series, clear_patches, make_series, model_dates
from exact_core.data.windows.dataset import CLEAR_PATCH, Statistics, WindowDataset
from exact_core.mapping.blend import SceneMosaic
from exact_core.mapping.rows import MOST, Mapper, Predict
from exact_core.models.probabilities import class_probabilities, same_class
from exact_core.models.segmenter import AnySegmenter, Segmenter
from exact_core.models.threads import each_part, equal_parts, side_by_side
from exact_core.models.tsvit import from_patches

__all__ = ["MappedScene", "PatchMapper", "Predictor", "SeasonMapper", "WindowMapper", "map_scene", "season_mapper"]


@dataclass(frozen=True)
class Predictor:
    """A segmenter, ready to be asked about windows of a dataset.

    statistics are those that the segmenter was trained with, not the dataset's own. Batch is in windows. until:
    days of the season that it sees. If None, all.
    """

    model: AnySegmenter
    windows: WindowDataset
    encoder: EncoderConfig
    statistics: Statistics
    device: torch.device
    batch: int
    until: int | None = None

    def probabilities(self, indices: list[int]) -> NDArray[np.float32]:
        """Class probabilities (n, K + 1, H, W) of the windows at these positions."""
        return np.stack([values for _, values in self.stream(indices)])

    def stream(self, indices: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Each position with its window's class probabilities (K + 1, H, W), a batch in memory at a time."""
        for index, planes in self.planes(indices):
            yield index, planes[: self.windows.classes + 1]

    @property
    def agreement(self) -> bool:
        """Whether the segmenter has a regression of single pixels for what is seen, beside its network."""
        return self.model.regression(self.until) is not None

    def planes(self, indices: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same. With `agreement` a further plane: 1 where network and regression name the same class, else 0."""
        batches = BatchLoader(
            self.windows,
            np.array(indices, np.int64),
            batch=self.batch,
            encoder=self.encoder,
            device=self.device,
            statistics=self.statistics,
            until=self.until,
        )
        for batch in batches:
            with side_by_side(self.device, self.model), torch.no_grad():
                values = _planes(self.model, *self.model.parts(batch.series))
            yield from zip(batch.index.tolist(), values, strict=True)


@dataclass(frozen=True)
class MappedScene:
    """A scene's map.

    label: uint8 (H, W), VOID without a window. confidence: (H, W), the label's probability. agree: bool (H, W), whether
    network and regression name the same class. None where the segmenter does not have both.
    """

    mosaic: SceneMosaic
    label: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    agree: NDArray[np.bool_] | None


def map_scene(predictor: Predictor, indices: list[int]) -> MappedScene:
    """The windows at these positions, all of one scene, blended into its map."""
    windows = predictor.windows
    records = [windows.records[index] for index in indices]
    classes = windows.classes + 1
    mosaic = SceneMosaic(records, side=windows.manifest.window, channels=classes)
    agreeing = SceneMosaic(records, side=windows.manifest.window, channels=int(predictor.agreement))
    for index, planes in predictor.planes(indices):
        mosaic.add(windows.records[index], planes[:classes])
        agreeing.add(windows.records[index], planes[classes:])
    return MappedScene(mosaic, *mosaic.labels(), agreeing.mean()[0] >= MOST if predictor.agreement else None)


def season_mapper(
    model: AnySegmenter, images: SeasonImages, *, statistics: Statistics, encoder: EncoderConfig, device: torch.device
) -> SeasonMapper:
    """The segmenter as what maps the season's area, and as a function of windows.

    Args:
        model: on the device, for evaluation.
        images: the season. Its dates apply.
        statistics: those that the model was trained with.
        encoder: how the model reads its batches.
        device: where it computes.
    """
    days = model_dates(images.days, encoder, images.start, images.length)
    reading = _Reading(
        dates=torch.from_numpy(days).to(device)[None],
        mean=torch.tensor(statistics.mean, device=device),
        std=torch.tensor(statistics.std, device=device),
        encoder=encoder,
        until=images.seen_days,
    )
    if isinstance(model, Segmenter):
        return PatchMapper(model, reading)

    def predict(pixels: list[NDArray[np.int16]], clear: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.stack(pixels)).to(device)
        known = [each for each in clear if each is not None] if encoder.mask_clouds else []
        seen = clear_patches(torch.from_numpy(np.stack(known)).to(device), encoder) if known else None
        # As windows are cut for training: a date that measured nothing of a window is none of its dates.
        measured = (batch != 0).flatten(2).any(2)
        with torch.inference_mode():
            return _planes(model, *model.parts(reading.series(batch, reading.dates * measured, measured, seen)))

    return WindowMapper(predict, agreement=model.regression(reading.until) is not None)


class SeasonMapper(Mapper, Protocol):
    """Maps an area (`exact_core.mapping.rows`), and is a `Predict` of windows wherever they lie."""

    def __call__(self, pixels: list[NDArray[np.int16]], clear: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        """See `exact_core.mapping.rows.Predict`."""


@dataclass(frozen=True)
class _Reading:
    """How a model reads pixels: dates (1, T) as it expects them, and the statistics that it was trained with.

    until: days of the season that the images are seen for. If None, all.
    """

    dates: Tensor
    mean: Tensor
    std: Tensor
    encoder: EncoderConfig
    until: int | None

    def series(self, pixels: Tensor, dates: Tensor, measured_BT: Tensor, clear: Tensor | None) -> Series:
        valid = None if bool(measured_BT.all()) else measured_BT
        return make_series(
            pixels,
            dates,
            valid,
            clear=clear,
            mean=self.mean,
            std=self.std,
            encoder=self.encoder,
            until=self.until,
        )


class PatchMapper:
    """A TSViT segmenter: over time each patch is encoded by itself, over space patches meet in their window.

    A date that measured nothing of a patch is none of its dates, as one on which it is under cloud. So a patch is the
    same in every window.
    """

    def __init__(self, model: Segmenter, reading: _Reading) -> None:
        self._model, self._reading = model, reading
        self._regression = model.regression(reading.until)
        self.cell, self.agreement = math.lcm(CLEAR_PATCH, model.patch), self._regression is not None

    def encode(self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None) -> Tensor:
        """Class tokens of each cell's patches, (h/cell, w/cell, q, q, K + 1, D)."""
        device, step = self._reading.dates.device, self.cell // CLEAR_PATCH

        def some(cells: slice) -> Tensor:
            columns = slice(cells.start * self.cell, cells.stop * self.cell)
            seen = None if clear is None else clear[..., cells.start * step : cells.stop * step]
            return self._encode(pixels[..., columns], seen)

        with torch.inference_mode():
            return torch.cat(each_part(some, equal_parts(pixels.shape[-1] // self.cell, device), device), 1)

    def _encode(self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None) -> Tensor:
        encoder, patch = self._reading.encoder, self._model.patch
        device = self._reading.dates.device
        dates, bands, height, width = pixels.shape
        # As the encoder wants a patch's values in the end, so that they are laid out but once, and as integers.
        each = torch.from_numpy(pixels).to(device).view(dates, bands, height // patch, patch, width // patch, patch)
        each = each.permute(2, 4, 0, 3, 5, 1).contiguous().flatten(0, 1)
        measured = (each != 0).flatten(2).any(2)
        seen = None
        if clear is not None and encoder.mask_clouds:
            seen = clear_patches(torch.from_numpy(clear).to(device)[None], encoder).transpose(0, 1)
        # Days stay those of the season: what is not measured is not looked at.
        series = self._reading.series(each.permute(0, 1, 4, 2, 3), self._reading.dates, measured, seen)
        tokens: Tensor = self._model.temporal(series, only_classes=True).classes
        if self._regression is not None:
            # They are of a place, too, and travel with its tokens.
            tokens = torch.cat([tokens, self._regression(series).flatten(2)[:, None].to(tokens.dtype)], -1)
        side = self.cell // patch
        grid = tokens.view(height // self.cell, side, width // self.cell, side, *tokens.shape[2:])
        return grid.transpose(1, 2)

    def decode(self, windows: list[Tensor]) -> NDArray[np.float32]:
        """See `exact_core.mapping.rows.Mapper`."""
        device = self._reading.dates.device

        def some(part: slice) -> NDArray[np.float32]:
            tokens = torch.stack(windows[part]).transpose(2, 3)
            grid = tokens.reshape(len(tokens), -1, *tokens.shape[-2:])
            return _planes(self._model, *self._parts(grid))

        with torch.inference_mode():
            return np.concatenate(each_part(some, equal_parts(len(windows), device), device))

    def _parts(self, tokens_BPKD: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `exact_core.models.pixel_regression.WithPixels.parts`, from what is known of the windows' patches."""
        model = self._model
        if not self.agreement:
            return model.decode(tokens_BPKD), None
        tokens, single = tokens_BPKD[..., : -(model.patch**2)], tokens_BPKD[..., -(model.patch**2) :]
        return model.decode(tokens), from_patches(single.transpose(1, 2))

    def __call__(self, pixels: list[NDArray[np.int16]], clear: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        """See `exact_core.mapping.rows.Predict`."""
        known = [each for each in clear if each is not None]
        strip = self.encode(np.concatenate(pixels, 3), np.concatenate(known, 2) if known else None)
        return _classes(self, self.decode(list(strip.chunk(len(pixels), 1))))


class WindowMapper:
    """A segmenter that looks at whole windows, as U-TAE does: of a place by itself it knows the pixels and no more.

    Args:
        predict: windows -> class probabilities (n, K + 1, S, S), and with `agreement` the further plane of
            `Mapper.decode`.
        agreement: see `exact_core.mapping.rows.Mapper`.
    """

    cell = CLEAR_PATCH

    def __init__(self, predict: Predict, *, agreement: bool = False) -> None:
        self._predict, self.agreement = predict, agreement

    def encode(self, pixels: NDArray[np.int16], clear: NDArray[np.bool_] | None) -> Tensor:
        """Pixels, and whether they are clear (1, 0; -1 where it is not known), int16 (h/2, w/2, T, 4 C + 1)."""
        dates, bands, height, width = pixels.shape
        cells = height // self.cell, width // self.cell
        each = torch.from_numpy(pixels).view(dates, bands, cells[0], self.cell, cells[1], self.cell)
        each = each.permute(2, 4, 0, 3, 5, 1).reshape(*cells, dates, -1)
        seen = each.new_full((dates, *cells), -1) if clear is None else torch.from_numpy(clear).to(each.dtype)
        return torch.cat([each, seen.permute(1, 2, 0)[..., None]], -1)

    def decode(self, windows: list[Tensor]) -> NDArray[np.float32]:
        """See `exact_core.mapping.rows.Mapper`."""
        together = torch.stack(windows)
        count, rows, cols, dates, values = together.shape
        shape = (count, rows, cols, dates, self.cell, self.cell, values // self.cell**2)
        pixels = together[..., :-1].reshape(shape).permute(0, 3, 6, 1, 4, 2, 5)
        clear = together[..., -1].permute(0, 3, 1, 2)
        side = rows * self.cell, cols * self.cell
        known = [None if bool((each < 0).any()) else each.bool().numpy() for each in clear]
        return self._predict(list(pixels.reshape(count, dates, -1, *side).numpy()), known)

    def __call__(self, pixels: list[NDArray[np.int16]], clear: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        """See `exact_core.mapping.rows.Predict`."""
        return _classes(self, self._predict(pixels, clear))


def _classes(mapper: Mapper, planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a mapper says of windows without the plane of agreement: class probabilities (n, K + 1, S, S)."""
    return planes[:, :-1] if mapper.agreement else planes


def _planes(model: AnySegmenter, logits: Tensor, single: Tensor | None) -> NDArray[np.float32]:
    """Class probabilities (n, K + 1, S, S) from a model's parts and, of both, the plane of their agreement."""
    found = class_probabilities(model.mixed(logits, single))
    if single is not None:
        found = torch.cat([found, same_class(logits, single)[:, None].to(found)], 1)
    return np.asarray(found.cpu().numpy())
