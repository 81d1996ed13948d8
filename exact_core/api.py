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
from exact_core.config import RunConfig
from exact_core.data.windows.dataset import WindowDataset
from exact_core.manifest import read_record
from exact_core.mapping.predict import Predictor
from exact_core.models.segmenter import AnySegmenter
from exact_core.recipes import resolve
from exact_core.stages.map_season import map_season as _map_stage
from exact_core.tracking.runs import NoTracker
from exact_core.training.loop import choose_device

__all__ = ["TrainedSegmenter", "load_segmenter", "map_season", "open_dataset", "predict_window"]


@dataclass(frozen=True)
class TrainedSegmenter:
    """A segmenter with what it was trained with.

    folder: the model folder. manifest: bands, classes, window side and normalisation statistics. config: the resolved
    configuration of its training. model: the network on `device`, in evaluation mode.
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
    """A dataset of windows that `exact ingest` or `exact run` wrote.

    Raises:
        DataError: no dataset there.
        CorruptError: a file differs from its recorded checksum.
    """
    return WindowDataset(Path(folder))


def load_segmenter(folder: str | Path, *, device: str = "auto") -> TrainedSegmenter:
    """A trained segmenter from its model folder.

    Args:
        folder: what `exact train-segmenter` or `exact run` wrote.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where there is one.

    Raises:
        ConfigError: no such device.
        DataError, CorruptError: no segmenter there, or a damaged one.
    """
    chosen = choose_device(device)
    model, manifest, config = open_segmenter(Path(folder))
    return TrainedSegmenter(Path(folder), manifest, config, model.to(chosen), chosen)


def predict_window(segmenter: TrainedSegmenter, dataset: WindowDataset, index: int) -> NDArray[np.float32]:
    """Class probabilities (K + 1, H, W) of one window. The sum over classes is 1 at each pixel.

    Args:
        segmenter: trained on the same bands, classes and window side.
        dataset: where the window is. The segmenter's own normalisation applies.
        index: position of the window, from 0.

    Raises:
        ConfigError: the segmenter does not fit the dataset.
        IndexError: no such window.
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
    """Map all of a season's area, as `exact map` does without tracking: COGs, a STAC item and map.json in `out`.

    Args:
        source: images of an area: `season:PATH`, `season:s3://…` or `stac:URL?…`.
        segmenter: its model folder.
        out: folder for the map.
        season: a year or START/DAYS. If empty, the source's own.
        overrides: settings as for `--set`, like `mapping.stride=12`.

    Returns:
        The content of map.json: season, dates, areas by class, calibration, digests.

    Raises:
        ExactError: any error of `exact map`.
    """
    config = resolve("season", overrides=list(overrides))
    _map_stage(config, source=source, season=season, segmenter=Path(segmenter), out=Path(out), tracker=NoTracker())
    return read_record(Path(out) / "map.json")
