"""`exact follow` over what a real KFP 2.17.0 answered, and over runs that move."""

from collections import Counter

import pytest
from exact_kubeflow.pipelines import follow as following
from exact_kubeflow.pipelines.cluster import Cluster
from exact_kubeflow.pipelines.run_nodes import Failure, Nodes, node_id

from exact_core.stages.lifecycle import open_stage
from tests.commands import exact
from tests.services.kfp_server import ANSWERS

STEPS = [
    *("preflight", "ingest", "train-classifier", "generate-masks", "train-segmenter", "evaluate", "promote"),
    *("plan-map", "map-season", "join-map", "record-status", "resolve-season", "champion", "transfer-report"),
    *("fail", "bye", "probe", "probe-2"),
]
RUNS = sorted(path.stem for path in ANSWERS.glob("run_*.json") if path.stem != "run_unknown")


def played(server, name):
    run_id = server.play(name, steps=STEPS)["run_id"]
    return run_id, Cluster().run(run_id)


def test_argo_s_identity_of_a_node_by_hand():
    """As the recorded run has it: the executor of its preflight, whose log is beside it."""
    name = "train-exact-dgn6t(0).root(0).exit-handler-1(0).preflight(0).executor(0)"
    assert node_id("train-exact-dgn6t", name) == "train-exact-dgn6t-331130161"
    assert node_id("train-exact-dgn6t", "train-exact-dgn6t") == "train-exact-dgn6t"


@pytest.mark.parametrize("name", RUNS)
def test_every_recorded_task_gets_its_name(server, name):
    nodes = Nodes(played(server, name)[1])
    assert len(nodes.named) == len(nodes.tasks) > 10
    assert not [each for each in nodes.named if each.startswith("?")]


@pytest.mark.parametrize(
    ("name", "failures"),
    [
        ("run_failed_at_preflight", [Failure("preflight", False, "train-exact-dgn6t-331130161", 1)]),
        ("run_exit_code_tried_thrice", [Failure("fail", False, "fail-xgm4f-1234039401", 3)]),
        ("run_failed_driver_store_away", [Failure("root", True, "train-exact-5kqqq-1582063932", 3)]),
        (
            "run_nested_loop_failed",
            [
                Failure("probe-2", True, "par-nested-lhflk-1779809806", 1),
                Failure("probe-2", True, "par-nested-lhflk-631170298", 1),
            ],
        ),
        ("run_map_area_three_parts", []),
    ],
)
def test_whose_log_says_why_a_recorded_run_failed(server, name, failures):
    assert Nodes(played(server, name)[1]).failures() == failures


def test_steps_of_recorded_runs(server):
    assert Nodes(played(server, "run_running_pending_image")[1]).steps(STEPS) == {"probe": Counter(PENDING=1)}
    assert Nodes(played(server, "run_nested_loop_failed")[1]).steps(STEPS)["probe-2"] == Counter(FAILED=2)
    # Of tries that were repeated only the last counts.
    assert Nodes(played(server, "run_terminated")[1]).steps(STEPS)["preflight"] == Counter(FAILED=1)


def test_the_reason_is_the_end_of_the_failed_step_s_log(server, capsys):
    run_id, _ = played(server, "run_failed_at_preflight")
    server.logs["train-exact-dgn6t-331130161"] = (ANSWERS / "log_of_failed_preflight.txt").read_text()
    code, out, err = exact(capsys, "follow", run_id)
    assert code == 1
    assert "run bad 127af2: failed" in out
    reason = "/nowhere/metadata.geojson: missing; a PASTIS folder holds metadata.geojson, DATA_S2/ and ANNOTATIONS/"
    head, data, memory, *_ = err.splitlines()
    assert head == "failed: preflight"
    assert data.startswith(f"  data: {reason}")
    assert memory.startswith(f"  memory: {reason}")
    assert "Traceback" not in err
    assert "launcher" not in err


def test_the_reason_of_a_driver_is_its_own_log(server, capsys):
    run_id, _ = played(server, "run_failed_driver_store_away")
    server.logs["train-exact-5kqqq-1582063932"] = (
        "I1128 13:59:30.000000      15 main.go:67] Setting log level to: '1'\n"
        "F1128 13:59:31.000000      15 main.go:79] KFP driver: driver.RootDAG(...) failed: dial tcp: no such host\n"
    )
    code, _, err = exact(capsys, "follow", run_id)
    assert code == 1
    assert "failed: driver of root (3 tries)\n  main.go:79] KFP driver: driver.RootDAG(...) failed: dial tcp" in err
    assert "log level" not in err


