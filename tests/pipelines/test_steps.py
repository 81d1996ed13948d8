"""What steps ask of a cluster, read from the committed YAML and from one compiled with other settings."""

import re

import pytest
import yaml
from exact_kubeflow.pipelines import compile as compiler, local
from exact_kubeflow.pipelines.steps import STORE_KEYS, TRACKING_KEYS, ClusterSettings, cluster_settings
from exact_kubeflow.pipelines.train_exact import IMAGE, train_exact

from exact_core.errors import ConfigError
from exact_core.stages.stage import stage_table
from tests.pipelines.compiled import ROOT, compile_with, load

OWN = {"map_area.yaml": "map-season", "leave_one_season_out.yaml": "leave-season-out"}
"""A step of the pipelines that have no step `evaluate`."""


def stage_of(step):
    return stage_table()[re.sub(r"-\d+$", "", step).replace("-", "_")]


def said(name):
    """How a setting is written that the first step decides."""
    return f"{{{{$.inputs.parameters['pipelinechannel--preflight-{name}']}}}}"


@pytest.mark.parametrize("name", compiler.PIPELINES)
def test_every_step_has_limits_secrets_a_timeout_and_no_cache(name):
    steps = load(compiler.COMPILED / name)
    assert {"preflight", "record-status", OWN.get(name, "evaluate")} <= set(steps)
    for step, (task, container, kubernetes) in steps.items():
        stage, resources = stage_of(step), container["resources"]
        cpu, memory = {
            "small": ("1", "2G"),
            "data": ("2", said("data_memory")),
            "train": (said("cpu"), said("memory")),
        }[stage.size]
        assert resources["resourceCpuRequest"] == "500m"
        assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == (cpu, memory), step
        assert not (task.get("cachingOptions") or {}).get("enableCache"), step
        secrets = {
            each["secretName"]: {pair["secretKey"] for pair in each["keyToEnv"]} for each in kubernetes["secretAsEnv"]
        }
        assert secrets == {"exact-s3": set(STORE_KEYS), "exact-mlflow": set(TRACKING_KEYS)}
        assert all(each["optional"] for each in kubernetes["secretAsEnv"])
        # Any step may be the first on its node and pull an image of some GB within it.
        assert int(kubernetes["activeDeadlineSeconds"]) == 60 * stage.minutes >= 1800
        assert {"imagePullSecret", "emptyDirMounts", "pvcMount"}.isdisjoint(kubernetes)
        trains = stage.size == "train"
        assert ("accelerator" in resources) == trains, step
        if trains:
            assert resources["accelerator"]["resourceCount"] == said("gpus")
        assert ("nodeSelector" in kubernetes) == ("tolerations" in kubernetes) == trains
        assert container["image"] == "{{$.inputs.parameters['pipelinechannel--image']}}"


@pytest.mark.parametrize("name", compiler.PIPELINES)
def test_each_try_has_all_its_time(name):
    """`backoffMaxDuration` is the time since the first try began: after it, none starts and one at work is killed."""
    for step, (task, _, kubernetes) in load(compiler.COMPILED / name).items():
        stage, policy = stage_of(step), task.get("retryPolicy", {})
        assert policy.get("maxRetryCount", 0) == stage.retries, step
        if stage.retries:
            assert policy["backoffDuration"] == "30s"
            tries = (stage.retries + 1) * int(kubernetes["activeDeadlineSeconds"])
            assert int(policy["backoffMaxDuration"].removesuffix("s")) == tries + 30 + 60


@pytest.mark.parametrize("name", compiler.PIPELINES)
def test_what_the_first_step_decides_reaches_every_step_that_asks_for_it(name):
    """Into a group KFP hands only what its tasks are known to take, and ends a driver otherwise."""
    spec = next(yaml.safe_load_all((compiler.COMPILED / name).read_text()))
    for part in (spec["root"], *spec["components"].values()):
        inputs = part.get("inputDefinitions", {}).get("parameters", {})
        for step, task in part.get("dag", {}).get("tasks", {}).items():
            given = task.get("inputs", {}).get("parameters", {})
            for asked in re.findall(
                r"pipelinechannel--[\w-]+", str([each.get("runtimeValue") for each in given.values()])
            ):
                source = given[asked]
                if "componentInputParameter" in source:
                    assert source["componentInputParameter"] in inputs, (step, asked)
                else:
                    assert source["taskOutputParameter"]["producerTask"] in part["dag"]["tasks"], (step, asked)


