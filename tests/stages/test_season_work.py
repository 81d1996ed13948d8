"""What the first step finds left to do: with labels and without, done already, at work elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from exact_core.config import override
from exact_core.data.sources import with_season
from exact_core.errors import ConfigError, ServiceError
from exact_core.recipes import resolve
from exact_core.stages.fetch import source_state
from exact_core.stages.lifecycle import open_stage, open_step
from exact_core.stages.map_season import STAGE
from exact_core.stages.plan_run import Parameters, plan_run
from exact_core.stages.publish_map import INPUTS, MADE_BY, PIPELINE_RUN, WEIGHTS, maps_store
from exact_core.stages.record_status import record_status
from exact_core.stages.run import read_run
from exact_core.stages.season_lease import hold
from exact_core.storage import open_store
from exact_core.tracking.registry import CHAMPION, DIGEST_TAG, Registry
from exact_core.tracking.runs import PIPELINE_RUN_VARIABLE, PIPELINE_TAG, run_identity
from tests.conftest import TINY
from tests.fakes import write_season
from tests.stac_server import Fault, StacServer

SEASON, PLACE = "2018-04-01/214", "flanders/2018-04-01_2018-10-31"


@pytest.fixture(autouse=True)
def _machine(tmp_path, monkeypatch, tracking_file):
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def season(tmp_path) -> Path:
    return write_season(tmp_path / "flanders", scl=lambda _date: np.full((16, 16), 4))


def first_step(folder: Path, run: str, **parameters):
    """The first step of a run; what is left to do, and the run that the others get."""
    given = {"recipe": "season", "seed": 0, "overrides": TINY, "season": SEASON, "publish": True, **parameters}
    plan = plan_run(Parameters(source=f"season:{folder}", pipeline_run=run, **given))
    return plan.Output, read_run(plan.run)


def published(run, made_by: str, weights: str = "1" * 64) -> None:
    """As if the map of this run were there."""
    facts = {INPUTS: run.inputs, MADE_BY: made_by, WEIGHTS: weights, PIPELINE_RUN: run_identity(run.pipeline_run)}
    maps_store().write(f"{run.map_place}/item.json", json.dumps({"properties": facts}).encode())


def ended(run: str) -> dict[str, object]:
    return record_status(pipeline_run=run, state="COMPLETE", error="", job="", webhook="")


def crown(weights: str = "2" * 64, *, by: str = "earlier") -> str:
    """A champion of the usual name, as the promotion of a run makes it."""
    with open_stage("promote", resolve("demo", overrides=TINY), pipeline_run=by) as tracker:
        registry = Registry.of(tracker)
        before = registry.alias_version("exact-flanders", CHAMPION)
        if before is None:
            registry.client.create_registered_model("exact-flanders")
        tags = {DIGEST_TAG: weights, PIPELINE_TAG: by}
        made = registry.client.create_model_version("exact-flanders", "x", tracker.run_id, tags=tags)
        assert registry.replace_champion("exact-flanders", before, str(made.version), reason="better")
        registry.note_decision("exact-flanders", str(made.version), promoted=True, reason="better")
    return str(made.version)


def test_a_season_is_trained_on_once_and_again_when_something_changes(season):
    todo, run = first_step(season, "run-1")
    assert (todo, run.map_place, run.model, run.champion) == ("train", PLACE, "exact-flanders", "")
    # A second one at the same time ends, and says which run is at it.
    todo, _ = first_step(season, "run-2")
    assert todo == "nothing"
    facts = ended("run-2")["facts"]
    assert facts["work"] == "nothing"
    assert facts["work_reason"].startswith(f"run run-1 is making the map {PLACE}. It releases the season at its end")
    assert first_step(season, "run-3", map_name="limburg")[0] == "train"
    published(run, "training")
    ended("run-1")
    # Its model was not registered: what came after the map failed.
    assert first_step(season, "run-4")[0] == "train"
    ended("run-4")
    crown("1" * 64, by="run-1")
    assert first_step(season, "run-4")[0] == "nothing"
    assert ended("run-4")["facts"]["work_reason"] == (
        f"the map {PLACE} is published, of the same images, labels and settings"
    )
    # Settings, labels, images; the first step alone leaves the season held, until its run has ended.
    for number, (path, change) in enumerate({"": "seed", "labels/legend.csv": "", "S2_20180401/B02.tif": ""}.items()):
        if path:
            os.utime(season / path, ns=(1, 1))
        todo, changed = first_step(season, f"again-{number}", seed=int(change == "seed"))
        assert todo == "train", path
        assert changed.inputs != run.inputs
        ended(f"again-{number}")
    assert not open_store(os.environ["EXACT_STORE"]).below("leases").list_keys("flanders")


@pytest.mark.parametrize("where", ["cluster", "here"])
def test_a_run_that_is_repeated_finds_what_it_found_at_first(season, monkeypatch, where):
    """Killed after its model had become champion and its map was published."""
    again = "run-1"
    if where == "here":
        # KFP's own name for a run is then another for each start.
        monkeypatch.setenv(PIPELINE_RUN_VARIABLE, "run-1")
        again = "local-2"
    asked = {"training": "if_no_champion"}
    todo, run = first_step(season, "run-1", **asked)
    assert todo == "train"
    published(run, "training")
    version = crown("1" * 64, by="run-1")
    assert first_step(season, again, **asked) == ("train", run.model_copy(update={"pipeline_run": again}))
    monkeypatch.delenv(PIPELINE_RUN_VARIABLE, raising=False)
    ended("run-1")
    assert first_step(season, "run-2", seed=1, **asked)[1].champion == version
    ended("run-2")
    # Another replaces it; the killed run is then one of many.
    newer = crown("3" * 64)
    assert first_step(season, "run-1", **asked)[1].champion == newer


def test_without_labels_the_champion_maps_it_once_for_each_champion(season):
    shutil.rmtree(season / "labels")
    with pytest.raises(ConfigError, match="the season has no labels yet, and model exact-flanders has no champion"):
        first_step(season, "run-1")
    version = crown()
    todo, run = first_step(season, "run-2")
    assert (todo, run.champion) == ("map", version)
    published(run, "champion", "2" * 64)
    ended("run-2")
    assert first_step(season, "run-3")[0] == "nothing"
    newer = crown("3" * 64)
    todo, run = first_step(season, "run-4")
    assert (todo, run.champion) == ("map", newer)
    ended("run-4")
    # The labels come later.
    write_season(season)
    assert first_step(season, "run-5")[0] == "train"
    ended("run-5")
    todo, run = first_step(season, "run-6", training="if_no_champion")
    assert (todo, run.champion) == ("reuse", newer)
    ended("run-6")
    assert first_step(season, "run-7", training="never")[0] == "map"


def test_maps_within_the_season_have_places_of_their_own_and_are_the_champions(season):
    """The slots of a schedule, two weeks apart: each map once, and training only when the season has ended."""
    auto = {"season": "auto", "season_start": "04-01", "season_days": 214, "until": "auto", "until_from": "04-20"}
    with pytest.raises(ConfigError, match="mapped until 2018-04-25, by a model of whole seasons, and model exact-fl"):
        first_step(season, "run-0", schedule_time="2018-04-26T04:00:00Z", **auto)
    version = crown()
    places = []
    for number, day in enumerate(("2018-04-26", "2018-05-10", "2018-11-02")):
        slot = {**auto, "schedule_time": f"{day}T04:00:00Z"}
        todo, run = first_step(season, f"run-{number}", **slot)
        places.append((todo, run.map_place, run.champion))
        # Another day is another place, so nothing holds it. The same one is held.
        assert first_step(season, f"other-{number}", **slot)[0] == "nothing"
        published(run, "training" if todo == "train" else "champion", "2" * 64)
        ended(f"run-{number}")
        assert first_step(season, f"again-{number}", **slot)[0] == "nothing"
    assert places == [
        ("map", f"{PLACE}_until_2018-04-25", version),
        ("map", f"{PLACE}_until_2018-05-09", version),
        ("train", PLACE, ""),
    ]
    assert read_run(run.given()).config().data.season.until is None
    # The setting does the same as the parameter.
    todo, run = first_step(season, "run-3", overrides=[*TINY, "data.season.until=2018-04-21"])
    assert (todo, run.map_place) == ("map", f"{PLACE}_until_2018-04-21")
    ended("run-3")


def test_a_map_without_labels_does_not_replace_that_of_a_training(season):
    """`map_area` every two weeks beside `new_season`: both come to the whole season, each time the other has been."""
    todo, run = first_step(season, "run-1")
    published(run, "training", "1" * 64)
    ended("run-1")
    version = crown("1" * 64, by="run-1")
    area = {"season": "auto", "season_start": "04-01", "season_days": 214, "until": "auto", "training": "never"}
    slot = {**area, "schedule_time": "2018-11-16T04:00:00Z"}
    # Whatever has changed: the labels of the season are still more than none.
    for number, seed in enumerate((0, 1)):
        assert first_step(season, f"area-{number}", seed=seed, **slot)[0] == "nothing"
        assert ended(f"area-{number}")["facts"]["work_reason"] == (
            f"the map {PLACE} is published, by a model that was trained on the labels of the season. A map without "
            f"labels does not replace it. To publish both, set map_name and model"
        )
    todo, other = first_step(season, "area-2", map_name="limburg", model="exact-flanders", **slot)
    assert (todo, other.map_place, other.champion) == ("map", "limburg/2018-04-01_2018-10-31", version)
    assert first_step(season, "run-2")[0] == "nothing"
    # A map within the season has a place of its own.
    within = {**area, "schedule_time": "2018-08-01T04:00:00Z"}
    assert first_step(season, "area-3", **within)[0] == "map"


def test_a_map_of_the_champion_is_no_training(season):
    todo, run = first_step(season, "run-1")
    assert todo == "train"
    published(run, "champion")
    ended("run-1")
    assert first_step(season, "run-2")[0] == "train"


def test_a_step_that_comes_back_to_a_season_that_another_run_has_stops(season):
    _, run = first_step(season, "run-1")
    ended("run-1")
    assert first_step(season, "run-2")[0] == "train"
    with (
        pytest.raises(ServiceError, match=r"run run-2 is making the map .*Repeat this step then"),
        open_step(STAGE, run.given()),
    ):
        pass
    ended("run-2")
    with open_step(STAGE, run.given()):
        assert hold(run.model_copy(update={"pipeline_run": "run-3"}), STAGE)


def test_labels_of_a_folder_in_a_store_are_where_its_settings_say(season, tmp_path):
    config = override(resolve("season"), ["data.season.start=2018-04-01", "data.season.days=30"])
    assert source_state(config, f"season:{season}").labelled
    stored = shutil.copytree(season, tmp_path / "stored")
    address = f"season:{stored.as_uri()}"
    before = source_state(config, address)
    assert before.labelled
    assert source_state(config, address) == before
    (stored / "season.yaml").write_text("labels: fields.gpkg\n")
    assert not source_state(config, address).labelled
    (stored / "fields.gpkg").write_bytes(b"parcels")
    after = source_state(config, address)
    assert after.labelled
    assert after.labels != before.labels


@pytest.mark.parametrize("missing", [0, 1])
def test_an_image_that_is_there_again_is_another_state_where_images_may_be_missing(season, tmp_path, missing):
    season = write_season(tmp_path / "catalogue", layout="stac", scl=lambda _date: np.full((16, 16), 4))
    server = StacServer(season)
    try:
        config = with_season(resolve("season"), SEASON, kind="stac")
        query = f"collection=fake&bbox=2.99,50.5,3.01,50.6&missing={missing}&labels={season}/labels/"
        states = []
        for gone in (False, True, True, False):
            server.faults[:] = [Fault("S2_20180421/B03.tif", 404)] if gone else []
            states.append(source_state(config, f"stac:{server.url}?{query}"))
        assert states[0] == states[3]
        assert states[1] == states[2]
        assert (states[0].images != states[1].images) == bool(missing)
        assert all(state.labelled for state in states)
    finally:
        server.close()
