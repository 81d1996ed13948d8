"""deploy/compose.yaml, by the rules of the Compose specification that can be read without Docker."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml
from exact_kubeflow.components.images import locked_images

from tests.deploy.conftest import DEPLOY

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<rest>[^}]*)\}")
KEYS = {
    *("image", "entrypoint", "command", "user", "environment", "ports", "volumes", "tmpfs", "mem_limit", "shm_size"),
    *("healthcheck", "depends_on", "read_only", "cap_drop", "security_opt", "restart"),
}


def strings(node):
    """Every string in a tree."""
    if isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


def test_only_known_keys():
    assert set(COMPOSE) == {"name", "services", "volumes", "x-hardened"}
    for name, service in SERVICES.items():
        assert set(service) <= KEYS, name


def test_images_are_those_of_the_lock():
    assert {service["image"] for service in SERVICES.values()} <= set(locked_images().values())


@pytest.mark.parametrize("name", SERVICES)
def test_hardened(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert "user" in service
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{name} would be open to the network: {port}"


@pytest.mark.parametrize("name", SERVICES)
def test_health_is_checked_and_waited_for(name):
    service = SERVICES[name]
    one_shot = service["restart"] == "no"
    assert ("healthcheck" in service) is not one_shot
    if not one_shot:
        assert service["healthcheck"]["test"][0] == "CMD"
        assert set(service["healthcheck"]) <= {"test", "interval", "timeout", "retries", "start_period"}
    for other, condition in service.get("depends_on", {}).items():
        expected = "service_completed_successfully" if SERVICES[other]["restart"] == "no" else "service_healthy"
        assert condition == {"condition": expected}


def test_volumes_are_declared():
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_secrets_come_from_the_env_file_and_are_demanded(tmp_path):
    """Each variable is required (`:?`) and is one that the example makes; no password is written out."""
    (tmp_path / ".env.example").write_text((DEPLOY / ".env.example").read_text())
    subprocess.run([sys.executable, str(DEPLOY / "new_secrets.py"), str(tmp_path)], check=True, capture_output=True)
    made = dict(
        line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if line and not line.startswith("#")
    )
    assert all(value and "@" not in value for value in made.values())
    for name, service in SERVICES.items():
        for text in strings(service):
            for match in VARIABLE.finditer(text):
                assert match["name"] in made, f"{name}: {match['name']}"
                assert match["rest"].startswith(":?"), f"{name}: {match['name']} may be empty"
        for variable, value in service["environment"].items():
            if re.search("PASSWORD|SECRET|^KEY$|ACCESS_KEY", variable):
                assert VARIABLE.fullmatch(value), f"{name}: {variable} is written out"


def test_mlflow_here_and_on_the_cluster_differ_only_where_they_must():
    cluster = next(
        item
        for item in yaml.safe_load_all((DEPLOY / "base" / "mlflow.yaml").read_text())
        if item["kind"] == "Deployment"
    )["spec"]["template"]["spec"]["containers"][0]
    ours = SERVICES["mlflow"]
    assert ours["image"] == cluster["image"]
    arguments = {argument.split("=")[0]: argument for argument in cluster["args"]}
    here = {argument.split("=")[0]: argument for argument in ours["command"][2:]}
    assert set(here) == set(arguments)
    differing = {name for name in here if here[name] != arguments[name]}
    assert differing == {"--workers", "--allowed-hosts"}
