"""The pipeline of a new season: its cluster form as compiled, and its local form, run."""

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from exact_kubeflow.pipelines import compile as compiler, local
from exact_kubeflow.pipelines.new_season import new_season
from exact_kubeflow.pipelines.package import load_package
from exact_kubeflow.pipelines.steps import SIDE_BY_SIDE
from kfp import dsl

from exact_core.config import override
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError
from exact_core.recipes import resolve
from exact_core.stages.publish_map import INPUTS, MADE_BY, maps_store
from exact_core.stages.resolve_season import resolve_season
from exact_core.stages.run import Run
from exact_core.stages.season_lease import give_back
from exact_core.stages.season_work import season_work
from exact_core.tracking.runs import NoTracker
from tests.conftest import TINY
from tests.fakes import write_season
from tests.services.ui_schedule import schedule_in_the_ui


def test_the_schedule_time_is_filled_in_for_one_task_of_the_cluster_form():
    spec = next(yaml.safe_load_all((compiler.COMPILED / "new_season.yaml").read_text()))
    dags = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items() if "train-" not in name}
    times = {name: task.get("inputs", {}).get("parameters", {}).get("schedule_time") for name, task in tasks.items()}
    assert times.pop("preflight") == {"runtimeValue": {"constant": dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER}}
    assert set(times.values()) == {None}
    assert tasks["ingest"]["inputs"]["parameters"]["run"] == {
        "componentInputParameter": "pipelinechannel--preflight-run"
    }
    assert not any((task.get("cachingOptions") or {}).get("enableCache") for task in tasks.values())


def test_a_map_is_made_by_one_step_or_by_a_step_a_part_that_are_joined():
    """After training and with the champion alike: the first part, and, of several, a loop over the others."""
    spec = next(yaml.safe_load_all((compiler.COMPILED / "new_season.yaml").read_text()))
    dags = [part["dag"]["tasks"] for part in spec["components"].values() if "dag" in part]
    for name in ("train-segmenter", "transfer-report"):
        (tasks,) = [each for each in dags if name in each]
        (first,) = [task for task in tasks if task.startswith("map-season")]
        (parts,) = [
            task for task in tasks.values() if "map_parts" in task.get("triggerPolicy", {}).get("condition", "")
        ]
        inside = spec["components"][parts["componentRef"]["name"]]["dag"]["tasks"]
        (loop,) = [task for task in inside.values() if "parameterIterator" in task]
        # With the champion, of what the step before has fetched.
        given = "preflight" if name == "train-segmenter" else "fetch"
        assert loop["parameterIterator"]["items"] == {"inputParameter": f"pipelinechannel--{given}-parts"}
        assert loop["iteratorPolicy"] == {"parallelismLimit": SIDE_BY_SIDE}
        (joined,) = [task for task_name, task in inside.items() if task_name.startswith("join-map")]
        assert joined["inputs"]["artifacts"]["parts"]["taskOutputArtifact"]["producerTask"].startswith("for-loop")
        assert joined["inputs"]["artifacts"]["first"]["componentInputArtifact"] == f"pipelinechannel--{first}-crop_map"


def test_a_season_is_held_against_the_champions_before_it_is_mapped():
    spec = next(yaml.safe_load_all((compiler.COMPILED / "new_season.yaml").read_text()))
    dags = [part["dag"]["tasks"] for part in spec["components"].values() if "dag" in part]
    (reuse,) = [tasks for tasks in dags if "transfer-report" in tasks]
    (mapped,) = [task for name, task in reuse.items() if name.startswith("map-season")]
    assert "transfer-report" in mapped["dependentTasks"]
    assert "train-segmenter" not in reuse
    # Images are fetched beside the champion, by a step that holds no GPU; what reads them reads what it fetched.
    assert "dependentTasks" not in reuse["fetch"]
    for task in (reuse["transfer-report"], mapped):
        run = task["inputs"]["parameters"]["run"]
        assert run == {"taskOutputParameter": {"outputParameterKey": "run", "producerTask": "fetch"}}


@pytest.mark.parametrize("name", ["new_season", "map_area"])
def test_all_but_the_first_step_waits_for_what_it_says_is_left_to_do(name):
    spec = next(yaml.safe_load_all((compiler.COMPILED / f"{name}.yaml").read_text()))
    (tasks,) = [part["dag"]["tasks"] for key, part in spec["components"].items() if key.startswith("comp-exit-handler")]
    (after,) = [task for each, task in tasks.items() if each != "preflight"]
    inside = spec["components"][after["componentRef"]["name"]]["dag"]["tasks"]
    groups = [after] if "triggerPolicy" in after else list(inside.values())
    said = [group["triggerPolicy"]["condition"] for group in groups]
    assert all("pipelinechannel--preflight-Output" in each for each in said)
    assert sum("'map'" in each or "'nothing'" in each for each in said) == 1
    assert tasks["preflight"]["inputs"]["parameters"]["publish"] == {"runtimeValue": {"constant": True}}


