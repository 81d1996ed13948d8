"""Rules that hold for every command: what it writes, and how its help and options read."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from exact_core.stages.stage import stage_table
from exact_kubeflow.cli.app import app
from tests.fakes import write_parcels
from tests.mapping.maps import write_map


def commands():
    """Every command with its words."""

    def below(command, words):
        for name, each in getattr(command, "commands", {}).items():
            yield from below(each, (*words, name))
        if not hasattr(command, "commands"):
            yield words, command

    return dict(below(typer.main.get_command(app), ()))


COMMANDS = commands()
FILES = {
    "inspect": ("synthetic --out", "preview.html"),
    "evaluate": ("d s e --report", "report.html"),
    "compare": ("a b --out", "comparison.html"),
    "areas": ("MAP --out", "areas.csv"),
    "sample": ("MAP --out", "points.gpkg"),
    "compare-maps": ("MAP OTHER --reference r.csv --out", "better.json"),
    "parcels": ("MAP fields.geojson --out", "parcels.gpkg"),
    "polygons": ("MAP --out", "polygons.parquet"),
    "view": ("MAP --out", "map.html"),
    "store put": ("MAP file:///nowhere --pointer", "pointer.json"),
}
"""Commands that write one file: what comes before its name, and a name."""
FOLDERS = {
    "ingest synthetic": "OUT",
    "ingest pastis": "p OUT",
    "ingest germany": "g OUT",
    "ingest season": "s OUT",
    "ingest stac": "https://stac.example/v1 OUT",
    "train-classifier": "d OUT",
    "generate-masks": "d c OUT",
    "train-segmenter": "d OUT",
    "evaluate": "d s OUT",
    "map": "season:s s OUT",
    "join-map": "p OUT",
    "export": "s OUT",
    "import-weights": "c d OUT",
    "transfer": "season:s --out OUT",
    "leave-one-season-out": "a b --out OUT",
}
"""Commands that write a folder."""
OTHERWISE = {("run", "workdir"), ("fetch", "out"), ("store get", "folder")}
"""They continue what is there, or refuse what is not theirs, by rules of their own."""
WRITTEN = {"out", "report", "pointer", "workdir"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with maps of two crops and a layer of fields."""
    monkeypatch.chdir(tmp_path)
    for name, first in (("MAP", 1), ("OTHER", 2)):
        write_map(tmp_path / name, np.repeat([first, 2], [200, 200]).reshape(20, 20))
    write_parcels(tmp_path / "fields.geojson", [(1, (500_000, 5_599_700, 500_100, 5_599_800))])
    return tmp_path


def test_every_command_that_writes_is_under_one_of_the_rules():
    writes = {
        (" ".join(words), each.name)
        for words, command in COMMANDS.items()
        for each in command.params
        if each.name in WRITTEN or each.metavar == "OUT"
    }
    files = {
        (name, next(part for part in ("report", "pointer", "out") if part in text)) for name, (text, _) in FILES.items()
    }
    assert writes == files | {(name, "out") for name in FOLDERS} | OTHERWISE
    for name in FILES:
        assert any(each.name == "force" for each in COMMANDS[tuple(name.split())].params), name


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_there_is_kept_and_its_suffix_says_its_format(exact, here, name):
    arguments, file = FILES[name]
    typed = [*name.split(), *arguments.split()]
    (here / file).write_text("mine")
    code, _, said = exact(*typed, file)
    assert (code, said) == (1, f"exact: {file}: is there already. Choose another name, or replace it by --force\n")
    assert (here / file).read_text() == "mine"
    folder = Path("folder").with_suffix(Path(file).suffix)
    folder.mkdir()
    assert exact(*typed, folder)[2] == f"exact: {folder}: a folder. Name a file\n"
    if name != "store put":
        assert exact(*typed, "a.xyz")[2].startswith("exact: a.xyz: expected a name that ends in ")
    assert not (here / "a.xyz").exists()


PLACES = sorted(
    place
    for stage in stage_table().values()
    for output, files in stage.writes.items()
    for file in files
    for place in (file, f"{output}/{file}")
    if place != "metrics.json"
)
"""What may be finished in a folder: a result of one kind, or one among those of a run."""


@pytest.mark.parametrize(
    ("name", "place"), list(zip(itertools.islice(itertools.cycle(FOLDERS), len(PLACES)), PLACES, strict=True))
)
def test_a_folder_with_a_result_is_kept(exact, here, name, place):
    """Of any kind, whatever else is wrong."""
    path = here / "OUT" / place
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    code, _, said = exact(*name.split(), *FOLDERS[name].split())
    assert (code, said) == (1, f"exact: OUT already holds a finished result ({place}). Choose another folder\n")
    assert [each for each in (here / "OUT").rglob("*") if each.is_file()] == [path]


def test_each_command_that_writes_a_folder_is_among_those_cases():
    assert len(PLACES) >= len(FOLDERS)


@pytest.mark.parametrize(
    ("typed", "missing"),
    [
        ("areas m --reference r.csv --design simple", "MAP m, REFERENCE r.csv"),
        ("sample m --other o --out a.csv", "MAP m, OTHER o"),
        ("compare-maps m o --reference r.csv", "MAP m, OTHER o, REFERENCE r.csv"),
        ("parcels m p.gpkg|layername=a", "MAP m, LAYER p.gpkg|layername=a"),
        ("view m --outlines o.gpkg --tags t.csv", "MAP m, OUTLINES o.gpkg, TAGS t.csv"),
        ("join-map a b c --cropland m.tif", "PART 1 a, PART 2 b, CROPLAND m.tif"),
        ("map season:MAP s c --outlines o.gpkg --cropland m.tif", "SEGMENTER s, OUTLINES o.gpkg, CROPLAND m.tif"),
        ("transfer season:MAP --segmenter s d", "SEGMENTER s, DATASET d"),
        ("evaluate d s e --masks m", "DATASET d, SEGMENTER s, MASKS m"),
        ("leave-one-season-out a b --out c", "DATASET 1 a, DATASET 2 b"),
    ],
)
def test_all_that_is_missing_is_named_at_once(exact, here, typed, missing):
    assert exact(*typed.split())[2].startswith(f"exact: not there: {missing}. ")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_a_short_help(words):
    said = CliRunner().invoke(app, [*words, "-h"])
    assert said.exit_code == 0
    command = COMMANDS[words]
    assert command.help, words
    for each in command.params:
        text = getattr(each, "help", None)
        assert text, (words, each.name)
        assert text.endswith("."), (words, each.name, text)


def test_an_option_has_one_metavar_wherever_it_is():
    """A word of the command line means one thing, and so does the word for its value."""
    seen: dict[str, dict[str, list[str]]] = {}
    for words, command in COMMANDS.items():
        for each in command.params:
            for option in (text for text in each.opts if text.startswith("--")):
                seen.setdefault(option, {}).setdefault(str(each.metavar), []).append(" ".join(words))
    several = {option: metavars for option, metavars in seen.items() if len(metavars) > 1}
    # A table goes to a file, and a report with its figures to a folder. A region has a name, and bands have a model.
    assert set(several) == {"--out", "--model"}
    assert set(several["--out"]) == {"FILE", "FOLDER"}
    assert set(several["--model"]) == {"NAME", "SEGMENTER"}
