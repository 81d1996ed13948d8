"""The commands as a person types them."""

import logging
import os
import re
import subprocess
import sys

import pytest
import typer
import yaml

from exact_core import __version__
from exact_kubeflow.cli.app import app
from exact_kubeflow.cli.options import from_here
from tests.conftest import TINY
from tests.fakes import write_pastis, write_season

SETTINGS = [part for setting in TINY for part in ("--set", setting)]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)  # as main() does where no test listens


def test_help_names_the_commands(exact):
    code, said, _ = exact("--help")
    assert code == 0
    for command in ("ingest", "train-classifier", "generate-masks", "train-segmenter", "evaluate", "run", "config"):
        assert command in said
    assert exact("version")[1].strip() == __version__


def test_help_is_grouped_and_short_options_answer(exact):
    said = exact("-h")[1]
    groups = ["From data to a map", "What a map says", "Models and seasons", "Single stages", "On a cluster"]
    places = [said.index(group) for group in groups]
    assert places == sorted(places)
    assert said.index("From data") < said.index("│ run ") < said.index("│ inspect ") < said.index("What a map says")
    assert "--install-completion" in said
    assert exact("--version")[1].strip() == __version__
    shown = exact("map", "-h")[1]
    assert re.search(r"map \[OPTIONS\] \W*SOURCE\W+SEGMENTER\W+OUT\b", shown)
    assert "YEAR|START/DAYS" in shown


def test_a_path_of_a_setting_is_one_of_the_current_folder(exact, tmp_path, caplog):
    write_season(tmp_path / "s")
    (tmp_path / "s/labels/crop_type.tif").rename(tmp_path / "mine.tif")
    options = ["--no-tracking", "--set", "data.season.labels=mine.tif"]
    code, _, failure = exact("ingest", "season", "s", "d", *options)
    assert code == 0, failure
    assert f"labels are those of {tmp_path}/mine.tif" in caplog.text


@pytest.mark.parametrize("name", ["labels", "outlines"])
def test_each_setting_that_names_a_file_may_be_of_the_current_folder(name, tmp_path):
    (tmp_path / "fields.gpkg").touch()
    assert from_here([f"data.season.{name}=fields.gpkg|layername=a", f"data.season.{name}=none.gpkg"]) == [
        f"data.season.{name}={tmp_path}/fields.gpkg|layername=a",
        f"data.season.{name}=none.gpkg",
    ]


def test_a_value_of_another_type_is_shown_a_right_one(exact):
    _, _, said = exact("config", "demo", "--set", "classifier.training.epochs=many")
    assert "classifier.training.epochs = 'many': Input should be a valid integer" in said
    assert "; for example classifier.training.epochs=" in said


