"""Every overlay: valid for Kubernetes, and by the project's own rules."""

from __future__ import annotations

import base64
import copy
import fnmatch
import functools
import json
import shutil
from urllib.parse import urlsplit

import pytest
import yaml
from exact_kubeflow.components.images import locked_images
from exact_kubeflow.pipelines.steps import STORE_KEYS

from tests.deploy import rules
from tests.deploy.conftest import DEPLOY, OVERLAYS, SECRETS, deployment, render
from tests.deploy.networking import Pod, connects
from tests.skipping import skip

KUBERNETES = ["1.33", "1.36"]
"""The oldest and the newest that KFP 2.17's own tests run on."""


def every_object() -> list[dict]:
    """Each different object of all folders once."""
    objects = [item for name in OVERLAYS for item in deployment(name).objects + deployment(name).secrets]
    objects += render(DEPLOY / "jobs" / "upgrade-mlflow")
    objects += list(yaml.safe_load_all((DEPLOY / "overlays" / "gpu" / "time-slicing.yaml").read_text()))
    return list({json.dumps(item, sort_keys=True): item for item in objects}.values())


def secret_values(deployed, namespace: str, name: str) -> dict[str, str]:
    data = deployed.get("Secret", name, namespace)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


@pytest.fixture
def objects(deployed) -> list[dict]:
    return deployed.objects


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_every_object(version, monkeypatch):
    try:
        import kubernetes_validate
    except ImportError:
        skip("kubernetes-validate is missing: pip install -e '.[dev]' brings it")
    from kubernetes_validate import utils

    monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))  # read once, not per object
    found = every_object()
    assert len(found) > 40
    for item in found:
        assert kubernetes_validate.validate(item, version, strict=True) == version
    item = copy.deepcopy(next(item for item in found if item["kind"] == "Deployment"))
    item["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(item, version, strict=True)


def test_rules_hold(deployed):
    locked = set(locked_images().values())
    found = deployed.objects + render(DEPLOY / "jobs" / "upgrade-mlflow")
    breaches = [
        *rules.unpinned_images(found, locked),
        *rules.unbounded_resources(found),
        *rules.missing_probes(found),
        *rules.privileges(found),
        *rules.broken_environment(found, deployed.secrets),
        *rules.broken_references(found),
        *rules.wide_rights(found),
        *rules.secret_objects(found),
    ]
    assert breaches == []


def _mlflow(objects: list[dict]) -> dict:
    return next(item for item in objects if item["metadata"]["name"] == "mlflow" and item["kind"] == "Deployment")


def _container(objects: list[dict]) -> dict:
    return _mlflow(objects)["spec"]["template"]["spec"]["containers"][0]


BREAKS = {
    "latest": (lambda o: _container(o).update(image="ghcr.io/mlflow/mlflow:latest"), "moves"),
    "unlocked": (lambda o: _container(o).update(image="ghcr.io/mlflow/mlflow:v3.0.0-full"), "not in images.lock"),
    "no limit": (lambda o: _container(o)["resources"]["limits"].pop("memory"), "limits.memory"),
    "no probe": (lambda o: _container(o).pop("livenessProbe"), "livenessProbe"),
    "writes root": (lambda o: _container(o)["securityContext"].pop("readOnlyRootFilesystem"), "write to its root"),
    "capability": (
        lambda o: _container(o)["securityContext"].update(capabilities={"drop": ["NET_RAW"]}),
        "capabilities",
    ),
    "root": (lambda o: _mlflow(o)["spec"]["template"]["spec"]["securityContext"].pop("runAsUser"), "as root"),
    "literal": (lambda o: _container(o)["env"].append({"name": "PGPASSWORD2", "value": "x"}), "written out"),
    "wrong key": (
        lambda o: _container(o)["env"][0]["valueFrom"]["secretKeyRef"].update(key="PASSWORD"),
        "wants PASSWORD",
    ),
    "wrong label": (lambda o: _mlflow(o)["spec"]["template"]["metadata"]["labels"].clear(), "misses its own pods"),
    "cluster-admin": (
        lambda o: o.append(
            {
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "x"},
                "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
            }
        ),
        "whole cluster",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_rules_bite(name):
    change, message = BREAKS[name]
    objects = copy.deepcopy(deployment("overlays/kind").objects)
    change(objects)
    secrets = deployment("overlays/kind").secrets
    breaches = [
        *rules.unpinned_images(objects, set(locked_images().values())),
        *rules.unbounded_resources(objects),
        *rules.missing_probes(objects),
        *rules.privileges(objects),
        *rules.broken_environment(objects, secrets),
        *rules.broken_references(objects),
        *rules.wide_rights(objects),
    ]
    assert any(message in breach for breach in breaches), breaches


def test_each_object_has_a_home(objects):
    cluster_wide = {"Namespace"}
    for item in objects:
        if item["kind"] not in cluster_wide:
            assert item["metadata"].get("namespace") in {"exact", "kubeflow"}, rules.where(item)
    names = [rules.where(item) for item in objects]
    assert len(names) == len(set(names))


def _pod(deployed, name: str) -> Pod:
    labels = [item["spec"]["template"]["metadata"]["labels"] for item, _ in rules.pods(deployed.objects)]
    home = {**deployed.get("Namespace", "exact", None)["metadata"]["labels"], "kubernetes.io/metadata.name": "exact"}
    return Pod("exact", next(found for found in labels if found["app.kubernetes.io/name"] == name), home)


RUN = Pod("kubeflow", {"pipeline/runid": "r"}, {"kubernetes.io/metadata.name": "kubeflow"})
PROFILE = Pod("alice", {}, {"kubernetes.io/metadata.name": "alice", "app.kubernetes.io/part-of": "kubeflow-profile"})
STRANGER = Pod("default", {}, {"kubernetes.io/metadata.name": "default"})
SEAWEEDFS = Pod("kubeflow", {"app": "seaweedfs"}, {"kubernetes.io/metadata.name": "kubeflow"})


def test_default_deny_in_both_directions(deployed):
    policy = deployed.get("NetworkPolicy", "default-deny")
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_network_lets_through_what_must_pass_and_nothing_else(deployed):
    policies = [item for item in deployed.objects if item["kind"] == "NetworkPolicy"]
    mlflow, postgres = _pod(deployed, "mlflow"), _pod(deployed, "postgres")
    assert connects(policies, mlflow, postgres, 5432)
    assert not connects(policies, mlflow, postgres, 22)
    for client in (RUN, PROFILE):
        assert connects(policies, client, mlflow, 5000)
        assert not connects(policies, client, postgres, 5432)
    for target, port in ((mlflow, 5000), (postgres, 5432)):
        assert not connects(policies, STRANGER, target, port)
    assert connects(policies, mlflow, None, 53)
    assert not connects(policies, postgres, None, 443)
    assert not connects(policies, postgres, mlflow, 5000)


@pytest.mark.parametrize("overlay", ["overlays/kind", "overlays/gpu"])
def test_network_to_minio(overlay):
    deployed = deployment(overlay)
    policies = [item for item in deployed.objects if item["kind"] == "NetworkPolicy"]
    minio = _pod(deployed, "minio")
    for client in (_pod(deployed, "mlflow"), _pod(deployed, "exact-store"), RUN, PROFILE):
        assert connects(policies, client, minio, 9000)
    for client in (_pod(deployed, "postgres"), STRANGER):
        assert not connects(policies, client, minio, 9000)
    assert not connects(policies, minio, None, 443)
    assert not connects(policies, _pod(deployed, "mlflow"), None, 443)


def test_network_to_seaweedfs():
    """With KFP's own policy beside ours: only its namespace and profiles reach the store, on port 8333 of the pod."""
    kfp = {
        "metadata": {"name": "seaweedfs", "namespace": "kubeflow"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "seaweedfs"}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"namespaceSelector": {"matchLabels": {"app.kubernetes.io/part-of": "kubeflow-profile"}}}],
                    "ports": [{"port": 8333}],
                },
                {"from": [{"podSelector": {}}], "ports": [{"port": 8333}]},
            ],
        },
    }
    deployed = deployment("overlays/seaweedfs")
    ours = [item for item in deployed.objects if item["kind"] == "NetworkPolicy"]
    for name in ("mlflow", "exact-store"):
        assert connects([*ours, kfp], _pod(deployed, name), SEAWEEDFS, 8333)
        without = [policy for policy in ours if policy["metadata"]["name"] != "exact-to-seaweedfs"]
        assert not connects([*without, kfp], _pod(deployed, name), SEAWEEDFS, 8333)
    assert not connects([*ours, kfp], _pod(deployed, "postgres"), SEAWEEDFS, 8333)
    assert connects([*ours, kfp], RUN, SEAWEEDFS, 8333)