def test_a_schedule_with_the_uis_defaults_makes_each_season_once(server, tmp_path, monkeypatch):
    """Catch-up on, ten at once, every hour: one of the first ten slots works, and no later one of that season."""
    monkeypatch.setenv("EXACT_STORE", (tmp_path / "store").as_uri())
    write_season(tmp_path / "flanders", dates=["20180410", "20180710", "20190410", "20190710"])
    asked = {"recipe": "season", "source": f"season:{tmp_path}/flanders"}
    recurring = schedule_in_the_ui(server.host, asked)
    config = override(resolve("season"), ["data.window=12"])

    def first_step(run):
        rule = {"starts": "04-01", "days": 214, "source": asked["source"], "tracker": NoTracker()}
        season = resolve_season("auto", schedule_time=run["scheduled_at"], **rule).season
        work = Run(recipe="season", source=asked["source"], season=season, pipeline_run=run["run_id"])
        return season_work(config, work, training="always", map_name="", tracker=NoTracker())

    def slots(day):
        since = dt.datetime.fromisoformat(f"{day}T00:30:00Z")
        runs = server.start_slots(recurring, since=since, now=since + dt.timedelta(hours=30))
        assert len(runs) == 10
        with ThreadPoolExecutor(10) as pool:
            found = list(pool.map(first_step, runs))
        at_work = [run for todo, run in found if todo == "train"]
        assert [todo for todo, _ in found].count("nothing") == 10 - len(at_work)
        for run, (_, planned) in zip(runs, found, strict=True):
            run["state"] = "SUCCEEDED"
            if planned in at_work:
                facts = {INPUTS: planned.inputs, MADE_BY: "training"}
                content = json.dumps({"properties": facts}).encode()
                maps_store().write(f"{planned.map_place}/item.json", content)
            give_back(run["run_id"])
        return [run.map_place for run in at_work]

    assert slots("2018-11-15") == ["flanders/2018-04-01_2018-10-31"]
    assert slots("2018-11-17") == []
    assert slots("2019-11-15") == ["flanders/2019-04-01_2019-10-31"]
    # A past season's slots, which catch-up may bring at any time.
    assert slots("2018-12-15") == []


def test_a_region_is_checked_before_anything_is_sent():
    package = load_package(str(compiler.COMPILED / "map_area.yaml"))
    assert package.arguments({"map_name": "flanders"}) == {"map_name": "flanders"}
    with pytest.raises(ConfigError, match="map_name = 'a/b': expected at most 63 letters"):
        package.arguments({"map_name": "a/b"})
    with pytest.raises(ConfigError, match="gives no name to the region of its maps.*Name it by map_name"):
        package.arguments({"source": "season:s3://bucket/folders/0123.json"})


@pytest.mark.slow
def test_the_local_form_maps_the_latest_season_that_has_ended(tmp_path):
    """A season of thirty days that began forty days ago, from resolving to the report and a map of two parts."""
    start = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=40)
    if (start.month, start.day) == (2, 29):
        start -= dt.timedelta(days=1)
    write_season(tmp_path / "source", dates=[f"{start + dt.timedelta(days=day):%Y%m%d}" for day in (0, 9, 18, 29)])
    work = tmp_path / "work"
    work.mkdir()
    rule = {"season": "auto", "season_start": f"{start:%m-%d}", "season_days": 30}
    arguments = {"recipe": "season", "source": f"season:{tmp_path}/source", "seed": 1, "overrides": TINY, **rule}
    arguments["map_parts"] = 2
    local._run(work, new_season, arguments, "tags")
    season = WindowDataset(work / "dataset").manifest
    assert str(season.season_start) == str(start)
    assert (work / "report.html").is_file()
    assert json.loads((work / "crop_map" / "map.json").read_text())["season_start"] == str(start)
    said = (work / "run.log").read_text()
    assert "map_season: rows 0 to 16 of 32 x 32 pixels" in said
    assert "map_season: rows 16 to 32 of 32 x 32 pixels" in said
    assert "map of 32 x 32 pixels" in said
    assert f"season: {start}/30 (latest to have ended at" in said
    assert "(no schedule time, now)" in said
