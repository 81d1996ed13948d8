"""The table of sources, and a source of this test that is added as CONTRIBUTING.md says: one file and one line."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from exact_core.config import DataConfig
from exact_core.data import sources
from exact_core.data.sources import (
    SOURCES,
    Source,
    absolute_source,
    check_mapped,
    check_there,
    default_recipe,
    is_source,
    known_sources,
    local_path,
    parse_source,
    source_of,
)
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, DataError
from exact_core.recipes import resolve
from exact_core.stages.plan_seasons import plan_seasons
from exact_core.stages.preflight import checks
from exact_core.stages.preview import inspect
from exact_core.stages.resolve_season import resolve_season
from exact_core.tracking.runs import NoTracker
from exact_kubeflow.cli.ingest import ingest_app
from tests.conftest import TINY

TOY = '''
"""Scenes as .npz files of pixels (T, C, H, W), days and labels (H, W); the first one is for training."""

import datetime as dt

import numpy as np

from exact_core.data.windows.cutting import Scene, add_scene, mark_self_scored
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import DataError


def _scenes(place):
    found = sorted(place.glob("*.npz"))
    if not found:
        raise DataError(f"{place}: no .npz here; give the folder of the scenes")
    return [(path.stem, np.load(path)) for path in found]


def survey(place, config):
    first = _scenes(place)[0][1]["pixels"]
    return first.shape[0], first.shape[1]


def ingest(place, config, out, *, seed):
    with DatasetWriter(
        out,
        name="toy",
        source=f"toy:{place}",
        bands=("B04", "B08"),
        classes=("maize",),
        window=config.window,
        season_start=dt.date(2024, 1, 1),
        season_days=366,
        shard_windows=config.shard_windows,
    ) as writer:
        mark_self_scored(writer, "it is a toy")
        for name, arrays in _scenes(place):
            scene = Scene(
                name, arrays["pixels"], arrays["days"], arrays["labels"], None, "EPSG:32631",
                (10.0, 0.0, 500000.0, 0.0, -10.0, 5600000.0), str(place),
            )
            add_scene(writer, scene, config, split="train")
'''
LINE = Source(
    "toy", "Read a toy.", ingests="toy_source:ingest", surveys="toy_source:survey", place="PATH", recipe="demo"
)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder of the toy source, which is in the table."""
    import numpy as np

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "toy_source.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "toy_source", raising=False)
    monkeypatch.setattr(sources, "SOURCES", (*SOURCES, LINE))
    rng = np.random.default_rng(0)
    place = tmp_path / "scenes"
    place.mkdir()
    labels = np.zeros((48, 48), np.uint8)
    labels[:20] = 1
    pixels = rng.integers(200, 4000, (5, 2, 48, 48), np.int16)
    np.savez(place / "a.npz", pixels=pixels, days=np.arange(0, 50, 10, dtype=np.int16), labels=labels)
    return place


def test_a_new_source_is_one_file_and_one_line(toy, tmp_path):
    text = f"toy:{toy}"
    done = CliRunner().invoke(ingest_app(sources.SOURCES), ["toy", str(toy), str(tmp_path / "d"), "--no-tracking"])
    assert done.exit_code == 0, done.output
    found = WindowDataset(tmp_path / "d")
    assert (found.manifest.source, found.manifest.classes) == (text, ("maize",))
    assert sum(found.manifest.splits.values()) == 4
    assert known_sources() == f"{', '.join(source.form for source in SOURCES)} or toy:PATH"
    config = resolve("demo", overrides=TINY)
    answers = {check.name: check.detail for check in checks(config, source=text)}
    assert answers["data"] == f"{text}: 5 dates, 2 bands"
    assert plan_seasons(source="", seasons=[text, f"toy:{tmp_path}"], supervision="tags")[0]["source"] == text
    with pytest.raises(ConfigError, match="a toy source has its own season"):
        plan_seasons(source="", seasons=[f"{text}@2024", text], supervision="tags")
    season = {"schedule_time": "", "starts": "04-01", "days": 200, "tracker": NoTracker()}
    assert resolve_season("auto", source=text, **season).season == ""
    with pytest.raises(ConfigError, match=f"`exact ingest toy {toy} DATASET`"):
        inspect(config, text, season="", model=None, out=tmp_path / "page.html")
    with pytest.raises(
        ConfigError, match=r"toy:.*only images of an area can be mapped, expected season:PATH or stac:URL"
    ):
        check_mapped(text)
    with pytest.raises(DataError, match=r"no \.npz here"):
        source_of("toy").ingest(tmp_path / "code", DataConfig(), tmp_path / "e", seed=0, origin=text)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_every_line_of_the_table_is_whole(source):
    """Each function is there, and each source has a sentence, a recipe and a help for its place."""
    import pkgutil

    for name in filter(None, (source.ingests, source.surveys, source.opens)):
        assert pkgutil.resolve_name(name).__doc__
    assert source.about.endswith(".")
    assert resolve(source.recipe)
    assert bool(source.place) == bool(source.place_help)
    assert default_recipe(f"{source.name}:/a/b") == source.recipe


@pytest.mark.parametrize("text", ["", "synthetic:", "synthetic:here", "pastis", "season:", "corn:/a"])
def test_what_is_no_source_names_those_there_are(text):
    with pytest.raises(ConfigError, match=f"unknown source {text!r}, expected {known_sources()}"):
        parse_source(text)
    assert not is_source(text) or text == "season:"


def test_the_nearest_right_form_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("flanders/labels", "pastis_r", "germany_240", "made"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pastis_r/metadata.geojson").touch()
    (tmp_path / "germany_240/geotransforms.csv").touch()
    (tmp_path / "made/dataset.json").touch()
    for text, meant in (
        ("flanders", "Did you mean season:flanders?"),
        ("flandres", "Did you mean season:flanders?"),
        ("seson:flanders", "Did you mean season:flanders?"),
        ("pastis_r", "Did you mean pastis:pastis_r?"),
        ("germany_240", "Did you mean germany:germany_240?"),
        ("synthetic:", "Did you mean synthetic?"),
        ("pastis", "Did you mean pastis:PATH?"),
        ("https://a.example/v1", "Did you mean stac:https://a.example/v1?"),
        ("s3://bucket/a", "Did you mean season:s3://bucket/a?"),
        ("made", "made is a window dataset, which was ingested already"),
    ):
        with pytest.raises(ConfigError, match="unknown source") as caught:
            check_there(text)
        assert str(caught.value).endswith(f". {meant}")
    check_there("season:flanders")
    check_there("synthetic")
    with pytest.raises(ConfigError, match=r"'season:flandres': no such folder. Did you mean season:flanders\? \("):
        check_there("season:flandres")
    with pytest.raises(ConfigError, match=r"'pastis:/no/where': no such folder. Give its path \(Folder with metadata"):
        check_there("pastis:/no/where")


def test_paths_are_made_absolute_and_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_source("season:a/b") == f"season:{tmp_path}/a/b"
    assert absolute_source("synthetic") == "synthetic"
    assert local_path("synthetic") is None


def test_the_table_is_light_to_read():
    code = "import sys, exact_core.data.sources; print({'torch', 'rasterio', 'numpy', 'minio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
