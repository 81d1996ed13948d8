"""What deploy/README.md tells an operator to type and to write."""

from __future__ import annotations

import re

import yaml

from tests.deploy.conftest import DEPLOY, SECRETS, deployment, render

README = (DEPLOY / "README.md").read_text()


def test_every_path_is_there():
    paths = {path.rstrip(".,:)") for path in re.findall(r"(?<![\w./])deploy/[\w./-]+", README)}
    assert len(paths) > 10
    made = {"deploy/.env", *(f"deploy/{folder}/s3.env" for folder in SECRETS.values())}
    for path in paths - made:
        assert (DEPLOY.parent / path).exists(), path


def test_the_table_of_secrets_is_that_of_the_manifests():
    rows = {
        cells[1].strip("` "): set(re.findall(r"`([A-Z_]+)`", cells[2]))
        for line in README.splitlines()
        if line.startswith("| `exact-") and len(cells := line.split("|")) > 3
    }
    secrets = {item["metadata"]["name"]: set(item["data"]) for item in deployment("overlays/kind").secrets}
    assert rows == secrets


def test_the_example_of_a_profile(tmp_path):
    """Applied as written, everything lands in the profile, the subject of the binding too."""
    block = re.search(r"# mine/alice/kustomization\.yaml\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "deploy").symlink_to(DEPLOY)
    folder = tmp_path / "mine" / "alice"
    folder.mkdir(parents=True)
    (folder / "kustomization.yaml").write_text(block)
    found = render(folder)
    assert {item["kind"] for item in found} == {"ConfigMap", "Role", "RoleBinding", "ServiceAccount"}
    assert {item["metadata"]["namespace"] for item in found} == {"alice"}
    binding = next(item for item in found if item["kind"] == "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "exact-runner", "namespace": "alice"}]


def test_the_example_of_a_registry(tmp_path):
    block = re.search(r"# mine/kustomization\.yaml\n(.*?)```", README, re.DOTALL)[1]
    assert yaml.safe_load(block)["images"]
    (tmp_path / "deploy").symlink_to(DEPLOY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(block)
    job = next(item for item in render(tmp_path / "mine") if item["kind"] == "Job")
    image = job["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.startswith("registry.example/team/exact-python-data:")
