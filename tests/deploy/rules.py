"""Rules that every manifest keeps. A function yields one sentence a breach, so that a test can show that it bites."""

from __future__ import annotations

import re
from collections.abc import Iterator

from exact_kubeflow.components.images import check_pinned

from exact_core.errors import ConfigError

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
LONG_RUNNING = ("Deployment", "StatefulSet", "DaemonSet")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")


def where(item: dict) -> str:
    meta = item["metadata"]
    return f"{item['kind']} {meta.get('namespace', '-')}/{meta['name']}"


def pods(objects: list[dict]) -> Iterator[tuple[dict, dict]]:
    """Every workload with the spec of its pod."""
    for item in objects:
        if item["kind"] in WORKLOADS:
            yield item, item["spec"]["template"]["spec"]


def containers(objects: list[dict]) -> Iterator[tuple[dict, dict]]:
    for item, spec in pods(objects):
        for container in spec.get("initContainers", []) + spec["containers"]:
            yield item, container


def unpinned_images(objects: list[dict], locked: set[str]) -> Iterator[str]:
    for item, container in containers(objects):
        try:
            check_pinned(container["image"], where=where(item))
        except ConfigError as error:
            yield str(error)
        if container["image"] not in locked:
            yield f"{where(item)}: {container['image']} is not in images.lock"


def unbounded_resources(objects: list[dict]) -> Iterator[str]:
    for item, container in containers(objects):
        for side in ("requests", "limits"):
            for unit in ("cpu", "memory"):
                if unit not in container.get("resources", {}).get(side, {}):
                    yield f"{where(item)}: {container['name']} has no {side}.{unit}"
    for item, spec in pods(objects):
        for volume in spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield f"{where(item)}: emptyDir {volume['name']} has no sizeLimit"


def missing_probes(objects: list[dict]) -> Iterator[str]:
    for item, container in containers(objects):
        if item["kind"] not in LONG_RUNNING:
            continue
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"{where(item)}: {container['name']} has no {probe}"
            elif "httpGet" in container[probe] and container[probe]["httpGet"]["port"] not in ports:
                yield f"{where(item)}: {probe} asks port {container[probe]['httpGet']['port']}, which is not there"


def privileges(objects: list[dict]) -> Iterator[str]:
    """Pod Security Standard "restricted", plus a read-only root, no token and no service links."""
    for item, spec in pods(objects):
        context = spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser", 0) > 0:
            yield f"{where(item)}: may run as root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{where(item)}: no seccomp profile"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{where(item)}: mounts a token that it does not need"
        if spec.get("enableServiceLinks") is not False:
            yield f"{where(item)}: Services would set variables, MLFLOW_PORT among them"
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield f"{where(item)}: {key}"
        for volume in spec.get("volumes", []):
            if "hostPath" in volume:
                yield f"{where(item)}: hostPath {volume['name']}"
    for item, container in containers(objects):
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{where(item)}: {container['name']} may escalate"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{where(item)}: {container['name']} may write to its root"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{where(item)}: {container['name']} keeps capabilities"
        if "runAsUser" in context or "runAsNonRoot" in context:
            yield f"{where(item)}: {container['name']} overrides the pod's user"


def broken_environment(objects: list[dict], secrets: list[dict]) -> Iterator[str]:
    """Secrets by reference only, each to a key that there is; no name twice."""
    keys = {
        (secret["metadata"]["namespace"], secret["metadata"]["name"]): set(secret.get("data", {})) for secret in secrets
    }
    for item, container in containers(objects):
        names = [entry["name"] for entry in container.get("env", [])]
        for name in {name for name in names if names.count(name) > 1}:
            yield f"{where(item)}: {name} twice"
        if "envFrom" in container:
            yield f"{where(item)}: envFrom hands over more than it names"
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            if reference is None:
                if SECRET_NAME.search(entry["name"]):
                    yield f"{where(item)}: {entry['name']} is written out"
                continue
            home = (item["metadata"]["namespace"], reference["name"])
            if reference["key"] not in keys.get(home, set()):
                yield f"{where(item)}: {entry['name']} wants {reference['key']} of secret {'/'.join(home)}"


def broken_references(objects: list[dict]) -> Iterator[str]:
    """Volumes, service accounts, selectors and ports that name something which is not there."""
    there = {(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects}
    for item, spec in pods(objects):
        home = item["metadata"]["namespace"]
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])}
        for container in spec["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{where(item)}: no volume {mount['name']}"
        for volume in spec.get("volumes", []):
            if "configMap" in volume and ("ConfigMap", home, volume["configMap"]["name"]) not in there:
                yield f"{where(item)}: no ConfigMap {volume['configMap']['name']}"
        if ("ServiceAccount", home, spec["serviceAccountName"]) not in there:
            yield f"{where(item)}: no ServiceAccount {spec['serviceAccountName']}"
        labels = item["spec"]["template"]["metadata"]["labels"]
        wanted = item["spec"].get("selector", {}).get("matchLabels", {})
        if not wanted.items() <= labels.items():
            yield f"{where(item)}: its selector {wanted} misses its own pods"
        if item["kind"] == "StatefulSet" and ("Service", home, item["spec"]["serviceName"]) not in there:
            yield f"{where(item)}: no Service {item['spec']['serviceName']}"
    for item in objects:
        if item["kind"] == "Service":
            behind = [
                {port["name"] for container in spec["containers"] for port in container.get("ports", [])}
                for other, spec in pods(objects)
                if other["metadata"]["namespace"] == item["metadata"]["namespace"]
                and item["spec"]["selector"].items() <= other["spec"]["template"]["metadata"]["labels"].items()
            ]
            for port in item["spec"]["ports"]:
                if not any(port["targetPort"] in names for names in behind):
                    yield f"{where(item)}: no pod behind port {port['name']}"


def wide_rights(objects: list[dict]) -> Iterator[str]:
    """Nothing for the whole cluster, no wildcard, secrets by name, no way into a pod; the services have no role."""
    for item in objects:
        if item["kind"] in ("ClusterRole", "ClusterRoleBinding"):
            yield f"{where(item)}: reaches the whole cluster"
        if item["kind"] == "RoleBinding":
            if item["roleRef"]["kind"] != "Role":
                yield f"{where(item)}: binds {item['roleRef']['kind']} {item['roleRef']['name']}"
            if any(subject["name"] == "exact-services" for subject in item["subjects"]):
                yield f"{where(item)}: gives the services rights"
            if any(subject.get("namespace") != item["metadata"]["namespace"] for subject in item["subjects"]):
                yield f"{where(item)}: a subject of another namespace, or none"
        for rule in item.get("rules", []) if item["kind"] == "Role" else []:
            if "*" in rule["verbs"] + rule["resources"] + rule["apiGroups"]:
                yield f"{where(item)}: wildcard in {rule}"
            if "secrets" in rule["resources"] and (not rule.get("resourceNames") or rule["verbs"] != ["get"]):
                yield f"{where(item)}: secrets beyond reading those it names"
            if {"pods/exec", "serviceaccounts/token"} & set(rule["resources"]):
                yield f"{where(item)}: {rule['resources']}"


def secret_objects(objects: list[dict]) -> Iterator[str]:
    for item in objects:
        if item["kind"] == "Secret":
            yield f"{where(item)}: in a manifest of git"
