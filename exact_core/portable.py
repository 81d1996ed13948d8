"""A trained segmenter that MLflow can load without this package: this file and what it imports travel with the weights.

MLflow runs the file when it loads the model. A prediction takes a dictionary of arrays:

    pixels   int16 (B, T, C, H, W), reflectance x 10,000, the bands in the order of the model's metadata
    days     int64 (B, T), days since the season's start, or days of the year where the metadata says so. Below 0: no
             such date (a shorter series, or one under clouds)

and gives float32 (B, K + 1, H, W), class probabilities, background first. Windows have the side that the model was
trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file

from exact_core.config import RunConfig
from exact_core.data.windows.batches import make_series
from exact_core.errors import CorruptError
from exact_core.files import sha256_of
from exact_core.manifest import read_record
from exact_core.models.precision import for_inference
from exact_core.models.probabilities import class_probabilities
from exact_core.models.segmenter import build_segmenter


class CropSegmenter(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """See the module."""

    def load_context(self, context: Any) -> None:
        """Build the model and load its weights, on a GPU where there is one."""
        folder = Path(context.artifacts["segmenter"])
        manifest = read_record(folder / "model.json")
        for entry in (manifest["weights"], manifest.get("config")):
            if entry and sha256_of(folder / entry["name"]) != entry["sha256"]:
                raise CorruptError(f"{folder / entry['name']}: corrupt: it is not what was logged. Log the model again")
        config = RunConfig.model_validate(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = build_segmenter(
            config.segmenter,
            bands=len(manifest["bands"]),
            classes=len(manifest["classes"]),
            window=manifest["window"],
            pixel_days=manifest.get("pixel_days", ()),
        )
        model.load_state_dict(load_file(folder / manifest["weights"]["name"]))
        self.model = for_inference(model, self.device, config.precision)
        self.encoder = config.segmenter.reading
        self.mean = torch.tensor(manifest["statistics"]["mean"], device=self.device)
        self.std = torch.tensor(manifest["statistics"]["std"], device=self.device)

    def predict(
        self,
        model_input: dict[str, NDArray[np.generic]],
        params: dict[str, Any] | None = None,  # noqa: ARG002 - MLflow's protocol
    ) -> NDArray[np.float32]:
        """Class probabilities. See the module."""
        pixels = torch.from_numpy(np.asarray(model_input["pixels"], np.int16)).to(self.device)
        days = torch.from_numpy(np.asarray(model_input["days"], np.int64)).to(self.device)
        series = make_series(pixels, days.clamp(min=0), days >= 0, mean=self.mean, std=self.std, encoder=self.encoder)
        with torch.no_grad():
            return np.asarray(class_probabilities(self.model(series)).cpu().numpy())


if __name__ != "exact_core.portable":  # as MLflow runs it
    mlflow.models.set_model(CropSegmenter())
