"""The pipeline of a new season: its cluster form as compiled, and its local form, run."""

import json

import pytest
import yaml
from kfp import dsl

from exact_core.data.dataset import WindowDataset
from exact_core.errors import ServiceError
from pipelines import compile as compiler
from pipelines import local
from pipelines.new_season import make_new_season
from tests.conftest import TINY
from tests.fakes import write_season


def start(workdir, **changes):
    workdir.mkdir()
    arguments = {"recipe": "season", "seed": 1, "overrides": TINY, "season": "auto", **changes}
    local._run(workdir, make_new_season(on_cluster=False), arguments, "tags")
    return workdir


def test_the_schedule_time_is_filled_in_for_one_task_of_the_cluster_form():
    spec = next(yaml.safe_load_all((compiler.COMPILED / "new_season.yaml").read_text()))
    tasks = spec["root"]["dag"]["tasks"]
    times = {name: task["inputs"]["parameters"].get("schedule_time") for name, task in tasks.items()}
    assert times.pop("resolve-season") == {"runtimeValue": {"constant": dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER}}
    assert set(times.values()) == {None}
    assert tasks["ingest"]["inputs"]["parameters"]["season"] == {
        "taskOutputParameter": {"outputParameterKey": "Output", "producerTask": "resolve-season"}
    }
    assert not any(task.get("cachingOptions") for task in tasks.values())


def test_a_season_of_2018_from_resolving_to_the_report(tmp_path):
    """The source has April 2018; named as a season that starts a day earlier, each date lies one day later in it."""
    write_season(tmp_path / "source", size=(48, 48))
    work = start(tmp_path / "work", source=f"season:{tmp_path}/source", season="2018-03-31/60")
    manifest = WindowDataset(work / "dataset").manifest
    assert json.loads((work / "dataset" / "dataset.json").read_text())["season_start"] == "2018-03-31"
    assert manifest.classes == ("wheat", "maize")
    assert (work / "report.html").is_file()
    assert "resolve_season: 2018-03-31/60: as given" in (work / "run.log").read_text()


def test_auto_is_the_latest_season_that_has_ended(tmp_path):
    """The source ends in 2018: the season that was asked for is not there, and the message names it."""
    write_season(tmp_path / "source")
    with pytest.raises(ServiceError, match=r"ingest: .*"):
        start(tmp_path / "work", source=f"season:{tmp_path}/source", season_start="01-01", season_days=1)
    assert "no schedule time, now" in (tmp_path / "work" / "run.log").read_text()
