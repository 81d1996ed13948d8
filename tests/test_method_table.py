"""docs/method.md is held to the code: what its tables name exists, and the recipe is set as they say."""

import ast
import re
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

from exact_core.config import ClassifierConfig, DataConfig, MasksConfig, RunConfig, SegmenterConfig
from exact_core.recipes import resolve

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "method.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")]
DEPARTURES = [row for row in ROWS if len(row) == 4 and row[3] in ("yes", "no")]
PARTS = {
    "encoder": ("classifier", "segmenter"),
    "training": ("classifier", "segmenter"),
    "prototypes": ("classifier",),
    "affinity": ("classifier",),
    "loss": ("classifier",),
}
"""Parts of the configuration that a table may name without what they belong to."""
DEFAULTS = RunConfig(recipe="")


def keys(option):
    key = option.partition("=")[0]
    owners = PARTS.get(key.split(".")[0])
    return [f"{owner}.{key}" for owner in owners] if owners else [key]


def names_of(path):
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_every_function_and_test_that_is_named_exists():
    found = re.findall(r"`([\w/]+\.py): ([\w, ]+)`", PAGE)
    assert len(found) > 40
    for file, names in found:
        path = ROOT / file if file.startswith("tests/") else ROOT / "exact_core" / file
        assert path.is_file(), file
        for name in names.split(", "):
            assert name in names_of(path), (file, name)


def test_every_row_of_the_paper_names_a_function_and_a_test():
    rows = [row for row in ROWS if len(row) == 3 and ".py" in row[1]]
    assert len(rows) >= 20
    for _, function, test in rows:
        assert re.fullmatch(r"`[\w/]+\.py: [\w, ]+`(, `[\w/]+\.py: \w+`)?", function), function
        assert re.fullmatch(r"`tests/(\w+/)*test_\w+\.py: test_[\w, ]+`", test), test


def test_there_are_departures():
    assert len(DEPARTURES) > 20
    assert all(len(row) == 4 for row in ROWS if row[-1] in ("yes", "no"))


@pytest.mark.parametrize("row", DEPARTURES, ids=lambda row: row[0][:40])
def test_every_option_is_a_setting_and_the_recipe_is_as_the_table_says(row):
    published, default, cell, in_recipe = row
    assert published
    assert default
    if cell == "–":
        assert in_recipe == "no", "without an option the recipe cannot take it"
        return
    option = re.fullmatch("`([^`]+)`", cell)[1]
    key, given, text = option.partition("=")
    recipe = resolve("pastis24")
    for path in keys(key):
        default = attrgetter(path)(DEFAULTS)
        if given:
            value = yaml.safe_load(text)
            changed = resolve("pastis24", overrides=[f"{path}={text}"])
            assert attrgetter(path)(changed) == value
            assert (attrgetter(path)(recipe) == value) == (in_recipe == "yes")
            # The published behaviour is never what one gets without asking, but for float32.
            assert default != value or value == "fp32"


def test_no_option_that_speaks_of_published_behaviour_is_missing_from_the_tables():
    named = {path for row in DEPARTURES if row[2] != "–" for path in keys(row[2].strip("`"))}

    def walk(model, path):
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                yield from walk(inner, f"{path}.{name}")
            elif "publish" in field.description:
                yield f"{path}.{name}"

    parts = {"classifier": ClassifierConfig, "segmenter": SegmenterConfig, "masks": MasksConfig, "data": DataConfig}
    told = {path for name, model in parts.items() for path in walk(model, name)}
    assert told
    assert told - named == set()
