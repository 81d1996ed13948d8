"""What steps ask of a cluster, read from the committed YAML and from one compiled with other settings."""

import pytest
import yaml
from exact_kubeflow.pipelines import compile as compiler, local
from exact_kubeflow.pipelines.steps import (
    OPTIONAL_STORE_KEYS,
    OPTIONAL_TRACKING_KEYS,
    STORE_KEYS,
    ClusterSettings,
    StepSettings,
    cluster_settings,
    configure,
)
from exact_kubeflow.pipelines.train_exact import train_exact
from kfp import dsl

from exact_core.errors import ConfigError
from tests.pipelines.compiled import compile_with, load

GPU_STEPS = {
    "preflight",
    "train-classifier",
    "generate-masks",
    "train-segmenter",
    "evaluate",
    "map-season",
    "transfer-report",
    "promote",
    "leave-season-out",
}
OWN = {"map_area.yaml": "map-season", "leave_one_season_out.yaml": "leave-season-out"}
"""A step of the pipelines that have no step `evaluate`."""


@pytest.mark.parametrize("name", compiler.PIPELINES)
def test_every_step_has_limits_secrets_a_timeout_and_no_cache(name):
    steps = load(compiler.COMPILED / name)
    assert {"preflight", "record-status", OWN.get(name, "evaluate")} <= set(steps)
    for step, (task, container, kubernetes) in steps.items():
        resources = container["resources"]
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"]
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]
        assert not (task.get("cachingOptions") or {}).get("enableCache"), step
        assert task.get("retryPolicy", {}).get("maxRetryCount", 0) == (0 if step == "preflight" else 2)
        secrets = {
            (each["secretName"], each.get("optional", False)): {pair["secretKey"] for pair in each["keyToEnv"]}
            for each in kubernetes["secretAsEnv"]
        }
        assert secrets == {
            ("exact-s3", False): set(STORE_KEYS),
            ("exact-s3", True): set(OPTIONAL_STORE_KEYS),
            ("exact-mlflow", False): {"MLFLOW_TRACKING_URI"},
            ("exact-mlflow", True): set(OPTIONAL_TRACKING_KEYS),
        }
        # Any step may be the first on its node and pull an image of some GB within it.
        assert int(kubernetes["activeDeadlineSeconds"]) >= 1800
        assert {"imagePullSecret", "emptyDirMounts", "pvcMount"}.isdisjoint(kubernetes)
        gpu = "accelerator" in resources
        assert gpu == (step.removesuffix("-2") in GPU_STEPS), step
        assert bool(kubernetes.get("tolerations")) == gpu


def test_the_end_is_recorded_whatever_happens():
    for name in compiler.PIPELINES:
        spec = next(yaml.safe_load_all((compiler.COMPILED / name).read_text()))
        end = spec["root"]["dag"]["tasks"]["record-status"]
        assert end["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def test_settings_of_a_file_are_compiled_in(tmp_path):
    (tmp_path / "cluster.yaml").write_text(
        "store_secret: mine\ngpu_type: amd.com/gpu\nvolume: sources\nnode_selector: {pool: gpu}\n"
        "scratch: 100Gi\nimage_pull_secrets: [registry-login]\n"
        "tolerations: [{key: dedicated, operator: Equal, value: ml}]\n"
        "steps: {train_classifier: {gpus: 2, memory: 64G, retries: 0}, evaluate: {gpus: 0}}\n"
    )
    compile_with(tmp_path / "cluster.yaml", tmp_path)
    steps = load(tmp_path / "train_exact.yaml")
    task, container, kubernetes = steps["train-classifier"]
    assert container["resources"]["accelerator"]["resourceType"] == "amd.com/gpu"
    assert container["resources"]["accelerator"]["resourceCount"] == "2"
    assert container["resources"]["resourceMemoryLimit"] == "64G"
    assert "retryPolicy" not in task
    assert kubernetes["nodeSelector"]["labels"] == {"pool": "gpu"}
    assert kubernetes["tolerations"] == [
        {"key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}
    ]
    assert "accelerator" not in steps["evaluate"][1]["resources"]
    assert {each["secretName"] for each in steps["ingest"][2]["secretAsEnv"]} == {"mine", "exact-mlflow"}
    assert steps["ingest"][2]["pvcMount"][0]["mountPath"] == "/data"
    assert "pvcMount" not in steps["train-classifier"][2]
    for step, (_, _, kubernetes) in steps.items():
        (scratch,) = kubernetes["emptyDirMounts"]
        assert scratch == {"volumeName": "scratch", "mountPath": "/tmp", "sizeLimit": "100Gi"}, step
        assert [each["secretName"] for each in kubernetes["imagePullSecret"]] == ["registry-login"], step


@pytest.mark.parametrize(("cpu", "threads"), [("4", "4"), ("500m", "1"), ("1500m", "2"), ("2.5", "3"), ("0.1", "1")])
def test_a_step_has_as_many_threads_as_cores(cpu, threads):
    """The limit of the cores is the container's; a library left to itself counts those of the node."""
    settings = ClusterSettings(steps={"ingest": StepSettings(cpu=cpu)})

    @dsl.component(base_image="python:3.11")
    def nothing():
        pass

    @dsl.pipeline(name="threads")
    def pipeline():
        configure(nothing(), "ingest", settings)

    (executor,) = pipeline.pipeline_spec.deployment_spec["executors"].values()
    assert [(each["name"], each["value"]) for each in executor["container"]["env"]] == [("OMP_NUM_THREADS", threads)]


def test_threads_follow_the_cores_of_each_step():
    steps = load(compiler.COMPILED / "train_exact.yaml")
    found = {name: {each["name"]: each["value"] for each in box["env"]} for name, (_, box, _) in steps.items()}
    assert found["train-classifier"] == {"OMP_NUM_THREADS": "4"}
    assert found["evaluate"] == {"OMP_NUM_THREADS": "2"}
    assert found["plan-map"] == {"OMP_NUM_THREADS": "1"}


def test_on_this_machine_threads_are_its_own():
    """KFP's local runner gives a step its variables, and those of a cluster's step would overrule the user's."""
    here = local._for_here(train_exact).pipeline_spec
    for executor in here.deployment_spec["executors"].values():
        assert not list(executor["container"]["env"])
    assert all(box["env"] for _, box, _ in load(compiler.COMPILED / "train_exact.yaml").values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: {trane: {gpus: 1}}", "no step trane; there are resolve_season"),
        ("steps: {ingest: {cpu: two}}", "cpu = 'two'"),
        ("scratch: a lot", "scratch = 'a lot'"),
        ("gpu_typ: x", "did you mean 'gpu_type'"),
        ("steps: {ingest: {minutes: 0}}", "minutes = 0"),
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
