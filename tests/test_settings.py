"""Which value counts: recipe, season.yaml, parameters, --set, in this order; and what every setting is said to mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from exact_core.config import RunConfig
from exact_core.data.season.folder import ingest_season, merged
from exact_core.errors import ConfigError
from exact_core.recipes import RECIPES, portable, resolve
from exact_core.settings_page import explained, settings_page
from exact_core.stages.ingest import ingest, with_season
from exact_core.tracking.runs import NoTracker
from tests.fakes import write_season

PAGE = Path(__file__).parents[1] / "docs/settings.md"


def of(root: Path, recipe: str = "season", *, season: str = "", sets: tuple[str, ...] = ()) -> RunConfig:
    config = with_season(resolve(recipe, overrides=list(sets)), season, kind="season")
    return config.model_copy(update={"data": merged(root, config.data)})


@pytest.mark.parametrize(
    ("sets", "level", "stride"),
    [
        ((), "group", 6),
        # The default, and set: it counts all the same.
        (("data.season.level=name",), "name", 6),
        (("data.season={level: name}", "data.stride=null"), "name", None),
        (("data={stride: 4}",), "group", 4),
        (("data.season.days=50",), "group", 6),
    ],
)
def test_set_goes_before_season_yaml_whatever_its_value(
    tmp_path: Path, sets: tuple[str, ...], level: str, stride: int | None
) -> None:
    (tmp_path / "season.yaml").write_text("level: group\nstride: 6\n")
    data = of(tmp_path, sets=sets).data
    assert (data.season.level, data.stride) == (level, stride)


def test_each_of_the_four_goes_before_those_under_it(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("recipe: season\ndata: {season: {days: 10, longest_gap: 90}}\n")
    source = tmp_path / "source"
    source.mkdir()
    assert of(source, str(recipe)).data.season.days == 10
    (source / "season.yaml").write_text("days: 20\n")
    assert of(source, str(recipe)).data.season.days == 20
    assert of(source, str(recipe), season="2021-01-01/30").data.season.days == 30
    chosen = of(source, str(recipe), season="2021-01-01/30", sets=("data.season.days=40",)).data.season
    assert (chosen.days, str(chosen.start), chosen.longest_gap) == (40, "2021-01-01", 90)


def test_what_was_used_is_saved_beside_the_dataset_and_used_alike_again(tmp_path: Path) -> None:
    source = write_season(tmp_path / "s")
    (source / "season.yaml").write_text("bands: [B04, B08]\nstride: 4\n")
    config = resolve("season", overrides=["data.season.longest_gap=99"])
    ingest(config, source=f"season:{source}", season="", out=tmp_path / "d", tracker=NoTracker())
    saved = yaml.safe_load((tmp_path / "d/config.yaml").read_text())
    season = saved["data"]["season"]
    assert (season["bands"], saved["data"]["stride"], season["longest_gap"]) == (["B04", "B08"], 4, 99)
    (source / "season.yaml").unlink()
    again = resolve(str(tmp_path / "d/config.yaml"))
    ingest_season(source, again.data, tmp_path / "e", seed=again.seed)
    first, second = (json.loads((tmp_path / name / "dataset.json").read_text()) for name in "de")
    assert first["digest"] == second["digest"]


def test_a_file_of_some_keys_is_completed_by_its_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: demo\nseed: 5\nclassifier: {training: {epochs: 3}}\n")
    expected = resolve("demo", seed=5, overrides=["classifier.training.epochs=3"])
    assert resolve(str(path)) == expected
    # As text it is the same on a machine that has no such file, whatever its own seed.
    text = portable(str(path))
    assert json.loads(text) == {"recipe": "demo", "seed": 5, "classifier": {"training": {"epochs": 3}}}
    assert resolve(text) == expected
    assert resolve(text, seed=0, overrides=["masks.batch=2"]).masks.batch == 2
    assert portable("demo") == "demo"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipe: corn\n", "recipe is 'corn'. Name the one that has all other settings: demo"),
        ("seed: 1\n", "recipe is None. Name the one"),
        ("recipe: demo\nclasifier: {}\n", "unknown key 'clasifier' .did you mean 'classifier'"),
        ("- a\n", "expected a mapping of settings, got list"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        resolve(str(path))
    with pytest.raises(ConfigError, match="not valid JSON"):
        resolve("{recipe")


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_explained_configuration_is_that_configuration(tmp_path: Path, recipe: str) -> None:
    text = explained(resolve(recipe))
    (tmp_path / "c.yaml").write_text(text)
    assert resolve(str(tmp_path / "c.yaml")) == resolve(recipe)
    assert "# band names, in the order in which they are stored\n    bands: [" in text.replace("    # ", "# ")
    assert max(map(len, (line for line in text.splitlines() if "#" in line))) <= 120


def test_the_page_of_settings_is_fresh() -> None:
    page = settings_page()
    assert PAGE.read_text(encoding="utf-8") == page, "Run make compile"
    assert "| `data.window` | `24` |" in page
    assert "| season: `12` |" in page
