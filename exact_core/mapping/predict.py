"""Class probabilities of windows, and maps of scenes blended from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.config import EncoderConfig
from exact_core.data.batches import BatchLoader
from exact_core.data.dataset import Statistics, WindowDataset
from exact_core.mapping.blend import SceneMosaic
from exact_core.models.segmenter import AnySegmenter

__all__ = ["MappedScene", "Predictor", "map_scene"]


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