def test_a_log_that_is_gone_and_one_that_ends_in_the_middle(server, capsys):
    run_id, _ = played(server, "run_exit_code_tried_thrice")
    assert "no log: " in exact(capsys, "follow", run_id)[2]
    server.logs["fail-xgm4f-1234039401"] = "epoch 3 of 10\n"
    err = exact(capsys, "follow", run_id)[2]
    assert (
        "failed: fail (3 tries)\n  epoch 3 of 10\n  (its log ends here: it was killed, most likely out of memory" in err
    )


def test_a_terminated_run_is_called_so(server, capsys):
    run_id, _ = played(server, "run_terminated")
    code, out, err = exact(capsys, "follow", run_id)
    assert code == 3
    assert ": terminated (followed" in out
    assert "failed: " not in err


def test_a_run_that_was_repeated_ended_as_it_did_last(server, capsys):
    assert exact(capsys, "follow", played(server, "run_retried_from_ui")[0])[0] == 1


def test_frozen_tasks_are_named_and_mlflow_says_what_it_knows(server, capsys, config, monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_id, _ = played(server, "run_new_season_three_parts_tasks_frozen")
    code, out, _ = exact(capsys, "follow", run_id)
    assert code == 0
    assert "KFP no longer updated the states of single steps" in out
    assert "set MLFLOW_TRACKING_URI to see" in out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    for stage in ("map_season", "join_map"):
        with open_stage(stage, config, pipeline_run=run_id):
            pass
    out = exact(capsys, "follow", run_id)[1]
    assert "  map-season: finished (by MLflow)\n  join-map: finished (by MLflow)\n" in out
    # And of one that is still at work, where KFP tells of no change.
    monkeypatch.setattr(following, "FROZEN_SECONDS", 0.0)
    server.script, server.steps = ["RUNNING"] * 4 + ["SUCCEEDED"], [{"ingest": "RUNNING"}]
    exact(capsys, "submit", "train_dense", "--no-wait")
    (moving,) = set(server.runs) - {run_id}
    with open_stage("evaluate", config, pipeline_run=moving):
        out = exact(capsys, "follow", moving)[1]
    assert out.count("evaluate: running (by MLflow; KFP does not show it)") == 1


def test_a_step_that_waits_says_so_and_iterations_are_counted(server, capsys, monkeypatch):
    monkeypatch.setattr(following, "WAIT_SECONDS", 0.0)
    server.script = ["RUNNING"] * 4 + ["SUCCEEDED"]
    server.steps = [
        {"preflight": "PENDING"},
        {"preflight": "RUNNING"},
        {"preflight": "SUCCEEDED", "map-season": ["SUCCEEDED", "RUNNING", "PENDING"]},
        {"preflight": "SUCCEEDED", "map-season": ["SUCCEEDED"] * 3},
    ]
    out = exact(capsys, "submit", "map_area", "-p", "season=2025")[1]
    told = [line.partition(" ")[2] for line in out.splitlines() if line[2:3] == ":"]
    assert told == [
        "preflight: waiting for a node, an image or a volume",
        "preflight: running",
        "preflight: succeeded",
        "map-season: 1 waiting for a node, an image or a volume, 1 running, 1 succeeded",
        "map-season: 3 succeeded",
    ]


def test_a_token_that_ends_has_an_exit_code_and_the_command_to_go_on(server, capsys, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "old")
    server.token, server.script = "old", ["RUNNING"]
    assert exact(capsys, "submit", "train_dense", "--no-wait")[0] == 0
    (run_id,) = server.runs
    server.fail(1, 401, "GET", "/runs/.+")
    code, _, err = exact(capsys, "follow", run_id)
    assert code == 4
    assert "not logged in (401)" in err
    assert f"KFP_TOKEN=... exact follow {run_id}" in err


def test_through_the_ui_the_release_is_read_and_links_open_it(server, monkeypatch):
    server.ui = True
    cluster = Cluster()
    assert cluster.release == (2, 17)
    assert cluster.needs_schedule_time() == ""
    assert cluster.link("x") == f"{server.host}/#/runs/details/x"
    server.ui = False
    assert "port-forward svc/ml-pipeline-ui" in Cluster().link("x")
    monkeypatch.setenv("KFP_UI", "https://kfp.example.org/")
    assert Cluster().link("x") == "https://kfp.example.org/#/runs/details/x"
