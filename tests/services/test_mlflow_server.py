"""Real MLflow servers, on sqlite and on PostgreSQL, with their artifacts in S3: runs, models, comparisons."""

from __future__ import annotations

import json
import sys

import pytest
from mlflow import MlflowClient

from exact_core.config import override
from exact_core.errors import ConfigError, DataError
from exact_core.stages.compare import compare_maps
from exact_core.stages.evaluate import evaluate
from exact_core.stages.lifecycle import open_stage
from exact_core.stages.promote import promote
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.registry import CHALLENGER, CHAMPION
from exact_core.tracking.runs import EXPERIMENT, finish_pipeline_run
from exact_kubeflow.cli.app import main
from tests.services.servers import Mlflow, Postgres

pytestmark = pytest.mark.services


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request, tmp_path_factory, juicefs):
    """An MLflow server with its artifacts in the bucket."""
    folder = tmp_path_factory.mktemp(request.param)
    database = Postgres(folder / "db") if request.param == "postgresql" else None
    running = Mlflow(
        folder / "mlflow",
        artifacts=f"s3://exact/mlflow-{request.param}",
        backend="" if database is None else database.uri,
    )
    running.variables = {**juicefs.variables, "MLFLOW_S3_ENDPOINT_URL": juicefs.variables["AWS_ENDPOINT_URL"]}
    try:
        if database is not None:
            database.start()
        running.start()
        yield running
    finally:
        running.kill()
        if database is not None:
            database.kill()


@pytest.fixture
def client(server, monkeypatch) -> MlflowClient:
    """Only the server's address is known here: its store's keys are not."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    return MlflowClient(tracking_uri=server.uri)


def test_the_login_of_an_address_is_never_printed(server, config, monkeypatch, capfd, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("://", "://someone:drowssap@"))
    with open_stage("evaluate", config, pipeline_run="login"):
        pass
    finish_pipeline_run("login", succeeded=True)
    said = capfd.readouterr()
    assert "drowssap" not in said.out + said.err + caplog.text


def pipeline(config, dataset_folder, root, name, epochs):
    """The stages of a small pipeline run that MLflow hears of; what the last one decided."""
    changed = override(config, [f"segmenter.training.epochs={epochs}"])
    with open_stage("train_segmenter", changed, pipeline_run=name) as tracker:
        train_segmenter(changed, dataset=dataset_folder, masks=None, out=root / name, tracker=tracker)
    with open_stage("evaluate", changed, pipeline_run=name) as tracker:
        evaluate(
            changed,
            dataset=dataset_folder,
            segmenter=root / name,
            classifier=None,
            masks=None,
            out=root / f"{name}-evaluation",
            report=root / f"{name}.html",
            tracker=tracker,
        )
    with open_stage("promote", changed, pipeline_run=name) as tracker:
        out = root / f"{name}-promotion"
        promote(
            changed, dataset=dataset_folder, segmenter=root / name, model="exact-synthetic", out=out, tracker=tracker
        )
    finish_pipeline_run(name, succeeded=True)
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture
def two(client, config, dataset_folder, tmp_path):
    """Two pipeline runs, the second the better one; MLflow's identities of them."""
    decisions = [pipeline(config, dataset_folder, tmp_path, name, epochs) for name, epochs in (("a", 1), ("b", 12))]
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    runs = client.search_runs([experiment], "tags.`exact.stage` = 'evaluate'", order_by=["attributes.start_time DESC"])
    parents = [run.data.tags["mlflow.parentRunId"] for run in runs[:2]][::-1]
    return decisions, parents


def test_runs_models_and_comparisons(client, two, tmp_path, juicefs, monkeypatch, capsys):
    """One after another on one server: it takes long to start."""
    decisions, parents = two
    assert [record["version"] for record in decisions] == ["1", "2"]
    model = client.get_registered_model("exact-synthetic")
    assert {alias: str(version) for alias, version in model.aliases.items()}[CHALLENGER] == "2"
    assert CHAMPION in model.aliases
    for parent in parents:
        assert client.get_run(parent).info.status == "FINISHED"
    # Runs of a pipeline, runs of a stage and models lead to the same evaluations.
    stage = client.search_runs(
        [client.get_experiment_by_name(EXPERIMENT).experiment_id],
        f"tags.`mlflow.parentRunId` = '{parents[1]}' and tags.`exact.stage` = 'promote'",
    )[0].info.run_id
    out = tmp_path / "comparison.html"
    table, run = compare_maps([parents[0], stage], out=out)
    assert "mIoU" in table
    assert {item.path for item in client.list_artifacts(run)} == {"comparison.html"}
    html = out.read_text()
    assert "http" not in html.replace("http-equiv", "")
    assert "data:image/png;base64," in html
    for title in ("Confusion", "Maps"):
        section = html.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]
        assert section.count('<img src="data:image/png;base64,') >= 2, title
    assert "different datasets" not in html
    metrics = [json.loads((tmp_path / f"{name}-evaluation" / "metrics.json").read_text()) for name in "ab"]
    difference = 100 * (metrics[1]["miou_macro"] - metrics[0]["miou_macro"])
    assert f"{difference:+.1f}" in html
    command = ["exact", "compare", "exact-synthetic/1", f"exact-synthetic@{CHALLENGER}", "--out", str(out), "--force"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "exact-synthetic/1" in out.read_text()
    assert f"comparison: {out}" in capsys.readouterr().out
    for reference, error, said in (
        ("nothing", ConfigError, "knows no such run or model"),
        ("exact-synthetic@nobody", ConfigError, "knows no such run or model"),
        (run, DataError, "no finished stage evaluate"),
    ):
        with pytest.raises(error, match=said):
            compare_maps([parents[0], reference], out=tmp_path / "x.html")
    with pytest.raises(DataError, match="at least two maps"):
        compare_maps([parents[0]], out=tmp_path / "x.html")


def test_a_repeated_stage_continues_its_run(client, config, tmp_path):
    (tmp_path / "report.html").write_text("<html></html>")
    for value in (0.6, 0.7):
        with open_stage("evaluate", config, pipeline_run="again") as tracker:
            tracker.log_metrics({"miou_macro": value}, step=1)
            tracker.log_file(tmp_path / "report.html", folder="report")
            tracker.log_dataset(tmp_path, name="synthetic", digest="1" * 64, source="synthetic")
            run_id = tracker.run_id
    finish_pipeline_run("again", succeeded=True)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    parent = client.get_run(run_id).data.tags["mlflow.parentRunId"]
    assert client.get_run(parent).info.status == "FINISHED"
    assert len(client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")) == 1
    assert client.get_run(run_id).data.metrics["miou_macro"] == 0.7
    assert [item.path for item in client.list_artifacts(run_id, "report")] == ["report/report.html"]
