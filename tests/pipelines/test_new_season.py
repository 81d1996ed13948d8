"""The pipeline of a new season: its cluster form as compiled, and its local form, run."""

import datetime as dt
import json

import pytest
import yaml
from exact_kubeflow.pipelines import compile as compiler, local
from exact_kubeflow.pipelines.new_season import new_season
from exact_kubeflow.pipelines.steps import SIDE_BY_SIDE
from kfp import dsl

from exact_core.data.windows.dataset import WindowDataset
from tests.conftest import TINY
from tests.fakes import write_season


def test_the_schedule_time_is_filled_in_for_one_task_of_the_cluster_form():
    spec = next(yaml.safe_load_all((compiler.COMPILED / "new_season.yaml").read_text()))
    dags = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items() if "train-" not in name}
    times = {name: task.get("inputs", {}).get("parameters", {}).get("schedule_time") for name, task in tasks.items()}
    assert times.pop("preflight") == {"runtimeValue": {"constant": dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER}}
    assert set(times.values()) == {None}
    assert tasks["ingest"]["inputs"]["parameters"]["run"] == {
        "taskOutputParameter": {"outputParameterKey": "run", "producerTask": "preflight"}
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
        assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--preflight-parts"}
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
    assert f"resolve_season: {start}/30: latest to have ended at" in said
    assert "(no schedule time, now)" in said
