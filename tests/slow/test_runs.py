"""Two seasons after each other."""

from __future__ import annotations

import json
import shutil

import pytest
from exact_kubeflow.pipelines import local
from exact_kubeflow.pipelines.map_area import map_area
from exact_kubeflow.pipelines.new_season import new_season

from exact_core.files import sha256_of
from tests.conftest import TINY
from tests.fakes import write_season

pytestmark = pytest.mark.slow


def test_a_second_season_is_mapped_with_the_champion_of_the_first(tmp_path, monkeypatch):
    """training=if_no_champion: trained once, then reused; the report of the second has no masks to show."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    write_season(tmp_path / "source")
    arguments = {
        "recipe": "season",
        "source": f"season:{tmp_path}/source",
        "season": "",
        "seed": 1,
        "overrides": TINY,
        "training": "if_no_champion",
    }
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        local._run(tmp_path / name, new_season, arguments, "tags")
    first, second = ({path.name for path in (tmp_path / name).iterdir()} for name in ("first", "second"))
    assert {"classifier", "masks", "segmenter", "promotion", "report.html", "crop_map"} <= first
    assert {"evaluation", "report.html", "segmenter", "crop_map"} <= second
    assert not {"classifier", "masks", "promotion"} & second
    weights = "segmenter/weights.safetensors"
    assert sha256_of(tmp_path / "first" / weights) == sha256_of(tmp_path / "second" / weights)
    scores = [json.loads((tmp_path / name / "evaluation" / "metrics.json").read_text()) for name in ("first", "second")]
    assert scores[0]["confusion"] == scores[1]["confusion"]
    assert scores[1]["pseudo_masks"] is None
    # Without any label, by the pipeline that only maps.
    shutil.rmtree(tmp_path / "source/labels")
    images = {key: value for key, value in arguments.items() if key != "training"}
    images["overrides"] = [*TINY, "mapping.polygons=true"]
    (tmp_path / "third").mkdir()
    local._run(tmp_path / "third", map_area, images, "tags")
    assert "polygons.gpkg" in json.loads((tmp_path / "third/crop_map/map.json").read_text())["files"]
    maps = [sha256_of(tmp_path / name / "crop_map/class.tif") for name in ("second", "third")]
    assert maps[0] == maps[1]
