"""A public TSViT state dict of PASTIS -> a segmenter of this package, with the same logits on the same windows."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from exact_core.artifacts.folders import fresh_folder
from exact_core.artifacts.model_folders import save_model
from exact_core.data.pastis.patches import BANDS
from exact_core.data.windows.dataset import Statistics, WindowDataset
from exact_core.errors import ConfigError, DataError
from exact_core.mapping.calibration import NOT_FITTED
from exact_core.models.published import Sizes, from_published, published_sizes
from exact_core.models.segmenter import build_segmenter
from exact_core.recipes import resolve
from exact_core.training.checkpoint import Progress

__all__ = ["import_weights"]

log = logging.getLogger(__name__)

STATISTICS = Statistics(
    mean=(
        1165.9398193359375,
        1375.6534423828125,
        1429.2191162109375,
        1764.798828125,
        2719.273193359375,
        3063.61181640625,
        3205.90185546875,
        3319.109619140625,
        2422.904296875,
        1639.370361328125,
    ),
    std=(
        1942.6156005859375,
        1881.9234619140625,
        1959.3798828125,
        1867.2239990234375,
        1754.5850830078125,
        1769.4046630859375,
        1784.860595703125,
        1767.7100830078125,
        1458.963623046875,
        1299.2833251953125,
    ),
    pixels=0,
    origin="DeepSatModels, data/PASTIS24/data_transforms.py: fold 1, used with every fold",
)
"""Normalisation of all public PASTIS24 models, in the order of the bands of PASTIS."""
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store a state dict among other values."""


def import_weights(checkpoint: Path, *, dataset: Path, out: Path, heads: int = 4) -> Path:
    """Write a public TSViT segmenter of PASTIS as a model folder.

    It keeps the published architecture and reading: plain residuals, a table of days of the year, padding to 60 dates
    that is attended to, the published layout of pixels, and its own normalisation. Its confidence is not calibrated.

    Args:
        checkpoint: a state dict, `.pth`, `.pt` or `.safetensors`. Only tensors are loaded of it, never code.
        dataset: windows of PASTIS (recipe `pastis24`), which give bands, classes and season.
        out: model folder to write.
        heads: attention heads, which no shape tells (public configurations: 4).

    Raises:
        ConfigError: another architecture, or sizes that do not fit the dataset or each other.
        DataError: the file cannot be read as tensors, or no dataset is there.
    """
    windows = WindowDataset(dataset)
    tensors = _tensors(checkpoint)
    try:
        sizes = published_sizes(tensors)
        _check_fit(sizes, windows, dataset)
        config = resolve("pastis24", overrides=_settings(sizes, heads))
        manifest = windows.manifest
        model = build_segmenter(config.segmenter, bands=sizes.bands, classes=sizes.classes, window=manifest.window)
        model.load_state_dict(from_published(model.state_dict(), tensors))
    except ConfigError as error:
        raise ConfigError(f"{checkpoint}: {error}") from error
    fresh_folder(out, "model.json")
    origin = NOT_FITTED.model_copy(update={"fitted_on": f"nothing: imported from {checkpoint.name}"})
    save_model(
        out,
        model,
        config=config,
        dataset=windows,
        progress=Progress(),
        supervision="dense",
        calibration=origin,
        statistics=STATISTICS,
    )
    log.info("import_weights: %s: %d crops, windows of %d pixels", checkpoint, sizes.classes, sizes.window)
    return out


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name."""
    try:
        if path.suffix == ".safetensors":
            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path}: cannot be read as tensors: {str(error).splitlines()[0]}. Code in a checkpoint is never run. Save "
            f"its state_dict() alone"
        ) from error
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"{path}: no state dict, expected names with tensors. Save the model's state_dict() alone")
    # What is trained on several GPUs is wrapped in a module.
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _check_fit(sizes: Sizes, windows: WindowDataset, folder: Path) -> None:
    manifest = windows.manifest
    if manifest.bands != BANDS:
        raise ConfigError(f"the model is for the bands of PASTIS, {BANDS}, but {folder} has {manifest.bands}")
    for what, wants, has in (
        ("bands", sizes.bands, len(manifest.bands)),
        ("crops", sizes.classes, len(manifest.classes)),
        ("pixels on a window's side", sizes.window, manifest.window),
    ):
        if wants != has:
            raise ConfigError(f"the model has {wants} {what}, but the dataset {folder} has {has}")


def _settings(sizes: Sizes, heads: int) -> list[str]:
    if heads < 1 or sizes.attention % heads:
        raise ConfigError(
            f"--heads {heads} does not divide the width of its attention, {sizes.attention}. Take the heads of its "
            f"configuration"
        )
    encoder = {
        "patch": sizes.patch,
        "dim": sizes.dim,
        "temporal_depth": sizes.temporal_depth,
        "spatial_depth": sizes.spatial_depth,
        "heads": heads,
        "head_dim": sizes.attention // heads,
        "mlp_ratio": sizes.mlp_ratio,
        "residual": "pre_norm",
    }
    changes = [f"segmenter.encoder.{name}={value}" for name, value in encoder.items()]
    return [*changes, f"data.window={sizes.window}", f"data.pastis.classes={sizes.classes}"]
