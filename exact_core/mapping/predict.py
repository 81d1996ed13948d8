"""Class probabilities of windows, and maps of scenes blended from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.config import EncoderConfig
from exact_core.data.batches import BatchLoader
from exact_core.data.dataset import Statistics, WindowDataset
from exact_core.mapping.blend import SceneMosaic
from exact_core.models.segmenter import Segmenter

__all__ = ["MappedScene", "Predictor", "map_scene"]


@dataclass(frozen=True)
class Predictor:
    """A segmenter, ready to be asked about windows of a dataset.

    statistics are those that the segmenter was trained with, whatever the dataset's own; batch is in windows.
    """

    model: Segmenter
    windows: WindowDataset
    encoder: EncoderConfig
    statistics: Statistics
    device: torch.device
    batch: int

    @torch.no_grad()
    def probabilities(self, indices: list[int]) -> NDArray[np.float32]:
        """Class probabilities (n, K + 1, H, W) of the windows at these positions."""
        loader = BatchLoader(
            self.windows,
            np.array(indices, np.int64),
            batch=self.batch,
            encoder=self.encoder,
            device=self.device,
            statistics=self.statistics,
        )
        return torch.cat([self.model(batch.series).float().softmax(1).cpu() for batch in loader]).numpy()


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
    for start in range(0, len(indices), predictor.batch):
        part = slice(start, start + predictor.batch)
        for record, values in zip(records[part], predictor.probabilities(indices[part]), strict=True):
            mosaic.add(record, values)
    return MappedScene(mosaic, *mosaic.labels())
