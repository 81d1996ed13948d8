"""`exact export`: a program beside the item that says what goes into it."""

import json
import sys

import numpy as np
import pystac
import pytest
import torch

from exact_core.artifacts.model_folders import open_segmenter, save_model
from exact_core.config import override
from exact_core.errors import ConfigError
from exact_core.models.segmenter import build_segmenter
from exact_core.stages.export import export_model
from exact_core.training.checkpoint import Progress
from exact_kubeflow.cli.app import main


def saved(folder, dataset, config):
    manifest = dataset.manifest
    torch.manual_seed(0)
    model = build_segmenter(
        config.segmenter, bands=len(manifest.bands), classes=len(manifest.classes), window=manifest.window
    )
    folder.mkdir()
    save_model(folder, model, config=config, dataset=dataset, progress=Progress())
    return folder


def test_the_command(dataset, config, tmp_path, monkeypatch, capsys):
    folder, out = saved(tmp_path / "segmenter", dataset, config), tmp_path / "program"
    monkeypatch.setattr(sys, "argv", ["exact", "export", str(folder), str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert f"program: {out / 'segmenter.pt2'}" in capsys.readouterr().out
    model, manifest, _ = open_segmenter(folder)
    item = pystac.Item.from_dict(json.loads((out / "item.json").read_text()))
    said = item.properties
    assert said["mlm:total_parameters"] == sum(each.numel() for each in model.parameters())
    # What the item says is enough to call the program.
    types = {"int16": torch.int16, "int64": torch.int64, "uint8": torch.bool}
    program = torch.export.load(out / item.assets["model"].href).module()
    given = []
    for each in said["mlm:input"]:
        assert len(each["input"]["shape"]) == len(each["input"]["dim_order"])
        shape = [{0: 2, 1: 3}[place] if side < 0 else side for place, side in enumerate(each["input"]["shape"])]
        given.append(torch.ones(shape, dtype=types[each["input"]["data_type"]]))
    found = program(*given)
    (output,) = said["mlm:output"]
    assert list(found.shape) == [2, *output["result"]["shape"][1:]]
    assert [each["description"] for each in output["classification:classes"]] == ["background", *manifest.classes]
    logits = found  # noqa: F841 - named by the expression
    probabilities = eval(output["post_processing_function"]["expression"])  # noqa: S307 - our own text
    np.testing.assert_allclose(probabilities.sum(1).detach(), 1, rtol=1e-5)
    assert said["mlm:input"][0]["bands"] == [band["name"] for band in said["bands"]]
    asset = item.assets["model"].extra_fields
    assert asset["file:size"] == (out / "segmenter.pt2").stat().st_size
    assert "https://stac-extensions.github.io/mlm/v1.5.2/schema.json" in item.stac_extensions


def test_a_segmenter_of_another_kind_is_refused(dataset, config, tmp_path):
    folder = saved(tmp_path / "segmenter", dataset, override(config, ["segmenter.model=utae"]))
    with pytest.raises(ConfigError, match="segmenter.model is utae.*Export a segmenter of model tsvit"):
        export_model(folder, tmp_path / "program")
    assert not (tmp_path / "program").exists()
