"""Class probabilities of windows: of a dataset's, blended to maps of scenes, and of a season's images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.config import EncoderConfig
from exact_core.data.season.folder import SeasonImages
from exact_core.data.windows.batches import BatchLoader, clear_patches, make_series, model_dates
from exact_core.data.windows.dataset import Statistics, WindowDataset
from exact_core.mapping.blend import SceneMosaic
from exact_core.mapping.rows import Predict
from exact_core.models.segmenter import AnySegmenter

__all__ = ["MappedScene", "Predictor", "map_scene", "season_predictor"]


@dataclass(frozen=True)
class Predictor:
    """A segmenter, ready to be asked about windows of a dataset.

    statistics are those that the segmenter was trained with, whatever the dataset's own; batch is in windows.
    """

    model: AnySegmenter
    windows: WindowDataset
    encoder: EncoderConfig
    statistics: Statistics
    device: torch.device
    batch: int

    def probabilities(self, indices: list[int]) -> NDArray[np.float32]:
        """Class probabilities (n, K + 1, H, W) of the windows at these positions."""
        return np.stack([values for _, values in self.stream(indices)])

    def stream(self, indices: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Each position with its window's class probabilities (K + 1, H, W), a batch in memory at a time."""
        loader = BatchLoader(
            self.windows,
            np.array(indices, np.int64),
            batch=self.batch,
            encoder=self.encoder,
            device=self.device,
            statistics=self.statistics,
        )
        for batch in loader:
            with torch.no_grad():
                values = self.model(batch.series).float().softmax(1).cpu().numpy()
            yield from zip(batch.index.tolist(), values, strict=True)


@dataclass(frozen=True)
class MappedScene:
    """A scene's map: label uint8 (H, W), VOID where no window lies; confidence (H, W), the label's probability."""

    mosaic: SceneMosaic
    label: NDArray[np.uint8]
    confidence: NDArray[np.float32]


def map_scene(predictor: Predictor, indices: list[int]) -> MappedScene:
    """The windows at these positions, all of one scene, blended into its map."""
    windows = predictor.windows
    records = [windows.records[index] for index in indices]
    mosaic = SceneMosaic(records, side=windows.manifest.window, channels=windows.classes + 1)
    for index, values in predictor.stream(indices):
        mosaic.add(windows.records[index], values)
    return MappedScene(mosaic, *mosaic.labels())


def season_predictor(
    model: AnySegmenter, images: SeasonImages, *, statistics: Statistics, encoder: EncoderConfig, device: torch.device
) -> Predict:
    """The segmenter as a function of a window's pixels and clear patches.

    Args:
        model: on the device, for evaluation.
        images: the season; its dates apply.
        statistics: those that the model was trained with.
        encoder: how the model wants its batches.
        device: where it computes.
    """
    mean = torch.tensor(statistics.mean, device=device)
    std = torch.tensor(statistics.std, device=device)
    dates = torch.from_numpy(model_dates(images.days, encoder, images.start, images.length)).to(device)

    def predict(pixels: list[NDArray[np.int16]], clear: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.stack(pixels)).to(device)
        known = [each for each in clear if each is not None] if encoder.mask_clouds else []
        # As windows are cut for training: a date that measured nothing of a window is none of its dates.
        valid = (batch != 0).flatten(2).any(2)
        series = make_series(
            batch,
            dates.expand(len(batch), -1) * valid,
            valid,
            clear=clear_patches(torch.from_numpy(np.stack(known)).to(device), encoder) if known else None,
            mean=mean,
            std=std,
            encoder=encoder,
        )
        with torch.inference_mode():
            return np.asarray(model(series).float().softmax(1).cpu().numpy(), np.float32)

    return predict
