"""`exact import-weights`: a module of the public names, written from the architecture's description, is the oracle."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exact_core.artifacts.model_folders import load_segmenter
from exact_core.config import DataConfig, PastisConfig
from exact_core.data.pastis.patches import ingest_pastis
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, DataError
from exact_core.mapping.predict import Predictor
from exact_core.stages.import_weights import import_weights
from exact_kubeflow.cli.app import main
from tests.fakes import write_pastis
from tests.models.tsvit_oracle import DenseTsvit, Size, stirred

SIZE = Size(bands=10, crops=4, window=12)
DATES = 60
MEAN = (
    1165.93982,
    1375.65344,
    1429.21912,
    1764.79883,
    2719.2733,
    3063.6118,
    3205.9019,
    3319.1096,
    2422.9043,
    1639.3704,
)
STD = (1942.6156, 1881.9235, 1959.3798, 1867.224, 1754.5851, 1769.4047, 1784.8606, 1767.7101, 1458.9636, 1299.2833)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pastis")
    # Day 60 is one of those that the published rounding reads as the day before.
    source = write_pastis(root / "source", size=24, classes=SIZE.crops, dates=(20181002, 20190301, 20190620, 20191231))
    pastis = PastisConfig(classes=SIZE.crops, date_limit="cut", day_rounding="published")
    ingest_pastis(source, DataConfig(window=SIZE.window, pastis=pastis), root / "dataset")
    return root / "dataset"


@pytest.fixture(scope="module")
def public() -> DenseTsvit:
    torch.manual_seed(3)
    return stirred(DenseTsvit(SIZE))


def saved(model: nn.Module, path: Path, *, change=None) -> Path:
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    torch.save(change(state) if change else state, path)
    return path


FORMS = {
    "plain": None,
    "of several GPUs": lambda state: {f"module.{name}": value for name, value in state.items()},
    "in a checkpoint": lambda state: {"epoch": 7, "state_dict": state},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_probabilities_are_those_of_the_public_model(dataset, public, tmp_path, form):
    path = saved(public, tmp_path / "best.pth", change=FORMS[form])
    windows = WindowDataset(dataset)
    model, manifest, trained = load_segmenter(
        import_weights(path, dataset=dataset, out=tmp_path / "segmenter", heads=SIZE.heads), windows
    )
    encoder = trained.segmenter.reading
    predictor = Predictor(model, windows, encoder, manifest.statistics, torch.device("cpu"), 3)
    for index, found in predictor.stream([0, 7, 11]):
        window = windows.window(index)
        pixels = torch.zeros(DATES, SIZE.bands, SIZE.window, SIZE.window)
        mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
        pixels[: len(window.days)] = (torch.tensor(window.pixels.astype(np.float32)) - mean) / std
        # The days of the year as the public reader has them, of dates that are in the file.
        doy = torch.zeros(DATES)
        doy[: len(window.days)] = torch.tensor([275, 60, 171, 365], dtype=torch.float32) / 365.0001
        with torch.no_grad():
            expected = public(pixels, (doy * 365.0001).long()).softmax(0).numpy()
        assert expected.max(0).mean() > 1.5 / (SIZE.crops + 1)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert trained.segmenter.encoder.residual == "pre_norm"
    assert manifest.supervision == "dense"
    assert manifest.calibration.fitted_on == "nothing: imported from best.pth"


def test_the_command_takes_safetensors(dataset, public, tmp_path, monkeypatch, capsys):
    path = tmp_path / "best.safetensors"
    save_file({name: value.detach().clone() for name, value in public.state_dict().items()}, path)
    command = [
        "exact",
        "import-weights",
        str(path),
        str(dataset),
        str(tmp_path / "segmenter"),
        "--heads",
        str(SIZE.heads),
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert f"segmenter: {tmp_path / 'segmenter'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "segmenter/model.json").read_text())["kind"] == "segmenter"


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def shaped(name, *shape):
    return lambda state: state | {name: torch.zeros(*shape)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("mlp_head.0.bias"), r"it lacks mlp_head\.0\.bias\. Give one of class TSViT"),
        (shaped("space_token", 1, 1, SIZE.dim), "it also has space_token"),
        (without("temporal_token"), r"temporal_token is missing\. Give one of class TSViT"),
        (shaped("temporal_token", 1, 8, SIZE.dim), "the model has 7 crops, but the dataset .* has 4"),
        (shaped("space_pos_embedding", 1, 144, SIZE.dim), "the model has 24 pixels on a window's side, but .* has 12"),
        (
            shaped("space_pos_embedding", 1, 37, SIZE.dim),
            "space_pos_embedding is for 37 places, expected a square",
        ),
        (shaped("to_patch_embedding.1.weight", SIZE.dim, 44), "the model has 11 bands, but the dataset .* has 10"),
        (shaped("to_patch_embedding.1.weight", SIZE.dim, 41), "41 columns, not a multiple of the 2 x 2 pixels"),
        (shaped("mlp_head.1.bias", 9), r"mlp_head\.1\.bias has shape \(9,\), expected \(4,\)"),
        (shaped("to_temporal_embedding_input.weight", SIZE.dim, 400), r"shape \(8, 400\), expected \(367, 8\)"),
    ],
)
def test_another_architecture_is_refused(dataset, public, tmp_path, change, said):
    path = saved(public, tmp_path / "other.pth", change=change)
    with pytest.raises(ConfigError, match=rf"other\.pth: .*{said}"):
        import_weights(path, dataset=dataset, out=tmp_path / "segmenter", heads=SIZE.heads)
    assert not (tmp_path / "segmenter").exists()


def test_heads_that_cannot_be_are_refused(dataset, public, tmp_path):
    with pytest.raises(ConfigError, match="--heads 4 does not divide the width of its attention, 6"):
        import_weights(saved(public, tmp_path / "best.pth"), dataset=dataset, out=tmp_path / "segmenter")


class Ran:
    """Code that a pickle would run."""

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_code_in_a_checkpoint_is_not_run(dataset, tmp_path):
    ran = Ran()
    ran.path = str(tmp_path / "ran")
    torch.save({"x": ran}, tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("no model")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("code", "text", "list"):
        with pytest.raises(DataError, match=rf"{name}\.pth: .*Save "):
            import_weights(tmp_path / f"{name}.pth", dataset=dataset, out=tmp_path / "segmenter")
    assert not (tmp_path / "ran").exists()