def test_a_mistyped_source_is_refused_before_anything_starts(tmp_path):
    """In less than two seconds of a core, without kfp, torch, MLflow or a store having been imported, and without a
    folder or a tracking file."""
    (tmp_path / "flanders").mkdir()
    code = (
        "import sys, time\nfrom exact_kubeflow.cli.app import main\ntry:\n    main()\nfinally:\n"
        "    print({'kfp', 'torch', 'mlflow', 'rasterio', 'numpy', 'tqdm', 'exact_core.storage'} & set(sys.modules))\n"
        "    print(time.process_time() < 2)"
    )
    arguments = ["run", "--source", "flanders"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.endswith(". Did you mean season:flanders?\n")
    assert done.stdout == "set()\nTrue\n"
    assert [path.name for path in tmp_path.iterdir()] == ["flanders"]


def test_a_busy_machine_computes_on_one_thread_unless_told_otherwise(exact, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0, 0))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    note = f"the machine is busy (load 99.0 on {os.cpu_count()} cores): computing on one thread; OMP_NUM_THREADS=N sets"
    assert exact("evaluate", "d", "s", "e")[2].startswith(note)
    assert os.environ["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert exact("evaluate", "d", "s", "e")[2].startswith("exact: not there")
    assert os.environ["OMP_NUM_THREADS"] == "2"
    # What computes nothing says nothing.
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert exact("areas", "none")[2].startswith("exact: none: no map")
    assert "OMP_NUM_THREADS" not in os.environ


def test_doctor_says_what_is_missing(exact, tmp_path):
    code, said, _ = exact("doctor")
    assert code == 0, said
    assert f"ok       current folder: {tmp_path} can be written" in said
    assert "ok       cache: " in said
    assert said.splitlines()[-1].startswith("nothing fails. Not set, though some runs need it: object store")


def test_the_old_address_of_the_command_line_still_answers():
    said = subprocess.run(
        [sys.executable, "-m", "exact_core.cli", "version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == __version__


def test_config_prints_a_recipe_that_can_be_read_again(exact):
    assert yaml.safe_load(exact("config", "demo", "--set", "seed=4")[1])["seed"] == 4


def test_a_saved_configuration_keeps_its_seed(exact, tmp_path, caplog):
    (tmp_path / "mine.yaml").write_text(exact("config", "demo", *SETTINGS, "--seed", "7")[1])
    ran = ["--recipe", "mine.yaml", "--no-tracking"]
    digests = []
    for out, seed in (("a", []), ("b", ["--seed", "7"]), ("c", ["--seed", "8"])):
        caplog.clear()
        code, _, failure = exact("ingest", "synthetic", out, *ran, *seed)
        assert code == 0, failure
        digests.append(re.search(r"digest (\w+)", caplog.text)[1])
    assert digests[0] == digests[1] != digests[2]


def test_a_stage_takes_the_recipe_that_fits_its_data(exact, tmp_path):
    write_season(tmp_path / "s")
    assert exact("ingest", "season", "s", "d", "--no-tracking")[0] == 0
    short = [part for text in ("epochs=1", "batch=64") for part in ("--set", f"classifier.training.{text}")]
    code, _, failure = exact("train-classifier", "d", "c", "--no-tracking", *short)
    assert code == 0, failure
    assert yaml.safe_load((tmp_path / "c" / "config.yaml").read_text())["recipe"] == "season"


def test_each_stage_alone(exact, tmp_path, caplog):
    quiet = [*SETTINGS, "--seed", "1", "--no-tracking"]
    steps = [
        ["ingest", "synthetic", "d"],
        ["train-classifier", "d", "c"],
        ["generate-masks", "d", "c", "m"],
        ["train-segmenter", "d", "s", "--masks", "m"],
        ["evaluate", "d", "s", "e", "--classifier", "c", "--masks", "m"],
    ]
    for step in steps:
        code, said, failure = exact(*step, *quiet)
        assert code == 0, failure
    # Each in its own folder, and nothing beside them. The page is where the last line says.
    assert {path.name for path in tmp_path.iterdir()} == {"d", "c", "m", "s", "e"}
    assert said.splitlines()[-1] == "report: e/report.html"
    page = (tmp_path / "e" / "report.html").read_bytes()
    assert page.startswith(b"<!DOCTYPE html>")
    code, said, failure = exact(*steps[-1][:3], "again", "--report", "copy.html", *quiet)
    assert code == 0, failure
    assert said.splitlines()[-1] == "report: copy.html"
    assert (tmp_path / "copy.html").read_bytes() == (tmp_path / "again" / "report.html").read_bytes()
    assert "classifier: epoch 3/3" in caplog.text
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--workdir", "w", "--recipe", "corn"], ["unknown recipe 'corn'", "demo"]),
        (["run", "--workdir", "w", "--set", "data.windo=24"], ["data.windo", "did you mean"]),
        (["ingest", "pastis", "nothing", "out", "--no-tracking"], ["nothing", "metadata.geojson"]),
        (["ingest", "germany", "nothing", "out", "--no-tracking"], ["nothing", "classes.txt"]),
        (["ingest", "season", "nothing", "out", "--no-tracking"], ["nothing"]),
        (["train-classifier", "nothing", "out", "--no-tracking"], ["not there: DATASET nothing", "earlier command"]),
    ],
)
def test_bad_input_is_one_clear_line(exact, arguments, words):
    code, _, said = exact(*arguments)
    assert code == 1
    assert said.startswith("exact: ")
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_a_pastis_folder(exact, tmp_path):
    write_pastis(tmp_path / "pastis")
    code, _, failure = exact("ingest", "pastis", tmp_path / "pastis", tmp_path / "d", "--no-tracking")
    assert code == 0, failure


def test_config_explains_every_setting(exact):
    said = exact("config", "season", "--explain")[1]
    assert yaml.safe_load(said) == yaml.safe_load(exact("config", "season")[1])
    assert "\n  # window side, pixels (paper)\n  window: 12\n" in said


def test_every_value_of_the_command_line_has_a_name():
    """`--help` says what a value is in the words of the docs, for example FOLDER or N, and never `<path>`."""

    def without(command, name):
        for each in getattr(command, "commands", {}).items():
            yield from without(each[1], f"{name} {each[0]}")
        for parameter in command.params:
            if not getattr(parameter, "is_flag", False) and parameter.metavar is None:
                yield f"{name} {parameter.name}"

    command = typer.main.get_command(app)
    assert [each for each in without(command, "exact") if not each.endswith(("_completion", " help"))] == []
