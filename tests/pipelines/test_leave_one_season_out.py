"""The pipeline of several seasons: as compiled, and run on this machine."""

import json

import pytest
import yaml
from exact_kubeflow.pipelines import compile as compiler, local
from exact_kubeflow.pipelines.leave_one_season_out import leave_one_season_out
from exact_kubeflow.pipelines.package import load_package
from mlflow import MlflowClient

from exact_core.errors import ConfigError
from exact_core.tracking.runs import EXPERIMENT, tracking_uri
from tests.conftest import TINY
from tests.fakes import write_season
from tests.pipelines.compiled import load

SEASONS = ("2018-04-01/31", "2019-04-01/31")


def test_a_step_a_season_and_one_table():
    spec = next(yaml.safe_load_all((compiler.COMPILED / "leave_one_season_out.yaml").read_text()))
    (tasks,) = [part["dag"]["tasks"] for part in spec["components"].values() if "season-table" in str(part.get("dag"))]
    ingested, learned = sorted(name for name, task in tasks.items() if "parameterIterator" in task)
    collected = tasks["gather-seasons"]["inputs"]["artifacts"]["datasets"]["taskOutputArtifact"]
    assert collected["producerTask"] == ingested
    collected = tasks["season-table"]["inputs"]["artifacts"]["rows"]["taskOutputArtifact"]
    assert collected["producerTask"] == learned
    assert "gather-seasons" in tasks[learned]["dependentTasks"]
    steps = load(compiler.COMPILED / "leave_one_season_out.yaml")
    assert set(steps) >= {"preflight", "ingest", "gather-seasons", "leave-season-out", "season-table"}
    training = load(compiler.COMPILED / "train_exact.yaml")["train-segmenter"][1]["resources"]
    assert steps["leave-season-out"][1]["resources"] == training


def test_what_is_wrong_is_said_before_anything_is_sent():
    package = load_package("leave_one_season_out")
    given = package.read(["source=season:/data/x", "seasons=[2022, 2023]"])
    assert package.arguments(given)["seasons"] == [2022, 2023]
    for wrong, said in {
        "[2022]": "two or more",
        "[2022, '2022']": "there twice",
        "[2022, spring]": "expected a year",
    }.items():
        with pytest.raises(ConfigError, match=said):
            package.arguments(package.read([f"seasons={wrong}"]))


@pytest.mark.slow
def test_seasons_are_left_out_in_turn_on_this_machine(tmp_path):
    """Two seasons of one folder, from their images and tags to the table, in KFP's local runner and in MLflow."""
    days = ("0401", "0411", "0421", "0501")
    write_season(tmp_path / "source", dates=[f"{year}{day}" for year in (2018, 2019) for day in days])
    work = tmp_path / "work"
    work.mkdir()
    arguments = {"recipe": "season", "source": f"season:{tmp_path}/source", "seasons": list(SEASONS)}
    arguments |= {"seed": 1, "overrides": TINY, "supervision": "tags"}
    local._run(work, leave_one_season_out, arguments, "tags")
    record = json.loads((work / "comparison" / "leave_one_season_out.json").read_text())
    assert [row["season_start"] for row in record["seasons"]] == ["2018-04-01", "2019-04-01"]
    assert record["seasons"][0]["learned_from"] == [record["seasons"][1]["digest"]]
    assert "2 seasons, each left out once" in (work / "report.html").read_text()
    assert {path.name for path in work.iterdir()} == {"comparison", "report.html", "run.log"}
    client = MlflowClient(tracking_uri=tracking_uri())
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    stages = {run.data.tags.get("exact.stage"): run for run in runs}
    for number, row in enumerate(record["seasons"], start=1):
        run = stages[f"leave_season_out {number}/2"]
        assert run.data.tags["exact.left_out"] == row["season_start"]
        assert run.data.metrics["miou_macro"] == row["new"]["miou_macro"]
    assert stages["season_table"].data.metrics["mean_miou_macro"] == record["mean"]["miou_macro"]
