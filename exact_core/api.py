"""The functions for a notebook: open a dataset, load a segmenter, predict, map a season.

    import exact_core as exact

    dataset = exact.open_dataset("demo/dataset")
    segmenter = exact.load_segmenter("demo/segmenter")
    probabilities = exact.predict_window(segmenter, dataset, 0)
    record = exact.map_season("season:/data/2026", "demo/segmenter", "map_2026")

Every function that writes artifacts is a stage (`exact_core.stages`), and `exact --help` lists its command.
Axes are K crop classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.artifacts.model_folders import ModelManifest, check_fit, open_segmenter
from exact_core.config import Precision, RunConfig
from exact_core.data.windows.dataset import WindowDataset
from exact_core.manifest import read_record
from exact_core.mapping.predict import Predictor
from exact_core.models.precision import for_inference
from exact_core.models.segmenter import AnySegmenter
from exact_core.recipes import resolve
from exact_core.stages.map_season import map_season as _map_stage
from exact_core.tracking.runs import NoTracker
from exact_core.training.loop import choose_device

__all__ = ["TrainedSegmenter", "load_segmenter", "map_season", "open_dataset", "predict_window"]


@dataclass(frozen=True)
class TrainedSegmenter:
    """A segmenter with the statistics and configuration of its training.

    Attributes:
        folder: The model folder.
        manifest: Bands, classes, window side and normalisation statistics.
        config: The resolved configuration of its training.
        model: The network, in evaluation mode.
        device: The device of the network.
    """

    folder: Path
    manifest: ModelManifest
    config: RunConfig
    model: AnySegmenter
    device: torch.device

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K + 1 channels of a prediction: background, then the crops."""
        return ("background", *self.manifest.classes)


def open_dataset(folder: str | Path) -> WindowDataset:
    """Open a dataset of windows that `exact ingest` or `exact run` wrote.

    Args:
        folder: Folder of the dataset.

    Raises:
        DataError: The folder has no dataset.
        CorruptError: A file differs from its recorded checksum.
    """
    return WindowDataset(Path(folder))


def load_segmenter(folder: str | Path, *, device: str = "auto", precision: Precision = "auto") -> TrainedSegmenter:
    """Load a trained segmenter from its model folder.

    Args:
        folder: Folder that `exact train-segmenter` or `exact run` wrote.
        device: `cpu`, `cuda`, `cuda:N`, or `auto` for a GPU if there is one.
        precision: `fp32`, `bf16`, or `auto` for `bf16` where the device has instructions for it.

    Raises:
        ConfigError: The device does not exist.
        DataError: The folder has no segmenter.
        CorruptError: A file differs from its recorded checksum.
    """
    chosen = choose_device(device)
    model, manifest, config = open_segmenter(Path(folder))
    return TrainedSegmenter(Path(folder), manifest, config, for_inference(model, chosen, precision), chosen)


def predict_window(segmenter: TrainedSegmenter, dataset: WindowDataset, index: int) -> NDArray[np.float32]:
    """Predict class probabilities (K + 1, H, W) of one window. The sum over classes is 1 at each pixel.

    Args:
        segmenter: A segmenter for the same bands, classes and window side.
        dataset: The dataset of the window. The segmenter's own normalisation applies.
        index: Position of the window, from 0.

    Raises:
        ConfigError: The segmenter does not fit the dataset.
        IndexError: The dataset has no such window.
    """
    if not 0 <= index < len(dataset):
        raise IndexError(f"window {index}: the dataset has {len(dataset)}, from 0")
    check_fit(segmenter.manifest, segmenter.folder, dataset, segmenter.config.segmenter.reading)
    predictor = Predictor(
        model=segmenter.model,
        windows=dataset,
        encoder=segmenter.config.segmenter.reading,
        statistics=segmenter.manifest.statistics,
        device=segmenter.device,
        batch=1,
    )
    values: NDArray[np.float32] = predictor.probabilities([index])[0]
    return values


def map_season(
    source: str, segmenter: str | Path, out: str | Path, *, season: str = "", overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Map all of a season's area, as `exact map` does, without tracking.

    Args:
        source: Images of an area, as `season:PATH`, `season:s3://…` or `stac:URL?…`.
        segmenter: Model folder of the segmenter.
        out: Folder for the map. It gets COGs, a STAC item and map.json.
        season: Season, as a year or START/DAYS. If empty, that of the source.
        overrides: Settings as for `--set`, for example `mapping.stride=12`.

    Returns:
        The content of map.json, with season, dates, areas by class, calibration and digests.

    Raises:
        ExactError: Any error of `exact map`.
    """
    config = resolve("season", overrides=list(overrides))
    _map_stage(config, source=source, season=season, segmenter=Path(segmenter), out=Path(out), tracker=NoTracker())
    return read_record(Path(out) / "map.json")