def test_network_to_external_s3():
    deployed = deployment("overlays/external-s3")
    policies = [item for item in deployed.objects if item["kind"] == "NetworkPolicy"]
    assert connects(policies, _pod(deployed, "mlflow"), None, 443)
    assert not connects(policies, _pod(deployed, "mlflow"), None, 80)


@pytest.mark.parametrize("overlay", ["overlays/kind", "overlays/gpu", "overlays/external-s3"])
def test_launcher_writes_to_the_store_of_the_secret(overlay):
    """Field names are those that KFP reads (backend/src/v2/config/s3.go); it silently ignores any other."""
    deployed = deployment(overlay)
    launcher = deployed.get("ConfigMap", "kfp-launcher", "kubeflow")["data"]
    root = urlsplit(launcher["defaultPipelineRoot"])
    assert (root.scheme, root.netloc) == ("s3", "exact")
    provider = yaml.safe_load(launcher["providers"])["s3"]["default"]
    assert set(provider) <= {"endpoint", "region", "disableSSL", "forcePathStyle", "maxRetries", "credentials"}
    reference = provider["credentials"]["secretRef"]
    assert provider["credentials"]["fromEnv"] is False
    assert set(reference) == {"secretName", "accessKeyKey", "secretKeyKey"}
    values = secret_values(deployed, "kubeflow", reference["secretName"])
    assert reference["accessKeyKey"] in values
    assert reference["secretKeyKey"] in values
    endpoint = urlsplit(values["AWS_ENDPOINT_URL"])
    assert provider["endpoint"] == endpoint.netloc
    assert provider["disableSSL"] is (endpoint.scheme == "http")
    assert provider["region"] == values["AWS_REGION"]


