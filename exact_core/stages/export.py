"""A segmenter -> a program that torch alone runs, with a STAC item of the Machine Learning Model extension.

segmenter.pt2    torch.export: pixels, dates and clear patches -> logits
item.json        STAC 1.1 item, MLM 1.5: inputs, output, classes, calibration, weights
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pystac
import torch

from exact_core.artifacts.folders import code_version, fresh_folder
from exact_core.artifacts.model_folders import ModelManifest, open_segmenter
from exact_core.config import EncoderConfig
from exact_core.data.windows.dataset import CLEAR_PATCH
from exact_core.errors import ConfigError, ServiceError
from exact_core.evaluation.palette import colours_of
from exact_core.files import file_facts, publish_text
from exact_core.mapping.item import slug
from exact_core.models.exported import export_segmenter
from exact_core.models.segmenter import Segmenter
from exact_core.undefined import to_json

__all__ = ["ITEM", "PROGRAM", "export_model"]

PROGRAM, ITEM = "segmenter.pt2", "item.json"
MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
ALWAYS = (dt.datetime(1900, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, tzinfo=dt.UTC))
"""Time of a model without a season. STAC requires an interval or a time."""


def export_model(segmenter: Path, out: Path) -> Path:
    """Write the program of a segmenter and its item, which comes last.

    Args:
        segmenter: model folder.
        out: folder to write.

    Returns:
        The program.

    Raises:
        ConfigError: a segmenter of another kind than TSViT.
        DataError, CorruptError: no such model.
        ServiceError: the program cannot be written.
    """
    model, manifest, trained = open_segmenter(segmenter)
    if not isinstance(model, Segmenter):
        raise ConfigError(
            f"{segmenter}: segmenter.model is {trained.segmenter.model}, and what it computes depends on which "
            f"dates are seen, which no exported program can say. Export a segmenter of model tsvit"
        )
    fresh_folder(out, ITEM)
    encoder = trained.segmenter.reading
    program = export_segmenter(
        model, statistics=manifest.statistics, encoder=encoder, bands=len(manifest.bands), window=manifest.window
    )
    path = out / PROGRAM
    try:
        torch.export.save(program, path)
    except (OSError, RuntimeError) as error:
        raise ServiceError(f"{path}: cannot be written: {error}. Make room, then repeat") from error
    parameters = sum(parameter.numel() for parameter in model.parameters())
    publish_text(out / ITEM, to_json(_item(manifest, encoder, path, parameters)))
    return path


def _item(manifest: ModelManifest, encoder: EncoderConfig, path: Path, parameters: int) -> dict[str, Any]:
    facts = file_facts(path)
    if manifest.season_start is None or manifest.season_days is None:
        first, last = ALWAYS
    else:
        first = dt.datetime.combine(manifest.season_start, dt.time(), dt.UTC)
        last = first + dt.timedelta(days=manifest.season_days)
    single = "A regression of single pixels has a share in it. " if manifest.pixel_days else ""
    item = pystac.Item(
        id=f"segmenter-{manifest.weights.sha256[:12]}",
        geometry=None,
        bbox=None,
        datetime=None,
        start_datetime=first,
        end_datetime=last,
        properties={
            "description": f"Crop segmenter trained with Exact. {single}Its place is that of the images that it was "
            "trained on.",
            "bands": [{"name": band} for band in manifest.bands],
            "mlm:name": "Exact crop segmenter",
            "mlm:architecture": "TSViT",
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "PyTorch",
            "mlm:framework_version": torch.__version__,
            "mlm:memory_size": facts["bytes"],
            "mlm:total_parameters": parameters,
            "mlm:pretrained": True,
            "mlm:pretrained_source": f"{manifest.supervision} of dataset {manifest.dataset_digest}",
            "mlm:accelerator": "amd64",
            "mlm:accelerator_constrained": False,
            "mlm:input": _inputs(manifest, encoder),
            "mlm:output": [_output(manifest)],
            "mlm:hyperparameters": {
                "code_version": code_version(),
                "weights_sha256": manifest.weights.sha256,
                "confidence_temperature": manifest.calibration.temperature,
            },
        },
        stac_extensions=[MLM, FILE],
    )
    item.add_asset(
        "model",
        pystac.Asset(
            f"./{path.name}",
            title="Exported program: torch.export.load(...).module()(pixels, dates, clear)",
            media_type="application/octet-stream; application=pytorch",
            roles=["mlm:model", "mlm:weights"],
            extra_fields={
                "mlm:artifact_type": "torch.export.save",
                "file:size": facts["bytes"],
                # A multihash: 0x12 is SHA-256, 0x20 its length.
                "file:checksum": f"1220{facts['sha256']}",
            },
        ),
    )
    found: dict[str, Any] = item.to_dict(include_self_link=False)
    return found


def _inputs(manifest: ModelManifest, encoder: EncoderConfig) -> list[dict[str, Any]]:
    side, bands = manifest.window, manifest.bands
    start = manifest.season_start
    day = "day of the year" if encoder.dates == "day_of_year" else f"days since the first day of the season ({start})"
    return [
        {
            "name": "pixels",
            "bands": list(bands),
            "description": "Surface reflectance x 10,000, 0 where nothing was measured. The program normalises it.",
            "input": {
                "shape": [-1, -1, len(bands), side, side],
                "dim_order": ["batch", "time", "bands", "height", "width"],
                "data_type": "int16",
            },
        },
        {
            "name": "dates",
            "bands": [],
            "description": f"Date of each image: {day}",
            "input": {"shape": [-1, -1], "dim_order": ["batch", "time"], "data_type": "int64"},
        },
        {
            "name": "clear",
            "bands": [],
            # MLM has no type for booleans.
            "description": "Boolean (1 byte): whether 2 x 2 pixels are free of cloud; all true where not known.",
            "input": {
                "shape": [-1, -1, side // CLEAR_PATCH, side // CLEAR_PATCH],
                "dim_order": ["batch", "time", "height", "width"],
                "data_type": "uint8",
            },
        },
    ]


def _output(manifest: ModelManifest) -> dict[str, Any]:
    names = ("background", *manifest.classes)
    colours = colours_of(manifest.classes, manifest.colours)
    temperature = manifest.calibration.temperature
    divided = "logits" if temperature is None else f"logits / {temperature:.6g}"
    return {
        "name": "logits",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, len(names), manifest.window, manifest.window],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": [
            {"value": label, "name": slug(name), "description": name, "color_hint": colour.lstrip("#").upper()}
            for label, (name, colour) in enumerate(zip(names, colours, strict=True))
        ],
        "post_processing_function": {"format": "python", "expression": f"torch.softmax({divided}, dim=1)"},
    }
