"""Image names: one file says them, everything else follows."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from exact_kubeflow.components.images import DATA, TRAIN, check_pinned, image, locked_images

from exact_core import __version__
from exact_core.errors import ConfigError

DIGEST = "sha256:" + "0" * 64


@pytest.fixture(autouse=True)
def _no_override(monkeypatch):
    monkeypatch.delenv("EXACT_IMAGE", raising=False)
    monkeypatch.delenv("EXACT_REGISTRY", raising=False)


def test_own_images_carry_the_version_and_the_word_kfp_looks_for():
    for name in (DATA, TRAIN):
        repository, tag = locked_images()[name].rsplit(":", 1)
        assert tag == __version__
        assert "python" in repository


def test_by_name_with_a_registry_and_overridden(monkeypatch):
    assert image() == locked_images()[TRAIN]
    assert image(DATA) == locked_images()[DATA] != image()
    monkeypatch.setenv("EXACT_REGISTRY", "registry.example:5000/team/")
    assert image(DATA) == f"registry.example:5000/team/{locked_images()[DATA]}"
    monkeypatch.setenv("EXACT_IMAGE", "mine:1")
    assert image(DATA) == image(TRAIN) == "mine:1"


@pytest.mark.parametrize("room", ["data", "train"])
def test_mlflow_of_the_server_is_of_the_minor_release_of_the_clients(room):
    """deploy/README.md, "Upgrade": a client may ask a server of an older minor release for what it does not have."""
    server = re.search(r":v(\d+\.\d+)\.\d+", locked_images()["mlflow"])
    lock = (Path(__file__).parents[2] / "docker" / room / "requirements.lock").read_text()
    client = re.search(r"^mlflow-skinny==(\d+\.\d+)\.\d+ \\$", lock, re.MULTILINE)
    assert server[1] == client[1]


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ConfigError, match=r"no image 'exact-gpu'.*exact-data, exact-train"):
        image("exact-gpu")


@pytest.mark.parametrize(
    "good", ["a:1", "registry.example:5000/a/b:v1.2-full", f"a@{DIGEST}", f"quay.io/a/b:1@{DIGEST}"]
)
def test_pinned(good):
    check_pinned(good, where="test")


@pytest.mark.parametrize("bad", ["a", "a:latest", "registry.example:5000/a", "A:1", "a:1@sha256:12", "a:", ""])
def test_not_pinned(bad):
    with pytest.raises(ConfigError, match="test: "):
        check_pinned(bad, where="test")


@pytest.mark.parametrize("line", ["a", "a b:1 c", "a b:1\na b:2", "a b:latest"])
def test_bad_lines_are_named(tmp_path, line):
    lock = tmp_path / "images.lock"
    lock.write_text(f"# comment\n{line}\n")
    with pytest.raises(ConfigError, match=r"images\.lock:[23]: "):
        locked_images(lock)


def test_a_missing_lock_is_an_error_of_ours(tmp_path):
    with pytest.raises(ConfigError, match="is missing"):
        locked_images(tmp_path / "images.lock")


def test_a_lock_is_stale_without_a_hash_and_for_other_versions_or_requirements():
    root = Path(__file__).parents[2] / "docker"
    spec = importlib.util.spec_from_file_location("lock", root / "lock.py")
    lock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lock)
    text = (root / "train" / "requirements.lock").read_text()
    assert not lock.is_stale("train", text)
    # CUDA has no line in constraints.txt; rasterio has two, of which the second is for an older Python.
    cuda, constraints = re.search(r"^nvidia-cublas==\S+", text, re.MULTILINE), lock.constraints()
    assert cuda
    assert "nvidia-cublas" not in constraints
    assert f"rasterio=={constraints['rasterio']} \\\n" in text
    changed = {
        "no hash": re.sub(r"^(six==\S+)( \\\n    --hash=\S+)+", r"\1", text, flags=re.MULTILINE),
        "half a hash": text.replace("--hash=sha256:0", "--hash=sha256:z", 1),
        "another version": re.sub(r"^six==\S+", "six==1.0", text, flags=re.MULTILINE),
        "a package that nothing pins": text.replace("\nsix==", "\nseven==", 1),
        "a requirement less": text.replace("# torch>=", "# other>=", 1),
        "the other image": (root / "data" / "requirements.lock").read_text(),
    }
    for what, wrong in changed.items():
        assert wrong != text, what
        assert lock.is_stale("train", wrong), what