@pytest.mark.parametrize("name", compiler.PIPELINES)
def test_the_forms_fields_are_documented_as_they_are(name):
    parameters = next(yaml.safe_load_all((compiler.COMPILED / name).read_text()))["root"]["inputDefinitions"]
    text, pipeline = (ROOT / "docs/how-to/cluster.md").read_text(), f"`{name.removesuffix('.yaml')}`"
    section = text[text.index("## The form") : text.index("## What a run does")]
    documented = {}
    for field, of, _, default, _ in re.findall(r"^\| `(\w+)`" + r" \| (.+?)" * 4 + r" \|$", section, re.MULTILINE):
        if of.startswith("all") != (pipeline in of):
            documented[field] = default
    assert set(documented) == set(parameters["parameters"])
    for field, spec in parameters["parameters"].items():
        default = spec["defaultValue"]
        shown = f"{default:g}" if isinstance(default, float) else str(default) or "empty"
        assert shown in documented[field].replace("`", ""), field
    assert parameters["parameters"]["image"]["defaultValue"] == IMAGE


def test_the_end_is_recorded_whatever_happens():
    for name in compiler.PIPELINES:
        spec = next(yaml.safe_load_all((compiler.COMPILED / name).read_text()))
        end = spec["root"]["dag"]["tasks"]["record-status"]
        assert end["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def test_settings_of_a_file_are_compiled_in(tmp_path):
    (tmp_path / "cluster.yaml").write_text(
        "store_secret: mine\ngpu_type: amd.com/gpu\nvolume: sources\nbackoff: 10s\n"
        "scratch: 100Gi\nimage_pull_secrets: [registry-login]\n"
        "steps: {train_classifier: {gpus: 2, cpu: '8', memory: 64G, retries: 0}, evaluate: {gpus: 0, minutes: 90}}\n"
    )
    compile_with(tmp_path / "cluster.yaml", tmp_path)
    steps = load(tmp_path / "train_exact.yaml")
    task, container, kubernetes = steps["train-classifier"]
    assert container["resources"]["accelerator"]["resourceType"] == "amd.com/gpu"
    assert container["resources"]["accelerator"]["resourceCount"] == "2"
    assert container["resources"]["resourceMemoryLimit"] == "64G"
    assert container["resources"]["resourceCpuLimit"] == container["resources"]["resourceCpuRequest"] == "8"
    assert "retryPolicy" not in task
    assert "nodeSelector" in kubernetes
    assert "accelerator" not in steps["evaluate"][1]["resources"]
    assert "nodeSelector" not in steps["evaluate"][2]
    assert steps["evaluate"][2]["activeDeadlineSeconds"] == "5400"
    assert steps["ingest"][0]["retryPolicy"]["backoffDuration"] == "10s"
    assert {each["secretName"] for each in steps["ingest"][2]["secretAsEnv"]} == {"mine", "exact-mlflow"}
    assert steps["ingest"][2]["pvcMount"][0]["mountPath"] == "/data"
    assert "pvcMount" not in steps["train-classifier"][2]
    for step, (_, _, kubernetes) in steps.items():
        (scratch,) = kubernetes["emptyDirMounts"]
        assert scratch == {"volumeName": "scratch", "mountPath": "/tmp", "sizeLimit": "100Gi"}, step
        assert [each["secretName"] for each in kubernetes["imagePullSecret"]] == ["registry-login"], step


def test_on_this_machine_nothing_is_left_to_a_cluster():
    """The image is a parameter that KFP's local runner does not fill in; retries are a person's."""
    here = local._for_here(train_exact).pipeline_spec
    images = {label: each["container"]["image"] for label, each in here.deployment_spec["executors"].items()}
    assert "-data:" in images["exec-ingest"]
    assert "-train:" in images["exec-train-classifier"]
    for component in (here.root, *here.components.values()):
        assert not any(task.HasField("retry_policy") for task in component.dag.tasks.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: {trane: {gpus: 1}}", "no step trane; there are champion"),
        ("steps: {promote: {gpus: 1}}", "no step promote"),
        ("steps: {ingest: {cpu: two}}", "cpu = 'two'"),
        ("scratch: a lot", "scratch = 'a lot'"),
        ("gpu_typ: x", "did you mean 'gpu_type'"),
        ("steps: {ingest: {minutes: 0}}", "minutes = 0"),
        ("backoff: 1m", "backoff = '1m'"),
        ("- a", "expected a mapping"),
        ("a: [", "not a readable YAML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, monkeypatch, text, said):
    (tmp_path / "cluster.yaml").write_text(text)
    monkeypatch.setenv("EXACT_CLUSTER", str(tmp_path / "cluster.yaml"))
    with pytest.raises(ConfigError, match=said):
        cluster_settings()


def test_without_a_file_the_defaults_hold(monkeypatch):
    monkeypatch.delenv("EXACT_CLUSTER", raising=False)
    assert cluster_settings() == ClusterSettings()