def test_a_bucket_of_another_name_on_an_external_store(tmp_path):
    """Named in the launcher's root and in the secret, it reaches everything that writes: bucket names are not free."""
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("*.env", "__pycache__"))
    overlay = copy / "overlays" / "external-s3"
    for name in ("runs/kfp-launcher.yaml", "secrets/s3.env.example"):
        path = overlay / name
        text = path.read_text()
        assert text.count("s3://exact/") == 1, name
        path.write_text(text.replace("s3://exact/", "s3://crops-of-ghent/"))
    rendered = render(overlay)
    variables = {each["name"]: each.get("value") for each in _container(rendered)["env"]}
    assert variables["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://crops-of-ghent/mlflow"
    assert "s3://exact" not in yaml.safe_dump_all(rendered)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_mlflow_and_steps_write_to_one_bucket(overlay):
    deployed = deployment(overlay)
    variables = {each["name"]: each.get("value") for each in _container(deployed.objects)["env"]}
    store = urlsplit(secret_values(deployed, "kubeflow", "exact-s3")["EXACT_STORE"])
    assert urlsplit(variables["MLFLOW_ARTIFACTS_DESTINATION"])[:2] == store[:2]


def test_runner_may_read_what_the_launcher_reads(deployed):
    role = deployed.get("Role", "exact-runner", "kubeflow")
    secrets = next(rule for rule in role["rules"] if "secrets" in rule["resources"])["resourceNames"]
    assert set(secrets) == {"exact-s3", "mlpipeline-minio-artifact"}
    maps = next(rule for rule in role["rules"] if "configmaps" in rule["resources"])["resourceNames"]
    assert maps == ["kfp-launcher"]
    # A schedule's slot is a label of the Workflow.
    assert {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["get"]} in role["rules"]
    binding = deployed.get("RoleBinding", "exact-runner", "kubeflow")
    assert [subject["name"] for subject in binding["subjects"]] == ["exact-runner"]


def test_the_patch_for_retries_reaches_the_api_server_and_keeps_what_it_had(tmp_path):
    shutil.copytree(DEPLOY / "kfp-retries", tmp_path / "kfp-retries")
    server = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "ml-pipeline", "namespace": "kubeflow"},
        "spec": {
            "template": {
                "spec": {"containers": [{"name": "ml-pipeline-api-server", "env": [{"name": "A", "value": "1"}]}]}
            }
        },
    }
    (tmp_path / "kfp.yaml").write_text(yaml.safe_dump(server))
    (tmp_path / "kustomization.yaml").write_text("resources: [kfp.yaml]\ncomponents: [kfp-retries]\n")
    (patched,) = render(tmp_path)
    (container,) = patched["spec"]["template"]["spec"]["containers"]
    found = {each["name"]: each["value"] for each in container["env"]}
    assert found["A"] == "1"
    wanted = {"templateDefaults": {"retryStrategy": {"limit": "0", "retryPolicy": "Always"}}}
    assert json.loads(found["COMPILED_PIPELINE_SPEC_PATCH"]) == wanted
    # And the README's one line says the same.
    assert (
        f"COMPILED_PIPELINE_SPEC_PATCH='{found['COMPILED_PIPELINE_SPEC_PATCH']}'" in (DEPLOY / "README.md").read_text()
    )


