"""What steps ask of a cluster, read from the committed YAML and from one compiled with other settings."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from exact_core.errors import ConfigError
from pipelines import compile as compiler
from pipelines.steps import STORE_KEYS, ClusterSettings, cluster_settings

ROOT = Path(__file__).parents[2]
GPU_STEPS = {
    "preflight",
    "train-classifier",
    "generate-masks",
    "train-segmenter",
    "evaluate",
    "map-season",
    "transfer-report",
    "promote",
}


def load(path):
    """The executor and the platform part of each step, and its task."""
    spec, platform = yaml.safe_load_all(path.read_text())
    found = {}
    for part in (spec["root"], *spec["components"].values()):
        for name, task in part.get("dag", {}).get("tasks", {}).items():
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            if label:
                kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(label, {})
                found[name] = (task, spec["deploymentSpec"]["executors"][label]["container"], kubernetes)
    return found


@pytest.mark.parametrize("name", compiler.PIPELINES)
def test_every_step_has_limits_secrets_a_timeout_and_no_cache(name):
    steps = load(compiler.COMPILED / name)
    assert {"preflight", "ingest", "evaluate", "record-status"} <= set(steps)
    for step, (task, container, kubernetes) in steps.items():
        resources = container["resources"]
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"]
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]
        assert not (task.get("cachingOptions") or {}).get("enableCache"), step
        assert task.get("retryPolicy", {}).get("maxRetryCount", 0) == (0 if step == "preflight" else 2)
        secrets = {
            each["secretName"]: {pair["secretKey"] for pair in each["keyToEnv"]} for each in kubernetes["secretAsEnv"]
        }
        assert secrets == {"exact-s3": set(STORE_KEYS), "exact-mlflow": {"MLFLOW_TRACKING_URI"}}
        assert int(kubernetes["activeDeadlineSeconds"]) >= 600
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
        "tolerations: [{key: dedicated, operator: Equal, value: ml}]\n"
        "steps: {train_classifier: {gpus: 2, memory: 64G, retries: 0}, evaluate: {gpus: 0}}\n"
    )
    code = (
        "import sys; from pathlib import Path; from pipelines.compile import compile_to; compile_to(Path(sys.argv[1]))"
    )
    environment = {"EXACT_CLUSTER": str(tmp_path / "cluster.yaml"), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT, env=environment)
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: {trane: {gpus: 1}}", "no step trane; there are resolve_season"),
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
