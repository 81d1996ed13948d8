"""`exact inspect`: what it takes, what it refuses, and what it holds bands against."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from exact_core.artifacts.model_folders import ModelManifest
from exact_core.data.windows.dataset import FileEntry, Statistics, WindowDataset
from exact_core.errors import ConfigError, DataError, ExactError
from exact_core.evaluation.preview.content import Preview
from exact_core.recipes import resolve
from exact_core.stages.preview import inspect
from exact_kubeflow.cli.app import app
from tests.conftest import TINY
from tests.fakes import write_season


def write_model(folder: Path, bands: tuple[str, ...], statistics: Statistics) -> Path:
    folder.mkdir()
    manifest = ModelManifest(
        kind="segmenter",
        bands=bands,
        classes=("wheat",),
        window=24,
        statistics=statistics,
        dataset_digest="0",
        supervision="tags",
        code_version="0",
        weights=FileEntry(name="weights.safetensors", sha256="0", bytes=1, windows=1),
    )
    (folder / "model.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return folder


def look(what: Path | str, out: Path, *, season: str = "", model: Path | None = None) -> Preview:
    return inspect(resolve("demo", seed=1, overrides=TINY), what, season=season, model=model, out=out)


def test_a_dataset_repeats_bit_by_bit(dataset_folder: Path, tmp_path: Path) -> None:
    preview = look(dataset_folder, tmp_path / "deep" / "a.html")
    assert preview.title == "synthetic"
    look(dataset_folder, tmp_path / "b.html")
    assert (tmp_path / "deep" / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_generated_data_is_ingested_on_the_way(dataset_folder: Path, tmp_path: Path) -> None:
    preview = look("synthetic", tmp_path / "a.html")
    assert preview.facts["Digest"] == WindowDataset(dataset_folder).manifest.digest


def test_a_model_is_what_a_new_season_is_held_against(tmp_path: Path) -> None:
    source = write_season(tmp_path / "s")
    bands = resolve("season").data.season.bands
    model = write_model(tmp_path / "m", bands, Statistics(mean=(1000.0,) * 10, std=(10.0,) * 10, pixels=1, origin="x"))
    preview = look(f"season:{source}", tmp_path / "a.html", model=model)
    assert all(figures.shifts["all"] == (figures.means["all"] - 1000) / 10 for figures in preview.bands)
    assert str(model) in preview.reference


def test_labels_that_ingest_refuses_are_said_beside_the_images(tmp_path: Path) -> None:
    source = write_season(tmp_path / "s", labels=False, legend=None)
    (source / "labels").mkdir()
    (source / "labels/tags.csv").write_text("x,y,crops\n1,two,maize\n")
    preview = look(f"season:{source}", tmp_path / "a.html")
    assert preview.remarks == (f"{source}/labels/tags.csv, line 2: y 'two' is not a number. Write one, as 3.0214",)
    (source / "labels/tags.csv").write_text("x,y,crops\n1,2,maize\n")
    preview = look(f"season:{source}", tmp_path / "b.html")
    assert preview.remarks[0].startswith(f"{source}/labels/tags.csv: none of its 1 squares is in the images")


def test_what_cannot_be_shown_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    (tmp_path / "images").mkdir()
    few = Statistics(mean=(1.0,), std=(1.0,), pixels=1, origin="x")
    other = write_model(tmp_path / "m", ("B99",), few)

    def refused(kind: type[ExactError], what: Path | str, **given: str | Path) -> str:
        with pytest.raises(kind) as caught:
            look(what, out, **given)  # type: ignore[arg-type]
        assert not out.exists()
        return str(caught.value)

    said = refused(ConfigError, "pastis:/data/pastis")
    assert "exact ingest pastis /data/pastis" in said
    assert "exact ingest germany /data/240" in refused(ConfigError, "germany:/data/240")
    said = refused(DataError, tmp_path / "images")
    assert f"season:{tmp_path / 'images'}" in said
    assert "no dataset here" in refused(DataError, tmp_path / "nothing")
    assert "no such folder" in refused(DataError, f"season:{tmp_path / 'nothing'}")
    assert "has its own season" in refused(ConfigError, dataset_folder, season="2021")
    assert "has its own season" in refused(ConfigError, "synthetic", season="2021")
    assert "the model needs bands ('B99',)" in refused(ConfigError, dataset_folder, model=other)
    assert "no segmenter here" in refused(DataError, dataset_folder, model=tmp_path / "none")


def test_where_nothing_can_be_written(dataset_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Choose another file by --out"):
        look(dataset_folder, tmp_path / "file" / "a.html")


def test_the_command(dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.html"
    done = CliRunner().invoke(app, ["inspect", str(dataset_folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"preview: {out}" in done.output
    assert "synthetic: " in done.output
    assert out.stat().st_size > 10_000
    done = CliRunner().invoke(app, ["inspect", str(dataset_folder), "--set", "data.window=8"])
    assert isinstance(done.exception, ConfigError)
    assert "Use --recipe and --set for sources only" in str(done.exception)