def test_secrets_that_pipelines_name(deployed):
    s3 = secret_values(deployed, "kubeflow", "exact-s3")
    # Of keys that last, on a cluster without proxies or authorities of its own.
    assert set(s3) == set(STORE_KEYS) - {"AWS_SESSION_TOKEN", "EXACT_ENVIRONMENT"}
    assert s3 == secret_values(deployed, "exact", "exact-s3")
    assert set(secret_values(deployed, "kubeflow", "exact-mlflow")) == {"MLFLOW_TRACKING_URI"}


def test_tracking_uri_leads_to_a_host_that_mlflow_allows(deployed):
    uri = urlsplit(secret_values(deployed, "kubeflow", "exact-mlflow")["MLFLOW_TRACKING_URI"])
    service, namespace = uri.hostname.split(".")[:2]
    ports = [port["port"] for port in deployed.get("Service", service, namespace)["spec"]["ports"]]
    assert uri.port in ports
    args = _container(deployed.objects)["args"]
    allowed = next(arg for arg in args if arg.startswith("--allowed-hosts=")).split("=", 1)[1].split(",")
    assert any(fnmatch.fnmatchcase(uri.netloc, pattern) for pattern in allowed)


def test_endpoint_is_a_service_of_the_overlay():
    for overlay, (service, namespace) in {
        "overlays/kind": ("minio", "exact"),
        "overlays/gpu": ("minio", "exact"),
    }.items():
        deployed = deployment(overlay)
        uri = urlsplit(secret_values(deployed, "kubeflow", "exact-s3")["AWS_ENDPOINT_URL"])
        assert uri.hostname == f"{service}.{namespace}.svc.cluster.local"
        assert uri.port == deployed.get("Service", service, namespace)["spec"]["ports"][0]["port"]


def test_seaweedfs_brings_no_store_of_its_own():
    deployed = deployment("overlays/seaweedfs")
    assert not [item for item in deployed.objects if "minio" in item["metadata"]["name"]]
    uri = urlsplit(secret_values(deployed, "exact", "exact-s3")["AWS_ENDPOINT_URL"])
    assert uri.netloc == "seaweedfs.kubeflow.svc.cluster.local:9000"


def test_gpu_overlay_keeps_services_off_gpu_nodes():
    for item, spec in rules.pods(deployment("overlays/gpu").objects):
        terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        expression = {"key": "nvidia.com/gpu.present", "operator": "NotIn", "values": ["true"]}
        assert terms == [{"matchExpressions": [expression]}], rules.where(item)


def test_kind_asks_for_less_than_a_laptop():
    memory = sum(
        int(container["resources"]["requests"]["memory"].removesuffix("Mi"))
        for _, container in rules.containers(deployment("overlays/kind").objects)
    )
    assert memory < 1024
    claims = [
        claim["spec"]["resources"]["requests"]["storage"]
        for item in deployment("overlays/kind").objects
        for claim in item.get("spec", {}).get("volumeClaimTemplates", [])
    ]
    assert sorted(claims) == ["20Gi", "2Gi"]


def test_example_files_hold_no_secret():
    for folder in {*SECRETS.values(), "."}:
        for example in (DEPLOY / folder).glob("*.env.example"):
            for line in example.read_text().splitlines():
                name, _, value = line.partition("=")
                if not line.startswith("#") and rules.SECRET_NAME.search(name) and name != "AWS_ACCESS_KEY_ID":
                    assert value in {"@random@", "@yours@"}, f"{example}: {name}"
